"""Curves, MAD and RD of arrays of samples, with their bootstrap intervals.

Arrays are (samples, ..., layers), with statistics and projections in between, all with the same resamples. Estimates
are dicts of arrays: `value`, `low` and `high`, and for MAD and RD `corrected` (see `gradatlas.statistics.intervals`).
"""

import numpy as np

from gradatlas.statistics import intervals
from gradatlas.statistics.bootstrap import resampled
from gradatlas.statistics.measures import mean_absolute_difference, relative_difference, segments

Estimates = dict[str, np.ndarray]
_CORRECTED = ("value", "corrected", "low", "high")


def curve_estimates(
    values: np.ndarray, draws: int, seed: int, name: str, compared: np.ndarray | None = None
) -> tuple[Estimates, Estimates]:
    """The mean curves, (..., layers), and their MAD by segment, (..., segments), in the order of `segments`.

    `compared` (projections, layers - 1): the steps between layers that count in MAD (None: all); without one it is NaN.
    """
    mean, count = values.mean(0), len(values)
    every = np.ones((*mean.shape[:-1], mean.shape[-1] - 1), dtype=bool)
    compared = every if compared is None else every & compared
    ranges = segments(values.shape[-1]).values()
    # Each sample's contribution to a segment's MAD: its steps, with the signs of the mean curve's.
    steps = np.where(compared, np.diff(values, axis=-1), 0)
    directed = steps * np.where(compared, np.sign(np.diff(mean, axis=-1)), 0)
    shares = np.stack([directed[..., first : end - 1].sum(-1) for first, end in ranges], axis=-1)
    shares -= shares.mean(0)
    columns = [values, (values - mean) ** 2, shares, shares**2]
    means, squares, share_means, share_squares = resampled(columns, draws, seed, name)
    low, high = intervals.mean_interval(values, means, squares - (means - mean) ** 2)
    spreads = intervals.spread(shares, share_squares, share_means)
    step, errors = np.diff(mean, axis=-1), steps.std(0) / np.sqrt(count)
    noise = _by_layer(np.diff(means, axis=-1) - step)
    found = np.empty((*mean.shape[:-1], len(ranges), 4))
    for place in np.ndindex(mean.shape[:-1]):
        for g, (first, end) in enumerate(ranges):
            taken = np.flatnonzero(compared[*place, first : end - 1]) + first
            at, alone = (*place, taken), noise[*place, taken] / spreads[:, *place, g]
            value = mean_absolute_difference(mean[*place, first:end], compared[*place, first : end - 1])
            found[*place, g] = value, *intervals.absolute_interval(step[at], alone, errors[at], count)
    curves = {"value": mean, "low": low, "high": high}
    return curves, dict(zip(_CORRECTED, np.moveaxis(found, -1, 0), strict=True))


def difference_estimates(
    reference: np.ndarray, other: np.ndarray, draws: int, seed: int, name: str, present: np.ndarray | None = None
) -> tuple[Estimates, Estimates, Estimates]:
    """RD of `other` from `reference`, with the same samples: by layer, signed mean and mean absolute over layers.

    Both have the same resamples, so that the difference is paired. `present` (projections, layers): the layers with
    the projection, over which means are taken (None: all).
    """
    count = len(reference)
    columns = [reference, other, reference**2, other**2, reference * other]
    *means, square, other_square, product = resampled(columns, draws, seed, name)
    value = relative_difference(reference.mean(0), other.mean(0))
    drawn = relative_difference(*means)
    error, errors = intervals.ratio_errors(reference, other, means, (square, other_square, product))
    low, high = (end - 1 for end in intervals.ratio_interval(1 + value, 1 + drawn, (error, errors), count))
    # Errors of the differences. In a resample, the errors of all layers are larger or smaller together.
    error, errors = error * (1 + value), errors * (1 + drawn)
    if present is not None:
        error, errors = np.where(present, error, 0), np.where(present, errors, 0)
    spreads = intervals.relative_to(errors.sum(-1), error.sum(-1))
    noise = _by_layer(drawn - value)
    signed, absolute = np.empty((2, *value.shape[:-1], 4))
    for place in np.ndindex(value.shape[:-1]):
        own = np.s_[:] if present is None else present[place[-1]]
        here, alone, around = value[place][own], noise[place][own] / spreads[:, *place], error[place][own]
        mean = here.mean()
        signed[place] = mean, mean, *intervals.signed_interval(mean, alone.mean(0), count)
        absolute[place] = np.abs(here).mean(), *intervals.absolute_interval(here, alone, around, count)
    layers = {"value": value, "low": low, "high": high}
    over_layers = (dict(zip(_CORRECTED, np.moveaxis(found, -1, 0), strict=True)) for found in (signed, absolute))
    return layers, *over_layers


def _by_layer(drawn: np.ndarray) -> np.ndarray:
    """(draws, ..., layers) to (..., layers, draws)."""
    return np.ascontiguousarray(np.moveaxis(drawn, 0, -1))
