"""The clipped objective of PPO and GRPO compared with DPO's negative gradient, on one softmax.

Per token, with r = pi(y) / pi_old(y) and an advantage A, the loss is L = -min(r A, clip(r, 1 - e, 1 + e) A) (Schulman
et al. 2017, equation 7; GRPO takes the same with A = (R - mean) / std over a group of answers, Shao et al. 2024). Its
residual on the logits is

    G = dL/dz = A r (pi - e_y)      inside the clip,
    G = 0                           once A > 0 and r > 1 + e, or A < 0 and r < 1 - e.

DPO's rejected side has G = -b sigma(-m) (pi - e_y), with m = -b log(pi(y) / pi_ref(y)) for a constant chosen side: it
decreases as the margin grows, but is never 0. A KL penalty to a reference model is not included.
"""

from collections.abc import Callable, Iterator

import numpy as np
from scipy.special import expit, log_softmax, softmax

from gradatlas.toys.squeeze import cases

#: PPO's own clip, DPO's usual beta.
EPSILON, BETA = 0.2, 0.1


def _clipped(log_ratio: float) -> float:
    """The ratio r, or 0 outside of the clip of a negative advantage; the bound is inside."""
    return 0.0 if log_ratio < np.log1p(-EPSILON) else float(np.exp(log_ratio))


def _direction(z: np.ndarray, y: int) -> np.ndarray:
    direction = softmax(z)
    direction[y] -= 1
    return direction


#: By objective, the size of the residual over that at the start, from log(pi(y) / pi_old(y)) or, DPO's, from
#: log(pi(y) / pi_ref(y)). `renewed`: as `clipped`, but pi_old is the policy of the last multiple of RENEWAL steps, and
#: the same token is scored again, although such a policy would hardly draw it.
OBJECTIVES: dict[str, Callable[[float], float]] = {
    # Half of beta is DPO's at the start.
    "dpo": lambda log_ratio: 2 * float(expit(BETA * log_ratio)),
    "clipped": _clipped,
    "renewed": _clipped,
}
STEPS, SIZE, RENEWAL = 200, 0.1, 20
#: The softmaxes: the squeezing cases whose label is pushed down (flat, on a peak, in a valley).
SOFTMAXES = ("B", "C", "D")


def rows() -> Iterator[dict]:
    """Rows of the `toy_clip` table: the softmax along `STEPS` steps against one label under each objective.

    Steps are scaled so that the first one changes the logits by `SIZE` (p - e_y) under every objective. `coefficient`:
    the factor of `SIZE` (p - e_y) in the next step, 1 at the start. `winner`: the most likely other label at the start.
    `entropy`: in nats.
    """
    for case in cases():
        if case.name in SOFTMAXES:
            for objective in OBJECTIVES:
                yield from _run(case.name, case.z, case.down, objective)


def _run(name: str, z: np.ndarray, y: int, objective: str) -> Iterator[dict]:
    start = old = float(log_softmax(z)[y])
    others = np.delete(np.arange(len(z)), y)
    winner = int(others[z[others].argmax()])
    for step in range(STEPS + 1):
        log_p = log_softmax(z)
        if objective == "renewed" and step % RENEWAL == 0:
            old = float(log_p[y])
        coefficient = OBJECTIVES[objective](log_p[y] - (start if objective == "dpo" else old))
        yield {
            "case": name,
            "objective": objective,
            "step": step,
            "log_prob": float(log_p[y]),
            "winner_prob": float(np.exp(log_p[winner])),
            "median_log_prob": float(np.median(np.delete(log_p, [y, winner]))),
            "entropy": float(-(np.exp(log_p) * log_p).sum()),
            "coefficient": coefficient,
        }
        z = z + SIZE * coefficient * _direction(z, y)


def squeezed(table: list[dict]) -> dict[tuple[str, str], dict[str, float]]:
    """From `toy_clip` rows, by (case, objective): the changes from the first to the last step.

    `winner_gain`, `median_log_ratio` of the other labels, `entropy_loss`, and `steps`: the number with a gradient.
    """
    found = {}
    for key in dict.fromkeys((row["case"], row["objective"]) for row in table):
        own = sorted((row for row in table if (row["case"], row["objective"]) == key), key=lambda row: row["step"])
        first, last = own[0], own[-1]
        found[key] = {
            "winner_gain": last["winner_prob"] - first["winner_prob"],
            "median_log_ratio": last["median_log_prob"] - first["median_log_prob"],
            "entropy_loss": first["entropy"] - last["entropy"],
            "steps": sum(row["coefficient"] > 0 for row in own[:-1]),
        }
    return found
