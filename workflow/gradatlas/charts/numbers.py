"""How numbers are written wherever a reader meets them: in titles, tables, cells and on the page."""

import math

# Plotted to six digits: finer than any screen, and files stay small and comparable.
DIGITS = 6


def three_digits(value: float | None) -> str:
    """A number to three significant digits, without an exponent where it reads well: 12345.6 -> 12,300."""
    if value is None or not math.isfinite(value):
        return "–"
    if value != 0 and not 1e-4 <= abs(value) < 1e7:
        return _minus(f"{value:.2e}")
    return _significant(value, 3)


def two_digits(value: float, sign: str = "") -> str:
    """A number to two significant digits; `sign`: ``+`` to write it of positive ones, too."""
    return _significant(value, 2, sign)


def percentage(share: float) -> str:
    """A share as a percentage without decimals: .254 -> 25 %."""
    return f"{100 * share:.0f} %"


def share(value: float) -> str:
    """A share to two digits, as in ``.07``; 1 as ``1.00``."""
    return f"{value:.2f}".removeprefix("0")


def signed(value: float, digits: int | None = None) -> str:
    """A change with its sign: one digit after the point from 1 on, else two."""
    digits = digits if digits is not None else 1 if abs(value) >= 1 else 2
    return _minus(f"{value:+.{digits}f}")


def fixed(value: float) -> str:
    """Two digits after the point below 10, else one."""
    return _minus(f"{value:.{2 if abs(value) < 9.995 else 1}f}")


def as_given(value: float) -> str:
    """A number with the digits that its source gives."""
    return _minus(f"{value:g}")


def with_interval(value: float | None, low: float | None, high: float | None, write=three_digits) -> str:
    """An estimate and, where both its ends are known, its interval: ``0.81 [0.75, 0.87]``."""
    unknown = low is None or high is None or not (math.isfinite(low) and math.isfinite(high))
    return write(value) if unknown else f"{write(value)} [{write(low)}, {write(high)}]"


def span(low: float, high: float, form: str = ",") -> str:
    """Two ends, or one number where they read alike."""
    return " to ".join(dict.fromkeys(_minus(format(end, form)) for end in (low, high)))


def plotted(value: float | None, digits: int = DIGITS) -> float | None:
    """A number as it is drawn: to so many significant digits, None where it is not finite."""
    return float(f"{value:.{digits}g}") if value is not None and math.isfinite(value) else None


def _significant(value: float, digits: int, sign: str = "") -> str:
    if value == 0:
        return "0"
    # Rounded first: of two digits 9.96 becomes 10, which then has none after the point.
    rounded = float(f"{value:.{digits - 1}e}")
    return _minus(f"{rounded:{sign},.{max(0, digits - 1 - math.floor(math.log10(abs(rounded))))}f}")


def _minus(text: str) -> str:
    return text.replace("-", "−")
