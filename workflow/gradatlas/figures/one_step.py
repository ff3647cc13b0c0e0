"""One step of SGD: the change predicted to first order, and the change measured."""

from collections.abc import Mapping, Sequence

import altair as alt
import polars as pl

from gradatlas.charts import scales, theme
from gradatlas.charts.numbers import span
from gradatlas.charts.panel import Axis, grid, panel, rounded, series_palette, titled
from gradatlas.core.tables import read_table
from gradatlas.figures.run_curves import Figure
from gradatlas.figures.runs import Chain, RunData
from gradatlas.kernels.first_order import summary
from gradatlas.kernels.tables import ONE_STEP

TRAINED = {"captured": "projections only", "all": "all parameters"}


def one_step(data: RunData, chains: Sequence[Chain] = ()) -> Figure:
    """Draw the one_step table."""
    return step_figure(read_table(ONE_STEP, data.one_step).to_pylist(), data.title)


def step_figure(rows: Sequence[Mapping], title: str = "") -> Figure:
    """Predicted against measured changes at the smallest step, and the residual against the size of the step.

    `title`: the model and seed, as readers see them.
    """
    found = summary(rows)
    slopes, orders, left = (
        span(min(values), max(values), form)
        for values, form in (
            ([row["slope"] for row in found], ".3f"),
            ([row["order"] for row in found], ".2f"),
            ([1 - row["share"] for row in found if row["trained"] == "all"], ".0%"),
        )
    )
    frame = pl.DataFrame(rows).with_columns(
        pl.col("trained").replace_strict(TRAINED).alias("series"),
        (pl.col("measured") - pl.col("predicted")).alias("residual"),
    )
    pairs = frame["pair_id"].n_unique()
    learnt = f"{pairs} updates, each" if pairs > 1 else "one update,"
    counts = f"{frame['probe_id'].n_unique()} responses, {learnt} by SFT and by DPO"
    heading = theme.Heading(
        f"One step of SGD, predicted and measured: the projections do not carry {left} of it",
        (title, counts),
        (
            f"{counts}, in float64. Slope of measured on predicted change: {slopes}; the residual falls {orders} times "
            "when the step is halved. Projections: query, key, value, output and feed-forward weights; the title’s "
            "share of the prediction for all parameters is that of the others, such as embeddings.",
        ),
    )
    palette = series_palette(tuple(TRAINED.values()))
    size = (theme.panel_width(3), theme.HEIGHTS["main"])
    shown = frame.filter(pl.col("halving") == pl.col("halving").max())
    across, down = (scales.linear(shown[name]) for name in ("predicted", "measured"))
    panels = []
    for name in palette.entries:
        smallest = shown.filter(pl.col("series") == name)
        ends = [float(smallest["predicted"].min()), float(smallest["predicted"].max())]
        diagonal = theme.Chart(alt.InlineData([{"predicted": value, "measured": value} for value in ends]))
        x = Axis("predicted", "Predicted change, nats", across, count=3).encode(alt.X)
        y = Axis("measured", None if panels else "Measured change, nats", down, count=4).encode(alt.Y)
        dots = theme.Chart(smallest.select("series", "loss", "probe_id", *map(rounded, ("predicted", "measured"))))
        dots = dots.mark_point(style="dot", size=28).encode(
            x=x, y=y, color=palette.encode(alt.Color, False), shape=palette.encode(alt.Shape, False),
            tooltip=["probe_id:N", "loss:N", "predicted:Q", "measured:Q"],
        )  # fmt: skip
        name = f"{name[:1].upper()}{name[1:]} trained"
        line = diagonal.mark_line(color=theme.RULE, strokeWidth=1).encode(x=x, y=y)
        panels.append(theme.layer(line, dots, width=size[0], height=size[1], **titled(name)))
    keys = ["series", "loss", "pair_id", "halving"]
    falls = frame.group_by(keys).agg((pl.col("residual") ** 2).mean().sqrt()).sort(keys)
    falls = falls.with_columns(
        (0.5 ** pl.col("halving")).alias("size"), pl.concat_str("loss", "pair_id", separator=" ").alias("update")
    )
    steps = tuple(sorted(falls["size"].unique()))
    x = Axis("size", "Step, share of the largest", scales.Scale("log", steps[0], steps[-1], steps))
    y = Axis("residual", "Residual, root mean square, nats", scales.logarithmic(falls["residual"], 6), ".0e")
    panels.append(panel(falls, x, y, palette, size, title="As the step is halved", detail="update"))
    return heading, grid(panels, 3, heading)
