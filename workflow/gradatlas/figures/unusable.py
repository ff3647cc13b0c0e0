"""What stands in place of the figures where no sample of a model, dataset and kind of responses is usable: why."""

import altair as alt
import polars as pl

from gradatlas.charts import theme
from gradatlas.charts.names import label, responses_of, variants_in_order
from gradatlas.charts.panel import grid
from gradatlas.charts.theme import Heading
from gradatlas.figures import findings

DRAWN = (
    "Samples by what became of them. There is no curve to draw: a sample is used where its response has tokens, the "
    "pass fits into memory, and every value of every layer and projection is finite."
)
_BAR, _LIMIT = 26, 160


def lost(cells: pl.DataFrame) -> list[tuple[str, str]]:
    """The (model, relation) pairs of which samples were asked for and none is usable, in order.

    `cells`: rows of the cells table, of one dataset.
    """
    counted = cells.group_by("model", "relation").agg(pl.sum("n_ok")).filter(pl.col("n_ok") == 0)
    return counted.select("model", "relation").sort("model", "relation").rows()


def heading(cells: pl.DataFrame, dataset: str) -> Heading:
    """That nothing is left, of how many, and the reasons by variant. `cells`: of one model and relation."""
    responses = responses_of(cells["relation"][0])
    asked = findings.counted(cells)
    lines = [f"{cells['model'][0]} · {dataset} · {responses} · asked for: {asked}", DRAWN, *findings.left_out(cells)]
    title = f"No usable sample among {cells['n'].sum():,} {responses}"
    return Heading(title, tuple([findings.CHECK, *lines] if findings.is_check(cells) else lines))


def chart(cells: pl.DataFrame, heading: Heading) -> alt.ConcatChart:
    """A bar a variant: its samples, by why they were left out."""
    variants = [label(variant) for variant in variants_in_order(cells["variant"].unique())]
    rows = [
        {"variant": label(row["variant"]), "reason": reason, "samples": row[key], "place": place}
        for row in cells.to_dicts()
        for place, (key, reason) in enumerate(findings.LOST.items())
        if row[key]
    ]
    reasons = list(findings.LOST.values())
    colours = theme.plain(domain=reasons, range=list(theme.ORDERED_COLOURS[: len(reasons)]))
    x_axis = theme.plain(title="Samples", tickMinStep=1, format=",d")
    y_axis = theme.plain(title=None, ticks=False, labelLimit=_LIMIT)
    bars = (
        alt.Chart(alt.InlineData(rows))
        .mark_bar()
        .encode(
            x=alt.X("samples:Q", axis=x_axis),
            y=alt.Y("variant:N", scale=theme.plain(domain=variants), axis=y_axis),
            color=alt.Color("reason:N", scale=colours, title=None),
            order=alt.Order("place:Q"),
            tooltip=[alt.Tooltip(field) for field in ("variant:N", "reason:N", "samples:Q")],
        )
    )
    return grid([alt.layer(bars, width=theme.panel_width(1), height=_BAR * len(variants))], 1, heading)
