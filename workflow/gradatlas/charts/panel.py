"""What figures of lines are built of: one panel, and the grid of panels under a heading.

A frame has a row per point: columns of x, y and the colour, and `low` and `high` where there are intervals.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import polars as pl

from gradatlas.charts import theme
from gradatlas.charts.names import label
from gradatlas.charts.numbers import DIGITS
from gradatlas.charts.scales import Scale

VALUES = ("value", "low", "high")
# Ends the title of an axis where panels that may be compared differ in scale.
OWN_SCALE = "own scale"
# A legend's symbol and the space around an entry, in pixels.
_SYMBOL = 32
# Colours of runs, models, groups and scores; more do not fit into one figure.
SERIES = tuple(theme.COLOURS["series"].values())


@dataclass(frozen=True)
class Palette:
    """What colour and shape stand for: a column of labels, its entries in order, their colours and shapes.

    All panels of a figure share one palette, and so one legend above them.
    """

    column: str
    entries: tuple[str, ...]
    colours: tuple[str, ...]
    shapes: tuple[str, ...]

    def encode(self, kind: type, legend: bool = True) -> alt.Color | alt.Shape:
        """The channel `kind`, alt.Color or alt.Shape."""
        values = self.colours if kind is alt.Color else self.shapes
        place = {"legend": self._legend()} if legend else {"legend": None}
        scale = theme.plain(domain=list(self.entries), range=list(values))
        return kind(f"{self.column}:N", scale=scale, title=None, **place)

    def _legend(self) -> alt.Legend:
        """In one line where it fits above the panels, else in as many columns as fit."""
        widths = [theme.width_of(entry, theme.LEGEND_SIZE) + _SYMBOL for entry in self.entries]
        columns = {} if sum(widths) <= theme.WIDTH else {"columns": max(1, int(theme.WIDTH // max(widths)))}
        return alt.Legend(title=None, labelLimit=theme.WIDTH, **columns)


@dataclass(frozen=True)
class Dashed:
    """What a dash stands for: a column, and its entries as readers see them, solid first."""

    column: str
    entries: tuple[str, ...]

    def encode(self) -> alt.StrokeDash:
        """The channel of dashes."""
        dashes = [list(dash) for dash in theme.DASHES[: len(self.entries)]]
        scale = theme.plain(domain=list(self.entries), range=dashes)
        return alt.StrokeDash(f"{self.column}:N", scale=scale, legend=alt.Legend(**theme.DASH_LEGEND))


@dataclass(frozen=True)
class Axis:
    """One axis of a panel: the column on it, its title and its scale.

    Without a `scale` the renderer's own holds all values; with `entries` the axis is of separate places. `labels`:
    whether they are drawn, or a neighbour's are read. `expression`: writes a number (`datum.value`) where no `format`
    can.
    """

    field: str
    title: str | Sequence[str] | None = None
    scale: Scale | None = None
    format: str | None = None
    expression: str | None = None
    labels: bool = True
    count: int | None = None
    grid: bool | None = None
    entries: tuple[str, ...] = ()

    def encode(self, kind: type, field: str | None = None) -> alt.X | alt.Y:
        """The channel `kind`, alt.X or alt.Y, of a column with this axis."""
        axis: dict[str, Any] = {"title": self.title}
        if self.entries:
            return kind(f"{self.field}:O", sort=list(self.entries), axis=theme.plain(**axis, labelAngle=0))
        options = {"format": self.format, "tickCount": self.count, "labelExpr": self.expression, "grid": self.grid}
        axis |= {name: value for name, value in options.items() if value is not None}
        if self.format in ("d", ",d"):
            axis["tickMinStep"] = 1
        if not self.labels:
            # A blank in place of none keeps the panels' tops, and so their titles, at one height.
            axis |= {"labels": False} if kind is alt.X else {"labelExpr": "' '"}
        shape = theme.plain(zero=False)
        if self.scale:
            round_end = self.scale.kind == "linear" and self.scale.low == 0 and kind is alt.Y
            ends = [self.scale.low, self.scale.high]
            shape = theme.plain(type=self.scale.kind, domain=ends, nice=round_end, zero=False)
            # The renderer would write 1,000 as 1e+3 on one axis and not on another.
            axis |= {"values": list(self.scale.ticks), "format": ",~g"} | axis if self.scale.ticks else {}
        return kind(f"{field or self.field}:Q", scale=shape, axis=theme.plain(**axis))


def panel(
    frame: pl.DataFrame,
    x: Axis,
    y: Axis,
    palette: Palette,
    size: tuple[int, int],
    *,
    title: str | None = None,
    dashed: Dashed | None = None,
    detail: str | None = None,
    legend: bool = True,
    dots: bool = True,
    clip: bool = False,
    bars: bool = False,
    turns: Sequence[float] = (),
    level: float | None = None,
    more: Sequence[str] = (),
) -> alt.LayerChart:
    """One panel: band, curve and points; on an axis of separate places points and intervals side by side.

    `size`: width and height in pixels. `detail`: the column that parts curves of one colour. `clip`: what lies outside
    of the scale is cut off. `bars`: intervals as lines, too, for points without neighbours. `turns`: where vertical
    rules are; `level`: where a horizontal one is. `more`: columns that only the tooltip shows.
    """
    values = [name for name in (y.field, "low", "high") if name in frame.columns]
    keys = [name for name in (palette.column, dashed and dashed.column, detail, x.field, *more) if name]
    data = frame.select(*dict.fromkeys(key for key in keys if key not in values), *map(rounded, values))
    base = theme.Chart(data).encode(
        x=x.encode(alt.X), color=palette.encode(alt.Color, legend), **({"detail": f"{detail}:N"} if detail else {})
    )
    tooltip = [
        alt.Tooltip(f"{key}:Q", format=".3~g" if key in values else ",") if data.schema[key].is_numeric() else (
            alt.Tooltip(f"{key}:N")
        )
        for key in data.columns
    ]  # fmt: skip
    cut = {"clip": True} if clip else {}
    categorical = bool(x.entries)
    parts: list[alt.Chart] = []
    if turns:
        rules = theme.Chart(alt.InlineData([{x.field: turn} for turn in turns]))
        parts.append(rules.mark_rule(style="turn").encode(x=x.encode(alt.X)))
    if level is not None:
        parts.append(rule_at(y, level))
    if "low" in values:
        ends = {"y": y.encode(alt.Y, "low"), "y2": "high:Q"}
        if categorical or bars:
            parts.append(base.mark_rule(style="interval", **cut).encode(**ends))
        if not categorical:
            parts.append(base.mark_area(style="band", **cut).encode(**ends))
    if not categorical:
        dash = {"strokeDash": dashed.encode()} if dashed else {}
        curve = base.mark_line(style="curve", **cut)
        parts.append(curve.encode(y=y.encode(alt.Y), **dash, **({} if dots else {"tooltip": tooltip})))
    if dots or categorical:
        # Not clipped, which would halve the marks of the first and the last point; those outside are left out.
        inside = f"datum.{y.field} >= {y.scale.low} && datum.{y.field} <= {y.scale.high}" if clip else ""
        within = base.transform_filter(inside) if clip else base
        marks = within.mark_point(style="dot-alone" if categorical else "dot")
        parts.append(marks.encode(y=y.encode(alt.Y), shape=palette.encode(alt.Shape, legend), tooltip=tooltip))
    if data[y.field].is_null().all():
        parts.append(note("no finite values"))
    # All at once: each later change of a chart would copy and check all of it again.
    return theme.layer(*parts, width=size[0], height=size[1], **titled(title))


def rule_at(axis: Axis, value: float) -> alt.Chart:
    """A horizontal rule."""
    data = theme.Chart(alt.InlineData([{axis.field: value}]))
    return data.mark_rule(style="zero").encode(y=axis.encode(alt.Y))


def note(text: str) -> alt.Chart:
    """A few words in place of what cannot be drawn."""
    return theme.Chart(alt.InlineData([{"text": text}])).mark_text(style="nothing").encode(text="text:N")


def nothing(heading: theme.Heading, columns: int = 2) -> alt.Chart:
    """A figure without rows, under its heading."""
    return note("nothing to show").properties(width=theme.WIDTH // 2, height=60, **theme.headed(heading, columns))


def in_pieces(groups: Iterable[Sequence], most: int) -> list[list]:
    """The entries of all groups in pieces of at most `most`: groups stay together, one larger than that is cut."""
    pieces: list[list] = []
    for group in groups:
        if pieces and len(pieces[-1]) + len(group) <= most:
            pieces[-1] += group
        else:
            pieces += [list(group[at : at + most]) for at in range(0, len(group), most)]
    return pieces


def titled(title: str | None) -> dict[str, alt.Title]:
    """A panel's title as an argument of its chart; none where there is none."""
    return {} if title is None else {"title": alt.Title(title, style="panel-title")}


def grid(panels: Sequence[alt.LayerChart | alt.Chart], columns: int, heading: theme.Heading) -> alt.ConcatChart:
    """Panels row by row under one heading, each with axes of its own, with one legend for all."""
    resolve = alt.Resolve(scale=alt.ScaleResolveMap(x="independent", y="independent"))
    return alt.concat(*panels, columns=columns, resolve=resolve, **theme.headed(heading, columns))


@dataclass(frozen=True)
class Cell:
    """The place of a panel in a grid of rows and columns: whether it is at the top, the bottom, the left."""

    top: bool
    bottom: bool
    left: bool


def cells(rows: Iterable, columns: Iterable) -> Iterator[tuple[Any, Any, Cell]]:
    """Row, column and place of every panel, row by row."""
    rows, columns = list(rows), list(columns)
    for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
        yield row, column, Cell(i == 0, i == len(rows) - 1, j == 0)


def rounded(name: str) -> pl.Expr:
    """A column to `DIGITS` digits, null where it is not finite."""
    return pl.when(pl.col(name).is_finite()).then(pl.col(name).round_sig_figs(DIGITS)).alias(name)


def ends_in(frame: pl.DataFrame) -> list[float | None]:
    """All values and ends of intervals of a frame, as they are drawn."""
    return [value for column in frame.select(map(rounded, VALUES)) for value in column]


def of(frame: pl.DataFrame, **keys: str | Sequence[str]) -> pl.DataFrame:
    """The rows with these keys: one, or any of several."""
    return frame.filter(
        pl.col(column) == wanted if isinstance(wanted, str) else pl.col(column).is_in(list(wanted))
        for column, wanted in keys.items()
    )


def projection_palette(keys: Sequence[str]) -> Palette:
    """A colour and shape a projection, the same in every figure."""
    colours = tuple(theme.COLOURS["projection"].get(key, theme.QUIET) for key in keys)
    shapes = tuple(theme.PROJECTION_SHAPES.get(key, "circle") for key in keys)
    return Palette("projection", tuple(map(label, keys)), colours, shapes)


def variant_ranks(keys: Sequence[str]) -> list[int]:
    """Each variant's place among colours and shapes: the study's own keep theirs, others take the next one after."""
    own = list(theme.COLOURS["variant"])
    others = itertools.count(len(own))
    return [own.index(key) if key in own else next(others) for key in keys]


def variant_palette(keys: Sequence[str]) -> Palette:
    """Colours and shapes of variants in order."""
    colours, shapes = (
        tuple(looks[rank % len(looks)] for rank in variant_ranks(keys))
        for looks in (theme.VARIANT_COLOURS, theme.SHAPES)
    )
    return Palette("variant", tuple(map(label, keys)), colours, shapes)


def palette_of(family: str, names: Mapping[str, str], column: str = "series") -> Palette:
    """Colours of a family of `theme.COLOURS` for these keys, in order; `names`: by key, what readers see.

    A key that the family lacks takes the next colour of series.
    """
    spare = itertools.cycle(SERIES)
    colours = tuple(theme.COLOURS[family].get(key) or next(spare) for key in names)
    shapes = tuple(theme.SHAPES[place % len(theme.SHAPES)] for place in range(len(names)))
    return Palette(column, tuple(names.values()), colours, shapes)


def series_palette(entries: Sequence[str], column: str = "series") -> Palette:
    """Colours and shapes of what has no meaning of its own in the theme, by the place in the figure."""
    return Palette(column, tuple(entries), SERIES[: len(entries)], theme.SHAPES[: len(entries)])
