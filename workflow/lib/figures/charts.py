"""The layer-gradient study's figures: a frame of plotted values in, a chart out.

Frames are rows of the `curves` and `rd_layers` tables (`workflow.lib.tables`) of one model and dataset. Lines run
straight from layer to layer, a gap stays a gap, and every axis holds every value and interval drawn on it.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
import polars as pl

from workflow.lib.figures import scales, theme
from workflow.lib.figures.names import (
    STATISTICS,
    in_order,
    label,
    projections_in_order,
    relations_in_order,
    statistic_label,
    variants_in_order,
)

# Plotted to six digits: finer than any screen, and files stay small and comparable.
DIGITS = 6
_VALUES = ("value", "low", "high")
# From this spread of the panels' largest values on, one common linear axis would flatten the smallest panel.
_SPREAD = 3.0


@dataclass(frozen=True)
class _Hue:
    """What colour and shape stand for: a column of labels, its entries in order, and their look."""

    column: str
    entries: tuple[str, ...]
    colours: tuple[str, ...]
    shapes: tuple[str, ...]


@dataclass(frozen=True)
class _Place:
    """Where a panel stands: its size, its titles, and which axes it labels (its neighbours label the others)."""

    width: int
    height: int
    title: str | None = None
    x_title: str | None = None
    y_title: str | Sequence[str] | None = None
    x_labels: bool = True
    y_labels: bool = True


def paper_panels(curves: pl.DataFrame, heading: theme.Heading) -> alt.ConcatChart:
    """The study's own figure: one panel a variant, a curve a projection, and the sigma ratios of Q, K and V, O below.

    `curves`: one model, dataset and relation.
    """
    variants = variants_in_order(curves["variant"].unique())
    projections = projections_in_order(curves["projection"].unique())
    hue, layers = _projection_hue(projections), _layers(curves)
    # The study's rows: the norms of all, then the ratios of the two pairs.
    rows = [
        ("nuclear_norm", projections, "main"),
        ("sigma_ratio", ["q", "k"], "minor"),
        ("sigma_ratio", ["v", "o"], "minor"),
    ]
    rows = [row for row in rows if _of(curves, statistic=row[0], projection=row[1]).height]
    panels = []
    for row in rows:
        name, shown, height = row
        pixels = theme.HEIGHTS[height]
        # Both rows of ratios have one axis, so that they compare; the norms share one unless it flattens a panel.
        apart = name == "nuclear_norm" and own_scales(curves)
        common = _scale(_of(curves, statistic=name), pixels, log=False)
        which = "" if row == rows[0] else f" · {', '.join(map(label, shown))}"
        for variant in variants:
            frame = _of(curves, statistic=name, projection=shown, variant=variant)
            place = _Place(
                theme.panel_width(len(variants)),
                pixels,
                title=label(variant) if row == rows[0] else None,
                x_title="Layer" if row == rows[-1] else None,
                y_title=_axis_title(name, which) if variant == variants[0] else None,
                x_labels=row == rows[-1],
                y_labels=apart or variant == variants[0],
            )
            scale = _scale(frame, pixels, log=False) if apart else common
            panels.append(_panel(frame, scale, hue, layers, place))
    return _grid(panels, len(variants), heading)


def own_scales(curves: pl.DataFrame) -> bool:
    """Whether the variants' largest norms lie so far apart that `paper_panels` gives each panel its own scale."""
    finite = _of(curves, statistic="nuclear_norm").filter(pl.col("value").is_finite() & (pl.col("value") > 0))
    tops = finite.group_by("variant").agg(pl.col("value").max())["value"].to_list()
    return len(tops) > 1 and max(tops) / min(tops) > _SPREAD


def variants_overlaid(curves: pl.DataFrame, heading: theme.Heading) -> alt.ConcatChart:
    """Variants over one another: a panel a projection (columns) and statistic (rows), log where it spans a decade.

    `curves`: one model, dataset and relation.
    """
    projections = projections_in_order(curves["projection"].unique())
    statistics = in_order(curves["statistic"].unique(), STATISTICS)
    hue, layers = _variant_hue(variants_in_order(curves["variant"].unique())), _layers(curves)
    panels = []
    for name in statistics:
        rows = _of(curves, statistic=name)
        pixels = theme.HEIGHTS["main" if name == statistics[0] else "minor"]
        scale = _scale(rows, pixels, log=True)
        for projection in projections:
            first = projection == projections[0]
            place = _Place(
                theme.panel_width(len(projections)),
                pixels,
                title=label(projection) if name == statistics[0] else None,
                x_title="Layer" if name == statistics[-1] else None,
                y_title=_axis_title(name, _logged(scale)) if first else None,
                x_labels=name == statistics[-1],
                y_labels=first,
            )
            panels.append(_panel(_of(rows, projection=projection), scale, hue, layers, place))
    return _grid(panels, len(projections), heading)


def relations_compared(curves: pl.DataFrame, rd_layers: pl.DataFrame, heading: theme.Heading) -> alt.ConcatChart:
    """Correct against another relation: the two curves, and below them the signed relative difference by layer.

    `curves`: the nuclear norms of one model and dataset, correct and one other relation; `rd_layers`: the relative
    differences of that other relation. Columns are projections, pairs of rows are variants. The differences of all
    variants share one axis, so that a small one looks small.
    """
    curves, rd_layers = _of(curves, statistic="nuclear_norm"), _of(rd_layers, statistic="nuclear_norm")
    projections = projections_in_order(curves["projection"].unique())
    variants = variants_in_order(rd_layers["variant"].unique())
    relations = [label(relation) for relation in relations_in_order(curves["relation"].unique())]
    hue, layers = _projection_hue(projections), _layers(curves)
    width, above, below = theme.panel_width(len(projections)), theme.HEIGHTS["small"], theme.HEIGHTS["difference"]
    difference = _scale(rd_layers, below, log=False)
    panels = []
    for variant in variants:
        pair = _of(curves, variant=variant)
        scale = _scale(pair, above, log=True)
        for projection in projections:
            first = projection == projections[0]
            place = _Place(
                width,
                above,
                title=f"{label(variant)} · {label(projection)}",
                y_title=_axis_title("nuclear_norm", _logged(scale)) if first else None,
                x_labels=layers == 1,
                y_labels=first,
            )
            panels.append(_panel(_of(pair, projection=projection), scale, hue, layers, place, dashed=relations))
        for projection in projections:
            first = projection == projections[0]
            place = _Place(
                width,
                below,
                x_title="Layer" if variant == variants[-1] else None,
                y_title=[f"{relations[-1]} − correct,", "relative"] if first else None,
                y_labels=first,
            )
            frame = _of(rd_layers, variant=variant, projection=projection)
            panels.append(_panel(frame, difference, hue, layers, place, share=True))
    return _grid(panels, len(projections), heading)


def _panel(
    frame: pl.DataFrame,
    scale: scales.Scale,
    hue: _Hue,
    layers: int,
    place: _Place,
    *,
    dashed: Sequence[str] = (),
    share: bool = False,
) -> alt.LayerChart:
    """One panel: band, curve and points over the layers.

    `dashed`: relations in order, told apart by dash. `share`: a difference, read in percent against a rule at zero.
    """
    data = _plotted(frame, layers)
    legend = {} if not (dashed or share) else {"legend": None}
    entries = list(hue.entries)
    colour = alt.Color(
        f"{hue.column}:N", scale=alt.Scale(domain=entries, range=list(hue.colours)), title=None, **legend
    )
    shape = alt.Shape(f"{hue.column}:N", scale=alt.Scale(domain=entries, range=list(hue.shapes)), title=None, **legend)
    y_scale = alt.Scale(type=scale.kind, domain=[scale.low, scale.high], nice=False, zero=False)
    # A blank label in place of none keeps the panels' tops, and so their titles, at one height.
    numbers = _numbers(scale, share) if place.y_labels else {"labelExpr": "' '"}
    y_axis = alt.Axis(values=list(scale.ticks), title=place.y_title, **numbers)
    value, low = (alt.Y(f"{name}:Q", scale=y_scale, axis=y_axis) for name in ("value", "low"))
    offered = [relation for relation in dashed if relation in data["relation"]] if dashed else entries
    alone = layers == 1
    x = _by_series("relation" if dashed else hue.column, offered, place, share) if alone else _by_layer(layers, place)
    base = alt.Chart(data).encode(x=x, color=colour, **({"detail": "relation:N"} if dashed else {}))
    tooltip = _tooltip(data)
    dotted = alone or (not dashed and place.width / (layers - 1) >= theme.POINT_SPACING)
    parts: list[alt.Chart] = []
    if share:
        rule = alt.Chart(alt.InlineData([{"zero": 0}])).mark_rule(style="zero")
        parts.append(rule.encode(y=alt.Y("zero:Q", scale=y_scale, axis=y_axis)))
    if alone:
        parts.append(base.mark_rule(style="interval").encode(y=low, y2="high:Q"))
    else:
        parts.append(base.mark_area(style="band").encode(y=low, y2="high:Q"))
        dash = {"strokeDash": _dash(dashed)} if dashed else {}
        parts.append(base.mark_line(style="curve").encode(y=value, **dash, **({} if dotted else {"tooltip": tooltip})))
    if dotted:
        dots = base.mark_point(style="dot-alone" if alone else "dot")
        parts.append(dots.encode(y=value, shape=shape, tooltip=tooltip))
    if data["value"].is_null().all():
        words = alt.Chart(alt.InlineData([{"text": "no finite values"}]))
        parts.append(words.mark_text(style="nothing").encode(text="text:N"))
    # All at once: each later change of a chart would copy and check the whole of it again.
    title = {"title": alt.Title(place.title, style="panel-title")} if place.title else {}
    return alt.layer(*parts, width=place.width, height=place.height, **title)


def _dash(relations: Sequence[str]) -> alt.StrokeDash:
    look = alt.Scale(domain=list(relations), range=[list(dash) for dash in theme.DASHES[: len(relations)]])
    return alt.StrokeDash("relation:N", scale=look, legend=alt.Legend(**theme.DASH_LEGEND))


def _by_layer(layers: int, place: _Place) -> alt.X:
    axis = alt.Axis(values=list(scales.layer_ticks(layers)), format="d", labels=place.x_labels)
    return alt.X("layer:Q", title=place.x_title, axis=axis, scale=alt.Scale(domain=[0, layers - 1], nice=False))


def _by_series(column: str, entries: Sequence[str], place: _Place, share: bool) -> alt.X:
    """One layer has no curve: its values stand side by side, each with its interval."""
    if share:
        return alt.X("layer:O", title=place.x_title, axis=alt.Axis(labelAngle=0))
    return alt.X(
        f"{column}:O", title=place.x_title and f"{place.x_title} 0", sort=list(entries), axis=alt.Axis(labelAngle=0)
    )


def _numbers(scale: scales.Scale, share: bool) -> dict[str, str]:
    """How an axis writes its numbers: plainly, or as signed percentages without a sign at zero."""
    if not share:
        return {"format": f",.{scale.decimals}~f"}
    digits = max(0, scale.decimals - 2)
    return {"labelExpr": f"datum.value === 0 ? '0 %' : format(100 * datum.value, '+,.{digits}~f') + ' %'"}


def _plotted(frame: pl.DataFrame, layers: int) -> pl.DataFrame:
    """The plotted columns, with labels for keys, nulls for what is not finite, and a row for every layer."""
    keys = ["projection", "variant", "relation", "statistic"]
    series = frame.select(keys).unique(maintain_order=True)
    grid = series.join(pl.DataFrame({"layer": range(layers)}), how="cross")
    # A layer without a row becomes an empty one, so that no line is drawn across the gap.
    full = grid.join(frame.with_columns(pl.col("layer").cast(pl.Int64)), on=[*keys, "layer"], how="left")
    return full.sort(*keys, "layer").select(
        *(pl.col(key).map_elements(label, return_dtype=pl.String) for key in keys[:3]),
        pl.col("statistic").map_elements(statistic_label, return_dtype=pl.String),
        "layer",
        *(_rounded(name) for name in _VALUES),
        "n",
    )


def _rounded(name: str) -> pl.Expr:
    return pl.when(pl.col(name).is_finite()).then(pl.col(name).round_sig_figs(DIGITS)).alias(name)


def _tooltip(data: pl.DataFrame) -> list[alt.Tooltip]:
    words = [alt.Tooltip(f"{name}:N") for name in ("projection", "variant", "relation", "statistic")]
    numbers = [alt.Tooltip(f"{name}:Q", format=".3~g") for name in _VALUES]
    return [*words, alt.Tooltip("layer:Q"), *numbers, alt.Tooltip("n:Q", format=",")]


def _scale(frame: pl.DataFrame, height: int, log: bool) -> scales.Scale:
    values = [value for name in _VALUES for value in frame.select(_rounded(name)).to_series()]
    return (scales.log_if_decades if log else scales.linear)(values, height)


def _layers(frame: pl.DataFrame) -> int:
    """Number of layers of the model, from the highest one seen."""
    return int(frame["layer"].max()) + 1


def _of(frame: pl.DataFrame, **keys: str | Sequence[str]) -> pl.DataFrame:
    """The rows with these keys: one, or any of several."""
    for column, wanted in keys.items():
        frame = frame.filter(pl.col(column).is_in([wanted] if isinstance(wanted, str) else list(wanted)))
    return frame


def _projection_hue(keys: Sequence[str]) -> _Hue:
    colours = tuple(theme.PROJECTION_COLOURS.get(key, theme.QUIET) for key in keys)
    shapes = tuple(theme.PROJECTION_SHAPES.get(key, "circle") for key in keys)
    return _Hue("projection", tuple(map(label, keys)), colours, shapes)


def _variant_hue(keys: Sequence[str]) -> _Hue:
    taken = {theme.OWN_LOOK[key] for key in keys if key in theme.OWN_LOOK}
    free = (rank for rank in itertools.count() if rank not in taken)
    ranks = [theme.OWN_LOOK[key] if key in theme.OWN_LOOK else next(free) for key in keys]
    colours, shapes = (
        tuple(looks[rank % len(looks)] for rank in ranks) for looks in (theme.ORDERED_COLOURS, theme.ORDERED_SHAPES)
    )
    return _Hue("variant", tuple(map(label, keys)), colours, shapes)


def _axis_title(statistic: str, more: str = "") -> str:
    text = statistic_label(statistic) + more
    # A Greek letter is a symbol, and no word to begin with a capital.
    return text[:1].upper() + text[1:] if text[:1].isascii() else text


def _logged(scale: scales.Scale) -> str:
    return ", log" if scale.kind == "log" else ""


def _grid(panels: Sequence[alt.LayerChart], columns: int, heading: theme.Heading) -> alt.ConcatChart:
    apart = alt.Resolve(scale=alt.ScaleResolveMap(x="independent", y="independent"))
    return alt.concat(*panels, columns=columns, title=theme.heading_of(heading, columns), resolve=apart)
