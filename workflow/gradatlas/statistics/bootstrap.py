"""Bootstrap over samples: a sample is drawn with all its layers, projections and relations, which stay paired."""

from collections.abc import Iterator, Sequence

import numpy as np

from gradatlas.study.seeds import seeded_hash

LEVEL = 0.95
#: The lower and upper tail of an interval.
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
# Largest number of weights in memory.
_BLOCK = 8_000_000


def resampled(columns: Sequence[np.ndarray], draws: int, seed: int, name: str) -> list[np.ndarray]:
    """Means of each array over `draws` resamples of its first axis, the samples: (samples, ...) to (draws, ...).

    All arrays get the same resamples. The random numbers depend only on `seed`, `name` and the number of samples, so
    that a cell's interval does not change when another cell is added.
    """
    count = len(columns[0])
    flat = np.concatenate([column.reshape(count, -1) for column in columns], axis=1)
    means = np.concatenate([weights @ flat for weights in _weights(count, draws, seed, name)])
    ends = np.cumsum([column[0].size for column in columns])[:-1]
    parts = np.split(means, ends, axis=1)
    return [part.reshape(draws, *column.shape[1:]) for part, column in zip(parts, columns, strict=True)]


def resampled_means(values: np.ndarray, draws: int, seed: int, name: str) -> np.ndarray:
    """The mean of the samples, and means over `draws` resamples.

    `values`: (samples, ...). Returns (1 + draws, ...): index 0 is the plain mean. Resamples as in `resampled`.
    """
    return np.concatenate([values.mean(0, keepdims=True), *resampled([values], draws, seed, name)])


def interval(estimates: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(value, low, high) from (1 + draws, ...): the plain estimate and the percentile interval around it."""
    low, high = np.quantile(estimates[1:], TAILS, axis=0)
    return estimates[0], low, high


def _weights(count: int, draws: int, seed: int, name: str) -> Iterator[np.ndarray]:
    """Each sample's share in each resample, (draws, samples), in blocks of resamples."""
    generator = np.random.default_rng(int.from_bytes(seeded_hash(seed, name)[:8], "big"))
    step = max(1, _BLOCK // count)
    for first in range(0, draws, step):
        rows = min(step, draws - first)
        taken = generator.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
        yield np.bincount(taken.ravel(), minlength=rows * count).reshape(rows, count) / count
