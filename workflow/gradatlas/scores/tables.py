"""The tables of the scores of a training file."""

import pyarrow as pa

from gradatlas.core.tables import Table
from gradatlas.data.tables import COUNT, REAL, TEXT

NUMBER = pa.float32()

# One row: one response, as it was measured. A part of a file is one table, so that a killed run continues.
MEASURED = Table(
    "measured",
    "score_samples",
    pa.schema(
        [
            ("row", pa.int64()),
            # Empty, chosen or rejected.
            ("response", TEXT),
            ("status", TEXT),
            ("reason", TEXT),
            ("prompt_tokens", COUNT),
            ("response_tokens", COUNT),
            ("truncated", pa.bool_()),
            ("loss", REAL),
            # Of the last continuous span of response tokens alone, behind BOS; and in context.
            ("loss_without_prompt", REAL),
            ("loss_with_prompt", REAL),
            # (layers, projections, metrics) in row-major order, as named in the metadata; NaN: no matrix.
            ("values", pa.list_(NUMBER)),
            # By token of the whole sequence: its text, its loss (null where it does not count), and the root of the sum
            # over measured matrices of |x_t|^2 |d_t|^2, its term of the gradient.
            ("tokens", pa.list_(TEXT)),
            ("token_losses", pa.list_(NUMBER)),
            ("token_terms", pa.list_(NUMBER)),
        ]
    ),
)
#: Metrics of every matrix in `values`, in this order.
METRICS = ("nuclear_norm", "effective_rank", "frobenius_norm", "sigma_ratio")

# What is computed of a sample. The file's own columns follow under their own names; one with a name of these becomes
# ``data.NAME``.
SCORES = Table(
    "scores",
    "score_samples",
    pa.schema(
        [
            ("row", pa.int64()),
            ("response", TEXT),
            ("id", TEXT),
            ("group", TEXT),
            ("status", TEXT),
            ("reason", TEXT),
            ("rank", COUNT),
            ("outlier", REAL),
            # Which number is farthest from those of samples of like length.
            ("outlier_of", TEXT),
            ("prompt_tokens", COUNT),
            ("response_tokens", COUNT),
            ("truncated", pa.bool_()),
            ("loss", REAL),
            ("loss_without_prompt", REAL),
            ("ifd", REAL),
            # Means over projections and layers: all, and the study's early, middle and last.
            *[(f"{name}{part}", REAL) for name in METRICS[:2] for part in ("", "_early", "_middle", "_last")],
            # ||G||_F over all measured matrices, and its square: the tangent kernel's diagonal for them.
            ("gradient_norm", REAL),
            ("self_influence", REAL),
            ("sigma_ratio", REAL),
            # Mean absolute difference of neighbouring layers of the sample's own curve of nuclear norms.
            ("mad", REAL),
            ("largest_layer", COUNT),
            ("largest_layer_share", REAL),
        ]
    ),
)

# One row: all samples with status ok (group null), or those of one group, by layer and projection.
LAYERS = Table(
    "layers",
    "score_samples",
    pa.schema(
        [
            ("group", TEXT),
            ("layer", pa.int16()),
            ("projection", TEXT),
            ("metric", TEXT),
            ("samples", COUNT),
            ("mean", REAL),
            ("sd", REAL),
            ("p10", REAL),
            ("p50", REAL),
            ("p90", REAL),
        ]
    ),
)
