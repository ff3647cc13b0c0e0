"""The claims about finetuning runs, one function each: a group of runs, a claim, a run (or two) and a type of probe.

All on the probes of trained prompts. Of two runs or two types, each prompt is its own pair.
"""

from collections.abc import Callable

import numpy as np
from scipy import stats

from gradatlas.claims.dynamics.runs import Curve, NothingMeasured, RunGroup, alike, of_differences, of_draws
from gradatlas.claims.estimates import CORRELATION, DynamicsEstimate
from gradatlas.claims.sheet import DynamicsClaim
from gradatlas.statistics.matching import reached

# Of a group of runs, a claim, a run, the run that it is compared with (or ""), and a type of probe (or "").
Measure = Callable[[RunGroup, DynamicsClaim, str, str, str], DynamicsEstimate]


def _change(kind: str = "", measure: str = "log_prob_sum") -> Measure:
    """A run's change of one measure, of this type or of the claim's."""

    def measured(group: RunGroup, claim: DynamicsClaim, run: str, other: str, of: str) -> DynamicsEstimate:
        return of_differences(group, claim, group.runs[run].curve(kind or of, measure).change)

    return measured


def _between(one: str, two: str) -> Measure:
    """How much more a run changes one type than another."""

    def measured(group: RunGroup, claim: DynamicsClaim, run: str, other: str, of: str) -> DynamicsEstimate:
        curves = alike(*(group.runs[run].curve(kind) for kind in (one, two)))
        return of_differences(group, claim, curves[0].change - curves[1].change)

    return measured


def _against(kind: str, measure: str = "log_prob_sum", sign: int = 1) -> Measure:
    """How much more the first run changes a type than the second, over the most examples that both were watched at."""

    def measured(group: RunGroup, claim: DynamicsClaim, run: str, other: str, of: str) -> DynamicsEstimate:
        curves = alike(*(group.runs[name].curve(kind or of, measure) for name in (run, other)))
        at = np.intersect1d(*(curve.examples for curve in curves))[-1]
        if not at:
            raise NothingMeasured(f"{run} and {other} were watched at no equal number of examples")
        one, two = (_until(curve, at) for curve in curves)
        return of_differences(group, claim, sign * (one - two))

    return measured


def _until(curve: Curve, examples: int) -> np.ndarray:
    return curve.values[:, curve.examples.tolist().index(examples)] - curve.values[:, 0]


def _level(kind: str, measure: str = "log_prob_sum") -> Measure:
    """How far the first run's end lies above the second's."""

    def measured(group: RunGroup, claim: DynamicsClaim, run: str, other: str, of: str) -> DynamicsEstimate:
        one, two = alike(*(group.runs[name].curve(kind, measure) for name in (run, other)))
        return of_differences(group, claim, one.values[:, -1] - two.values[:, -1])

    return measured


def _turn(group: RunGroup, claim: DynamicsClaim, run: str, other: str, of: str) -> DynamicsEstimate:
    """The smaller of the rise to the peak and the fall from it.

    A peak found on the same probes would make both at least 0; each half's is found on the other half, between the
    first and the last evaluation.
    """
    curve = group.runs[run].curve(of)
    if len(curve.examples) < 3 or len(curve.prompts) < 2:
        raise NothingMeasured(f"{run} was not watched between its start and its end")
    half = np.arange(len(curve.prompts)) % 2
    peaks = [1 + int(curve.values[half != which, 1:-1].mean(0).argmax()) for which in (0, 1)]
    top = curve.values[np.arange(len(half)), np.take(peaks, half)]
    (means,) = group.means(top[:, None] - curve.values[:, [0, -1]])
    return of_draws(claim, means.min(1), len(half))


def _at_equal_margin(kind: str, measure: str, sign: int = 1) -> Measure:
    """How much more the first run has changed a type than the second when both have widened the margin as far.

    As far as the one that ends with less does; between evaluations the mean curves are joined by lines.
    """

    def measured(group: RunGroup, claim: DynamicsClaim, run: str, other: str, of: str) -> DynamicsEstimate:
        needed = [("chosen", "log_prob_sum"), ("rejected", "log_prob_sum"), (kind, measure)]
        curves = alike(*(group.runs[name].curve(*which) for name in (run, other) for which in needed))
        since = [curve.values - curve.values[:, :1] for curve in curves]
        means = group.means(*since)
        margins = [means[0] - means[1], means[3] - means[4]]
        levels = np.minimum(*(margin.max(1) for margin in margins))
        one, two = (at_margin(margin, values, levels) for margin, values in zip(margins, means[2::3], strict=True))
        return of_draws(claim, sign * (one - two), len(since[0]))

    return measured


def at_margin(margins: np.ndarray, values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """`values` where `margins` first reach `levels`, (draws,); curves (draws, evaluations), joined by lines.

    NaN where the margin to reach is not above the first one.
    """
    return np.where(levels > margins[:, 0], reached(margins, values[..., None], levels)[:, 0], np.nan)


def rarer_squeezes_more(group: RunGroup, claim: DynamicsClaim, run: str, other: str, of: str) -> DynamicsEstimate:
    """Spearman's correlation over prompts; in a resample the ranks stay those of all prompts."""
    rejected, argmax = alike(
        group.runs[run].curve("rejected", "log_prob_mean"), group.runs[run].curve("chosen", "argmax_mean")
    )
    x, y = (stats.rankdata(values) for values in (rejected.values[:, 0], argmax.change))
    (sums,) = group.means(np.stack([x, y, x * x, y * y, x * y], axis=1))
    mx, my, xx, yy, xy = sums.T
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = (xy - mx * my) / np.sqrt((xx - mx**2) * (yy - my**2))
    return of_draws(claim, draws, len(x), CORRELATION)


TRAINING: dict[str, Measure] = {
    "sft_chosen_rises": _change("chosen"),
    "sft_rejected_turns": _turn,
    "sft_rephrases_turn": _turn,
    "sft_pairing_rises": _change("irrelevant_train"),
    "sft_pairing_beyond": _between("irrelevant_train", "irrelevant_held_out"),
    "sft_disorder_falls": _change(),
    "dpo_chosen_falls": _change("chosen"),
    "dpo_rejected_falls": _change("rejected"),
    "dpo_others_fall": _change(),
    "dpo_margin_widens": _between("chosen", "rejected"),
    "dpo_argmax_rises": _change("chosen", "argmax_log_prob"),
    "dpo_argmax_rises_shuffled": _change("permuted", "argmax_log_prob"),
    "length_argmax": _against("chosen", "argmax_mean"),
    "length_chosen": _against("chosen", sign=-1),
    "length_argmax_margin": _at_equal_margin("chosen", "argmax_mean"),
    "length_chosen_margin": _at_equal_margin("chosen", "log_prob_sum", sign=-1),
    "extend_rejected_higher": _level("rejected"),
    "extend_chosen_slower": _against("chosen"),
    "extend_others_slower": _against(""),
    "extend_argmax_lower": _level("chosen", "argmax_log_prob"),
    "extend_argmax_slower": _against("chosen", "argmax_log_prob"),
    "a_norm_grows": _change("chosen", "a_norm"),
    "argmax_grows": _change("chosen", "argmax_log_prob"),
    "rest_falls": _change("chosen", "rest_log_mass"),
    "dpo_a_norm_faster": _against("chosen", "a_norm"),
    "dpo_rest_faster": _against("chosen", "rest_log_mass"),
    "off_policy_argmax": _against("chosen", "argmax_mean"),
    "off_policy_chosen": _against("chosen", sign=-1),
    "rarer_squeezes_more": rarer_squeezes_more,
}
