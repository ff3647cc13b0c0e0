"""95 % intervals from a bootstrap: of means, of relative differences, and of means of absolute values.

Three methods, each chosen by its measured coverage on skewed samples (benchmarks/coverage.py):

- A mean of non-negative numbers: bootstrap-t on the log scale (Efron and Tibshirani, An Introduction to the Bootstrap,
  1993, chapter 12).
- A relative difference: the same for the log of the ratio of the two means; averaged over layers, bootstrap-t.
- MAD and mean absolute RD: a bootstrap test is inverted. README.md in this folder has the reasons.

With fewer than `FEWEST` samples there is no interval (NaN).
"""

import numpy as np

from gradatlas.statistics.bootstrap import TAILS

FEWEST = 5
# Keeps t finite in a resample of nearly equal samples.
_LEAST_SPREAD = 1e-3


def mean_interval(values: np.ndarray, means: np.ndarray, variances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) of the means over the first axis of non-negative `values`, (samples, ...).

    `means` and `variances`: (draws, ...), of the resamples; variances as `spread` gives them.
    """
    mean = values.mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(mean > 0, np.sqrt(values.var(0) / len(values)) / mean, 0)
        drawn = np.sqrt(np.maximum(variances, 0) / len(values)) / means
        return _log_t(mean, means, error, drawn, len(values))


def ratio_errors(
    reference: np.ndarray, other: np.ndarray, means: tuple[np.ndarray, np.ndarray], moments: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Relative standard error of mean(other) / mean(reference) of paired samples, (samples, ...), and in the resamples.

    `means`: of reference and other in the resamples, (draws, ...). `moments`: the resamples' means of the squares of
    both and of their product.
    """
    count = len(reference)
    with np.errstate(divide="ignore", invalid="ignore"):
        plain = np.square(other / other.mean(0) - reference / reference.mean(0)).mean(0)
        # The same, multiplied out.
        drawn = moments[1] / means[1] ** 2 - 2 * moments[2] / (means[0] * means[1]) + moments[0] / means[0] ** 2
        return np.sqrt(plain / count), np.sqrt(np.maximum(drawn, 0) / count)


def ratio_interval(
    value: np.ndarray, drawn: np.ndarray, errors: tuple[np.ndarray, np.ndarray], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) of a ratio of means, (...), from the resamples' ratios `drawn`, (draws, ...), and `ratio_errors`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return _log_t(value, drawn, *errors, count)


def signed_interval(value: float, noise: np.ndarray, count: int) -> tuple[float, float]:
    """(low, high) of a mean of signed differences: bootstrap-t.

    `noise`: (draws,), the resamples' values minus `value`, each divided by its spread.
    """
    if count < FEWEST:
        return np.nan, np.nan
    low, high = np.quantile(noise, TAILS)
    return value - high, value - low


def spread(scores: np.ndarray, squares: np.ndarray, means: np.ndarray) -> np.ndarray:
    """The resamples' standard deviations of `scores`, (samples, ...), divided by that of the samples: (draws, ...).

    `squares` and `means`: of the centred scores, in the resamples.
    """
    return relative_to(np.sqrt(np.maximum(squares - means**2, 0)), scores.std(0))


def relative_to(drawn: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """Spreads `drawn`, (draws, ...), divided by the `plain` one, (...); 1 where that is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(plain > 0, np.fmax(drawn / plain, _LEAST_SPREAD), 1.0)


def absolute_interval(
    differences: np.ndarray, noise: np.ndarray, errors: np.ndarray, count: int
) -> tuple[float, float, float]:
    """(corrected, low, high) of the mean over layers of the true differences' absolute values.

    `differences` and their standard `errors`: (layers,). `noise`: (layers, draws), the resamples' differences minus
    `differences`, each divided by its resample's spread. The corrected value is the theta at which half of the plain
    values are larger, averaged over the two extremes; never negative.
    """
    if count < FEWEST or not differences.size or not np.isfinite(differences).all() or not np.isfinite(noise).all():
        return np.nan, np.nan, np.nan
    seen = np.abs(differences).mean()
    expected = _quantile(np.abs(noise).mean(0), 0.5)
    seen_at = ((TAILS[1], seen), (0.5, seen), (TAILS[0], max(seen, expected)))
    sign = np.where(differences < 0, -1.0, 1.0)
    even = np.abs(differences) + seen
    apart = np.sqrt(np.maximum(differences**2 - errors**2, 0))
    ends = [
        [_inverted(value, sign * (shape / shape.mean()), noise, tail) for tail, value in seen_at]
        for shape in (even, apart)
        if shape.any()
    ] or [[0.0, 0.0, 0.0]]
    low, middle, high = zip(*ends, strict=True)
    return float(np.mean(middle)), min(low), max(high)


def _inverted(seen: float, shape: np.ndarray, noise: np.ndarray, tail: float) -> float:
    """The theta for which the `tail` quantile of mean |theta shape + noise| is `seen`; 0 if it is larger even at 0.

    `shape`: (layers,), of mean absolute value 1.
    """
    # |theta shape_i + noise_i| lies between theta |shape_i| +- noise_i and theta |shape_i| + |noise_i|.
    signed = np.where(shape < 0, -1.0, 1.0) @ noise / len(shape)
    upper = seen - _quantile(signed, tail)
    lower = max(0.0, seen - _quantile(np.abs(noise).mean(0), tail))
    if upper <= lower:
        return lower
    # Layers whose sign no noise can change, down to `lower`, are a linear term.
    near = np.abs(shape) * lower <= np.abs(noise).max(1)
    if not near.any():
        return upper
    slope = np.abs(shape[~near]).sum()
    fixed = np.where(shape[~near] < 0, -1.0, 1.0) @ noise[~near]
    shape, noise, layers = shape[near, None], noise[near], len(shape)

    def excess(theta: float) -> float:
        return _quantile((np.abs(theta * shape + noise).sum(0) + theta * slope + fixed) / layers, tail) - seen

    over, under = excess(upper), excess(lower)
    if under >= 0:
        return lower
    # Regula falsi in Illinois' form; the function rises with theta.
    tolerance, side = 1e-4 * upper, 0
    while upper - lower > tolerance and over > 0:
        theta = upper - over * (upper - lower) / (over - under)
        now = excess(theta)
        if abs(now) < tolerance:
            return theta
        if now > 0:
            upper, over = theta, now
            under, side = (under / 2 if side > 0 else under), 1
        else:
            lower, under = theta, now
            over, side = (over / 2 if side < 0 else over), -1
    return upper


def _log_t(
    value: np.ndarray, drawn: np.ndarray, error: np.ndarray, errors: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Bootstrap-t of log `value`; `error` and `errors` are relative standard errors, plain and in the resamples."""
    student = (np.log(drawn) - np.log(value)) / np.fmax(errors, _LEAST_SPREAD * error)
    # Equal samples: the interval is the value.
    student = np.where(error > 0, student, 0.0)
    low, high = np.quantile(np.moveaxis(student, 0, -1).copy(), TAILS, axis=-1)
    if count < FEWEST:
        return np.full_like(value, np.nan), np.full_like(value, np.nan)
    return value * np.exp(-high * error), value * np.exp(-low * error)


def _quantile(numbers: np.ndarray, tail: float) -> float:
    """`numpy.quantile` of one dimension, without its overhead, for a million calls."""
    place = tail * (len(numbers) - 1)
    at = min(int(place), len(numbers) - 2) if len(numbers) > 1 else 0
    if len(numbers) == 1:
        return float(numbers[0])
    parted = np.partition(numbers, [at, at + 1])
    return float(parted[at] + (place - at) * (parted[at + 1] - parted[at]))
