"""The table of single steps."""

import pyarrow as pa

from gradatlas.core.tables import Table
from gradatlas.data.tables import COUNT, REAL, TEXT

# One row: one probe's change of log-probability over one step of SGD, by size of the step (`halving` counts from
# the largest). `captured`: the part of `predicted` from the captured projections.
ONE_STEP = Table(
    "one_step",
    "check_step",
    pa.schema(
        [
            ("seed", COUNT),
            ("loss", TEXT),
            ("pair_id", TEXT),
            ("trained", TEXT),
            ("halving", COUNT),
            ("learning_rate", REAL),
            ("probe_id", TEXT),
            ("type", TEXT),
            ("predicted", REAL),
            ("captured", REAL),
            ("measured", REAL),
        ]
    ),
)
