"""The claims about finetuning runs: a function for each, from its runs (`OnRuns`) to an estimate.

All use the probes of trained prompts. Two runs or two types are compared prompt by prompt.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from scipy import stats

from gradatlas.claims.dynamics.runs import Curve, NothingMeasured, OnRuns
from gradatlas.claims.estimates import CORRELATION, DynamicsEstimate
from gradatlas.statistics.matching import reached

Measure = Callable[[OnRuns], DynamicsEstimate]
# One of the two evaluations around a margin has a growth that differs from it by at most this share.
_NEAR = 0.5
_MARGIN = (("chosen", "log_prob_sum"), ("rejected", "log_prob_sum"))


def along(*which: tuple[str, str], level: bool = False, sign: int = 1) -> Measure:
    """How much a run changes a curve up to the claim's place (`at`); of RUN:RUN, how much more the first run does.

    `which`: the (type, measure) of the curve, or two, whose difference it is; an empty type is the claim's. `level`:
    the curve itself, not its change.
    """

    def measured(on: OnRuns) -> DynamicsEstimate:
        names = (*which, *_margin(on))
        curves = on.curves(*names)
        sides = [curves[first : first + len(names)] for first in range(0, len(curves), len(names))]
        values = [side[0].values - sum(curve.values for curve in side[1 : len(which)]) for side in sides]
        paths = values if level else [each - each[:, :1] for each in values]
        if on.margin:
            growths = [_growth(on, run, *side[-2:]) for run, side in zip(on.runs, sides, strict=True)]
            draws = [
                at_margin(*on.group.means(growth, path), on.margin) for growth, path in zip(growths, paths, strict=True)
            ]
            found = on.of_draws(sign * _less(draws), len(paths[0]))
        else:
            rises = on.claim.direction == "above"
            found = on.mean(sign * _less(_where(on, [side[0] for side in sides], paths, rises)))
        return replace(found, headroom=_headroom(on, which, sign, values))

    return measured


def _less(sides: Sequence[np.ndarray]) -> np.ndarray:
    return sides[0] - sum(sides[1:])


def _headroom(on: OnRuns, which: Sequence[tuple[str, str]], sign: int, values: Sequence[np.ndarray]) -> float | None:
    """How far a curve that is claimed to rise could rise: to log 1, or to |A| where one token is certain.

    Of RUN:RUN, the curve of the run that is claimed to rise more. None where nothing limits the number: logarithms have
    no lowest value.
    """
    above, (_, measure) = on.claim.direction == "above", which[0]
    if len(which) > 1 or sign < 0 or not (above or on.other):
        return None
    run, start = on.runs[0 if above else -1], values[0 if above else -1][:, 0]
    vocabulary = on.group.runs[run].vocabulary
    highest = {"argmax_log_prob": 0.0, "argmax_mean": 0.0, "a_norm": vocabulary and np.sqrt(2 * vocabulary - 2)}
    return None if highest.get(measure) is None else float(highest[measure] - start.mean())


def _margin(on: OnRuns) -> tuple[tuple[str, str], ...]:
    return _MARGIN if on.margin else ()


def _growth(on: OnRuns, run: str, chosen: Curve, rejected: Curve) -> np.ndarray:
    """Each prompt's growth of the margin, (prompts, evaluations).

    `NothingMeasured` where it never grows as far, or past by so much between two evaluations that neither is near.
    """
    margin = chosen.values - rejected.values
    growth = margin - margin[:, :1]
    mean = growth.mean(0)
    if mean.max() < on.margin:
        raise NothingMeasured(
            f"no number: the margin of {run} grows by {mean.max():.3g} nats at most, not by {on.margin:g}"
        )
    after = int((mean >= on.margin).argmax())
    near = mean[after - 1 : after + 1]
    if np.abs(near - on.margin).min() > _NEAR * on.margin:
        raise NothingMeasured(
            f"no number: the margin of {run} grows from {near[0]:.3g} to {near[1]:.3g} nats between two evaluations, "
            f"too far from {on.margin:g}"
        )
    return growth


def at_margin(growths: np.ndarray, values: np.ndarray, nats: float) -> np.ndarray:
    """`values` where the margin has first grown by `nats`, (draws,); curves (draws, evaluations), joined by lines.

    A resample whose margin never grows as far counts where it is largest.
    """
    return reached(growths, values[..., None], np.minimum(nats, growths.max(1)))[:, 0]


def _where(on: OnRuns, curves: Sequence[Curve], paths: Sequence[np.ndarray], rises: bool) -> list[np.ndarray]:
    """Each prompt's value at the end, at equal examples or at the peak, (prompts,) of each run.

    `rises`: whether a peak is a maximum. The start is none.
    """
    if on.at == "end":
        return [path[:, -1] for path in paths]
    if on.at == "equal_examples":
        last = np.intersect1d(*(curve.examples for curve in curves))[-1]
        if not last:
            raise NothingMeasured(f"{on.run} and {on.other} were never evaluated after the same number of examples")
        return [path[:, curve.examples == last][:, 0] for curve, path in zip(curves, paths, strict=True)]
    ((prompts, evaluations),) = (path.shape for path in paths)
    if prompts < 2 or evaluations < 2:
        raise NothingMeasured(f"{on.run} was evaluated once, or on one prompt")
    peaks = 1 + split_peaks(paths[0][:, 1:] if rises else -paths[0][:, 1:])
    return [paths[0][np.arange(prompts), peaks]]


def split_peaks(path: np.ndarray) -> np.ndarray:
    """By prompt, where the mean curve of the other half of the prompts is highest: (prompts, n) to (prompts,).

    A peak found on the same prompts lies too high: noise alone has one.
    """
    half = np.arange(len(path)) % 2
    return np.take([int(path[half != which].mean(0).argmax()) for which in (0, 1)], half)


def _turn(on: OnRuns) -> DynamicsEstimate:
    """The smaller of the rise to the peak, which lies between the first and the last evaluation, and the fall from it.

    A peak found on the same probes would make both at least 0.
    """
    (curve,) = on.curves(("", "log_prob_sum"))
    if len(curve.examples) < 3 or len(curve.prompts) < 2:
        raise NothingMeasured(f"{on.run} was not evaluated between its start and its end")
    prompts = np.arange(len(curve.prompts))
    top = curve.values[prompts, 1 + split_peaks(curve.values[:, 1:-1])]
    (means,) = on.group.means(top[:, None] - curve.values[:, [0, -1]])
    return on.of_draws(means.min(1), len(prompts))


def rarer_squeezes_more(on: OnRuns) -> DynamicsEstimate:
    """Spearman's correlation over prompts; in a resample the ranks, and the place on the curves, stay those of all."""
    rejected, argmax, *side = on.curves(("rejected", "log_prob_mean"), ("chosen", "argmax_mean"), *_margin(on))
    path = argmax.values - argmax.values[:, :1]
    if on.margin:
        growth = _growth(on, on.run, *side).mean(0, keepdims=True)
        (rise,) = reached(growth, path.T[None], np.array([on.margin]))
    else:
        (rise,) = _where(on, [argmax], [path], rises=True)
    x, y = (stats.rankdata(values) for values in (rejected.values[:, 0], rise))
    (sums,) = on.group.means(np.stack([x, y, x * x, y * y, x * y], axis=1))
    mx, my, xx, yy, xy = sums.T
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = (xy - mx * my) / np.sqrt((xx - mx**2) * (yy - my**2))
    return on.of_draws(draws, len(x), CORRELATION)


# Measured anywhere on their curves.
ALONG: dict[str, Measure] = {
    "sft_chosen_rises": along(("chosen", "log_prob_sum")),
    "sft_pairing_rises": along(("irrelevant_train", "log_prob_sum")),
    "sft_pairing_beyond": along(("irrelevant_train", "log_prob_sum"), ("irrelevant_held_out", "log_prob_sum")),
    "sft_disorder_falls": along(("", "log_prob_sum")),
    "dpo_chosen_falls": along(("chosen", "log_prob_sum")),
    "dpo_rejected_falls": along(("rejected", "log_prob_sum")),
    "dpo_others_fall": along(("", "log_prob_sum")),
    "dpo_margin_widens": along(*_MARGIN),
    "dpo_argmax_rises": along(("chosen", "argmax_log_prob")),
    "dpo_argmax_rises_shuffled": along(("random_nonhum", "argmax_log_prob")),
    "length_argmax": along(("chosen", "argmax_mean")),
    "length_chosen": along(("chosen", "log_prob_sum"), sign=-1),
    "extend_rejected_higher": along(("rejected", "log_prob_sum"), level=True),
    "extend_chosen_slower": along(("chosen", "log_prob_sum")),
    "extend_others_slower": along(("", "log_prob_sum")),
    "extend_argmax_lower": along(("chosen", "argmax_log_prob"), level=True),
    "extend_argmax_slower": along(("chosen", "argmax_log_prob")),
    "a_norm_grows": along(("chosen", "a_norm")),
    "argmax_grows": along(("chosen", "argmax_log_prob")),
    "rest_falls": along(("chosen", "rest_log_mass")),
    "dpo_a_norm_faster": along(("chosen", "a_norm")),
    "dpo_rest_faster": along(("chosen", "rest_log_mass")),
    "off_policy_argmax": along(("chosen", "argmax_mean")),
    "off_policy_chosen": along(("chosen", "log_prob_sum"), sign=-1),
    "rarer_squeezes_more": rarer_squeezes_more,
}
TRAINING = ALONG | {"sft_rejected_turns": _turn, "sft_rephrases_turn": _turn}
