"""The layer-gradient study's figures of one dataset: a frame of plotted values in, a chart out."""

import math
from collections.abc import Mapping, Sequence

import altair as alt
import polars as pl

from gradatlas.charts import scales, theme
from gradatlas.charts.names import (
    STATISTICS,
    in_order,
    label,
    projections_in_order,
    relations_in_order,
    variants_in_order,
)
from gradatlas.charts.panel import (
    VALUES,
    Dashed,
    Place,
    axis_title,
    grid,
    layers_of,
    logged,
    of,
    panel,
    projection_hue,
    ratio_scale,
    rounded,
    scale_of,
    variant_hue,
)

# From this spread of the panels' largest values on, one common linear axis would flatten the smallest panel.
_SPREAD = 3.0
# The study's own axes (its code): the largest nuclear norm of None and of the others, and the largest ratio.
PAPER_TOPS, PAPER_TOP, PAPER_RATIO = {"none": 100}, 30, 0.6


def paper_panels(
    curves: pl.DataFrame,
    heading: theme.Heading,
    variants: Sequence[str] = (),
    tops: Mapping[str, float] | None = None,
) -> alt.ConcatChart:
    """The study's own figure: one panel a variant, a curve a projection, and the sigma ratios of Q, K and V, O below.

    `curves`: one model, dataset and relation. `variants`: their order, where it is not the usual one. `tops`: the ends
    of the study's own axes by variant, beyond which curves are cut off; else every axis holds all that is drawn on it.
    """
    variants = list(variants) or variants_in_order(curves["variant"].unique())
    projections = projections_in_order(curves["projection"].unique())
    hue, layers = projection_hue(projections), layers_of(curves)
    # The study's rows: the norms of all, then the ratios of the two pairs.
    rows = [
        ("nuclear_norm", projections, "main"),
        ("sigma_ratio", ["q", "k"], "minor"),
        ("sigma_ratio", ["v", "o"], "minor"),
    ]
    rows = [row for row in rows if of(curves, statistic=row[0], projection=row[1]).height]
    panels = []
    for row in rows:
        name, shown, height = row
        pixels = theme.HEIGHTS[height]
        # Both rows of ratios have one axis, so that they compare; the norms share one unless it flattens a panel.
        norms = name == "nuclear_norm"
        apart = norms and (own_scales(curves) if tops is None else len(set(tops.values())) > 1)
        common = scale_of(of(curves, statistic=name), pixels, log=False)
        which = "" if row == rows[0] else f" · {', '.join(map(label, shown))}"
        for variant in variants:
            frame = of(curves, statistic=name, projection=shown, variant=variant)
            place = Place(
                theme.panel_width(len(variants)),
                pixels,
                title=label(variant) if row == rows[0] else None,
                x_title="Layer" if row == rows[-1] else None,
                y_title=axis_title(name, which) if variant == variants[0] else None,
                x_labels=row == rows[-1],
                y_labels=apart or variant == variants[0],
            )
            scale = scale_of(frame, pixels, log=False) if apart else common
            if tops is not None:
                scale = scales.linear([tops[variant] if norms else PAPER_RATIO], pixels)
            panels.append(panel(frame, scale, hue, layers, place, clip=tops is not None))
    return grid(panels, len(variants), heading)


def paper_tops(variants: Sequence[str], top: int | None = None) -> dict[str, float]:
    """The ends of the study's axes of nuclear norms, by variant; `top`: one for all of a dataset's."""
    return {variant: float(top or PAPER_TOPS.get(variant, PAPER_TOP)) for variant in variants}


def beyond(curves: pl.DataFrame, tops: Mapping[str, float]) -> tuple[int, int]:
    """How many of the drawn means lie beyond the study's axes, and of how many."""
    drawn = of(curves, statistic=["nuclear_norm", "sigma_ratio"]).filter(pl.col("value").is_finite())
    top = pl.col("variant").replace_strict(tops, return_dtype=pl.Float64)
    end = pl.when(pl.col("statistic") == "nuclear_norm").then(top).otherwise(PAPER_RATIO)
    return drawn.filter(pl.col("value") > end).height, drawn.height


def own_scales(curves: pl.DataFrame) -> bool:
    """Whether the variants' largest norms lie so far apart that `paper_panels` gives each panel its own scale."""
    finite = of(curves, statistic="nuclear_norm").filter(pl.col("value").is_finite() & (pl.col("value") > 0))
    tops = finite.group_by("variant").agg(pl.col("value").max())["value"].to_list()
    return len(tops) > 1 and max(tops) / min(tops) > _SPREAD


def variants_overlaid(curves: pl.DataFrame, heading: theme.Heading, variants: Sequence[str] = ()) -> alt.ConcatChart:
    """Variants over one another: a panel a projection (columns) and statistic (rows), log where it spans a decade.

    `curves`: one model, dataset and relation. `variants`: their order, where it is not the usual one.
    """
    variants = list(variants) or variants_in_order(curves["variant"].unique())
    projections = projections_in_order(curves["projection"].unique())
    statistics = in_order(curves["statistic"].unique(), STATISTICS)
    hue, layers = variant_hue(variants), layers_of(curves)
    panels = []
    for name in statistics:
        rows = of(curves, statistic=name)
        pixels = theme.HEIGHTS["main" if name == statistics[0] else "minor"]
        scale = scale_of(rows, pixels, log=True)
        for projection in projections:
            first = projection == projections[0]
            place = Place(
                theme.panel_width(len(projections)),
                pixels,
                title=label(projection) if name == statistics[0] else None,
                x_title="Layer" if name == statistics[-1] else None,
                y_title=axis_title(name, logged(scale)) if first else None,
                x_labels=name == statistics[-1],
                y_labels=first,
            )
            panels.append(panel(of(rows, projection=projection), scale, hue, layers, place))
    return grid(panels, len(projections), heading)


def relations_compared(
    curves: pl.DataFrame, rd_layers: pl.DataFrame, heading: theme.Heading, multiples: bool = False
) -> alt.ConcatChart:
    """Correct against another relation: the two curves, and below them the signed relative difference by layer.

    `curves`: one model and dataset, correct and one other relation; `rd_layers`: the relative differences of that
    other relation. `multiples`: these are drawn as multiples of correct, on a log axis.
    """
    relations = [label(relation) for relation in relations_in_order(curves["relation"].unique())]
    dashed = Dashed("relation", tuple(relations))
    if multiples:
        return compared(curves, as_multiples(rd_layers), heading, dashed, [f"{relations[-1]} / correct,", "log"], 1)
    return compared(curves, rd_layers, heading, dashed, [f"{relations[-1]} − correct,", "relative"])


def as_multiples(differences: pl.DataFrame) -> pl.DataFrame:
    """Relative differences as ratios."""
    return differences.with_columns(pl.col(*VALUES) + 1)


def by_decades(differences: pl.DataFrame) -> bool:
    """Whether these relative differences are multiples that span more than a decade: one linear axis would hide most.

    Those of the nuclear norm are meant. Where a multiple is zero, no log axis holds it.
    """
    ratios = as_multiples(of(differences, statistic="nuclear_norm")).select(pl.col(*VALUES).fill_nan(None))
    found = [value for name in VALUES for value in ratios[name].drop_nulls() if math.isfinite(value)]
    return bool(found) and min(found) > 0 and max(1, *found) / min(1, *found) > scales.DECADE


def compared(
    curves: pl.DataFrame,
    differences: pl.DataFrame,
    heading: theme.Heading,
    dashed: Dashed,
    below: Sequence[str],
    neutral: float = 0,
) -> alt.ConcatChart:
    """Nuclear norms of two kinds, told apart by dash, and below them how far they lie apart, titled `below`.

    `differences`: relative ones (`neutral` 0) or ratios (1), in the columns of `rd_layers`. Columns are projections,
    pairs of rows are variants. The differences of all variants share one axis, so that a small one looks small.
    """
    curves, differences = of(curves, statistic="nuclear_norm"), of(differences, statistic="nuclear_norm")
    projections = projections_in_order(curves["projection"].unique())
    variants = variants_in_order(differences["variant"].unique())
    hue, layers = projection_hue(projections), layers_of(curves)
    width, high, low = theme.panel_width(len(projections)), theme.HEIGHTS["small"], theme.HEIGHTS["difference"]
    ends = [end for name in VALUES for end in differences.select(rounded(name)).to_series()]
    difference = scales.linear(ends, low) if neutral == 0 else ratio_scale(ends, low // 14)
    panels = []
    for variant in variants:
        pair = of(curves, variant=variant)
        scale = scale_of(pair, high, log=True)
        for projection in projections:
            first = projection == projections[0]
            place = Place(
                width,
                high,
                title=f"{label(variant)} · {label(projection)}",
                y_title=axis_title("nuclear_norm", logged(scale)) if first else None,
                x_labels=layers == 1,
                y_labels=first,
            )
            panels.append(panel(of(pair, projection=projection), scale, hue, layers, place, dashed=dashed))
        for projection in projections:
            first = projection == projections[0]
            place = Place(
                width,
                low,
                x_title="Layer" if variant == variants[-1] else None,
                y_title=below if first else None,
                y_labels=first,
            )
            frame = of(differences, variant=variant, projection=projection)
            panels.append(panel(frame, difference, hue, layers, place, neutral=neutral))
    return grid(panels, len(projections), heading)
