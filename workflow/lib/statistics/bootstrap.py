"""Bootstrap over samples: whole samples are drawn, so that layers, projections and relations stay paired."""

import numpy as np

from workflow.lib.seeds import seeded_hash

LEVEL = 0.95


def resampled_means(values: np.ndarray, draws: int, seed: int, name: str) -> np.ndarray:
    """Means over `draws` resamples of the samples, and of the samples themselves in front.

    `values`: (samples, ...). Returns (1 + draws, ...): index 0 is the plain mean. The stream of random numbers
    depends on `seed` and `name` alone, so that a cell's interval does not change when another cell is added.
    """
    count = len(values)
    stream = int.from_bytes(seeded_hash(seed, name)[:8], "big")
    weights = np.random.default_rng(stream).multinomial(count, np.full(count, 1 / count), size=draws) / count
    weights = np.concatenate([np.full((1, count), 1 / count), weights])
    return np.tensordot(weights, values, axes=1)


def interval(estimates: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(value, low, high) from (1 + draws, ...): the plain estimate and the percentile interval around it."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(estimates[1:], [tail, 1 - tail], axis=0)
    return estimates[0], low, high
