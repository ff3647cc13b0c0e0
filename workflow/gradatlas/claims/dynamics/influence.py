"""The claims about which types of responses move which: runs on the probed prompts, each with one type as its target.

Changes are a token, as the paper's SignDelta = E[Delta log pi] over tokens; accumulated over a run they are its end
less its start. The norms of A and G, by which the study's notebook divides, are left out. Other types are the paper's.
"""

import numpy as np

from gradatlas.claims.dynamics.runs import Curve, NothingMeasured, RunGroup, alike, of_differences, of_draws
from gradatlas.claims.dynamics.training import Measure
from gradatlas.claims.estimates import CORRELATION, DynamicsEstimate
from gradatlas.claims.sheet import DynamicsClaim

ROWS = (
    "chosen",
    "rejected",
    "chosen_semantic",
    "rejected_semantic",
    "irrelevant_train",
    "irrelevant_held_out",
    "unrelated",
    "random_tokens",
)
# Of a run on one side's rephrases: the other side's rephrases, and what those are rephrases of.
_OTHER_SIDE = {"chosen_semantic": ("rejected_semantic", "rejected"), "rejected_semantic": ("chosen_semantic", "chosen")}


def _curves(group: RunGroup, run: str, *types: str) -> list[Curve]:
    return alike(*(group.runs[run].curve(kind, "log_prob_mean") for kind in types))


def heat_diagonal(group: RunGroup, claim: DynamicsClaim, run: str, other: str, of: str) -> DynamicsEstimate:
    """The target's change less the largest of the others'; noise makes that too large, against the claim."""
    own = group.runs[run].target
    if own not in group.runs[run].types:
        raise NothingMeasured(f"{run} learns no type of probe that was followed")
    others = [kind for kind in ROWS if kind != own and kind in group.runs[run].types]
    changes = np.stack([curve.change for curve in _curves(group, run, own, *others)], axis=1)
    (means,) = group.means(changes)
    return of_draws(claim, means[:, 0] - means[:, 1:].max(1), len(changes))


def heat_rephrases(group: RunGroup, claim: DynamicsClaim, run: str, other: str, of: str) -> DynamicsEstimate:
    """The other side's rephrases' change less that of their originals."""
    if group.runs[run].target not in _OTHER_SIDE:
        raise NothingMeasured(f"{run} learns no rephrases")
    one, two = _curves(group, run, *_OTHER_SIDE[group.runs[run].target])
    return of_differences(group, claim, one.change - two.change)


def heat_pairing(group: RunGroup, claim: DynamicsClaim, run: str, other: str, of: str) -> DynamicsEstimate:
    """Other questions' answers of the training split, less those of the held-out one."""
    one, two = _curves(group, run, "irrelevant_train", "irrelevant_held_out")
    return of_differences(group, claim, one.change - two.change)


def heat_dpo_falls(group: RunGroup, claim: DynamicsClaim, run: str, other: str, of: str) -> DynamicsEstimate:
    """A type's own change."""
    return of_differences(group, claim, _curves(group, run, of)[0].change)


def heat_dpo_chosen(group: RunGroup, claim: DynamicsClaim, run: str, other: str, of: str) -> DynamicsEstimate:
    """The chosen responses' change."""
    return of_differences(group, claim, _curves(group, run, "chosen")[0].change)


def ranks_stable(group: RunGroup, claim: DynamicsClaim, run: str, other: str, of: str) -> DynamicsEstimate:
    """Kendall's tau of the ranking of types by LBK = |Delta log pi|^2 / |A|^2 with that of the next window, averaged.

    A window lies between two evaluations; |G|^2 is the same for all types.
    """
    types = [kind for kind in ROWS if kind in group.runs[run].types]
    curves = _curves(group, run, *types)
    if len(curves[0].examples) < 3:
        raise NothingMeasured(f"{run} was evaluated less than three times")
    norms = [group.runs[run].curve(kind, "a_norm").of(curves[0].prompts).values for kind in types]
    sizes = [np.diff(curve.values) ** 2 / norm[:, :-1] ** 2 for curve, norm in zip(curves, norms, strict=True)]
    (means,) = group.means(np.stack(sizes, axis=1))
    return of_draws(claim, successive_taus(means), len(curves[0].prompts), CORRELATION)


def successive_taus(values: np.ndarray) -> np.ndarray:
    """Mean Kendall's tau (a) of each column's ranking and the next one's: (draws, items, windows) to (draws,)."""
    above, below = np.triu_indices(values.shape[1], 1)
    signs = np.sign(values[:, above] - values[:, below])
    return (signs[:, :, 1:] * signs[:, :, :-1]).mean((1, 2))


INFLUENCE: dict[str, Measure] = {
    function.__name__: function
    for function in (heat_diagonal, heat_rephrases, heat_pairing, heat_dpo_falls, heat_dpo_chosen, ranks_stable)
}
