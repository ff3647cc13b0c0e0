"""The claims about which types of responses move which: runs on the probed prompts, each with one type as its target.

Changes are a token, as the paper's SignDelta = E[Delta log pi] over tokens; accumulated over a run they are its end
less its start. The norms of A and G, by which the study's notebook divides, are left out. Other types are the paper's.
"""

import numpy as np

from workflow.lib.statistics.claims.evidence import CORRELATION, Claim, Estimate
from workflow.lib.statistics.dynamics_claims.evidence import (
    Curve,
    NothingMeasured,
    Room,
    alike,
    nothing,
    of_differences,
    of_draws,
)
from workflow.lib.statistics.dynamics_claims.training import Measure, relation_of

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


def _curves(room: Room, run: str, *types: str) -> list[Curve]:
    return alike(*(room.runs[run].curve(kind, "log_prob_mean") for kind in types))


def heat_diagonal(room: Room, claim: Claim, run: str, other: str, of: str) -> Estimate:
    """The target's change less the largest of the others'; noise makes that too large, against the claim."""
    own = room.runs[run].target
    if own not in room.runs[run].types:
        raise NothingMeasured(f"{run} learns no type of probe that was followed")
    others = [kind for kind in ROWS if kind != own and kind in room.runs[run].types]
    changes = np.stack([curve.change for curve in _curves(room, run, own, *others)], axis=1)
    (means,) = room.means(changes)
    return of_draws(claim, means[:, 0] - means[:, 1:].max(1), len(changes), relation_of(run, of))


def heat_rephrases(room: Room, claim: Claim, run: str, other: str, of: str) -> Estimate:
    """The other side's rephrases' change less that of their originals."""
    if room.runs[run].target not in _OTHER_SIDE:
        raise NothingMeasured(f"{run} learns no rephrases")
    one, two = _curves(room, run, *_OTHER_SIDE[room.runs[run].target])
    return of_differences(room, claim, one.change - two.change, relation_of(run, of))


def heat_pairing(room: Room, claim: Claim, run: str, other: str, of: str) -> Estimate:
    """Other questions' answers of the training split, less those of the held-out one."""
    one, two = _curves(room, run, "irrelevant_train", "irrelevant_held_out")
    return of_differences(room, claim, one.change - two.change, relation_of(run, of))


def heat_dpo_falls(room: Room, claim: Claim, run: str, other: str, of: str) -> Estimate:
    """A type's own change."""
    return of_differences(room, claim, _curves(room, run, of)[0].change, relation_of(run, of))


def heat_dpo_chosen(room: Room, claim: Claim, run: str, other: str, of: str) -> Estimate:
    """The chosen responses' change."""
    return of_differences(room, claim, _curves(room, run, "chosen")[0].change, relation_of(run, of))


def ranks_stable(room: Room, claim: Claim, run: str, other: str, of: str) -> Estimate:
    """Kendall's tau of the ranking of types by LBK = |Delta log pi|^2 / |A|^2 with that of the next window, averaged.

    A window lies between two evaluations; |G|^2 is the same for all types.
    """
    types = [kind for kind in ROWS if kind in room.runs[run].types]
    curves = _curves(room, run, *types)
    if len(curves[0].examples) < 3:
        return nothing(relation_of(run, of), f"{run} was evaluated less than three times")
    norms = [room.runs[run].curve(kind, "a_norm").of(curves[0].prompts).values for kind in types]
    told = [np.diff(curve.values) ** 2 / norm[:, :-1] ** 2 for curve, norm in zip(curves, norms, strict=True)]
    (means,) = room.means(np.stack(told, axis=1))
    return of_draws(claim, successive_taus(means), len(curves[0].prompts), relation_of(run, of), CORRELATION)


def successive_taus(values: np.ndarray) -> np.ndarray:
    """Mean Kendall's tau (a) of each column's ranking and the next one's: (draws, items, windows) to (draws,)."""
    above, below = np.triu_indices(values.shape[1], 1)
    signs = np.sign(values[:, above] - values[:, below])
    return (signs[:, :, 1:] * signs[:, :, :-1]).mean((1, 2))


INFLUENCE: dict[str, Measure] = {
    function.__name__: function
    for function in (heat_diagonal, heat_rephrases, heat_pairing, heat_dpo_falls, heat_dpo_chosen, ranks_stable)
}
