"""Two groups of numbers: intervals, effect sizes and tests; and pairs of samples of like covariates.

Samples of the two groups are independent (`unpaired`), or the same or matched ones (`paired`, in the same order).
"""

from typing import Any

import numpy as np
from scipy import stats
from scipy.optimize import linear_sum_assignment

from gradatlas.statistics.bootstrap import LEVEL, interval, resampled
from gradatlas.statistics.intervals import FEWEST

#: Two samples match where every covariate differs by at most so many standard deviations (Austin, Pharmaceutical
#: Statistics 10, 2011).
CALIPER = 0.2
#: Samples of a group that are matched at most, drawn by the seed: time grows with their third power.
MOST_MATCHED = 2000
_Z = float(stats.norm.ppf((1 + LEVEL) / 2))
_TOO_FAR = 1e6


def compare(a: np.ndarray, b: np.ndarray, paired: bool, draws: int, seed: int, name: str) -> dict[str, Any]:
    """The numbers of one row of the ``comparison`` table, of finite values a (n,) and b (m,).

    Means, difference and ratio of means: percentile bootstrap over samples, or over pairs. Medians: the exact interval
    of order statistics. The ratio is null unless all values are positive. With fewer than `FEWEST` samples in a group
    the status states it, and no interval or test is given.
    """
    found: dict[str, Any] = {"samples_a": len(a), "samples_b": len(b), "status": "ok"}
    sides = {"a": a, "b": b}
    few = [
        f"{len(side)} sample{'s' * (len(side) != 1)} in {group}" for group, side in sides.items() if len(side) < FEWEST
    ]
    for group, side in sides.items():
        if len(side):
            found |= {f"mean_{group}": float(side.mean()), f"median_{group}": float(np.median(side))}
    if few:
        return found | {"status": f"too few: {' and '.join(few)}; {FEWEST} are needed"}
    together = [np.column_stack([a, b])] if paired else [a, b]
    drawn = [resampled([each], draws, seed, f"{name} {place}")[0] for place, each in enumerate(together)]
    mean_a, mean_b = drawn if not paired else drawn[0].T
    means = [np.concatenate([[side.mean()], each]) for side, each in zip((a, b), (mean_a, mean_b), strict=True)]
    numbers = {"mean_a": means[0], "mean_b": means[1], "difference": means[0] - means[1]}
    if min(a.min(), b.min()) > 0:
        numbers["ratio"] = means[0] / means[1]
    for key, estimates in numbers.items():
        found |= dict(zip((key, f"{key}_low", f"{key}_high"), map(float, interval(estimates)), strict=True))
    for group, side in sides.items():
        low, high = stats.quantile_test(side, q=np.median(side), p=0.5).confidence_interval(LEVEL)
        found |= {f"median_{group}_low": float(low), f"median_{group}_high": float(high)}
    delta, low, high = dominance(a, b, paired)
    found |= {"cliffs_delta": delta, "cliffs_delta_low": low, "cliffs_delta_high": high, "hedges_g": hedges_g(a, b)}
    if not paired:
        return found | {"test": "Mann-Whitney", "p_value": float(stats.mannwhitneyu(a, b, method="asymptotic").pvalue)}
    test = {"test": "Wilcoxon signed-rank"}
    return found | test | {"p_value": float(stats.wilcoxon(a - b).pvalue) if (a != b).any() else 1.0}


def hedges_g(a: np.ndarray, b: np.ndarray) -> float:
    """The difference of means in pooled standard deviations, corrected for small samples (Hedges 1981); NaN without
    any spread."""
    n, m = len(a), len(b)
    pooled = np.sqrt(((n - 1) * a.var(ddof=1) + (m - 1) * b.var(ddof=1)) / (n + m - 2))
    return float((1 - 3 / (4 * (n + m) - 9)) * (a.mean() - b.mean()) / pooled) if pooled > 0 else np.nan


def dominance(a: np.ndarray, b: np.ndarray, paired: bool) -> tuple[float, float, float]:
    """Cliff's delta with its 95 % interval: how often a value of `a` is larger than one of `b`, less how often smaller.

    Over all pairs of samples, or, if `paired`, over the pairs themselves. The variance is that of the samples' own
    dominances (DeLong et al. 1988), the interval Cliff's asymmetric one (Feng and Cliff 2004).
    """
    if paired:
        signs = np.sign(a - b)
        delta, variance, n = signs.mean(), signs.var(ddof=1) / len(a), len(a)
    else:
        # Each sample's own dominance over the other group, from ranks.
        of_a = (stats.rankdata(np.concatenate([a, b]))[: len(a)] - stats.rankdata(a)) * 2 / len(b) - 1
        of_b = (stats.rankdata(np.concatenate([b, a]))[: len(b)] - stats.rankdata(b)) * 2 / len(a) - 1
        delta, n = of_a.mean(), min(len(a), len(b))
        variance = of_a.var(ddof=1) / len(a) + of_b.var(ddof=1) / len(b)
    if abs(delta) == 1:
        end = (n - _Z**2) / (n + _Z**2)
        return (1.0, float(end), 1.0) if delta > 0 else (-1.0, -1.0, float(-end))
    spread = _Z * np.sqrt(variance)
    reach = spread * np.sqrt((1 - delta**2) ** 2 + spread**2)
    low, high = ((delta - delta**3 + sign * reach) / (1 - delta**2 + spread**2) for sign in (-1, 1))
    return float(delta), float(max(low, -1)), float(min(high, 1))


def standardised_difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Differences of the means of covariates, (n, k) and (m, k), in pooled standard deviations of their own."""
    pooled = _spread(a, b)
    return np.divide(a.mean(0) - b.mean(0), pooled, out=np.zeros_like(pooled), where=pooled > 0)


def matched_pairs(a: np.ndarray, b: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions in covariates a (n, k) and b (m, k) of matched pairs, each sample used once.

    As many pairs as `CALIPER` allows, and of these the choice with the least sum of distances (optimal matching,
    Rosenbaum 1989). Of a group larger than `MOST_MATCHED`, so many samples are drawn first.
    """
    chosen = [
        np.sort(np.random.default_rng(seed).permutation(len(side))[:MOST_MATCHED]) if len(side) > MOST_MATCHED
        else np.arange(len(side))
        for side in (a, b)
    ]  # fmt: skip
    unit = _unit(a, b)
    a, b = (side[at] / unit for side, at in zip((a, b), chosen, strict=True))
    apart = np.abs(a[:, None] - b[None])
    distance = np.where((apart <= CALIPER).all(2), np.sqrt((apart**2).sum(2)), _TOO_FAR)
    rows, columns = linear_sum_assignment(distance)
    kept = distance[rows, columns] < _TOO_FAR
    return chosen[0][rows[kept]], chosen[1][columns[kept]]


def near_pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Positions of the given pairs of covariates, both (n, k), that `CALIPER` allows."""
    return np.flatnonzero((np.abs(a - b) / _unit(a, b) <= CALIPER).all(1))


def _unit(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    spread = _spread(a, b)
    return np.where(spread > 0, spread, 1)


def _spread(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sqrt((a.var(0, ddof=1) + b.var(0, ddof=1)) / 2)
