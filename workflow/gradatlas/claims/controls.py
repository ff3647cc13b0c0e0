"""The controls: what a finding would look like if it were about something else. One function each, as in `findings`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import stats

from gradatlas.claims import findings
from gradatlas.claims.evidence import (
    OVERALL,
    PLAIN,
    RATIO,
    RELATIVE,
    SHARE,
    Claim,
    Estimate,
    Scale,
    View,
    by_projection,
    estimate,
    log_sizes,
    p_value,
    resampled,
    sides,
    together,
)
from gradatlas.claims.two_alternative import margins
from gradatlas.statistics.cells import Cell, cut
from gradatlas.statistics.measures import relative_difference
from gradatlas.statistics.regression import TERMS, separable, solve_least_squares, sums_of

VARIANTS = ("none", "simplified", "detailed")
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
    """R squared of log nuclear norm on log loss and log tokens, over all variants' correct responses.

    The regression table's, over all projections that of their mean norm.
    """
    found = _regression(view)
    if found is not None:
        estimates, n, cells = found
        yield from _of_targets(claim, estimates["r2", None], SHARE, n, cells[0].projections, **sides(cells))


def left_over(view: View, claim: Claim) -> Iterator[Estimate]:
    """None's size over Detailed's beyond loss and length: their mean residuals in the regression table, as a ratio.

    No ground for a verdict where the lengths or losses of one of the two do not overlap the other variants': there the
    line is drawn on from where nothing was measured.
    """
    found = _regression(view)
    if found is None or not {"none", "detailed"} <= {cell.variant for cell in found[2]}:
        return
    estimates, n, cells = found
    draws = np.exp(estimates["residual", "none"] - estimates["residual", "detailed"])
    own = {cell.variant: cell for cell in cells}
    about = {**sides([own["none"]], [own["detailed"]]), "reason": _apart(own)}
    about["variants"] = " ".join(own)
    yield from _of_targets(claim, draws, RATIO, n, cells[0].projections, **about)


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
    x, y = _logs(cell, evenness)
    usable = np.isfinite(x).all(1) & np.isfinite(y).all(1)
    x, y, n = x[usable], y[usable], int(usable.sum())
    if not n:
        return
    sums, shift = sums_of(x, y, np.full(n, cell.variant), [cell.variant], np.arange(n))
    slopes = solve_least_squares(resampled(view, sums), shift, [cell.variant], (*TERMS, "log_evenness"))
    yield from _of_targets(claim, slopes["log_evenness", None], PLAIN, n, cell.projections, **sides([cell]))


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
        about = {"relation": relation, **sides([other], [reference])}
        if not len(at):
            yield _none_alike(claim, by, about)
            continue
        both = [cell.values["nuclear_norm"][place] for cell, place in ((reference, at), (other, other_at))]
        one, two = resampled(view, both)
        own = log_sizes(other)[other_at] - log_sizes(reference)[at]
        draws = relative_difference(one, two).mean(2)
        common = sorted(set(reference.sample_ids) & set(other.sample_ids))
        pair = [getattr(cut(cell, common), by) for cell in (reference, other)] if common else ([], [])
        if len(common) and by == "response_tokens" and np.array_equal(*pair):
            about["reason"] = "lengths equal already: separable_detailed is this comparison"
        yield from by_projection(claim, draws, RELATIVE, len(at), reference.projections, own, **about)


def _none_alike(claim: Claim, by: str, about: dict[str, Any]) -> Estimate:
    """No number: no two responses are alike in `by`."""
    what = {"response_tokens": "length", "loss": "loss"}[by]
    nothing = dict.fromkeys(("value", "low", "high", "p_value"), np.nan)
    reason = f"no wrong response is of like {what} as a correct one"
    return Estimate(projection=OVERALL, n=0, test="", scale=RELATIVE.name, **nothing, **about | {"reason": reason})


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


def _logs(cell: Cell, *more: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log loss, log tokens and the logarithms of `more`, (samples, k); log sizes, first of the projections' mean."""
    sizes = cell.values["nuclear_norm"].mean(2)
    with np.errstate(divide="ignore", invalid="ignore"):
        x = np.stack([np.log(each) for each in (cell.loss, cell.response_tokens, *more)], axis=1)
        return x, np.log(np.column_stack([sizes.mean(1), sizes]))


def _of_targets(
    claim: Claim, draws: np.ndarray, scale: Scale, n: int, projections: Sequence[str], **about: Any
) -> Iterator[Estimate]:
    """One estimate a target of `_logs`: over all projections, then of each."""
    for projection, column in zip((OVERALL, *projections), draws.T, strict=True):
        yield estimate(claim, column, scale, n, projection=projection, **about)


def _regression(view: View) -> tuple[dict, int, list[Cell]] | None:
    """The fit of `regression`, its number of questions, and the cells; None with fewer than two variants.

    Whole samples are drawn, with all their variants.
    """
    cells = [view.cell(name) for name in VARIANTS if view.cell(name) is not None]
    if len(cells) < 2:
        return None
    x, y = (np.concatenate(parts) for parts in zip(*map(_logs, cells), strict=True))
    usable = np.isfinite(x).all(1) & np.isfinite(y).all(1)
    variants = np.concatenate([np.full(len(cell.sample_ids), cell.variant) for cell in cells])[usable]
    names = np.concatenate([cell.sample_ids for cell in cells])[usable]
    if not separable(x[usable]):
        return None
    ids, questions = np.unique(names, return_inverse=True)
    sums, shift = sums_of(x[usable], y[usable], variants, [cell.variant for cell in cells], questions)
    return solve_least_squares(resampled(view, sums), shift, [cell.variant for cell in cells]), len(ids), cells


def _apart(cells: Mapping[str, Cell]) -> str:
    """Why None and Detailed cannot be held at equal loss and length, or nothing.

    The rule: of each, half of the samples or more lie inside the others' range, in length and in loss.
    """
    for name in ("none", "detailed"):
        for of, said in (("response_tokens", "lengths"), ("loss", "losses")):
            others = np.concatenate([getattr(cell, of) for other, cell in cells.items() if other != name])
            own = getattr(cells[name], of)
            own, others = own[np.isfinite(own)], others[np.isfinite(others)]
            if not len(own) or not len(others):
                continue
            inside = (own >= others.min()) & (own <= others.max())
            if inside.mean() < 0.5:
                share = f"{inside.mean():.0%} of {name.capitalize()}'s {said}"
                return (
                    f"{share} lie inside the other variants' range; half are needed to compare at equal loss and length"
                )
    return ""


def _agreement(view: View, claim: Claim, relation: str, mistaken: bool) -> Iterator[Estimate]:
    found = together(view, view.cell("none"), view.cell("none", relation))
    if found is None:
        return
    right, wrong = found[0]
    preferred = margins(view, right, wrong)
    larger = log_sizes(wrong) - log_sizes(right)
    chosen = np.isfinite(preferred) & (preferred < 0 if mistaken else preferred != 0)
    columns = {OVERALL: larger.mean(1), **dict(zip(right.projections, larger.T, strict=True))}
    for projection, column in columns.items():
        agrees = np.sign(column[chosen]) == np.sign(preferred[chosen])
        if len(agrees):
            yield _share(claim, agrees, relation, projection, sides([wrong], [right]))


def _share(claim: Claim, agrees: np.ndarray, relation: str, projection: str, about: dict[str, Any]) -> Estimate:
    hits, n = int(agrees.sum()), len(agrees)
    bounds = stats.binomtest(hits, n).proportion_ci(method="wilson")

    def tails(bound: float) -> tuple[float, float]:
        return tuple(float(stats.binomtest(hits, n, bound, alternative=side).pvalue) for side in ("greater", "less"))

    found = p_value(claim, hits / n, tails)
    numbers = (hits / n, float(bounds.low), float(bounds.high), n, found)
    return Estimate(relation, projection, *numbers, "binomial", SHARE.name, **about)


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
