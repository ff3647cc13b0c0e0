"""The claims about which types of responses move which: runs on the probed prompts, each with one type as its target.

Changes are a token, as the paper's SignDelta = E[Delta log pi] over tokens; accumulated over a run they are its end
less its start. The norms of A and G, by which the study's notebook divides, are left out. Other types are the paper's.
"""

import numpy as np

from gradatlas.claims.dynamics.runs import Curve, NothingMeasured, OnRuns
from gradatlas.claims.dynamics.training import Measure, along
from gradatlas.claims.estimates import CORRELATION, DynamicsEstimate

ROWS = (
    "chosen",
    "rejected",
    "chosen_semantic",
    "rejected_semantic",
    "irrelevant_train",
    "irrelevant_held_out",
    "unrelated",
    "random_tokens",
    "random_nonhum",
)
# Of a run on one side's rephrases: the other side's rephrases, and what those are rephrases of.
_OTHER_SIDE = {"chosen_semantic": ("rejected_semantic", "rejected"), "rejected_semantic": ("chosen_semantic", "chosen")}


def _curves(on: OnRuns, *types: str) -> list[Curve]:
    return on.curves(*((kind, "log_prob_mean") for kind in types))


def heat_diagonal(on: OnRuns) -> DynamicsEstimate:
    """The target's change less the largest of the others'; noise makes that too large, against the claim."""
    run = on.group.runs[on.run]
    if run.target not in run.types:
        raise NothingMeasured(f"{on.run} learns no type of probe that was followed")
    others = [kind for kind in ROWS if kind != run.target and kind in run.types]
    changes = np.stack([curve.change for curve in _curves(on, run.target, *others)], axis=1)
    (means,) = on.group.means(changes)
    return on.of_draws(means[:, 0] - means[:, 1:].max(1), len(changes))


def heat_rephrases(on: OnRuns) -> DynamicsEstimate:
    """The other side's rephrases' change less that of their originals."""
    target = on.group.runs[on.run].target
    if target not in _OTHER_SIDE:
        raise NothingMeasured(f"{on.run} learns no rephrases")
    one, two = _curves(on, *_OTHER_SIDE[target])
    return on.mean(one.change - two.change)


def ranks_stable(on: OnRuns) -> DynamicsEstimate:
    """Kendall's tau of the ranking of types by LBK = |Delta log pi|^2 / |A|^2 with that of the next window, averaged.

    A window lies between two evaluations; |G|^2 is the same for all types.
    """
    run = on.group.runs[on.run]
    types = [kind for kind in ROWS if kind in run.types]
    curves = _curves(on, *types)
    if len(curves[0].examples) < 3:
        raise NothingMeasured(f"{on.run} was evaluated less than three times")
    norms = [run.curve(kind, "a_norm").of(curves[0].prompts).values for kind in types]
    sizes = [np.diff(curve.values) ** 2 / norm[:, :-1] ** 2 for curve, norm in zip(curves, norms, strict=True)]
    (means,) = on.group.means(np.stack(sizes, axis=1))
    return on.of_draws(successive_taus(means), len(curves[0].prompts), CORRELATION)


def successive_taus(values: np.ndarray) -> np.ndarray:
    """Mean Kendall's tau (a) of each column's ranking and the next one's: (draws, items, windows) to (draws,)."""
    above, below = np.triu_indices(values.shape[1], 1)
    signs = np.sign(values[:, above] - values[:, below])
    return (signs[:, :, 1:] * signs[:, :, :-1]).mean((1, 2))


# Measured anywhere on their curves.
ALONG: dict[str, Measure] = {
    "heat_pairing": along(("irrelevant_train", "log_prob_mean"), ("irrelevant_held_out", "log_prob_mean")),
    "heat_dpo_falls": along(("", "log_prob_mean")),
    "heat_dpo_chosen": along(("chosen", "log_prob_mean")),
}
INFLUENCE = ALONG | {
    "heat_diagonal": heat_diagonal,
    "heat_rephrases": heat_rephrases,
    "ranks_stable": ranks_stable,
}
