"""The study's statistics of layer curves (arXiv 2410.23743, section 3): MAD and RD.

A curve is the mean over samples of one statistic of one projection, by layer; the last axis of every array here.
"""

import numpy as np

# The study's cuts of its models' layers into early, middle and last; no constant fraction gives all four.
_PUBLISHED_CUTS = {26: (7, 20), 28: (7, 21), 32: (10, 20), 42: (12, 30)}


def segments(layers: int) -> dict[str, tuple[int, int]]:
    """Half-open ranges of layers of the early, middle and last segment, and of all.

    26, 28, 32 and 42 layers: the study's cuts. Any other number: a quarter of the layers, rounded, at each end, as in
    the study's 28-layer model. Fewer than 4 layers: only ``all``.
    """
    whole = {"all": (0, layers)}
    if layers < 4:
        return whole
    quarter = round(layers / 4)
    first, second = _PUBLISHED_CUTS.get(layers, (quarter, layers - quarter))
    return {"early": (0, first), "middle": (first, second), "last": (second, layers)} | whole


def mean_absolute_difference(curves: np.ndarray, steps: np.ndarray | None = None) -> np.ndarray:
    """MAD: mean over neighbouring layers of |s_(i+1) - s_i|; NaN for a single layer. (..., layers) to (...).

    `steps` (..., layers - 1): the steps that count (None: all); NaN without one.
    """
    if curves.shape[-1] < 2:
        return np.full(curves.shape[:-1], np.nan)
    differences = np.abs(np.diff(curves, axis=-1))
    if steps is None or steps.all():
        return differences.mean(-1)
    with np.errstate(invalid="ignore"):
        return np.where(steps, differences, 0).sum(-1) / steps.sum(-1)


def relative_difference(reference: np.ndarray, other: np.ndarray) -> np.ndarray:
    """RD, signed, layer by layer: (other - reference) / reference; NaN where the reference is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(reference != 0, (other - reference) / reference, np.nan)


def top_layers(differences: np.ndarray, count: int = 5) -> list[int]:
    """The layers with the largest absolute relative difference, largest first; ties by layer, without NaN."""
    order = np.argsort(-np.abs(differences), kind="stable")
    return [int(layer) for layer in order if not np.isnan(differences[layer])][:count]
