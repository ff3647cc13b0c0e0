"""What is drawn in place of the figures where no sample of a model, dataset and kind of responses is usable: why."""

import altair as alt

from gradatlas.charts import theme
from gradatlas.charts.names import label, responses_of, variants_in_order
from gradatlas.charts.panel import grid, series_palette
from gradatlas.figures.data import Data
from gradatlas.figures.heading import counted, left_out, with_lines
from gradatlas.statistics.counts import LEFT_OUT

DRAWN = (
    "Samples by what became of them. There is no curve to draw: a sample is used where its response has tokens, the "
    "pass fits into memory, and every value of every layer and projection is finite."
)
_BAR, _LIMIT = 26, 160


def is_drawn(data: Data) -> bool:
    """Whether samples of the relation were requested and none is usable."""
    cells = data.of("cells")
    return not cells.is_empty() and cells["n_ok"].sum() == 0


def heading(data: Data) -> theme.Heading:
    """That nothing is left, of how many, and the reasons by variant."""
    cells, responses = data.of("cells"), responses_of(data.relation)
    title = f"No usable sample among {cells['n'].sum():,} {responses}"
    made = with_lines(title, cells, data.title, responses, f"{counted(cells)} requested", DRAWN)
    return made.with_lines([*left_out(cells), *data.notes])


def chart(data: Data, heading: theme.Heading) -> alt.ConcatChart:
    """A bar per variant: its samples, by why they were left out."""
    cells = data.of("cells")
    variants = [label(variant) for variant in variants_in_order(cells["variant"].unique())]
    rows = [
        {"variant": label(row["variant"]), "reason": reason, "samples": row[key], "place": place}
        for row in cells.to_dicts()
        for place, (key, reason) in enumerate(LEFT_OUT.items())
        if row[key]
    ]
    y_axis = theme.plain(title=None, ticks=False, labelLimit=_LIMIT)
    bars = theme.Chart(alt.InlineData(rows)).mark_bar()
    bars = bars.encode(
        x=alt.X("samples:Q", axis=theme.plain(title="Samples", tickMinStep=1, format=",d")),
        y=alt.Y("variant:N", scale=theme.plain(domain=variants), axis=y_axis),
        color=series_palette(tuple(LEFT_OUT.values()), "reason").encode(alt.Color),
        order=alt.Order("place:Q"),
        tooltip=[alt.Tooltip(field) for field in ("variant:N", "reason:N", "samples:Q")],
    )
    return grid([theme.layer(bars, width=theme.panel_width(1), height=_BAR * len(variants))], 1, heading)
