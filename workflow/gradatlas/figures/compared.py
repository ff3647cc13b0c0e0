"""Correct responses against another kind: the two curves, and below them the signed relative difference by layer."""

import math
from collections.abc import Sequence

import altair as alt
import polars as pl

from gradatlas.charts import scales, theme
from gradatlas.charts.names import (
    TERMS,
    label,
    projections_in_order,
    relations_in_order,
    responses_of,
    terms,
    variants_in_order,
)
from gradatlas.charts.panel import VALUES, Dashed, cells, ends_in, grid, of, projection_palette
from gradatlas.figures.data import Data
from gradatlas.figures.heading import finite, larger, lines_of, of_curves, states_findings
from gradatlas.figures.layers import axis_title, layer_panel, layers_of, logged, ratio_scale, scale_of

SHOWN = (
    "Mean nuclear norm by layer of another kind of response (dashed) and of the correct one of the same question, for "
    "each variant and projection; below it,"
)


def heading(data: Data) -> theme.Heading:
    """In how many variants and projections the other kind's mean gradients are larger."""
    curves = _both(data)
    title = f"{TERMS.get(data.relation, label(data.relation))} against correct responses, by layer"
    rows = finite(of(data.of("rd"), statistic="nuclear_norm", measure="signed"))
    if states_findings(curves) and rows["low"].is_finite().any():
        title = larger(
            f"Mean gradients of {responses_of(data.relation)}", "correct ones", rows, "variants and projections"
        )
    multiples = by_decades(data.of("rd_layers"))
    below = (
        "multiples of correct responses, on a log axis" if multiples else "the difference as a share of correct ones"
    )
    drawn = f"{SHOWN} {below}, on one scale for all variants. Samples are paired."
    made = of_curves(title, curves, data.title, drawn, relation=data.relation)
    return made.with_lines(lines_of(data, reference=True))


def chart(data: Data, heading: theme.Heading) -> alt.ConcatChart:
    """The other kind is dashed; differences that span decades are drawn as multiples of correct, on a log axis."""
    curves, differences = _both(data), data.of("rd_layers")
    names = terms(relations_in_order(curves["relation"].unique()))
    curves, relations = curves.with_columns(pl.col("relation").replace(names)), list(names.values())
    dashed = Dashed("relation", tuple(relations))
    if by_decades(differences):
        return pair(curves, as_multiples(differences), heading, dashed, ["Dashed / solid,", "log"], 1)
    return pair(curves, differences, heading, dashed, ["Dashed − solid,", "relative"])


def pair(
    curves: pl.DataFrame,
    differences: pl.DataFrame,
    heading: theme.Heading,
    dashed: Dashed,
    below: Sequence[str],
    neutral: float = 0,
) -> alt.ConcatChart:
    """Nuclear norms of two kinds, one of them dashed, and below them their differences, titled `below`.

    `differences`: relative ones (`neutral` 0) or ratios (1), in the columns of `rd_layers`. Columns are projections,
    pairs of rows are variants. The norms of all variants share one axis, and so do the differences.
    """
    curves, differences = of(curves, statistic="nuclear_norm"), of(differences, statistic="nuclear_norm")
    projections = projections_in_order(curves["projection"].unique())
    variants = variants_in_order(differences["variant"].unique())
    palette, layers = projection_palette(projections), layers_of(curves)
    width, high, low = theme.panel_width(len(projections)), theme.HEIGHTS["small"], theme.HEIGHTS["difference"]
    ends = ends_in(differences)
    difference = scales.linear(ends) if neutral == 0 else ratio_scale(ends, low // 14)
    norms = scale_of(of(curves, variant=variants), high)
    panels = []
    for (variant, upper), projection, at in cells(
        [(name, part) for name in variants for part in (True, False)], projections
    ):
        rows = of(curves if upper else differences, variant=variant)
        frame = of(rows, projection=projection)
        if upper:
            panels.append(
                layer_panel(
                    frame, norms, palette, layers, (width, high), dashed=dashed,
                    title=f"{label(variant)} · {label(projection)}",
                    y_title=axis_title("nuclear_norm", logged(norms)) if at.left else None,
                    x_labels=layers == 1, y_labels=at.left,
                )
            )  # fmt: skip
        else:
            panels.append(
                layer_panel(
                    frame, difference, palette, layers, (width, low), neutral=neutral,
                    x_title="Layer" if at.bottom else None,
                    y_title=below if at.left else None, y_labels=at.left,
                )
            )  # fmt: skip
    return grid(panels, len(projections), heading)


def as_multiples(differences: pl.DataFrame) -> pl.DataFrame:
    """Relative differences as ratios."""
    return differences.with_columns(pl.col(*VALUES) + 1)


def by_decades(differences: pl.DataFrame) -> bool:
    """Whether the relative differences of nuclear norms are multiples that span more than a decade.

    One linear axis would hide most of them. Where a multiple is zero, no log axis holds it.
    """
    ratios = [value for value in ends_in(as_multiples(of(differences, statistic="nuclear_norm"))) if value is not None]
    found = [value for value in ratios if math.isfinite(value)]
    return bool(found) and min(found) > 0 and max(1, *found) / min(1, *found) > scales.DECADE


def _both(data: Data) -> pl.DataFrame:
    """The curves of the variants that have both; the others are in the figures of one relation."""
    return of(data.of("curves", reference=True), variant=data.of("rd_layers")["variant"].unique().to_list())
