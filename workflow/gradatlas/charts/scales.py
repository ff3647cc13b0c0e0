"""Honest axes: domains that hold every value, with ticks at round numbers.

Both are computed here and not left to the renderer, so that a test can hold each value against its axis.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

DECADE = 10.0
# Pixels that a tick's label needs of an axis.
_ROOM_LINEAR, _ROOM_LOG = 28, 14
# Share of a step above which a negative end is drawn where the values end.
_LITTLE = 0.75


@dataclass(frozen=True)
class Scale:
    """An axis: its kind (``linear`` or ``log``), its two ends and its ticks."""

    kind: str
    low: float
    high: float
    ticks: tuple[float, ...]

    @property
    def decimals(self) -> int:
        """Digits after the point that tell every tick from its neighbours."""
        return max(len(f"{abs(tick):.10f}".rstrip("0").partition(".")[2]) for tick in self.ticks)


def linear(values: Iterable[float | None], height: int) -> Scale:
    """From zero (or below, where values are negative) to above the largest value, in round steps.

    `height`: of the axis, in pixels. Missing and infinite values are left out; with none left it runs from 0 to 1.
    """
    finite = _finite(values)
    low, high = min([0.0, *finite]), max([0.0, *finite])
    if low == high:
        high = 1.0
    step = _round_step((high - low) / max(2, height // _ROOM_LINEAR))
    # A value within rounding of a step does not open another one.
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    # A little below zero needs no whole step: a relative difference cannot reach the -1,000 % it would show.
    if low / step - first > _LITTLE:
        first += 1
    ticks = tuple(_tidy(index * step) for index in range(first, last + 1))
    return Scale("linear", min(ticks[0], low), max(ticks[-1], high), ticks)


def log_if_decades(values: Iterable[float | None], height: int) -> Scale:
    """A log axis where the values are positive and span more than a decade, else `linear`."""
    finite = _finite(values)
    if not finite or min(finite) <= 0 or max(finite) / min(finite) <= DECADE:
        return linear(finite, height)
    return logarithmic(finite, max(2, height // _ROOM_LOG))


def logarithmic(values: Iterable[float], room: int) -> Scale:
    """A log axis that holds the positive values, from round number to round number, with about `room` ticks."""
    finite = [value for value in _finite(values) if value > 0]
    if not finite:
        return Scale("log", 0.1, 1.0, (0.1, 1.0))
    low, high = min(finite), max(finite)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    round_numbers = [_tidy(mantissa * DECADE**power) for power in powers for mantissa in (1, 2, 5)]
    start = max([number for number in round_numbers if number <= low], default=low)
    end = min([number for number in round_numbers if number >= high], default=high)
    inside = [number for number in round_numbers if start <= number <= end]
    if start == end:
        start, end, inside = start / 2, end * 2, [start / 2, start, end * 2]
    if len(inside) > room:
        every = math.ceil(math.log10(end / start) / room)
        inside = [_tidy(DECADE**power) for power in powers if power % every == 0 and start <= DECADE**power <= end]
    return Scale("log", start, end, tuple(inside))


def layer_ticks(layers: int) -> tuple[int, ...]:
    """First, quarters and last of `layers` layers counted from 0 (28 -> 0, 7, 14, 20, 27); all of up to 8."""
    last = layers - 1
    if layers <= 8:
        return tuple(range(layers))
    return tuple(sorted({int(last * quarter / 4 + 0.5) for quarter in range(5)}))


def _finite(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]


def _round_step(step: float) -> float:
    power = DECADE ** math.floor(math.log10(step))
    return next(mantissa * power for mantissa in (1, 2, 2.5, 5, 10) if mantissa * power >= step * (1 - 1e-9))


def _tidy(value: float) -> float:
    """0.30000000000000004 -> 0.3."""
    return float(f"{value:.12g}")
