"""Recall of planted faults: how many of k bad samples are among the k that a score ranks first."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from gradatlas.data.made_up.graded import CLEAN, GRADES
from gradatlas.statistics.bootstrap import TAILS

#: (number, end that is searched). The baselines: loss and length alone; and a random order, beside each.
SEARCHES = (
    ("nuclear_norm", "high"), ("nuclear_norm", "low"), ("effective_rank", "high"), ("effective_rank", "low"),
    ("outlier", "high"), ("ifd", "high"), ("ifd", "low"), ("loss", "high"), ("loss", "low"),
    ("response_tokens", "high"), ("response_tokens", "low"),
)  # fmt: skip
#: In the column `fault`: wrong responses of all kinds (grade 0).
ANY = "wrong"


def recall_rows(model: str, scores: pl.DataFrame, draws: int, seed: int) -> Iterator[dict[str, Any]]:
    """The rows of the ``recall`` table of one model's scores of graded data.

    One fault is searched among its samples and the clean ones, wrong responses of all kinds among all samples. A sample
    without a number is found last. Intervals: percentile bootstrap of planted and of other samples, which keeps their
    numbers.
    """
    for fault, planted, others in _pools(scores):
        n = planted.sum() + others.sum()
        k = int(planted.sum())
        by_chance = stats.hypergeom(n, k, k)
        chance = dict(zip(("chance_low", "chance_high"), (by_chance.ppf(TAILS) / k).tolist(), strict=True))
        for number, end in SEARCHES:
            sizes = ordered(scores, number, end)
            one, other = sizes[planted], sizes[others]
            generator = np.random.default_rng(seed)
            drawn = [side[generator.integers(len(side), size=(draws, len(side)))] for side in (one, other)]
            low, high = np.quantile(recall(*drawn), TAILS)
            yield {
                **{"model": model, "fault": fault, "number": number, "end": end, "planted": k, "samples": int(n)},
                **{"value": float(recall(one[None], other[None])[0]), "low": float(low), "high": float(high)},
                **{"chance": k / n, **chance},
            }


def recall_curves(model: str, scores: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """The share of planted samples among the first k, for every k: rows of the ``recall_curves`` table."""
    for fault, planted, others in _pools(scores):
        for number, end in SEARCHES:
            sizes = ordered(scores, number, end)
            found = found_among(sizes[planted], sizes[others]) / planted.sum()
            for k, value in enumerate(found.tolist(), 1):
                yield {"model": model, "fault": fault, "number": number, "end": end, "k": k, "value": value}


def ordered(scores: pl.DataFrame, number: str, end: str) -> np.ndarray:
    """The numbers, larger ones first to be searched; -inf where a sample has none."""
    values = scores[number].cast(pl.Float64).fill_null(np.nan).to_numpy()
    return np.nan_to_num(values if end == "high" else -values, nan=-np.inf)


def recall(planted: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(draws, k) and (draws, m) to (draws,): the share of the k planted among the k largest; ties in random order."""
    k = planted.shape[1]
    both = np.concatenate([planted, others], axis=1)
    cut = np.partition(both, both.shape[1] - k, axis=1)[:, [both.shape[1] - k]]
    above, tied = (planted > cut).sum(1), (planted == cut).sum(1)
    share = (k - (both > cut).sum(1)) / (both == cut).sum(1)
    return (above + tied * share) / k


def found_among(planted: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The expected number of planted samples among the first 1, 2, ... of all; ties in random order."""
    both = np.concatenate([planted, others])
    values, place, counts = np.unique(-both, return_inverse=True, return_counts=True)
    share = np.bincount(place[: len(planted)], minlength=len(values)) / counts
    return np.cumsum(np.repeat(share, counts))


def _pools(scores: pl.DataFrame) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    groups = scores["group"].to_numpy()
    clean = groups == CLEAN
    wrong = np.isin(groups, [fault for fault, grade in GRADES.items() if not grade])
    if wrong.any():
        yield ANY, wrong, ~wrong
    for fault in GRADES:
        if fault != CLEAN and (groups == fault).any():
            yield fault, groups == fault, clean
