"""Kernels along a run: how long the ranking of responses by them lasts."""

from itertools import pairwise

import numpy as np
import polars as pl


def rank_agreement(rows: pl.DataFrame) -> tuple[list[str], list[int], np.ndarray]:
    """Kendall's tau (a) of k(o, .) from each stage of a run to the next, without k(o, o).

    `rows`: of the ``kernels`` table of one run. Returns the responses o, the steps at which intervals end, and the
    taus, (intervals, responses); of fewer than four responses, NaN.
    """
    keys, steps = rows["o"].unique(maintain_order=True).to_list(), rows["step"].unique().sort().to_list()
    place = {key: at for at, key in enumerate(keys)}
    stages = []
    for step in steps:
        part, matrix = rows.filter(pl.col("step") == step), np.zeros((len(keys), len(keys)))
        i, j = ([place[key] for key in part[side]] for side in ("o", "u"))
        matrix[i, j] = matrix[j, i] = part["value"].to_numpy()
        stages.append(matrix)
    taus = [[_tau(*pair, o) for o in range(len(keys))] for pair in pairwise(stages)]
    return keys, steps[1:], np.array(taus).reshape(len(steps) - 1, len(keys))


def _tau(one: np.ndarray, other: np.ndarray, o: int) -> float:
    others = np.arange(len(one)) != o
    above, below = np.triu_indices(len(one) - 1, 1)
    signs = [np.sign(each[o, others][above] - each[o, others][below]) for each in (one, other)]
    return float((signs[0] * signs[1]).mean()) if len(one) > 3 else np.nan
