"""What figures over layers are built of: one panel with its axes, colours and marks, and panels as one chart.

Frames are rows of the `curves` and `rd_layers` tables (`gradatlas.statistics.tables`) of one model. Lines run straight
from layer to layer, a gap stays a gap, and every axis holds every value and interval on it, unless the caller clips.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import altair as alt
import polars as pl

from gradatlas.charts import scales, theme
from gradatlas.charts.names import label, statistic_label

# Plotted to six digits: finer than any screen, and files stay small and comparable.
DIGITS = 6
VALUES = ("value", "low", "high")


@dataclass(frozen=True)
class Hue:
    """What colour and shape stand for: a column of labels, its entries in order, and their look."""

    column: str
    entries: tuple[str, ...]
    colours: tuple[str, ...]
    shapes: tuple[str, ...]


@dataclass(frozen=True)
class Dashed:
    """What a dash stands for: a column (``relation`` or ``model``), its entries as readers see them, solid first."""

    column: str
    entries: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """Where a panel stands: its size, its titles, and which axes it labels (its neighbours label the others)."""

    width: int
    height: int
    title: str | None = None
    x_title: str | None = None
    y_title: str | Sequence[str] | None = None
    x_labels: bool = True
    y_labels: bool = True


def panel(
    frame: pl.DataFrame,
    scale: scales.Scale,
    hue: Hue,
    layers: int,
    place: Place,
    *,
    dashed: Dashed | None = None,
    neutral: float | None = None,
    clip: bool = False,
) -> alt.LayerChart:
    """One panel: band, curve and points over the layers.

    `neutral`: the values are relative differences (0, in percent) or ratios (1), read against a rule there.
    `clip`: what lies outside of the scale is cut off.
    """
    data = _plotted(frame, layers, dashed)
    legend = {} if not (dashed or neutral is not None) else {"legend": None}
    entries = list(hue.entries)
    colour = alt.Color(
        f"{hue.column}:N", scale=theme.plain(domain=entries, range=list(hue.colours)), title=None, **legend
    )
    shape = alt.Shape(
        f"{hue.column}:N", scale=theme.plain(domain=entries, range=list(hue.shapes)), title=None, **legend
    )
    y_scale = theme.plain(type=scale.kind, domain=[scale.low, scale.high], nice=False, zero=False)
    # A blank label in place of none keeps the panels' tops, and so their titles, at one height.
    numbers = _numbers(scale, neutral) if place.y_labels else {"labelExpr": "' '"}
    y_axis = theme.plain(values=list(scale.ticks), title=place.y_title, **numbers)
    value, low = (alt.Y(f"{name}:Q", scale=y_scale, axis=y_axis) for name in ("value", "low"))
    offered = [entry for entry in dashed.entries if entry in data[dashed.column]] if dashed else entries
    alone = layers == 1
    x = (
        _by_series(dashed.column if dashed else hue.column, offered, place, neutral is not None)
        if alone
        else _by_layer(layers, place)
    )
    base = alt.Chart(data).encode(x=x, color=colour, **({"detail": f"{dashed.column}:N"} if dashed else {}))
    tooltip = _tooltip(data)
    dotted = alone or (not dashed and place.width / (layers - 1) >= theme.POINT_SPACING)
    cut = {"clip": True} if clip else {}
    parts: list[alt.Chart] = []
    if neutral is not None:
        rule = alt.Chart(alt.InlineData([{"zero": neutral}])).mark_rule(style="zero")
        parts.append(rule.encode(y=alt.Y("zero:Q", scale=y_scale, axis=y_axis)))
    if alone:
        parts.append(base.mark_rule(style="interval", **cut).encode(y=low, y2="high:Q"))
    else:
        parts.append(base.mark_area(style="band", **cut).encode(y=low, y2="high:Q"))
        dash = {"strokeDash": _dash(dashed)} if dashed else {}
        curve = base.mark_line(style="curve", **cut)
        parts.append(curve.encode(y=value, **dash, **({} if dotted else {"tooltip": tooltip})))
    if dotted:
        # Not clipped, which would halve the marks of the first and the last layer; those outside are left out.
        within = base.transform_filter(f"datum.value >= {scale.low} && datum.value <= {scale.high}") if clip else base
        dots = within.mark_point(style="dot-alone" if alone else "dot")
        parts.append(dots.encode(y=value, shape=shape, tooltip=tooltip))
    if data["value"].is_null().all():
        words = alt.Chart(alt.InlineData([{"text": "no finite values"}]))
        parts.append(words.mark_text(style="nothing").encode(text="text:N"))
    # All at once: each later change of a chart would copy and check the whole of it again.
    title = {"title": alt.Title(place.title, style="panel-title")} if place.title else {}
    return alt.layer(*parts, width=place.width, height=place.height, **title)


def _dash(dashed: Dashed) -> alt.StrokeDash:
    look = theme.plain(domain=list(dashed.entries), range=[list(dash) for dash in theme.DASHES[: len(dashed.entries)]])
    return alt.StrokeDash(f"{dashed.column}:N", scale=look, legend=alt.Legend(**theme.DASH_LEGEND))


def _by_layer(layers: int, place: Place) -> alt.X:
    axis = theme.plain(values=list(scales.layer_ticks(layers)), format="d", labels=place.x_labels)
    return alt.X("layer:Q", title=place.x_title, axis=axis, scale=theme.plain(domain=[0, layers - 1], nice=False))


def _by_series(column: str, entries: Sequence[str], place: Place, relative: bool) -> alt.X:
    """One layer has no curve: its values stand side by side, each with its interval."""
    if relative:
        return alt.X("layer:O", title=place.x_title, axis=theme.plain(labelAngle=0))
    return alt.X(
        f"{column}:O", title=place.x_title and f"{place.x_title} 0", sort=list(entries), axis=theme.plain(labelAngle=0)
    )


def _numbers(scale: scales.Scale, neutral: float | None) -> dict[str, str]:
    """How an axis writes its numbers: plainly, or differences as signed percentages."""
    return percentages(scale) if neutral == 0 else {"format": f",.{scale.decimals}~f"}


def percentages(scale: scales.Scale) -> dict[str, str]:
    """How an axis of shares writes its numbers: with their sign, but none at zero."""
    digits = max(0, scale.decimals - 2)
    return {"labelExpr": f"datum.value === 0 ? '0 %' : format(100 * datum.value, '+,.{digits}~f') + ' %'"}


def _plotted(frame: pl.DataFrame, layers: int, dashed: Dashed | None = None) -> pl.DataFrame:
    """The plotted columns, with labels for keys, nulls for what is not finite, and a row for every layer."""
    keys = ["projection", "variant", "relation", "statistic"]
    others = [dashed.column] if dashed and dashed.column not in keys else []
    series = frame.select(keys + others).unique(maintain_order=True)
    grid = series.join(pl.DataFrame({"layer": range(layers)}), how="cross")
    # A layer without a row becomes an empty one, so that no line is drawn across the gap.
    on = [*keys, *others, "layer"]
    full = grid.join(frame.with_columns(pl.col("layer").cast(pl.Int64)), on=on, how="left")
    return full.sort(on).select(
        *(pl.col(key).map_elements(label, return_dtype=pl.String) for key in keys[:3]),
        pl.col("statistic").map_elements(statistic_label, return_dtype=pl.String),
        *others,
        "layer",
        *(rounded(name) for name in VALUES),
        "n",
    )


def rounded(name: str) -> pl.Expr:
    """A column to `DIGITS` digits, null where it is not finite."""
    return pl.when(pl.col(name).is_finite()).then(pl.col(name).round_sig_figs(DIGITS)).alias(name)


def _tooltip(data: pl.DataFrame) -> list[alt.Tooltip]:
    words = [alt.Tooltip(f"{name}:N") for name in ("projection", "variant", "relation", "statistic")]
    numbers = [alt.Tooltip(f"{name}:Q", format=".3~g") for name in VALUES]
    return [*words, alt.Tooltip("layer:Q"), *numbers, alt.Tooltip("n:Q", format=",")]


def scale_of(frame: pl.DataFrame, height: int, log: bool) -> scales.Scale:
    """The axis, `height` pixels long, that holds every value and interval; `log`: by decades, where they span one."""
    values = [value for name in VALUES for value in frame.select(rounded(name)).to_series()]
    return (scales.log_if_decades if log else scales.linear)(values, height)


def ratio_scale(values: Iterable[float | None], room: int) -> scales.Scale:
    """A log axis of ratios, with 1 on it and round numbers at both ends; `room`: ticks at most."""
    return scales.logarithmic([1.0, *(value for value in values if value is not None)], room)


def layers_of(frame: pl.DataFrame) -> int:
    """Number of layers of the model, from the highest one seen."""
    return int(frame["layer"].max()) + 1


def of(frame: pl.DataFrame, **keys: str | Sequence[str]) -> pl.DataFrame:
    """The rows with these keys: one, or any of several."""
    for column, wanted in keys.items():
        frame = frame.filter(pl.col(column).is_in([wanted] if isinstance(wanted, str) else list(wanted)))
    return frame


def projection_hue(keys: Sequence[str]) -> Hue:
    """A colour and shape a projection, the same in every figure."""
    colours = tuple(theme.PROJECTION_COLOURS.get(key, theme.QUIET) for key in keys)
    shapes = tuple(theme.PROJECTION_SHAPES.get(key, "circle") for key in keys)
    return Hue("projection", tuple(map(label, keys)), colours, shapes)


def variant_hue(keys: Sequence[str]) -> Hue:
    """Colours and shapes of variants in order; the study's own keep theirs where another is missing."""
    taken = {theme.OWN_LOOK[key] for key in keys if key in theme.OWN_LOOK}
    free = (rank for rank in itertools.count() if rank not in taken)
    ranks = [theme.OWN_LOOK[key] if key in theme.OWN_LOOK else next(free) for key in keys]
    colours, shapes = (
        tuple(looks[rank % len(looks)] for rank in ranks) for looks in (theme.ORDERED_COLOURS, theme.ORDERED_SHAPES)
    )
    return Hue("variant", tuple(map(label, keys)), colours, shapes)


def axis_title(statistic: str, more: str = "") -> str:
    """A statistic's name as the title of an axis."""
    text = statistic_label(statistic) + more
    # A Greek letter is a symbol, and no word to begin with a capital.
    return text[:1].upper() + text[1:] if text[:1].isascii() else text


def logged(scale: scales.Scale) -> str:
    """What an axis' title says of a logarithmic scale."""
    return ", log" if scale.kind == "log" else ""


def grid(panels: Sequence[alt.LayerChart], columns: int, heading: theme.Heading) -> alt.ConcatChart:
    """Panels row by row under one heading, each with axes of its own."""
    apart = alt.Resolve(scale=alt.ScaleResolveMap(x="independent", y="independent"))
    return alt.concat(*panels, columns=columns, title=theme.heading_of(heading, columns), resolve=apart)
