"""The study's own figure: one panel per variant, a curve per projection, and the σ ratios of Q, K and V, O below."""

from collections.abc import Mapping, Sequence

import altair as alt
import polars as pl

from gradatlas.charts import scales, theme
from gradatlas.charts.names import label, projections_in_order, variants_in_order
from gradatlas.charts.panel import OWN_SCALE, cells, ends_in, grid, of, projection_palette
from gradatlas.figures.data import Data
from gradatlas.figures.heading import DRAWN, finite, lines_of, of_curves
from gradatlas.figures.layers import axis_title, layer_panel, layers_of

TITLE = "Nuclear norm of the gradient, by layer"
SHOWN = (
    "The study’s own figure: one panel per variant, curves of the projections Q, K, V and O over the layers; below, "
    "the largest singular value’s share of the nuclear norm, Q and K apart from V and O."
)
# From this spread of the panels' largest values on, one common linear axis would flatten the smallest panel.
_SPREAD = 3.0
# The study's own axes (its code): the largest nuclear norm of None and of the others, and the largest ratio.
PAPER_TOPS, PAPER_TOP, PAPER_RATIO = {"none": 100}, 30, 0.6


def heading(data: Data) -> theme.Heading:
    """What is drawn, and how much the study's own axes cut off."""
    curves = data.of("curves")
    made = of_curves(TITLE, curves, data.title, f"{SHOWN} {DRAWN}")
    return made.with_lines([*axis_lines(curves, data.tops), *lines_of(data)])


def chart(data: Data, heading: theme.Heading) -> alt.ConcatChart:
    """Columns are variants. With `data.tops` the axes are the study's, and curves beyond them are cut off."""
    curves, tops = data.of("curves"), data.tops
    variants = data.order or variants_in_order(curves["variant"].unique())
    projections = projections_in_order(curves["projection"].unique())
    palette, layers = projection_palette(projections), layers_of(curves)
    # The study's rows: the norms of all, then the ratios of the two pairs.
    rows = [
        ("nuclear_norm", projections, "main"),
        ("sigma_ratio", ["q", "k"], "minor"),
        ("sigma_ratio", ["v", "o"], "minor"),
    ]
    rows = [row for row in rows if of(curves, statistic=row[0], projection=row[1]).height]
    panels = []
    for (name, shown, height), variant, at in cells(rows, variants):
        # Both rows of ratios have one axis, so that they compare; the norms share one unless it flattens a panel.
        norms = name == "nuclear_norm"
        own_scale = norms and own_scales(curves, tops)
        frame = of(curves, statistic=name, projection=shown, variant=variant)
        scale = scales.linear(ends_in(frame if own_scale else of(curves, statistic=name)))
        if tops is not None:
            scale = scales.Scale("linear", 0, tops[variant] if norms else PAPER_RATIO)
        which = "" if norms else ", ".join(map(label, shown))
        panels.append(
            layer_panel(
                frame, scale, palette, layers, (theme.panel_width(len(variants)), theme.HEIGHTS[height]),
                title=label(variant) if at.top else None,
                x_title="Layer" if at.bottom else None,
                y_title=list(filter(None, (axis_title(name), which, OWN_SCALE * own_scale))) if at.left else None,
                x_labels=at.bottom, y_labels=own_scale or at.left, clip=tops is not None,
            )
        )  # fmt: skip
    return grid(panels, len(variants), heading)


def paper_tops(variants: Sequence[str], top: int | None = None) -> dict[str, float]:
    """The ends of the study's axes of nuclear norms, by variant; `top`: one for all of a dataset's."""
    return {variant: float(top or PAPER_TOPS.get(variant, PAPER_TOP)) for variant in variants}


def own_scales(curves: pl.DataFrame, tops: Mapping[str, float] | None = None) -> bool:
    """Whether each panel of norms has its own scale: the variants' largest norms lie far apart, or the study's do."""
    if tops is not None:
        return len({tops[variant] for variant in curves["variant"].unique()}) > 1
    norms = finite(of(curves, statistic="nuclear_norm")).filter(pl.col("value") > 0)
    largest = norms.group_by("variant").agg(pl.col("value").max())["value"].to_list()
    return len(largest) > 1 and max(largest) / min(largest) > _SPREAD


def axis_lines(curves: pl.DataFrame, tops: Mapping[str, float] | None) -> list[str]:
    """Lines where the panels differ in scale, and on how many means the study's own axes cut off."""
    lines = ["The upper panels differ in scale."] if own_scales(curves, tops) else []
    if tops is None:
        return lines
    drawn = finite(of(curves, statistic=["nuclear_norm", "sigma_ratio"]))
    top = pl.col("variant").replace_strict(tops, return_dtype=pl.Float64)
    end = pl.when(pl.col("statistic") == "nuclear_norm").then(top).otherwise(PAPER_RATIO)
    cut = drawn.filter(pl.col("value") > end).height
    text = f"{cut} of {drawn.height} means lie beyond them and are cut off" if cut else "all means lie within"
    return [*lines, f"The study’s own axes: {text}."]
