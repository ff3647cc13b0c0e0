"""The controls: what a finding would look like if it were about something else. One function each, as in `findings`."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scipy import stats

from workflow.lib.statistics.cells import Cell
from workflow.lib.statistics.claims import findings
from workflow.lib.statistics.claims.evidence import (
    OVERALL,
    PLAIN,
    RATIO,
    RELATIVE,
    SHARE,
    Claim,
    Estimate,
    View,
    by_projection,
    log_sizes,
    p_value,
    resampled,
    together,
)
from workflow.lib.statistics.measures import relative_difference

MATCHED = "random:matched"
# Two responses are of like length, or like loss, where the logarithms differ by less than this.
CALIPER = 0.1


def untrained_ratio(view: View, claim: Claim) -> Iterator[Estimate]:
    """MAD ratio None : Detailed of a network at its random initialisation."""
    return findings.mad_none_detailed(view, claim)


def learnt_ratio(view: View, claim: Claim) -> Iterator[Estimate]:
    """MAD ratio None : Detailed after training over that before it."""
    if view.untrained is not None:
        yield from findings.ratio_of_ratios(view, claim, view.untrained)


def averaging(view: View, claim: Claim) -> Iterator[Estimate]:
    """MAD of Detailed with the loss on as many random tokens as None has, over MAD of whole Detailed."""
    return findings.mad_ratio_of(view, claim, _few_tokens(view), view.cell("detailed"))


def surprise(view: View, claim: Claim) -> Iterator[Estimate]:
    """MAD of None over MAD of Detailed with the loss on as many random tokens: times `averaging`, it is the whole."""
    return findings.mad_ratio_of(view, claim, view.cell("none"), _few_tokens(view))


def fluent_foreign(view: View, claim: Claim) -> Iterator[Estimate]:
    """Signed RD, Detailed, of another question's whole rationale with the right answer."""
    return findings.separable_detailed(view, claim)


def wrong_answer_alone(view: View, claim: Claim) -> Iterator[Estimate]:
    """Signed RD, Detailed, of the own rationale with a wrong final answer."""
    return findings.separable_detailed(view, claim)


def disorder_alone(view: View, claim: Claim) -> Iterator[Estimate]:
    """Signed RD, Detailed, of the own sentences in another order."""
    return findings.separable_detailed(view, claim)


def length_matched(view: View, claim: Claim) -> Iterator[Estimate]:
    """Signed RD, Detailed, of wrong responses against correct ones of as many tokens."""
    return _matched_rd(view, claim, "response_tokens")


def loss_matched(view: View, claim: Claim) -> Iterator[Estimate]:
    """Signed RD, Detailed, of wrong responses against correct ones of the same loss."""
    return _matched_rd(view, claim, "loss")


def loss_and_length(view: View, claim: Claim) -> Iterator[Estimate]:
    """R squared of log nuclear norm on log loss and log tokens, over all variants' correct responses."""
    found = _regression(view, with_variants=False)
    if found is not None:
        _, explained, n, projections = found
        yield from by_projection(claim, explained[:, 1:], SHARE, n, projections)


def left_over(view: View, claim: Claim) -> Iterator[Estimate]:
    """None's size over Detailed's at equal loss and length: the variants' own levels beside those two, as a ratio.

    The levels are fitted with the slopes: slopes fitted without them would take up what is the variants' own.
    """
    if view.cell("none") is None or view.cell("detailed") is None:
        return
    slopes, _, n, projections = _regression(view, with_variants=True) or (None,) * 4
    if slopes is not None:
        # The first level beside Detailed's, which is the constant.
        yield from by_projection(claim, np.exp(slopes[:, 1:, 3]), RATIO, n, projections)


def belief(view: View, claim: Claim) -> Iterator[Estimate]:
    """The share of questions whose answer with the smaller gradient is the one that the model prefers."""
    for relation in claim.relations:
        yield from _agreement(view, claim, relation, mistaken=False)


def belief_mistaken(view: View, claim: Claim) -> Iterator[Estimate]:
    """The same where the model prefers the wrong answer: there, belief and truth part."""
    for relation in claim.relations:
        yield from _agreement(view, claim, relation, mistaken=True)


def concentrated_loss(view: View, claim: Claim) -> Iterator[Estimate]:
    """The exponent of evenness of the loss over tokens, beside loss and length, in the size of Detailed's gradients.

    Evenness is the participation (sum l)^2 / (n sum l^2) of the tokens' losses: 1 if spread evenly, 1/n on one token.
    """
    cell = view.cell("detailed")
    evenness = view.concentration.get(("detailed", "correct", "all"))
    if cell is None or evenness is None:
        return
    inputs = _inputs(cell, evenness)
    usable = np.isfinite(inputs).all(1) & np.isfinite(log_sizes(cell)).all(1)
    if not usable.any():
        return
    rows = _products(inputs[usable], _targets(cell)[usable])
    (moments,) = resampled(view, [rows])
    draws = _solved(moments, inputs.shape[1])[0][:, 1:, -1]
    yield from by_projection(claim, draws, PLAIN, int(usable.sum()), cell.projections)


def unseen_larger(view: View, claim: Claim) -> Iterator[Estimate]:
    """Mean nuclear norm on entities of no training text over that on popular ones."""
    return findings.unpopular_larger(view, claim)


def unseen_as_unpopular(view: View, claim: Claim) -> Iterator[Estimate]:
    """Mean nuclear norm on entities of no training text over that on unpopular ones, within the margin."""
    return findings.unpopular_larger(view, claim)


def _few_tokens(view: View) -> Cell | None:
    """Detailed with the loss on as many tokens as None has, each sample averaged over the draws that were measured."""
    draws = [
        cell for (variant, relation, tokens), cell in view.cells.items()
        if (variant, relation) == ("detailed", "correct") and tokens.startswith(MATCHED)
    ]  # fmt: skip
    found = together(view, *draws) if draws else None
    if found is None:
        return None
    alike = found[0]
    values = {"nuclear_norm": np.mean([cell.values["nuclear_norm"] for cell in alike], axis=0)}
    return replace(alike[0], loss_tokens=MATCHED, values=values)


def _matched_rd(view: View, claim: Claim, by: str) -> Iterator[Estimate]:
    reference = view.cell("detailed")
    for relation in claim.relations:
        other = view.cell("detailed", relation)
        if reference is None or other is None or relation == "correct":
            continue
        at, other_at = matched(getattr(reference, by), getattr(other, by))
        if not len(at):
            continue
        both = [cell.values["nuclear_norm"][place] for cell, place in ((reference, at), (other, other_at))]
        one, two = resampled(view, both)
        own = log_sizes(other)[other_at] - log_sizes(reference)[at]
        draws = relative_difference(one, two).mean(2)
        yield from by_projection(claim, draws, RELATIVE, len(at), reference.projections, own, relation=relation)


def matched(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the pairs of like values, each used once: both sides from the smallest up, what is too far left out.

    In one dimension this leaves the fewest without a partner.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = [np.log(each.astype(float)) for each in (one, other)]
    orders = [[i for i in np.argsort(each, kind="stable") if np.isfinite(each[i])] for each in logs]
    left = right = 0
    pairs = []
    while left < len(orders[0]) and right < len(orders[1]):
        i, j = orders[0][left], orders[1][right]
        gap = logs[0][i] - logs[1][j]
        if abs(gap) < CALIPER:
            pairs.append((i, j))
        left += gap < CALIPER
        right += gap > -CALIPER
    return tuple(np.array(side, dtype=int) for side in zip(*pairs, strict=True)) if pairs else (np.array([]),) * 2


def _inputs(cell: Cell, *more: np.ndarray) -> np.ndarray:
    """1, log loss, log tokens and the logarithms of `more`: (samples, inputs)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.stack([np.ones(len(cell.loss)), *map(np.log, (cell.loss, cell.response_tokens, *more))], axis=1)


def _targets(cell: Cell) -> np.ndarray:
    """Log sizes, over all projections first, then of each: (samples, 1 + projections)."""
    logs = log_sizes(cell)
    return np.concatenate([logs.mean(1, keepdims=True), logs], axis=1)


def _products(inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """What least squares needs of each sample, one row of x x', x y, y^2 and y a target: they add up over samples."""
    square = np.einsum("si,sj->sij", inputs, inputs)[:, None].repeat(targets.shape[1], 1)
    rows = [square.reshape(*square.shape[:2], -1), inputs[:, None] * targets[:, :, None], (targets**2)[..., None]]
    return np.concatenate([*rows, targets[..., None]], axis=2)


def _solved(moments: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (draws, targets, inputs) and R squared (draws, targets) from mean `_products`."""
    square = moments[..., : count**2].reshape(*moments.shape[:-1], count, count)
    cross = moments[..., count**2 : count**2 + count]
    # Inputs that do not vary leave a coefficient open: the least one.
    slopes = np.einsum("...ij,...j->...i", np.linalg.pinv(square, hermitian=True), cross)
    ones, total, mean = square[..., 0, 0], moments[..., -2], moments[..., -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        explained = ((slopes * cross).sum(-1) - mean**2 / ones) / (total - mean**2 / ones)
    return slopes, explained


def _regression(view: View, with_variants: bool):
    """Least squares over the variants' correct responses: coefficients, R squared, n, projections.

    Whole samples are drawn, with all their variants. Inputs: 1, log loss, log tokens, and `with_variants` a level for
    each variant but the last. None with fewer than two variants, or lengths unknown.
    """
    variants = [name for name in ("none", "simplified", "detailed") if view.cell(name) is not None]
    found = together(view, *(view.cell(name) for name in variants)) if len(variants) > 1 else None
    if found is None:
        return None
    cells = found[0]
    inputs, targets = [_inputs(cell) for cell in cells], [_targets(cell) for cell in cells]
    usable = np.logical_and.reduce([np.isfinite(part).all(1) for part in (*inputs, *targets)])
    if not usable.any():
        return None
    if with_variants:
        levels = np.eye(len(cells))[:, :-1]
        inputs = [np.hstack([part, np.tile(own, (len(part), 1))]) for part, own in zip(inputs, levels, strict=True)]
    sums = sum(_products(x[usable], y[usable]) for x, y in zip(inputs, targets, strict=True))
    (moments,) = resampled(view, [sums])
    return *_solved(moments, inputs[0].shape[1]), int(usable.sum()), cells[0].projections


def _agreement(view: View, claim: Claim, relation: str, mistaken: bool) -> Iterator[Estimate]:
    found = together(view, view.cell("none"), view.cell("none", relation))
    if found is None:
        return
    right, wrong = found[0]
    # The log probability of the whole answer; a loss of `sum` is that already.
    length = [cell.response_tokens if view.loss_norm == "mean" else 1 for cell in (right, wrong)]
    preferred = wrong.loss * length[1] - right.loss * length[0]
    larger = log_sizes(wrong) - log_sizes(right)
    chosen = np.isfinite(preferred) & (preferred < 0 if mistaken else preferred != 0)
    columns = {OVERALL: larger.mean(1), **dict(zip(right.projections, larger.T, strict=True))}
    for projection, column in columns.items():
        agrees = np.sign(column[chosen]) == np.sign(preferred[chosen])
        if len(agrees):
            yield _share(claim, agrees, relation, projection)


def _share(claim: Claim, agrees: np.ndarray, relation: str, projection: str) -> Estimate:
    hits, n = int(agrees.sum()), len(agrees)
    bounds = stats.binomtest(hits, n).proportion_ci(method="wilson")

    def tails(bound: float) -> tuple[float, float]:
        return tuple(float(stats.binomtest(hits, n, bound, alternative=side).pvalue) for side in ("greater", "less"))

    found = p_value(claim, hits / n, tails)
    return Estimate(
        relation, projection, hits / n, float(bounds.low), float(bounds.high), n, found, "binomial", SHARE.name
    )


CONTROLS = {
    function.__name__: function
    for function in (
        untrained_ratio,
        learnt_ratio,
        averaging,
        surprise,
        fluent_foreign,
        wrong_answer_alone,
        disorder_alone,
        length_matched,
        loss_matched,
        loss_and_length,
        left_over,
        belief,
        belief_mistaken,
        concentrated_loss,
        unseen_larger,
        unseen_as_unpopular,
    )
}
