"""All kinds of responses of one dataset in one figure: how far each lies from the correct ones."""

import altair as alt
import polars as pl

from workflow.lib.figures import findings, theme
from workflow.lib.figures.names import label, projections_in_order, relations_in_order, variants_in_order
from workflow.lib.figures.panel import VALUES, of, projection_hue, ratio_scale, rounded
from workflow.lib.figures.theme import Heading

DRAWN = (
    "Signed relative difference from correct responses of the mean nuclear norm, averaged over "
    "layers, drawn as a multiple of theirs on a log axis."
)
INTERVALS = "Lines: 95 % bootstrap intervals over samples, paired."
# Pixels of the line of a projection.
_LINE = 9


def heading(rd: pl.DataFrame, dataset: str) -> Heading:
    """Which kinds differ from correct responses with the slowest variant, and which do not.

    `rd`: rows of the table, one model and dataset.
    """
    rows = _signed(rd)
    title = "Kinds of responses against correct ones"
    relations = relations_in_order(rows["relation"].unique())
    if findings.speaks(rows):
        last = variants_in_order(rows["variant"].unique())[-1]
        parts = _found(of(rows, variant=last), relations)
        title = f"{label(last)}, mean gradients against correct: {'; '.join(parts)}" if parts else title
    lines = [f"{rd['model'][0]} · {dataset} · n: {findings.counted(rows)}", f"{DRAWN} {INTERVALS}"]
    unsure = rows.filter(~pl.col("value").is_finite().fill_null(False)).height
    if unsure:
        lines[-1] += f" {unsure} of {rows.height} differences are not finite and are left out."
    return Heading(title, tuple([findings.CHECK, *lines] if findings.is_check(rd) else lines))


def chart(rd: pl.DataFrame, heading: Heading) -> alt.ConcatChart:
    """A panel a variant; in it a group of lines a kind of responses, a line a projection."""
    rows = _signed(rd).select("variant", "relation", "projection", *(rounded(name) for name in VALUES), "n")
    variants = variants_in_order(rows["variant"].unique())
    relations = relations_in_order(rows["relation"].unique())
    projections = projections_in_order(rows["projection"].unique())
    width = theme.panel_width(len(variants))
    rows = rows.with_columns(pl.col(*VALUES) + 1)
    scale = ratio_scale([value for name in VALUES for value in rows[name]], width // 34)
    # Lines stand at whole numbers, counted down; a kind's name at the middle of its own.
    step = len(projections) + 1
    middles = {relation: place * step + (len(projections) - 1) / 2 for place, relation in enumerate(relations)}
    at = pl.col("relation").replace_strict(
        {relation: place * step for place, relation in enumerate(relations)}, return_dtype=pl.Int64
    ) + pl.col("projection").replace_strict({key: i for i, key in enumerate(projections)}, return_dtype=pl.Int64)
    rows = rows.with_columns(at.alias("at"))
    hue = projection_hue(projections)
    names = " : ".join(f"datum.value === {middle} ? '{label(name)}'" for name, middle in middles.items())
    panels = []
    for variant in variants:
        data = (
            of(rows, variant=variant)
            .sort("at")
            .with_columns(pl.col("relation", "projection").map_elements(label, return_dtype=pl.String))
        )
        first = variant == variants[0]
        x_scale = theme.plain(type="log", domain=[scale.low, scale.high], nice=False)
        x_axis = theme.plain(
            values=list(scale.ticks), title="Times correct, log", grid=True, labelExpr="'×' + datum.label"
        )
        y_axis = theme.plain(
            values=list(middles.values()), title=None, grid=False, labelExpr=f"{names} : ''" if first else "''"
        )
        y = alt.Y("at:Q", scale=theme.plain(domain=[-0.8, len(relations) * step - 1.2], reverse=True), axis=y_axis)
        value, low = (alt.X(f"{name}:Q", scale=x_scale, axis=x_axis) for name in ("value", "low"))
        entries = list(hue.entries)
        colour = alt.Color("projection:N", scale=theme.plain(domain=entries, range=list(hue.colours)), title=None)
        shape = alt.Shape("projection:N", scale=theme.plain(domain=entries, range=list(hue.shapes)), title=None)
        numbers = (alt.Tooltip(f"{name}:Q", format=".3~g") for name in VALUES)
        tooltip = [alt.Tooltip("relation:N"), alt.Tooltip("projection:N"), *numbers, alt.Tooltip("n:Q")]
        base = alt.Chart(data).encode(y=y, color=colour)
        zero = alt.Chart(alt.InlineData([{"zero": 1}])).mark_rule(style="zero")
        parts = [
            zero.encode(x=alt.X("zero:Q", scale=x_scale, axis=x_axis)),
            base.mark_rule(style="interval").encode(x=low, x2="high:Q"),
            base.mark_point(style="dot-alone", size=34).encode(x=value, shape=shape, tooltip=tooltip),
        ]
        title = alt.Title(label(variant), style="panel-title")
        panels.append(alt.layer(*parts, width=width, height=_LINE * step * len(relations) + 12, title=title))
    apart = alt.Resolve(scale=alt.ScaleResolveMap(x="independent", y="independent"))
    heading_ = theme.heading_of(heading, len(variants))
    return alt.concat(*panels, columns=len(variants), title=heading_, resolve=apart)


def _signed(rd: pl.DataFrame) -> pl.DataFrame:
    return of(rd, statistic="nuclear_norm", measure="signed")


def _found(rows: pl.DataFrame, relations: list[str]) -> list[str]:
    said, unclear = [], []
    rows = findings.with_interval(findings.finite(rows, None))
    found = rows.filter((pl.col("low") > 0) | (pl.col("high") < 0))
    share = findings.in_one_unit(found["value"])
    for relation in relations:
        clear, among = of(found, relation=relation), of(rows, relation=relation).height
        if not among:
            continue
        if clear.is_empty():
            unclear.append(label(relation).lower())
            continue
        low, high = (share(end) for end in (clear["value"].min(), clear["value"].max()))
        part = "" if clear.height == among else f" in {clear.height} of {among} projections"
        said.append(f"{label(relation).lower()} {low if low == high else f'{low} to {high}'}{part}")
    return [*said, *([f"no clear difference: {', '.join(unclear)}"] if unclear else [])]
