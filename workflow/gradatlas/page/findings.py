"""The findings as the page shows them: three sentences, and a row each, its effects drawn as dots and intervals."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gradatlas.charts import scales
from gradatlas.charts.numbers import as_given, with_interval
from gradatlas.claims.rows import STUDIES
from gradatlas.claims.sentences import SYMBOLS, untrained_words
from gradatlas.core.checked import damaged
from gradatlas.core.files import from_json

RULE = "write_findings"
# Of a study in findings.json, the title.
_STUDIES = dict(zip(("gradients", "dynamics", "quality"), STUDIES.values(), strict=True))


# Of a row's axis, at most.
_TICKS = 5
_SHOWN = ("statement", "as_claimed", "verdict", "models", "data", "claims", "more", "untrained")


def findings(path: str | Path) -> dict[str, Any] | None:
    """The `sentences`, by study the rows, and what was `left_out`. `path`: the JSON of write_findings.

    None where nothing was measured that a claim is about.
    """
    try:
        found = from_json(Path(path).read_text(encoding="utf-8"))
        rows = [(_STUDIES[row["study"]], _row(row)) for row in found["findings"]]
        words = {name: found[name] for name in ("sentences", "left_out")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(path, f"not a table of findings ({error})", RULE) from None
    titles = dict.fromkeys(title for title, _ in rows)
    studies = [(title, [row for of, row in rows if of == title]) for title in titles]
    return words | {"studies": studies}


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    known = _finite(row["effect"])
    return {
        **{name: row[name] for name in _SHOWN},
        "symbol": SYMBOLS[row["verdict"]],
        "number": with_interval(row["effect"], row["low"], row["high"]) if known else "–",
        "unit": row["unit"],
        "untrained_words": untrained_words(row["untrained"], row["untrained_tests"]),
        **_plot(row),
    }


def _plot(row: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Places in percent of the width: the `dots` and `intervals` of all tests, untrained ones (`rings`), and `bounds`.

    Beside a dot's place, the verdict of its test. Each row has its own axis, with the claimed bounds on it, and
    `ticks`: places and their numbers. A log axis where all numbers are ratios.
    """
    tests = [test for test in row["tests"] if _finite(test["effect"])]
    if not tests:
        return {name: [] for name in ("dots", "rings", "bounds", "intervals", "ticks")}
    rings = {test["untrained"] for test in tests if _finite(test["untrained"])}
    ends = [(test["low"], test["high"]) for test in tests if _finite(test["low"]) and _finite(test["high"])]
    shown = [test["effect"] for test in tests] + [*rings, *row["bounds"], *(end for pair in ends for end in pair)]
    log = "ratio" in row["unit"] and min(shown) > 0
    place, numbers = _scale(min(shown), max(shown), log), _round_numbers(min(shown), max(shown), log)
    return {
        "dots": [(place(test["effect"]), test["verdict"]) for test in tests],
        "rings": [place(value) for value in sorted(rings)],
        "bounds": [place(value) for value in row["bounds"]],
        "intervals": [(place(low), round(100 - place(high), 1)) for low, high in ends],
        "ticks": [(place(value), as_given(value)) for value in numbers],
    }


def _scale(low: float, high: float, log: bool) -> Callable[[float], float]:
    shape = math.log if log else float
    start, span = shape(low), (shape(high) - shape(low)) or 1.0
    return lambda value: round(3 + 94 * (shape(value) - start) / span, 1)


def _round_numbers(low: float, high: float, log: bool) -> list[float]:
    """At most `_TICKS` round numbers from `low` to `high`; none where they are one."""
    if low == high:
        return []
    if log and high / low >= scales.DECADE:
        return list(scales.logarithmic([low, high], _TICKS).ticks)
    power = 10.0 ** math.floor(math.log10((high - low) / _TICKS))
    for step in (power, 2 * power, 5 * power, 10 * power):
        numbers = [step * each for each in range(math.ceil(low / step), math.floor(high / step) + 1)]
        if len(numbers) <= _TICKS:
            return numbers
    return []


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
