"""The findings drawn: a figure a study, a panel a unit, a row a finding, in it each test's effect with its interval."""

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import polars as pl

from gradatlas.charts import scales, theme
from gradatlas.charts.panel import nothing, rounded
from gradatlas.charts.save import save
from gradatlas.claims.rows import STUDIES
from gradatlas.claims.summary import NAMES, ONE_SEED, UNTESTED
from gradatlas.core.errors import InputError
from gradatlas.figures.verdicts import SHAPES

# Beside the verdicts' own marks: numbers without a verdict, and the same number of an untrained network.
_UNTRAINED = "untrained network"
_VERDICTS = theme.COLOURS["verdict"]
_COLOURS = _VERDICTS | {ONE_SEED: _VERDICTS["inconclusive"], UNTESTED: theme.RULE, _UNTRAINED: theme.QUIET}
# A dash would not be seen on an interval.
_SHAPES = SHAPES | {"inconclusive": "square", ONE_SEED: "triangle-up", UNTESTED: "cross", _UNTRAINED: "diamond"}
_ROW, _WIDTH, _LETTERS, _LABELS = 52, 400, 52, 300
# A label of several lines begins at its row's middle; this centres one of three.
_RAISED = -13
# Below a statement, what it means for the claim; a mark such as ✓ would set the line into another font.
_WORDS = {"holds": "(as claimed)", "fails": "(the opposite was claimed)", "unclear": "(claim open)"}
_MARKS = (
    "Each row is a finding: what was found, and whether the study claims the same. Each mark is one test: a model on a "
    "dataset, or a place of one training, with its 95 % interval. Look for marks on one side of the vertical line, the "
    "bound of the claim, or between two; a dark diamond is the same number of the untrained network."
)
# Tests of one finding take this share of the height of its row.
_SHARE = 0.72
# Numbers below zero that differ by more than this have a symmetric log axis.
_STRETCH = 20
_ENDS = ("effect", "low", "high")


def draw(findings: str | Path, output: str | Path, formats: Sequence[str]) -> None:
    """Draw findings.json as ``{output}_{study}.{format}``, of each study; `InputError` for another file."""
    try:
        found = json.loads(Path(findings).read_text(encoding="utf-8"))["findings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{findings}: not a table of findings ({error}); make it again with write-findings") from None
    for study in STUDIES:
        save(chart(found, study), f"{output}_{NAMES[study]}", formats)


def chart(findings: Sequence[Mapping[str, Any]], study: str) -> alt.TopLevelMixin:
    """The figure of one study's findings as findings.json holds them."""
    own = [each for each in findings if each["study"] == NAMES[study]]
    heading = theme.Heading(
        f"{STUDIES[study]}: what was found",
        ("a mark: one test, with its 95 % interval", "lines: bounds of the claim"),
        (_MARKS,),
    )
    # Findings of one unit share an axis.
    panels = [
        _panel([each for each in own if each["unit"] == unit], unit) for unit in dict.fromkeys(e["unit"] for e in own)
    ]
    if not panels:
        return nothing(heading)
    return alt.vconcat(*panels, spacing=12, **theme.headed(heading, 2)).resolve_scale(x="independent", y="independent")


def _panel(findings: Sequence[Mapping[str, Any]], unit: str) -> alt.LayerChart:
    points, bounds = [], []
    for row, finding in enumerate(findings):
        tests = finding["tests"]
        for place, test in enumerate(tests):
            at = row + _SHARE * ((place + 0.5) / len(tests) - 0.5)
            shown = {"y": at} | {name: test[name] for name in ("model", "data", "responses")}
            points.append(shown | {"kind": test["verdict"]} | {name: test[name] for name in _ENDS})
            points.append(shown | {"kind": _UNTRAINED, "effect": test["untrained"], "low": None, "high": None})
        bounds += [{"x": bound, "y": row - 0.45, "y2": row + 0.45} for bound in finding["bounds"]]
    numbers = dict.fromkeys(_ENDS, pl.Float64)
    frame = pl.DataFrame(points, infer_schema_length=None, schema_overrides=numbers).with_columns(map(rounded, _ENDS))
    frame = frame.filter(pl.col("effect").is_not_null())
    scale, axis = _measure(unit, [*(each for name in _ENDS for each in frame[name]), *(each["x"] for each in bounds)])
    labels = [[*textwrap.wrap(each["statement"], _LETTERS), _WORDS[each["verdict"]]] for each in findings]
    y_axis = theme.plain(
        title=None, values=list(range(len(findings))), labelExpr=f"{json.dumps(labels)}[datum.value]",
        labelLimit=_LABELS, minExtent=_LABELS, labelOffset=_RAISED, grid=False,
    )  # fmt: skip
    y = alt.Y("y:Q", scale=theme.plain(domain=[len(findings) - 0.5, -0.5], nice=False, zero=False), axis=y_axis)
    x = lambda field: alt.X(f"{field}:Q", scale=scale, axis=axis)  # noqa: E731
    base = theme.Chart(frame).encode(y=y)

    def scaled(channel: type, values: Mapping[str, str], legend: bool = True) -> Any:
        shape = theme.plain(domain=list(values), range=list(values.values()))
        return channel("kind:N", scale=shape, legend=theme.plain(title="The claim, in one test") if legend else None)

    tooltip = ["model", "data", "responses", "kind", alt.Tooltip("effect:Q", format=".3~g")]
    rules = theme.Chart(alt.InlineData(bounds)).mark_rule(style="zero").encode(x=x("x"), y=y, y2="y2:Q")
    whiskers = base.transform_filter("isValid(datum.low)").mark_rule(style="interval")
    return theme.layer(
        rules,
        whiskers.encode(x=x("low"), x2="high:Q", color=scaled(alt.Color, _COLOURS)),
        base.mark_point(style="dot-alone", size=38).encode(
            x=x("effect"), color=scaled(alt.Color, _COLOURS), shape=scaled(alt.Shape, _SHAPES), tooltip=tooltip
        ),
        width=_WIDTH,
        height=_ROW * len(findings),
    )


def _measure(unit: str, values: Iterable[float | None]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scale and axis of a panel: logarithmic where numbers span decades, symmetric where some are below zero."""
    known = [value for value in values if value is not None]
    words = unit[:1].upper() + unit[1:]
    reach = max(map(abs, known))
    if min(known) > 0:
        found = scales.log_if_decades(known, 8)
        if found.kind == "log":
            return (
                theme.plain(type="log", domain=[found.low * 0.9, found.high * 1.1], nice=False),
                theme.plain(title=f"{words}, log axis", values=list(found.ticks), format=",~r", grid=True),
            )
    small = sorted(abs(value) for value in known if value)
    if small and reach > _STRETCH * small[len(small) // 2]:
        ends = [min(known) * 1.15 if min(known) < 0 else -0.05, max(known) * 1.15 if max(known) > 0 else 0.05]
        ticks = [0.0, *(sign * 10.0**power for sign in (-1, 1) for power in range(-1, 6))]
        return (
            theme.plain(type="symlog", constant=0.1, domain=ends, nice=False),
            theme.plain(
                title=f"{words}, symmetric log axis", format=",~r", grid=True,
                values=sorted(tick for tick in ticks if ends[0] <= tick <= ends[1]),
            ),
        )  # fmt: skip
    margin = 0.04 * (max(known) - min(known)) or 0.5
    return (
        theme.plain(domain=[min(known) - margin, max(known) + margin], nice=False, zero=False),
        theme.plain(title=words, grid=True, tickCount=6, format=",~r"),
    )
