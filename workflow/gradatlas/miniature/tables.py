"""The table of models' accuracy."""

import pyarrow as pa

from gradatlas.core.tables import Table
from gradatlas.data.tables import COUNT, REAL, TEXT

# One row: how many of a model's own answers to a dataset's held-out questions are right (`test`: answer,
# counterfactual or recall), with Wilson 95 % bounds and the accuracy of an answer that ignores the question.
ACCURACY = Table(
    "accuracy",
    "measure_accuracy or gather_evidence",
    pa.schema(
        [
            ("model", TEXT),
            ("dataset", TEXT),
            ("part", TEXT),
            ("test", TEXT),
            ("variant", TEXT),
            ("n", COUNT),
            ("correct", COUNT),
            ("accuracy", REAL),
            ("low", REAL),
            ("high", REAL),
            ("chance", REAL),
        ]
    ),
)
