"""All kinds of responses of one dataset in one figure: how far each lies from the correct ones."""

import altair as alt
import polars as pl

from gradatlas.charts import theme
from gradatlas.charts.names import label, projections_in_order, relations_in_order, terms, variants_in_order
from gradatlas.charts.panel import VALUES, Axis, ends_in, grid, of, projection_palette, rounded, titled
from gradatlas.figures.data import Data
from gradatlas.figures.heading import counted, finite, larger, left_out, right_labels, states_findings, with_lines
from gradatlas.figures.layers import ratio_scale

DRAWN = (
    "All kinds of responses against the correct ones, for each variant and projection, on one scale. Signed relative "
    "difference of the mean nuclear norm, averaged over layers, drawn as a multiple of theirs on a log axis. Lines: "
    "95 % bootstrap intervals over samples, paired."
)
# Pixels of the line of a projection, and across of a tick's label.
_LINE, _TICK = 9, 26


def heading(data: Data) -> theme.Heading:
    """How often other kinds of responses have clearly larger gradients than correct ones."""
    rows = _signed(data)
    title = "Kinds of responses against correct ones"
    if states_findings(rows) and rows["low"].is_finite().any():
        places = "kinds, variants and projections"
        title = larger("Mean gradients of other kinds of responses", "correct ones", finite(rows), places)
    missing = rows.height - finite(rows).height
    lost = f" {missing} of {rows.height} differences are not finite and are left out." if missing else ""
    made = with_lines(title, rows, data.title, "all kinds of responses", counted(rows), f"{DRAWN}{lost}")
    cells = data.tables["cells"]
    return made.with_lines([*left_out(cells, ("relation", "variant")), *data.notes, *right_labels(cells)])


def chart(data: Data, heading: theme.Heading) -> alt.ConcatChart:
    """A panel per variant; in it a group of lines per kind of responses, a line per projection."""
    rows = _signed(data).select("variant", "relation", "projection", *map(rounded, VALUES), "n")
    rows = rows.with_columns(pl.col(*VALUES) + 1)
    variants = variants_in_order(rows["variant"].unique())
    names = terms(relations_in_order(rows["relation"].unique()))
    relations = list(names.values())
    palette = projection_palette(projections_in_order(rows["projection"].unique()))
    width, height = theme.panel_width(len(variants)), _LINE * (len(palette.entries) + 1) * len(relations)
    scale = ratio_scale(ends_in(rows), width // _TICK)
    x = Axis("value", "Times correct, log", scale, expression="'×' + datum.label", count=width // _TICK, grid=True)
    numbers = [alt.Tooltip(f"{name}:Q", format=".3~g") for name in VALUES]
    tooltip = [alt.Tooltip("relation:N"), alt.Tooltip("projection:N"), *numbers, alt.Tooltip("n:Q")]
    rows = rows.with_columns(
        pl.col("relation").replace(names), pl.col("projection").map_elements(label, return_dtype=pl.String)
    )
    panels = []
    for variant in variants:
        axis = theme.plain(title=None, labels=not panels, ticks=False, domain=False, labelLimit=200)
        base = theme.Chart(of(rows, variant=variant)).encode(
            y=alt.Y("relation:N", sort=relations, scale=theme.plain(domain=relations, paddingInner=0.2), axis=axis),
            yOffset=alt.YOffset("projection:N", sort=list(palette.entries)),
            color=palette.encode(alt.Color),
        )
        dots = base.mark_point(style="dot-alone", size=34)
        parts = [
            theme.Chart(alt.InlineData([{"value": 1}])).mark_rule(style="zero").encode(x=x.encode(alt.X)),
            base.mark_rule(style="interval").encode(x=x.encode(alt.X, "low"), x2="high:Q"),
            dots.encode(x=x.encode(alt.X), shape=palette.encode(alt.Shape), tooltip=tooltip),
        ]
        panels.append(theme.layer(*parts, width=width, height=height, **titled(label(variant))))
    return grid(panels, len(variants), heading)


def _signed(data: Data) -> pl.DataFrame:
    return of(data.tables["rd"], statistic="nuclear_norm", measure="signed")
