"""Which samples are far from others of like length: robust z scores.

A raw norm of a gradient mostly says how long a response is, so each number is compared within bins of response length:
z = (x - median) / (1.4826 MAD), with the median absolute deviation, which a few outliers do not move (Iglewicz and
Hoaglin, "How to Detect and Handle Outliers", 1993).
"""

from collections.abc import Iterator

import numpy as np
import polars as pl

#: The numbers that are compared, and whether as logarithms.
NUMBERS = {
    "loss": True,
    "ifd": True,
    "nuclear_norm": True,
    "effective_rank": True,
    "sigma_ratio": False,
    "largest_layer_share": False,
}
#: Fewest samples of a bin, most bins, and the fewest samples that can be compared at all.
BIN, BINS, LEAST = 30, 10, 10


def outliers(scores: pl.DataFrame) -> pl.DataFrame:
    """`outlier` (largest |z|), `outlier_of` (of which number) and `rank` (1: largest) of each sample of the scores.

    Null for samples whose status is not ``ok``, and for all where fewer than `LEAST` have it.
    """
    measured = (scores["status"] == "ok").to_numpy()
    found = np.full((len(scores), len(NUMBERS)), np.nan)
    if measured.sum() >= LEAST:
        places = np.flatnonzero(measured)
        lengths = scores["response_tokens"].to_numpy()[places]
        columns = [_comparable(scores[name].cast(pl.Float64).to_numpy(), log) for name, log in NUMBERS.items()]
        for inside in bins(lengths):
            for at, values in enumerate(columns):
                found[places[inside], at] = np.abs(robust_z(values[places[inside]]))
    compared = ~np.isnan(found).all(1)
    largest = np.where(np.isnan(found), -1, found).argmax(1)
    values = np.where(compared, np.where(np.isnan(found), -1, found).max(1), np.nan)
    names = [list(NUMBERS)[at] if known else None for at, known in zip(largest, compared, strict=True)]
    frame = pl.DataFrame({"outlier": values, "outlier_of": pl.Series(names, dtype=pl.String)})
    frame = frame.with_columns(pl.col("outlier").fill_nan(None))
    return frame.with_columns(pl.col("outlier").rank("ordinal", descending=True).cast(pl.Int32).alias("rank"))


def bins(lengths: np.ndarray) -> Iterator[np.ndarray]:
    """Places of the samples in each bin of length: quantiles with `BIN` samples at least, equal lengths together."""
    order = np.argsort(lengths, kind="stable")
    count = max(1, min(BINS, len(order) // BIN))
    cuts = [0]
    for cut in (round(len(order) * part / count) for part in range(1, count)):
        while cut < len(order) and lengths[order[cut]] == lengths[order[cut - 1]]:
            cut += 1
        if cut - cuts[-1] >= BIN and len(order) - cut >= BIN:
            cuts.append(cut)
    for start, end in zip(cuts, [*cuts[1:], len(order)], strict=True):
        yield order[start:end]


def robust_z(values: np.ndarray) -> np.ndarray:
    """z by median and MAD; NaN stays. Where most values are equal, by the mean absolute deviation; 0 where all are."""
    known = values[~np.isnan(values)]
    if not len(known):
        return values
    distances = np.abs(known - np.median(known))
    scale = 1.4826 * np.median(distances) or 1.2533 * distances.mean()
    return (values - np.median(known)) / scale if scale else np.where(np.isnan(values), np.nan, 0.0)


def _comparable(values: np.ndarray, log: bool) -> np.ndarray:
    """The values, or their logarithms: of 0 that of the smallest positive value."""
    if not log:
        return values
    positive = values[values > 0]
    return np.log(np.maximum(values, positive.min() if len(positive) else 1.0))
