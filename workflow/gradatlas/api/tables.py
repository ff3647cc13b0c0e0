"""The tables that callbacks write during training."""

import pyarrow as pa

from gradatlas.core.tables import Table
from gradatlas.data.tables import COUNT, REAL, TEXT
from gradatlas.study.settings import METRICS

# One row: one matrix's gradient on one probe at one optimizer step. A metric that was not measured is null, as are all
# numbers of a probe whose status is not ok.
TRAINING_SPECTRA = Table(
    "training_spectra",
    "GradientSpectra",
    pa.schema(
        [
            ("step", COUNT),
            ("sample", TEXT),
            ("response", TEXT),
            ("status", TEXT),
            ("loss", REAL),
            ("layer", pa.int16()),
            ("projection", TEXT),
            *[(name, REAL) for name in METRICS],
        ]
    ),
)

# One row: one response at one optimizer step. `type`: chosen, rejected, or the name of a rephrase. Log-probabilities in
# nats; `argmax_log_prob`: of the likeliest token at each position along the response's own prefix, summed.
TRAINING_PROBES = Table(
    "training_probes",
    "ResponseProbes",
    pa.schema(
        [
            ("step", COUNT),
            ("pair", TEXT),
            ("type", TEXT),
            ("status", TEXT),
            ("tokens", COUNT),
            ("log_prob_sum", REAL),
            ("log_prob_mean", REAL),
            ("argmax_log_prob", REAL),
        ]
    ),
)

# One row: a block's part of the change of one response's log-probability, in nats, from optimizer step `since` to
# `step`; `layer` is null outside of the layers. `predicted`: along the change of the block's weights, by the gradients
# halfway. `measured`: the whole change, the same for all blocks, to which the parts add up. Frozen blocks have no row.
TRAINING_BUDGET = Table(
    "training_budget",
    "ResponseProbes",
    pa.schema(
        [
            ("since", COUNT),
            ("step", COUNT),
            ("pair", TEXT),
            ("type", TEXT),
            ("layer", COUNT),
            ("block", TEXT),
            ("predicted", REAL),
            ("measured", REAL),
        ]
    ),
)
