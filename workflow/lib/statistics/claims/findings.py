"""The claims of the layer-gradient study (arXiv 2410.23743), one function each: a view in, estimates out.

None of them is a verdict: that needs all tests of a run (`verdicts`). A function yields nothing where the view lacks
what it compares.
"""

from collections.abc import Iterator

import numpy as np
from scipy import signal

from workflow.lib.statistics.cells import Cell
from workflow.lib.statistics.claims.evidence import (
    CORRELATION,
    PLAIN,
    RATIO,
    RELATIVE,
    Claim,
    Estimate,
    View,
    by_projection,
    estimate,
    log_sizes,
    resampled,
    sides,
    together,
    unpaired_tails,
)
from workflow.lib.statistics.measures import mean_absolute_difference, relative_difference, segments

# The study names layers 0 to 4 of models of 26 to 42 layers; 5 of 28 in proportion.
FIRST_LAYERS = 5 / 28
# A peak of a mean curve stands out by this share of its largest value.
PROMINENCE = 0.2


def mad_none_detailed(view: View, claim: Claim) -> Iterator[Estimate]:
    """MAD of None's mean curve over Detailed's; the study's headline says more than ten."""
    return _mad_ratio(view, claim, "none", "detailed")


def mad_none_simplified(view: View, claim: Claim) -> Iterator[Estimate]:
    """MAD of None over Simplified."""
    return _mad_ratio(view, claim, "none", "simplified")


def mad_simplified_detailed(view: View, claim: Claim) -> Iterator[Estimate]:
    """MAD of Simplified over Detailed."""
    return _mad_ratio(view, claim, "simplified", "detailed")


def size_none_detailed(view: View, claim: Claim) -> Iterator[Estimate]:
    """Mean nuclear norm of None over Detailed."""
    return _size_ratio(view, claim, "none", "detailed")


def size_none_simplified(view: View, claim: Claim) -> Iterator[Estimate]:
    """Mean nuclear norm of None over Simplified."""
    return _size_ratio(view, claim, "none", "simplified")


def size_simplified_detailed(view: View, claim: Claim) -> Iterator[Estimate]:
    """Mean nuclear norm of Simplified over Detailed."""
    return _size_ratio(view, claim, "simplified", "detailed")


def early_none(view: View, claim: Claim) -> Iterator[Estimate]:
    """None's mean nuclear norm in the early segment over that in the other layers; nothing below 4 layers."""
    found = together(view, view.cell("none"))
    if found is None:
        return
    (cell,), (curves,) = found
    cuts = segments(curves.shape[2])
    if "early" not in cuts:
        return
    end = cuts["early"][1]
    values = cell.values["nuclear_norm"]
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.log(values[:, :, :end].mean(2)) - np.log(values[:, :, end:].mean(2))
    draws = curves[:, :, :end].mean(2) / curves[:, :, end:].mean(2)
    yield from by_projection(claim, draws, RATIO, len(values), cell.projections, own, **sides([cell]))


def separable_detailed(view: View, claim: Claim) -> Iterator[Estimate]:
    """Signed RD of wrong against correct responses, Detailed."""
    for relation in claim.relations:
        yield from _signed_rd(view, claim, relation, ["detailed"])


def inseparable_none(view: View, claim: Claim) -> Iterator[Estimate]:
    """Signed RD of wrong against correct responses, None: no difference beyond the margin."""
    for relation in claim.relations:
        yield from _signed_rd(view, claim, relation, ["none"])


def wiki_indistinct(view: View, claim: Claim) -> Iterator[Estimate]:
    """Signed RD of wrong against correct descriptions, averaged over their lengths."""
    for relation in claim.relations:
        yield from _signed_rd(view, claim, relation, _descriptions(view))


def early_rd(view: View, claim: Claim) -> Iterator[Estimate]:
    """Signed RD, Detailed, of the first layers less that of the others."""
    for relation in claim.relations:
        found = together(view, view.cell("detailed"), view.cell("detailed", relation))
        if found is None:
            continue
        (cell, wrong), (reference, other) = found
        layers = reference.shape[2]
        end = max(1, round(FIRST_LAYERS * layers))
        if end == layers:
            continue
        by_layer = relative_difference(reference, other)
        draws = by_layer[:, :, :end].mean(2) - by_layer[:, :, end:].mean(2)
        about = {"relation": relation, **sides([wrong], [cell])}
        yield from by_projection(claim, draws, PLAIN, len(cell.sample_ids), cell.projections, **about)


def instruct_no_better(view: View, claim: Claim) -> Iterator[Estimate]:
    """Signed RD, Detailed, of the instructed model less its base model's, on the same samples."""
    if view.base is None:
        return
    for relation in claim.relations:
        cells = [each.cell("detailed", name) for each in (view, view.base) for name in ("correct", relation)]
        found = together(view, *cells)
        if found is None:
            continue
        (cell, wrong, *_), (own, own_other, base, base_other) = found
        draws = relative_difference(own, own_other).mean(2) - relative_difference(base, base_other).mean(2)
        about = {"relation": relation, "reference_model": view.base.model, **sides([wrong], [cell])}
        yield from by_projection(claim, draws, PLAIN, len(cell.sample_ids), cell.projections, **about)


def instruct_simplified(view: View, claim: Claim) -> Iterator[Estimate]:
    """Mean nuclear norm of Simplified, instructed over base model."""
    if view.base is not None:
        yield from _sizes_of(view, claim, view.cell("simplified"), view.base.cell("simplified"), view.base.model)


def instruct_instability(view: View, claim: Claim) -> Iterator[Estimate]:
    """MAD ratio None : Detailed of the instructed model over its base model's: claimed in v1, withdrawn."""
    if view.base is not None:
        yield from ratio_of_ratios(view, claim, view.base)


def length_shape(view: View, claim: Claim) -> Iterator[Estimate]:
    """The least correlation, over pairs of lengths, of their mean curves over layers."""
    variants = [name for name in _descriptions(view) if name != "natural"]
    found = together(view, *(view.cell(name) for name in variants)) if len(variants) > 1 else None
    if found is None:
        return
    cells, curves = found
    if curves[0].shape[2] < 4:
        return
    pairs = [(i, j) for i in range(len(curves)) for j in range(i)]
    draws = np.min([_correlation(curves[i], curves[j]) for i, j in pairs], axis=0)
    about = sides(cells)
    yield from by_projection(claim, draws, CORRELATION, len(cells[0].sample_ids), cells[0].projections, **about)


def unpopular_larger(view: View, claim: Claim) -> Iterator[Estimate]:
    """Mean nuclear norm on one dataset over that on another: different samples, so nothing pairs.

    Of the other dataset's variants, that whose mean response length is closest (on a logarithmic scale).
    """
    for pair in claim.between:
        own, other_dataset = pair.split("/")
        dataset, variant = own.split(":")
        other_view = view.others.get(other_dataset)
        if view.dataset != dataset or other_view is None:
            continue
        one = view.cell(variant)
        other = _of_like_length(one, other_view) if one is not None else None
        if other is None:
            continue
        (mine,), (theirs,) = (
            resampled(each, [cell.values["nuclear_norm"].mean(2)]) for each, cell in ((view, one), (other_view, other))
        )
        logs = [log_sizes(cell) for cell in (one, other)]
        n = min(len(one.sample_ids), len(other.sample_ids))
        draws = mine / theirs
        columns = {"all": (RATIO.combine(draws), *(part.mean(1) for part in logs))}
        columns |= {name: (draws[:, p], *(part[:, p] for part in logs)) for p, name in enumerate(one.projections)}
        for projection, (column, *groups) in columns.items():
            tails = unpaired_tails(*groups, RATIO)
            about = {"projection": projection, "reference_dataset": other_dataset, **sides([one], [other])}
            yield estimate(claim, column, RATIO, n, tails=tails, test="Mann-Whitney", **about)


def two_peaks_gemma2(view: View, claim: Claim) -> Iterator[Estimate]:
    """Peaks of Detailed's mean curve."""
    return _peaks(view, claim)


def one_peak_qwen2(view: View, claim: Claim) -> Iterator[Estimate]:
    """Peaks of Detailed's mean curve."""
    return _peaks(view, claim)


def no_peak_llama3(view: View, claim: Claim) -> Iterator[Estimate]:
    """Peaks of Detailed's mean curve."""
    return _peaks(view, claim)


def ratio_of_ratios(view: View, claim: Claim, reference: View) -> Iterator[Estimate]:
    """MAD ratio None : Detailed of one model over another's, on the same samples."""
    cells = [each.cell(variant) for each in (view, reference) for variant in ("none", "detailed")]
    found = together(view, *cells)
    if found is None:
        return
    cells, curves = found
    none, detailed, other_none, other_detailed = (
        mean_absolute_difference(each, cell.steps) for each, cell in zip(curves, cells, strict=True)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = (none / detailed) / (other_none / other_detailed)
    n, about = len(cells[0].sample_ids), sides(cells[:1], cells[1:2])
    yield from by_projection(claim, draws, RATIO, n, cells[0].projections, reference_model=reference.model, **about)


def mad_ratio_of(view: View, claim: Claim, one, other) -> Iterator[Estimate]:
    """MAD of one cell's mean curve over another's, on the samples of both."""
    found = together(view, one, other)
    if found is None:
        return
    (cell, against), (first, second) = found
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = mean_absolute_difference(first, cell.steps) / mean_absolute_difference(second, against.steps)
    about = sides([cell], [against])
    yield from by_projection(claim, draws, RATIO, len(cell.sample_ids), cell.projections, **about)


def _mad_ratio(view: View, claim: Claim, one: str, other: str) -> Iterator[Estimate]:
    return mad_ratio_of(view, claim, view.cell(one), view.cell(other))


def _size_ratio(view: View, claim: Claim, one: str, other: str) -> Iterator[Estimate]:
    return _sizes_of(view, claim, view.cell(one), view.cell(other))


def _sizes_of(view: View, claim: Claim, one, other, reference_model: str = "") -> Iterator[Estimate]:
    found = together(view, one, other)
    if found is None:
        return
    (first, second), curves = found
    draws = curves[0].mean(2) / curves[1].mean(2)
    own = log_sizes(first) - log_sizes(second)
    n, about = len(first.sample_ids), {"reference_model": reference_model, **sides([first], [second])}
    yield from by_projection(claim, draws, RATIO, n, first.projections, own, **about)


def _signed_rd(view: View, claim: Claim, relation: str, variants: list[str]) -> Iterator[Estimate]:
    pairs = [(view.cell(name), view.cell(name, relation)) for name in variants]
    measured = [cell for pair in pairs for cell in pair if all(pair)]
    found = together(view, *measured) if measured else None
    if found is None:
        return
    cells, curves = found
    draws = np.mean([relative_difference(a, b).mean(2) for a, b in _paired(curves)], axis=0)
    own = np.mean([log_sizes(b) - log_sizes(a) for a, b in _paired(cells)], axis=0)
    n, about = len(cells[0].sample_ids), {"relation": relation, **sides(cells[1::2], cells[::2])}
    yield from by_projection(claim, draws, RELATIVE, n, cells[0].projections, own, **about)


def _paired(items: list) -> list[tuple]:
    return list(zip(items[::2], items[1::2], strict=True))


def _descriptions(view: View) -> list[str]:
    """The variants of a dataset of descriptions: lengths, or what stands alone; of data on another task, none."""
    if view.task != "knowledge":
        return []
    variants = dict.fromkeys(key[0] for key in view.cells)
    return [name for name in variants if name == "natural" or name.startswith("length_")]


def _of_like_length(one: Cell, other: View) -> Cell | None:
    """The variant of the other dataset whose responses are about as long; the first, where lengths are unknown."""
    found = [cell for (_, relation, tokens), cell in other.cells.items() if (relation, tokens) == ("correct", "all")]
    length = np.log(one.response_tokens.mean())
    return min(found, key=lambda cell: abs(np.log(cell.response_tokens.mean()) - length), default=None)


def _correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Pearson's, over the last axis."""
    one, other = (each - each.mean(-1, keepdims=True) for each in (one, other))
    with np.errstate(divide="ignore", invalid="ignore"):
        return (one * other).sum(-1) / np.sqrt((one**2).sum(-1) * (other**2).sum(-1))


def _peaks(view: View, claim: Claim) -> Iterator[Estimate]:
    found = together(view, view.cell("detailed"))
    if found is None:
        return
    (cell,), (curves,) = found
    # Beyond the ends a valley as deep as the deepest: a curve that is largest at its first layer has a peak there.
    valley = curves.min(2, keepdims=True)
    closed = np.concatenate([valley, curves, valley], axis=2)
    counts = np.array(
        [[len(signal.find_peaks(curve, prominence=PROMINENCE * curve.max())[0]) for curve in draw] for draw in closed],
        dtype=float,
    )
    yield from by_projection(claim, counts, PLAIN, len(cell.sample_ids), cell.projections, **sides([cell]))


FINDINGS = {
    function.__name__: function
    for function in (
        mad_none_detailed,
        mad_none_simplified,
        mad_simplified_detailed,
        size_none_detailed,
        size_none_simplified,
        size_simplified_detailed,
        early_none,
        separable_detailed,
        inseparable_none,
        early_rd,
        instruct_no_better,
        instruct_simplified,
        instruct_instability,
        length_shape,
        wiki_indistinct,
        unpopular_larger,
        two_peaks_gemma2,
        one_peak_qwen2,
        no_peak_llama3,
    )
}
