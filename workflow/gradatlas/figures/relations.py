"""All kinds of responses of one dataset in one figure: how far each lies from the correct ones."""

import altair as alt
import polars as pl

from gradatlas.charts import theme
from gradatlas.charts.names import label, projections_in_order, relations_in_order, variants_in_order
from gradatlas.charts.panel import VALUES, Axis, ends_in, grid, of, projection_look, rounded, titled
from gradatlas.figures.data import Data
from gradatlas.figures.heading import counted, finite, larger, left_out, right_labels, states_findings, with_lines
from gradatlas.figures.layers import ratio_scale

DRAWN = (
    "Signed relative difference from correct responses of the mean nuclear norm, averaged over "
    "layers, drawn as a multiple of theirs on a log axis. Lines: 95 % bootstrap intervals over samples, paired."
)
# Pixels of the line of a projection.
_LINE = 9


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
    """A panel a variant; in it a group of lines a kind of responses, a line a projection."""
    rows = _signed(data).select("variant", "relation", "projection", *map(rounded, VALUES), "n")
    rows = rows.with_columns(pl.col(*VALUES) + 1)
    variants = variants_in_order(rows["variant"].unique())
    relations = relations_in_order(rows["relation"].unique())
    projections = projections_in_order(rows["projection"].unique())
    width = theme.panel_width(len(variants))
    scale = ratio_scale(ends_in(rows), width // 34)
    x = Axis("value", "Times correct, log", scale, expression="'×' + datum.label", count=width // 34)
    # Lines stand at whole numbers, counted down; a kind's name at the middle of its own.
    step = len(projections) + 1
    middles = {relation: place * step + (len(projections) - 1) / 2 for place, relation in enumerate(relations)}
    names = " : ".join(f"datum.value === {middle} ? '{label(name)}'" for name, middle in middles.items())
    places = [{"relation": relation, "projection": key, "at": i * step + j}
              for i, relation in enumerate(relations) for j, key in enumerate(projections)]  # fmt: skip
    rows = rows.join(pl.DataFrame(places), on=["relation", "projection"]).sort("at")
    look = projection_look(projections)
    panels = []
    for variant in variants:
        y_axis = theme.plain(
            values=list(middles.values()), title=None, grid=False, labelExpr=f"{names} : ''" if not panels else "''"
        )
        y = alt.Y("at:Q", scale=theme.plain(domain=[-0.8, len(relations) * step - 1.2], reverse=True), axis=y_axis)
        named = pl.col("relation", "projection").map_elements(label, return_dtype=pl.String)
        base = alt.Chart(of(rows, variant=variant).with_columns(named)).encode(y=y, color=look.encode(alt.Color))
        numbers = (alt.Tooltip(f"{name}:Q", format=".3~g") for name in VALUES)
        tooltip = [alt.Tooltip("relation:N"), alt.Tooltip("projection:N"), *numbers, alt.Tooltip("n:Q")]
        one = alt.Chart(alt.InlineData([{"value": 1}])).mark_rule(style="zero")
        parts = [
            one.encode(x=x.encode(alt.X)),
            base.mark_rule(style="interval").encode(x=x.encode(alt.X, "low"), x2="high:Q"),
            base.mark_point(style="dot-alone", size=34).encode(
                x=x.encode(alt.X), shape=look.encode(alt.Shape), tooltip=tooltip
            ),
        ]
        height = _LINE * step * len(relations) + 12
        panels.append(alt.layer(*parts, width=width, height=height, **titled(label(variant))))
    return grid(panels, len(variants), heading)


def _signed(data: Data) -> pl.DataFrame:
    return of(data.tables["rd"], statistic="nuclear_norm", measure="signed")
