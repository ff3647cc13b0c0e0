"""How the numbers of the layer-gradient study's claims (arXiv 2410.23743) are made: compared cells in, estimates out.

None of them is a verdict: that needs all tests of a run (`verdicts`).
"""

from collections.abc import Iterator

import numpy as np
from scipy import signal

from gradatlas.claims.estimates import CORRELATION, PLAIN, RATIO, RELATIVE, GradientEstimate, unpaired_tails
from gradatlas.claims.sheet import OVERALL
from gradatlas.claims.views import Compared, Measure, log_sizes
from gradatlas.statistics.measures import mean_absolute_difference, relative_difference, segments

# The study names layers 0 to 4 of models of 26 to 42 layers; 5 of 28 in proportion.
FIRST_LAYERS = 5 / 28
# A peak of a mean curve stands out by this share of its largest value.
PROMINENCE = 0.2

Estimates = Iterator[GradientEstimate]


def mad_ratio(it: Compared) -> Estimates:
    """MAD of the first variant's mean curve over the second's; against another model, over that model's ratio."""
    mads = [mean_absolute_difference(curve, cell.steps) for curve, cell in zip(it.curves, it.cells, strict=True)]
    half = len(mads) // 2
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = [one / other for one, other in zip(mads[:half], mads[half:], strict=True)]
        draws = ratios[0] / ratios[1] if it.claim.against else ratios[0]
    yield from it.by_projection(draws, it.cells[:1], it.cells[half : half + 1])


def size_ratio(it: Compared) -> Estimates:
    """Mean nuclear norm of the first cell over the second's: of two variants, or of two models."""
    one, other = it.cells
    draws = it.curves[0].mean(2) / it.curves[1].mean(2)
    yield from it.by_projection(draws, [one], [other], log_sizes(one) - log_sizes(other))


def early_size(it: Compared) -> Estimates:
    """Mean nuclear norm in the early segment over that in the other layers; nothing below 4 layers."""
    (cell,), (curves,) = it.cells, it.curves
    cuts = segments(curves.shape[2])
    if "early" not in cuts:
        return
    end = cuts["early"][1]
    values = cell.values["nuclear_norm"]
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.log(values[:, :, :end].mean(2)) - np.log(values[:, :, end:].mean(2))
    draws = curves[:, :, :end].mean(2) / curves[:, :, end:].mean(2)
    yield from it.by_projection(draws, [cell], differences=own)


def signed_rd(it: Compared) -> Estimates:
    """Signed RD of the other responses against the correct ones, averaged over variants."""
    correct, wrong = it.cells[::2], it.cells[1::2]
    curves = zip(it.curves[::2], it.curves[1::2], strict=True)
    draws = np.mean([relative_difference(a, b).mean(2) for a, b in curves], axis=0)
    own = np.mean([log_sizes(b) - log_sizes(a) for a, b in zip(correct, wrong, strict=True)], axis=0)
    yield from it.by_projection(draws, wrong, correct, own)


def early_rd(it: Compared) -> Estimates:
    """Signed RD of the first layers less that of the others."""
    (correct, wrong), (reference, other) = it.cells, it.curves
    layers = reference.shape[2]
    end = max(1, round(FIRST_LAYERS * layers))
    if end == layers:
        return
    by_layer = relative_difference(reference, other)
    draws = by_layer[:, :, :end].mean(2) - by_layer[:, :, end:].mean(2)
    yield from it.by_projection(draws, [wrong], [correct])


def rd_difference(it: Compared) -> Estimates:
    """Signed RD of a model less that of the model that it is compared with, on the same samples."""
    correct, wrong, *_ = it.cells
    own, own_other, base, base_other = it.curves
    draws = relative_difference(own, own_other).mean(2) - relative_difference(base, base_other).mean(2)
    yield from it.by_projection(draws, [wrong], [correct])


def least_correlation(it: Compared) -> Estimates:
    """The least correlation, over pairs of variants, of their mean curves over layers; nothing below 4 layers."""
    curves = it.curves
    if curves[0].shape[2] < 4:
        return
    pairs = [(i, j) for i in range(len(curves)) for j in range(i)]
    draws = np.min([_correlation(curves[i], curves[j]) for i, j in pairs], axis=0)
    yield from it.by_projection(draws, it.cells)


def dataset_ratio(it: Compared) -> Estimates:
    """Mean nuclear norm on one dataset over that on another: different samples, so nothing pairs."""
    one, other = it.cells
    sizes = [cell.values["nuclear_norm"].mean(2) for cell in it.cells]
    (mine,), (theirs,) = it.view.means(sizes[:1]), it.view.others[it.about["reference_dataset"]].means(sizes[1:])
    draws, logs = mine / theirs, [log_sizes(cell) for cell in it.cells]
    n = min(len(one.sample_ids), len(other.sample_ids))
    columns = {OVERALL: (RATIO.combine(draws), *(part.mean(1) for part in logs))}
    columns |= {name: (draws[:, p], *(part[:, p] for part in logs)) for p, name in enumerate(one.projections)}
    for projection, (column, *groups) in columns.items():
        tails = unpaired_tails(*groups, RATIO)
        yield it.estimate(column, n, [one], [other], projection=projection, tails=tails, test="Mann-Whitney")


def peaks(it: Compared) -> Estimates:
    """Peaks of the mean curve."""
    (cell,), (curves,) = it.cells, it.curves
    # Beyond the ends a valley as deep as the deepest: a curve that is largest at its first layer has a peak there.
    valley = curves.min(2, keepdims=True)
    closed = np.concatenate([valley, curves, valley], axis=2)
    counts = np.array(
        [[len(signal.find_peaks(curve, prominence=PROMINENCE * curve.max())[0]) for curve in draw] for draw in closed],
        dtype=float,
    )
    yield from it.by_projection(counts, [cell])


def _correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Pearson's, over the last axis."""
    one, other = (each - each.mean(-1, keepdims=True) for each in (one, other))
    with np.errstate(divide="ignore", invalid="ignore"):
        return (one * other).sum(-1) / np.sqrt((one**2).sum(-1) * (other**2).sum(-1))


FINDINGS = {
    "mad_ratio": Measure(mad_ratio, RATIO),
    "size_ratio": Measure(size_ratio, RATIO),
    "early_size": Measure(early_size, RATIO),
    "signed_rd": Measure(signed_rd, RELATIVE, partial=True),
    "early_rd": Measure(early_rd, PLAIN),
    "rd_difference": Measure(rd_difference, PLAIN),
    "least_correlation": Measure(least_correlation, CORRELATION, least=2),
    "dataset_ratio": Measure(dataset_ratio, RATIO, paired=False),
    "peaks": Measure(peaks, PLAIN),
}
