"""The claims about finetuning runs: a function for each, from its runs (`OnRuns`) to an estimate.

All use the probes of trained prompts. Two runs or two types are compared prompt by prompt.
"""

from collections.abc import Callable

import numpy as np
from scipy import stats

from gradatlas.claims.dynamics.runs import NothingMeasured, OnRuns
from gradatlas.claims.estimates import CORRELATION, DynamicsEstimate
from gradatlas.statistics.matching import reached

Measure = Callable[[OnRuns], DynamicsEstimate]


def change(kind: str = "", measure: str = "log_prob_sum") -> Measure:
    """A run's change of one measure of a type of probe; `kind` empty: the claim's type."""
    return lambda on: on.mean(on.curves((kind, measure))[0].change)


def between(one: str, two: str, measure: str = "log_prob_sum") -> Measure:
    """How much more a run changes one type than another."""

    def measured(on: OnRuns) -> DynamicsEstimate:
        first, second = on.curves((one, measure), (two, measure))
        return on.mean(first.change - second.change)

    return measured


def _against(kind: str, measure: str = "log_prob_sum", sign: int = 1) -> Measure:
    """How much more the first run changes a type than the second, up to their last evaluation at equal examples."""

    def measured(on: OnRuns) -> DynamicsEstimate:
        curves = on.curves((kind, measure), both=True)
        at = np.intersect1d(*(curve.examples for curve in curves))[-1]
        if not at:
            raise NothingMeasured(f"{on.run} and {on.other} were never evaluated after the same number of examples")
        one, two = (curve.values[:, curve.examples.tolist().index(at)] - curve.values[:, 0] for curve in curves)
        return on.mean(sign * (one - two))

    return measured


def _level(kind: str, measure: str = "log_prob_sum") -> Measure:
    """How far the first run's end lies above the second's."""

    def measured(on: OnRuns) -> DynamicsEstimate:
        one, two = on.curves((kind, measure), both=True)
        return on.mean(one.values[:, -1] - two.values[:, -1])

    return measured


def _turn(on: OnRuns) -> DynamicsEstimate:
    """The smaller of the rise to the peak and the fall from it.

    A peak found on the same probes would make both at least 0. So the probes are split in two halves, and each half's
    peak is found on the other half, between the first and the last evaluation.
    """
    (curve,) = on.curves(("", "log_prob_sum"))
    if len(curve.examples) < 3 or len(curve.prompts) < 2:
        raise NothingMeasured(f"{on.run} was not evaluated between its start and its end")
    half = np.arange(len(curve.prompts)) % 2
    peaks = [1 + int(curve.values[half != which, 1:-1].mean(0).argmax()) for which in (0, 1)]
    top = curve.values[np.arange(len(half)), np.take(peaks, half)]
    (means,) = on.group.means(top[:, None] - curve.values[:, [0, -1]])
    return on.of_draws(means.min(1), len(half))


def _at_equal_margin(kind: str, measure: str, sign: int = 1) -> Measure:
    """How much more the first run has changed a type than the second at equal margin.

    The margin is the largest that both reach; between evaluations the mean curves are joined by lines.
    """

    def measured(on: OnRuns) -> DynamicsEstimate:
        curves = on.curves(("chosen", "log_prob_sum"), ("rejected", "log_prob_sum"), (kind, measure), both=True)
        since = [curve.values - curve.values[:, :1] for curve in curves]
        means = on.group.means(*since)
        margins = [means[0] - means[1], means[3] - means[4]]
        levels = np.minimum(*(margin.max(1) for margin in margins))
        one, two = (at_margin(margin, values, levels) for margin, values in zip(margins, means[2::3], strict=True))
        return on.of_draws(sign * (one - two), len(since[0]))

    return measured


def at_margin(margins: np.ndarray, values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """`values` where `margins` first reach `levels`, (draws,); curves (draws, evaluations), joined by lines.

    NaN where the margin to reach is not above the first one.
    """
    return np.where(levels > margins[:, 0], reached(margins, values[..., None], levels)[:, 0], np.nan)


def rarer_squeezes_more(on: OnRuns) -> DynamicsEstimate:
    """Spearman's correlation over prompts; in a resample the ranks stay those of all prompts."""
    rejected, argmax = on.curves(("rejected", "log_prob_mean"), ("chosen", "argmax_mean"))
    x, y = (stats.rankdata(values) for values in (rejected.values[:, 0], argmax.change))
    (sums,) = on.group.means(np.stack([x, y, x * x, y * y, x * y], axis=1))
    mx, my, xx, yy, xy = sums.T
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = (xy - mx * my) / np.sqrt((xx - mx**2) * (yy - my**2))
    return on.of_draws(draws, len(x), CORRELATION)


TRAINING: dict[str, Measure] = {
    "sft_chosen_rises": change("chosen"),
    "sft_rejected_turns": _turn,
    "sft_rephrases_turn": _turn,
    "sft_pairing_rises": change("irrelevant_train"),
    "sft_pairing_beyond": between("irrelevant_train", "irrelevant_held_out"),
    "sft_disorder_falls": change(),
    "dpo_chosen_falls": change("chosen"),
    "dpo_rejected_falls": change("rejected"),
    "dpo_others_fall": change(),
    "dpo_margin_widens": between("chosen", "rejected"),
    "dpo_argmax_rises": change("chosen", "argmax_log_prob"),
    "dpo_argmax_rises_shuffled": change("random_nonhum", "argmax_log_prob"),
    "length_argmax": _against("chosen", "argmax_mean"),
    "length_chosen": _against("chosen", sign=-1),
    "length_argmax_margin": _at_equal_margin("chosen", "argmax_mean"),
    "length_chosen_margin": _at_equal_margin("chosen", "log_prob_sum", sign=-1),
    "extend_rejected_higher": _level("rejected"),
    "extend_chosen_slower": _against("chosen"),
    "extend_others_slower": _against(""),
    "extend_argmax_lower": _level("chosen", "argmax_log_prob"),
    "extend_argmax_slower": _against("chosen", "argmax_log_prob"),
    "a_norm_grows": change("chosen", "a_norm"),
    "argmax_grows": change("chosen", "argmax_log_prob"),
    "rest_falls": change("chosen", "rest_log_mass"),
    "dpo_a_norm_faster": _against("chosen", "a_norm"),
    "dpo_rest_faster": _against("chosen", "rest_log_mass"),
    "off_policy_argmax": _against("chosen", "argmax_mean"),
    "off_policy_chosen": _against("chosen", sign=-1),
    "rarer_squeezes_more": rarer_squeezes_more,
}
