"""The tables of the gradients."""

import pyarrow as pa

from gradatlas.core.tables import Table
from gradatlas.data.tables import COUNT, REAL, TEXT
from gradatlas.study.settings import METRICS

_ROW = [(name, TEXT) for name in ("model", "dataset", "sample_id", "variant", "relation", "loss_tokens")]

# One row: one forward and backward pass.
SAMPLES = Table(
    "samples",
    "measure_gradients",
    pa.schema(
        [
            *_ROW,
            ("loss", REAL),
            # (sum l)^2 / (n sum l^2) of the n response tokens' losses: 1 is evenly spread, 1/n is all in one token.
            ("loss_concentration", REAL),
            ("prompt_tokens", COUNT),
            ("response_tokens", COUNT),
            ("truncated", pa.bool_()),
            ("status", TEXT),
        ]
    ),
)

# One row: one weight matrix's gradient on one sample. A metric that was not measured is null.
SPECTRA = Table(
    "spectra",
    "measure_gradients",
    pa.schema(
        [
            *_ROW,
            ("layer", pa.int16()),
            ("projection", TEXT),
            ("nuclear_norm", REAL),
            # Divided by sqrt(min(rows, columns)) of the matrix: K and V under grouped queries compare with Q and O.
            ("nuclear_norm_scaled", REAL),
            # sigma_ratio is null where the gradient is zero.
            *[(name, REAL) for name in METRICS if name != "nuclear_norm"],
        ]
    ),
)

# Opt-in. The min(tokens, rows, columns) singular values behind a row of spectra, largest first; all others are 0.
SINGULAR_VALUES = Table(
    "singular_values",
    "measure_gradients",
    pa.schema([*_ROW, ("layer", pa.int16()), ("projection", TEXT), ("singular_values", pa.list_(REAL))]),
)

# Opt-in. Cosine of two gradients of one sample: of one layer (kind same_layer, pair q-o or k-v, where their shapes
# agree), or of one projection (the pair) in `layer` and the next one (adjacent_layers); null where one is zero.
COSINES = Table(
    "cosines",
    "measure_gradients",
    pa.schema([*_ROW, ("kind", TEXT), ("pair", TEXT), ("layer", pa.int16()), ("cosine", REAL)]),
)

# Opt-in. One row: the term d_t x_t^T that the token at `position` gives to one gradient, by its norm |x_t| |d_t|;
# `loss` is the token's own, null where it does not count. `token` is spelt as the tokenizer's vocabulary does.
TOKENS = Table(
    "tokens",
    "measure_gradients",
    pa.schema(
        [
            *_ROW,
            ("position", COUNT),
            ("token_id", COUNT),
            ("token", TEXT),
            ("loss", REAL),
            ("layer", pa.int16()),
            ("projection", TEXT),
            ("term_norm", REAL),
        ]
    ),
)

# By name, for what chooses them at run time.
TABLES = {each.name: each for each in (SAMPLES, SPECTRA, SINGULAR_VALUES, COSINES, TOKENS)}
