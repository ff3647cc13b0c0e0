"""What the checks of single steps come to: how well first-order theory predicts them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By update, loss and trained weights: `slope`, `order`, `share` and `n` (probes).

    `slope`: of measured on predicted changes (through 0), at the smallest step. `order`: the factor by which the
    residual falls when the step is halved (geometric mean over halvings). `share`: the slope of the projections' part
    on the prediction.
    """
    groups: dict[tuple, dict[int, list[Mapping[str, Any]]]] = {}
    for row in rows:
        steps = groups.setdefault((row["trained"], row["loss"], row["pair_id"]), {})
        steps.setdefault(row["halving"], []).append(row)
    found = []
    for (trained, loss, pair_id), steps in groups.items():
        fits = {}
        for halving, group in steps.items():
            predicted, captured, measured = (
                np.array([r[k] for r in group]) for k in ("predicted", "captured", "measured")
            )
            square = float(predicted @ predicted)
            fits[halving] = (
                float(predicted @ measured) / square,
                float(np.sqrt(np.mean((measured - predicted) ** 2))),
                float(predicted @ captured) / square,
            )
        last = max(fits)
        found.append(
            {
                "trained": trained,
                "loss": loss,
                "pair_id": pair_id,
                "slope": fits[last][0],
                "order": (fits[0][1] / fits[last][1]) ** (1 / last),
                "share": fits[last][2],
                "n": len(steps[last]),
            }
        )
    return found
