"""How the numbers of the controls are made: what else could explain a finding. As in `findings`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from gradatlas.claims.estimates import NO_NUMBER, PLAIN, RATIO, RELATIVE, SHARE, GradientEstimate, Z, p_value
from gradatlas.claims.findings import Estimates
from gradatlas.claims.sheet import OVERALL
from gradatlas.claims.two_alternative import margins
from gradatlas.claims.views import Compared, Measure, log_sizes, sides
from gradatlas.statistics.cells import Cell, cut
from gradatlas.statistics.measures import relative_difference
from gradatlas.statistics.regression import TERMS, separable, solve_least_squares, sums_of
from gradatlas.study.shares import wilson

# Two responses are of similar length, or of similar loss, where the logarithms differ by less than this.
CALIPER = 0.1


def length_matched_rd(it: Compared) -> Estimates:
    """Signed RD of wrong responses against correct ones of as many tokens."""
    return _matched_rd(it, "response_tokens", "length")


def loss_matched_rd(it: Compared) -> Estimates:
    """Signed RD of wrong responses against correct ones of the same loss."""
    return _matched_rd(it, "loss", "loss")


def explained_share(it: Compared) -> Estimates:
    """R squared of log nuclear norm on log loss and log tokens, over all variants' correct responses.

    The regression table's, over all projections that of their mean norm.
    """
    found = _regression(it)
    if found is not None:
        estimates, n = found
        yield from _of_targets(it, estimates["r2", None], n, it.cells)


def residual_ratio(it: Compared) -> Estimates:
    """None's size over Detailed's beyond loss and length: their mean residuals in the regression table, as a ratio.

    No verdict where the lengths or losses of one of the two do not overlap the other variants': there the line is
    extrapolated.
    """
    own = {cell.variant: cell for cell in it.cells}
    found = _regression(it) if {"none", "detailed"} <= own.keys() else None
    if found is not None:
        estimates, n = found
        draws = np.exp(estimates["residual", "none"] - estimates["residual", "detailed"])
        about = {"reason": _apart(own), "variants": " ".join(own)}
        yield from _of_targets(it, draws, n, [own["none"]], [own["detailed"]], **about)


def belief(it: Compared) -> Estimates:
    """The share of questions whose answer with the smaller gradient is the one that the model prefers."""
    return _agreement(it, mistaken=False)


def belief_mistaken(it: Compared) -> Estimates:
    """The same where the model prefers the wrong answer: there, belief and truth part."""
    return _agreement(it, mistaken=True)


def evenness_exponent(it: Compared) -> Estimates:
    """The exponent of evenness of the loss over tokens, beside loss and length, in the size of the gradients.

    Evenness is the participation (sum l)^2 / (n sum l^2) of the tokens' losses: 1 if spread evenly, 1/n on one token.
    """
    (cell,) = it.cells
    x, y = _logs(cell, it.view.concentration[cell.variant, cell.relation, cell.loss_tokens])
    usable = np.isfinite(x).all(1) & np.isfinite(y).all(1)
    x, y, n = x[usable], y[usable], int(usable.sum())
    if not n:
        return
    sums, shift = sums_of(x, y, np.full(n, cell.variant), [cell.variant], np.arange(n))
    slopes = solve_least_squares(it.view.means(sums), shift, [cell.variant], (*TERMS, "log_evenness"))
    yield from _of_targets(it, slopes["log_evenness", None], n, [cell])


def _matched_rd(it: Compared, by: str, what: str) -> Estimates:
    reference, other = it.cells
    at, other_at = matched(getattr(reference, by), getattr(other, by))
    if not len(at):
        reason = f"no wrong response has a {what} similar to a correct one"
        about = {**it.about, **sides([other], [reference]), "reason": reason}
        yield GradientEstimate(**NO_NUMBER, scale=it.scale.name, **about)
        return
    one, two = it.view.means([cell.values["nuclear_norm"][at_] for cell, at_ in ((reference, at), (other, other_at))])
    own = log_sizes(other)[other_at] - log_sizes(reference)[at]
    shared = sorted(set(reference.sample_ids) & set(other.sample_ids))
    equal = shared and np.array_equal(*(getattr(cut(cell, shared), by) for cell in (reference, other)))
    reason = "lengths equal already: separable_detailed is this comparison" if equal and what == "length" else ""
    yield from it.by_projection(relative_difference(one, two).mean(2), [other], [reference], own, reason=reason)


def matched(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of pairs of similar values, each used once: both sides in order of size; those too far are left out.

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
    it: Compared, draws: np.ndarray, n: int, one: Sequence[Cell], other: Sequence[Cell] = (), **about: Any
) -> Estimates:
    """One estimate a target of `_logs`: over all projections, then of each."""
    for projection, column in zip((OVERALL, *it.cells[0].projections), draws.T, strict=True):
        yield it.estimate(column, n, one, other, projection=projection, **about)


def _regression(it: Compared) -> tuple[dict, int] | None:
    """The fit of `regression` over all cells and its number of questions; None where its terms are collinear.

    Whole samples are drawn, with all their variants.
    """
    x, y = (np.concatenate(parts) for parts in zip(*map(_logs, it.cells), strict=True))
    usable = np.isfinite(x).all(1) & np.isfinite(y).all(1)
    variants = np.concatenate([np.full(len(cell.sample_ids), cell.variant) for cell in it.cells])[usable]
    names = np.concatenate([cell.sample_ids for cell in it.cells])[usable]
    if not separable(x[usable]):
        return None
    ids, questions = np.unique(names, return_inverse=True)
    own = [cell.variant for cell in it.cells]
    sums, shift = sums_of(x[usable], y[usable], variants, own, questions)
    return solve_least_squares(it.view.means(sums), shift, own), len(ids)


def _apart(cells: Mapping[str, Cell]) -> str:
    """Why None and Detailed cannot be compared at equal loss and length, or nothing.

    The rule: of each, half of the samples or more lie inside the others' range, in length and in loss.
    """
    for name in ("none", "detailed"):
        for column, what in (("response_tokens", "lengths"), ("loss", "losses")):
            others = np.concatenate([getattr(cell, column) for other, cell in cells.items() if other != name])
            own = getattr(cells[name], column)
            own, others = own[np.isfinite(own)], others[np.isfinite(others)]
            if not len(own) or not len(others):
                continue
            inside = (own >= others.min()) & (own <= others.max())
            if inside.mean() < 0.5:
                share = f"{inside.mean():.0%} of {name.capitalize()}'s {what}"
                return (
                    f"{share} lie inside the other variants' range; half are needed to compare at equal loss and length"
                )
    return ""


def _agreement(it: Compared, mistaken: bool) -> Estimates:
    right, wrong = it.cells
    preferred = margins(it.view, right, wrong)
    larger = log_sizes(wrong) - log_sizes(right)
    chosen = np.isfinite(preferred) & (preferred < 0 if mistaken else preferred != 0)
    columns = {OVERALL: larger.mean(1), **dict(zip(right.projections, larger.T, strict=True))}
    for projection, column in columns.items():
        agrees = np.sign(column[chosen]) == np.sign(preferred[chosen])
        if len(agrees):
            yield _share(it, agrees, projection)


def _share(it: Compared, agrees: np.ndarray, projection: str) -> GradientEstimate:
    hits, n = int(agrees.sum()), len(agrees)

    def tails(bound: float) -> tuple[float, float]:
        return tuple(float(stats.binomtest(hits, n, bound, alternative=side).pvalue) for side in ("greater", "less"))

    right, wrong = it.cells
    low, high = wilson(hits, n, Z)
    return GradientEstimate(
        value=hits / n,
        low=low,
        high=high,
        n=n,
        p_value=p_value(it.claim, hits / n, tails),
        test="binomial",
        scale=it.scale.name,
        projection=projection,
        **it.about,
        **sides([wrong], [right]),
    )


CONTROLS = {
    "length_matched_rd": Measure(length_matched_rd, RELATIVE, paired=False),
    "loss_matched_rd": Measure(loss_matched_rd, RELATIVE, paired=False),
    "explained_share": Measure(explained_share, SHARE, paired=False, least=2, partial=True),
    "residual_ratio": Measure(residual_ratio, RATIO, paired=False, least=2, partial=True),
    "belief": Measure(belief, SHARE),
    "belief_mistaken": Measure(belief_mistaken, SHARE),
    "evenness_exponent": Measure(evenness_exponent, PLAIN, paired=False, evenness=True),
}
