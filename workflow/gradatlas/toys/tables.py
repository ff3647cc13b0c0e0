"""The tables of the toys."""

import pyarrow as pa

from gradatlas.core.tables import Table
from gradatlas.data.tables import COUNT, REAL, TEXT

# Softmax toy: one row per label of a case, its probability before and after one step.
TOY_SQUEEZE = Table(
    "toy_squeeze", "squeeze_softmax", pa.schema([("case", TEXT), ("label", COUNT), ("before", REAL), ("after", REAL)])
)

# One row per case: the label pulled `up` or pushed `down`, its probability, that of the most likely other label, how
# many others rise, how their log-ratios spread, and the probability above which they rise: exact, and first order.
TOY_SQUEEZE_CASES = Table(
    "toy_squeeze_cases",
    "squeeze_softmax",
    pa.schema(
        [
            ("case", TEXT),
            *[(name, COUNT) for name in ("labels", "up", "down")],
            *[(name, REAL) for name in ("rate", "size", "before", "after")],
            ("winner", COUNT),
            ("winner_before", REAL),
            ("winner_after", REAL),
            ("rising", COUNT),
            *[(name, REAL) for name in ("median_ratio", "ratio_spread", "threshold", "first_order_threshold")],
        ]
    ),
)

# One row per random softmax and level of a sweep: the share of other labels that fall, and the winner's gain.
TOY_SQUEEZE_SWEEPS = Table(
    "toy_squeeze_sweeps",
    "squeeze_softmax",
    pa.schema(
        [
            ("sweep", TEXT),
            ("draw", COUNT),
            *[(name, REAL) for name in ("level", "falling", "winner_gain", "median_log_ratio")],
        ]
    ),
)

# One row per step of an objective that pushes one label of a softmax down.
TOY_CLIP = Table(
    "toy_clip",
    "clip_objective",
    pa.schema(
        [
            ("case", TEXT),
            ("objective", TEXT),
            ("step", COUNT),
            *[(name, REAL) for name in ("log_prob", "winner_prob", "median_log_prob", "entropy", "coefficient")],
        ]
    ),
)

# Image toy: mean softmax output `value` for `label` on the n test images of class `observed`, along training.
TOY_PREDICTIONS = Table(
    "toy_predictions",
    "train_classifier",
    pa.schema(
        [("epoch", COUNT), ("observed", TEXT), ("label", TEXT), ("value", REAL), ("n", COUNT), ("accuracy", REAL)]
    ),
)

# Mean Frobenius norm of the tangent kernel over n pairs of distinct images of two classes.
TOY_KERNELS = Table(
    "toy_kernels",
    "train_classifier",
    pa.schema([("epoch", COUNT), ("learned", TEXT), ("observed", TEXT), ("norm", REAL), ("n", COUNT)]),
)

# One row per pair of images: the change of log pi(learned class) on the observed image by one step on the learned
# one, true and to first order; norms and cosine of the changes of all labels' log-probabilities.
TOY_STEPS = Table(
    "toy_steps",
    "train_classifier",
    pa.schema(
        [
            ("epoch", COUNT),
            ("rate", REAL),
            ("learned", TEXT),
            ("observed", TEXT),
            *[(name, COUNT) for name in ("learned_image", "observed_image")],
            *[(name, REAL) for name in ("measured", "predicted", "cosine")],
            *[(name, REAL) for name in ("measured_norm", "predicted_norm", "residual_norm")],
        ]
    ),
)

# Mean true change of pi(label) on images of class `observed` by one step on an image of class `learned`; `same`: on
# that image itself, else on n pairs of distinct images.
TOY_CHANGES = Table(
    "toy_changes",
    "train_classifier",
    pa.schema(
        [
            ("epoch", COUNT),
            ("rate", REAL),
            ("learned", TEXT),
            ("observed", TEXT),
            ("same", pa.bool_()),
            ("label", TEXT),
            ("change", REAL),
            ("n", COUNT),
        ]
    ),
)

# The factors of -A K G by epoch, over n pairs of distinct images: mean norms of the `kernel`, of its `change` since the
# epoch before, of `a`, of `g`, and of the product (`influence`); `cosine` of the kernel with that of the epoch before.
TOY_PHASES = Table(
    "toy_phases",
    "train_classifier",
    pa.schema(
        [
            ("epoch", COUNT),
            ("phase", TEXT),
            *[(name, REAL) for name in ("kernel", "change", "cosine", "a", "g", "influence")],
            ("n", COUNT),
        ]
    ),
)

# One row per pair of images: the tangent kernel's Frobenius norm, and its estimate by Gaussian vectors with its
# standard error.
TOY_NORMS = Table(
    "toy_norms",
    "train_classifier",
    pa.schema(
        [
            ("epoch", COUNT),
            ("learned", TEXT),
            ("observed", TEXT),
            *[(name, REAL) for name in ("norm", "estimate", "error")],
        ]
    ),
)

# By name, for what finds them at run time.
IMAGES = {each.name: each for each in (TOY_PREDICTIONS, TOY_KERNELS, TOY_STEPS, TOY_CHANGES, TOY_PHASES, TOY_NORMS)}
TABLES = {each.name: each for each in (TOY_SQUEEZE, TOY_SQUEEZE_CASES, TOY_SQUEEZE_SWEEPS, TOY_CLIP)} | IMAGES
