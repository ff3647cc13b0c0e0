"""Axes that hold every value. Their ticks are the renderer's, but for log axes."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

DECADE = 10.0


@dataclass(frozen=True)
class Scale:
    """An axis: its kind (``linear``, ``log``, ``sqrt``), its two ends and its ticks; without ticks the renderer's."""

    kind: str
    low: float
    high: float
    ticks: tuple[float, ...] = ()


def linear(values: Iterable[float | None]) -> Scale:
    """From zero (or the smallest, where values are negative) to the largest value; from 0 to 1 where none is finite."""
    finite = _finite(values)
    low, high = min([0.0, *finite]), max([0.0, *finite])
    return Scale("linear", low, high if high > low else 1.0)


def log_if_decades(values: Iterable[float | None], ticks: int) -> Scale:
    """A log axis where the values are positive and span more than a decade, else `linear`."""
    finite = _finite(values)
    if not finite or min(finite) <= 0 or max(finite) / min(finite) <= DECADE:
        return linear(finite)
    return logarithmic(finite, ticks)


def logarithmic(values: Iterable[float | None], ticks: int) -> Scale:
    """A log axis that holds the positive values, with at most about `ticks` ticks.

    The renderer would draw nine lines a decade and label some of them (1, 2, 10, 20): here they are at 1, 2 and 5, or
    at decades. Within one decade its own are good.
    """
    finite = [value for value in _finite(values) if value > 0] or [0.1, 1.0]
    low, high = min(finite), max(finite)
    # The renderer cannot draw an axis between numbers that differ by rounding alone.
    if high / low < 1 + 1e-9:
        low, high = low / 2, high * 2
    if high / low < DECADE:
        return Scale("log", low, high)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [float(f"{mantissa}e{power}") for power in powers for mantissa in (1, 2, 5)]
    every = math.ceil(math.log10(high / low) / ticks)
    decades = [float(f"1e{power}") for power in powers if power % every == 0]
    inside = [tick for tick in fine if low <= tick <= high]
    return Scale("log", low, high, tuple(inside if len(inside) <= ticks else [t for t in decades if low <= t <= high]))


def _finite(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]
