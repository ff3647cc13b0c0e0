"""Curves over layers, of rows of the `curves` and `rd_layers` tables of one model: a panel, and the variants overlaid.

Lines run straight from layer to layer, a gap stays a gap, and every axis holds every value and interval on it, unless
the caller clips.
"""

from collections.abc import Sequence

import altair as alt
import polars as pl

from gradatlas.charts import scales, theme
from gradatlas.charts.names import (
    STATISTICS,
    in_order,
    label,
    projections_in_order,
    statistic_label,
    variants_in_order,
)
from gradatlas.charts.panel import Axis, Dashed, Palette, cells, ends_in, grid, of, panel, variant_palette
from gradatlas.figures.data import Data
from gradatlas.figures.heading import DRAWN, clear_differences, finite, larger, lines_of, of_curves, states_findings

TITLE = "Nuclear norm of the gradient, variants overlaid"
SHOWN = (
    "The variants over one another, one panel per projection: nuclear norm, the largest singular value’s share of it, "
    "and effective rank, by layer. The panels of a row share a scale."
)
# Signed percentages, without a sign at zero.
PERCENT = "datum.value === 0 ? '0 %' : format(100 * datum.value, '+,~r') + ' %'"
# Pixels of an axis to a tick of a log axis.
_TICK = 14
_KEYS = ("projection", "variant", "relation", "statistic")


def heading(data: Data) -> theme.Heading:
    """At how many layers and projections the first variant's mean gradient lies clearly above the last one's."""
    curves = data.of("curves")
    norms, title = finite(of(curves, statistic="nuclear_norm")), TITLE
    variants = variants_in_order(norms["variant"].unique())
    if states_findings(curves) and len(variants) > 1:
        first, last = (of(norms, variant=variant) for variant in (variants[0], variants[-1]))
        differences = clear_differences(first, last, ["projection", "layer"])
        if not differences.is_empty():
            names = (f"Mean gradients of {label(variants[0])}", label(variants[-1]))
            title = larger(*names, differences, "layers and projections")
    return of_curves(title, curves, data.title, f"{SHOWN} {DRAWN}").with_lines(lines_of(data))


def chart(data: Data, heading: theme.Heading) -> alt.ConcatChart:
    """Variants over one another: a panel per projection (columns) and statistic (rows), log where it spans a decade."""
    curves = data.of("curves")
    projections = projections_in_order(curves["projection"].unique())
    statistics = in_order(curves["statistic"].unique(), STATISTICS)
    palette, layers = variant_palette(data.order or variants_in_order(curves["variant"].unique())), layers_of(curves)
    panels = []
    for name, projection, at in cells(statistics, projections):
        rows = of(curves, statistic=name)
        height = theme.HEIGHTS["main" if at.top else "minor"]
        scale = scale_of(rows, height)
        panels.append(
            layer_panel(
                of(rows, projection=projection), scale, palette, layers, (theme.panel_width(len(projections)), height),
                title=label(projection) if at.top else None,
                x_title="Layer" if at.bottom else None,
                y_title=axis_title(name, logged(scale)) if at.left else None,
                x_labels=at.bottom, y_labels=at.left,
            )
        )  # fmt: skip
    return grid(panels, len(projections), heading)


def layer_panel(
    frame: pl.DataFrame,
    scale: scales.Scale,
    palette: Palette,
    layers: int,
    size: tuple[int, int],
    *,
    title: str | None = None,
    x_title: str | None = None,
    y_title: str | Sequence[str] | None = None,
    x_labels: bool = True,
    y_labels: bool = True,
    dashed: Dashed | None = None,
    neutral: float | None = None,
    clip: bool = False,
) -> alt.LayerChart:
    """One panel over `layers` layers; of one layer, its values side by side.

    `neutral`: the values are relative differences (0, in percent) or ratios (1), read against a rule there.
    """
    data = _with_gaps(frame, layers, dashed)
    x = Axis("layer", x_title, scales.Scale("linear", 0, layers - 1), "d", labels=x_labels, count=max(3, size[0] // 40))
    if layers == 1:
        # One layer has no curve: its values are side by side, each with its interval.
        series = dashed or palette
        entries = tuple(entry for entry in series.entries if entry in data[series.column])
        x = Axis("layer", x_title, entries=("0",)) if neutral is not None else Axis(
            series.column, x_title and f"{x_title} 0", entries=entries
        )  # fmt: skip
    y = Axis(
        "value",
        y_title,
        scale,
        expression=PERCENT if neutral == 0 else None,
        labels=y_labels,
        count=max(3, size[1] // 28),
    )
    dots = not dashed and size[0] / max(1, layers - 1) >= theme.POINT_SPACING
    return panel(
        data, x, y, palette, size, title=title, dashed=dashed, detail=dashed.column if dashed else None,
        legend=not dashed and neutral is None, dots=dots, clip=clip, level=neutral,
        more=(*_KEYS, "layer", "n"),
    )  # fmt: skip


def scale_of(frame: pl.DataFrame, height: int) -> scales.Scale:
    """The axis, `height` pixels long, that holds every value and interval: by decades, where they span one."""
    return scales.log_if_decades(ends_in(frame), height // _TICK)


def ratio_scale(values: Sequence[float | None], ticks: int) -> scales.Scale:
    """A log axis of ratios, with 1 on it."""
    return scales.logarithmic([1.0, *values], ticks)


def layers_of(frame: pl.DataFrame) -> int:
    """Number of layers of the model, from the highest one seen."""
    return int(frame["layer"].max()) + 1


def axis_title(statistic: str, more: str = "") -> str:
    """A statistic's name as the title of an axis."""
    text = statistic_label(statistic) + more
    # A Greek letter is a symbol, and no word to begin with a capital.
    return text[:1].upper() + text[1:] if text[:1].isascii() else text


def logged(scale: scales.Scale) -> str:
    """What ends the title of a logarithmic axis."""
    return ", log" if scale.kind == "log" else ""


def _with_gaps(frame: pl.DataFrame, layers: int, dashed: Dashed | None) -> pl.DataFrame:
    """The plotted rows with labels for keys; a layer without a row becomes an empty one, so that no line crosses it."""
    others = [dashed.column] if dashed and dashed.column not in _KEYS else []
    on = [*_KEYS, *others, "layer"]
    series = frame.select(on[:-1]).unique(maintain_order=True)
    every = series.join(pl.DataFrame({"layer": range(layers)}), how="cross")
    return (
        every.join(frame.with_columns(pl.col("layer").cast(pl.Int64)), on=on, how="left")
        .sort(on)
        .with_columns(
            *(pl.col(key).map_elements(label, return_dtype=pl.String) for key in _KEYS[:3]),
            pl.col("statistic").map_elements(statistic_label, return_dtype=pl.String),
        )
    )
