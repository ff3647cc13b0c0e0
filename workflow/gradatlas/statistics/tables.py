"""The tables of the statistics."""

import pyarrow as pa

from gradatlas.core.tables import Table
from gradatlas.data.tables import COUNT, REAL, TEXT

# What is summarised of each matrix: metrics of the spectra table.
STATISTICS = ("nuclear_norm", "sigma_ratio", "effective_rank")
_CELL = [("model", TEXT), ("dataset", TEXT), ("variant", TEXT), ("relation", TEXT), ("loss_tokens", TEXT)]
_STATISTIC = [*_CELL, ("projection", TEXT), ("statistic", TEXT)]
ESTIMATE = [("value", REAL), ("low", REAL), ("high", REAL), ("n", COUNT)]
# `value`: the study's, which noise makes too large. The interval is that of `corrected`.
_CORRECTED = [("value", REAL), ("corrected", REAL), ("low", REAL), ("high", REAL), ("n", COUNT)]

_BY_LAYER = pa.schema([*_STATISTIC, ("layer", pa.int16()), *ESTIMATE, ("purpose", TEXT)])
# A sample and projection.
_SAMPLE = [*_CELL, ("sample_id", TEXT), ("projection", TEXT), ("loss", REAL), ("response_tokens", COUNT)]

# Mean over samples, per layer, with a bootstrap interval.
CURVES = Table("curves", "summarise_gradients", _BY_LAYER)

# Mean absolute difference of neighbouring layers of a mean curve, by segment of the layers.
MAD = Table(
    "mad",
    "summarise_gradients",
    pa.schema([*_STATISTIC, ("segment", TEXT), ("layers", TEXT), *_CORRECTED, ("purpose", TEXT)]),
)

# Relative difference of `relation` against the correct responses, averaged over layers.
RD = Table(
    "rd",
    "summarise_gradients",
    pa.schema(
        [
            *_STATISTIC,
            ("measure", TEXT),
            *_CORRECTED,
            ("top_layers", pa.list_(pa.int16())),
            ("purpose", TEXT),
        ]
    ),
)

# The same, layer by layer (signed).
RD_LAYERS = Table("rd_layers", "summarise_gradients", _BY_LAYER)

# The samples of a cell: counts by status, loss and lengths.
CELLS = Table(
    "cells",
    "summarise_gradients",
    pa.schema(
        [
            *_CELL,
            ("n", COUNT),
            ("n_ok", COUNT),
            ("n_truncated", COUNT),
            ("n_no_response_tokens", COUNT),
            ("n_nonfinite", COUNT),
            ("n_out_of_memory", COUNT),
            ("loss", REAL),
            ("prompt_tokens", REAL),
            ("response_tokens", REAL),
            # Of the usable samples' responses: how many state a readable answer, and how many the right one.
            ("n_labelled", COUNT),
            ("n_label_equals_gold", COUNT),
            ("purpose", TEXT),
        ]
    ),
)

# One row: one sample's statistics of one projection, each the mean over its layers.
PER_SAMPLE = Table(
    "per_sample",
    "summarise_gradients",
    pa.schema([*_SAMPLE, *[(name, REAL) for name in STATISTICS], ("purpose", TEXT)]),
)

# The same, layer by layer: each statistic a list over the layers from 0 on, in single precision.
PER_SAMPLE_LAYERS = Table(
    "per_sample_layers",
    "summarise_gradients",
    pa.schema([*_SAMPLE, *[(name, pa.list_(pa.float32())) for name in STATISTICS], ("purpose", TEXT)]),
)

# Least squares of log nuclear norm on log loss and log response tokens, of the correct responses: coefficients, R2
# (`term` r2), and for each variant the mean residual. `dataset` and `projection` may be ``all``.
REGRESSION = Table(
    "regression",
    "regress_gradients",
    pa.schema(
        [
            ("model", TEXT),
            ("dataset", TEXT),
            ("projection", TEXT),
            ("term", TEXT),
            ("variant", TEXT),
            *ESTIMATE,
            ("purpose", TEXT),
        ]
    ),
)

# One row: the mean of one measure over the probes of a type, with a bootstrap interval over probes, and its change
# since the run's first step, paired by probe. `before`: examples of the runs that this one starts from.
DYNAMICS_CURVES = Table(
    "dynamics_curves",
    "summarise_dynamics",
    pa.schema(
        [
            ("model", TEXT),
            ("seed", COUNT),
            ("run", TEXT),
            ("split", TEXT),
            ("type", TEXT),
            ("measure", TEXT),
            ("step", COUNT),
            ("examples", COUNT),
            ("before", COUNT),
            *ESTIMATE,
            ("change", REAL),
            ("change_low", REAL),
            ("change_high", REAL),
        ]
    ),
)

# One row: the mean of a measure over the n prompts of a split at one step of a run, with its interval over prompts.
# `baseline`: of a comparison, else null. `change of ...`: from the first answers of the run's chain to the last ones.
# `before`: examples of the runs that this one starts from.
GENERATION_CURVES = Table(
    "generation_curves",
    "summarise_generations",
    pa.schema(
        [
            ("model", TEXT),
            ("seed", COUNT),
            ("run", TEXT),
            ("baseline", TEXT),
            ("split", TEXT),
            ("measure", TEXT),
            ("step", COUNT),
            ("baseline_step", COUNT),
            ("examples", COUNT),
            ("before", COUNT),
            *ESTIMATE,
        ]
    ),
)

# By name, those of a dataset (rule summarise_gradients).
TABLES = {each.name: each for each in (CURVES, MAD, RD, RD_LAYERS, CELLS, PER_SAMPLE, PER_SAMPLE_LAYERS)}

_BOUNDED = ("mean_a", "mean_b", "median_a", "median_b", "difference", "ratio", "cliffs_delta")
# One row: a number of the scores in two groups, over `all` samples or over `matched` ones (log tokens and log loss);
# `paired`: the samples of the groups are the same ones. `difference`: a less b. `smd_*`: standardised differences of
# the covariates in these samples. `p_adjusted`: Holm over the numbers of these groups and samples.
COMPARISON = Table(
    "comparison",
    "compare_pair",
    pa.schema(
        [
            ("group_a", TEXT),
            ("group_b", TEXT),
            ("samples", TEXT),
            ("paired", pa.bool_()),
            ("number", TEXT),
            ("status", TEXT),
            ("samples_a", COUNT),
            ("samples_b", COUNT),
            *((f"{name}{end}", REAL) for name in _BOUNDED for end in ("", "_low", "_high")),
            ("hedges_g", REAL),
            ("test", TEXT),
            ("p_value", REAL),
            ("p_adjusted", REAL),
            ("smd_log_tokens", REAL),
            ("smd_log_loss", REAL),
        ]
    ),
)

# One row: the mean over a group's samples, of `all` or `matched` ones, in a layer and projection, with its interval.
GROUP_CURVES = Table(
    "group_curves",
    "compare_pair",
    pa.schema(
        [
            ("group_a", TEXT),
            ("group_b", TEXT),
            ("samples", TEXT),
            ("group", TEXT),
            ("projection", TEXT),
            ("statistic", TEXT),
            ("layer", pa.int16()),
            *ESTIMATE,
        ]
    ),
)

# One row: the share of `planted` samples of a fault among the first so many of `samples` in the order of a score,
# searched from its `end` (high, low), with its interval; `chance`: of a random order, with the middle 95 % of orders.
RECALL = Table(
    "recall",
    "recall_faults",
    pa.schema(
        [
            ("model", TEXT),
            ("fault", TEXT),
            ("number", TEXT),
            ("end", TEXT),
            ("planted", COUNT),
            ("samples", COUNT),
            *((name, REAL) for name in ("value", "low", "high", "chance", "chance_low", "chance_high")),
        ]
    ),
)

# One row: the same share among the first k.
RECALL_CURVES = Table(
    "recall_curves",
    "recall_faults",
    pa.schema([("model", TEXT), ("fault", TEXT), ("number", TEXT), ("end", TEXT), ("k", COUNT), ("value", REAL)]),
)
