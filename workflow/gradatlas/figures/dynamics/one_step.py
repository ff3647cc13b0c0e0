"""One step of SGD: what was predicted to first order, and what it did."""

import math
from collections.abc import Mapping, Sequence

import altair as alt
import polars as pl

from gradatlas.charts import theme
from gradatlas.kernels.one_step import summary

TRAINED = {"captured": "projections only", "all": "all parameters"}


def step_chart(rows: Sequence[Mapping]) -> tuple[theme.Heading, alt.ConcatChart]:
    """Predicted against measured changes at the smallest step, and the residual against the size of the step."""
    told = summary(rows)
    slopes, orders = (_range([row[key] for row in told], form) for key, form in (("slope", ".3f"), ("order", ".2f")))
    share = _range([row["share"] for row in told if row["trained"] == "all"], ".0%")
    frame = pl.DataFrame(rows).with_columns(
        pl.col("trained").replace_strict(TRAINED).alias("series"),
        (pl.col("measured") - pl.col("predicted")).alias("residual"),
    )
    pairs = frame["pair_id"].n_unique()
    learnt = f"{pairs} updates, each" if pairs > 1 else "one update,"
    counts = f"{frame['probe_id'].n_unique()} responses, {learnt} by SFT and by DPO"
    heading = theme.Heading(
        f"One step of SGD: measured on predicted change has slope {slopes}; the residual falls {orders} times when the "
        "step is halved",
        (
            f"{counts}, in float64. The query, key, value, output and feed-forward weights carry {share} of the "
            "prediction for all parameters. On the right: circles, projections only; triangles, all parameters.",
        ),
    )
    entries = list(TRAINED.values())
    colours, shapes = [theme.ORDERED_COLOURS[i] for i in (0, 2)], ["circle", "triangle-up"]
    colour = alt.Color("series:N", scale=alt.Scale(domain=entries, range=colours), title=None, legend=None)
    shape = alt.Shape("series:N", scale=alt.Scale(domain=entries, range=shapes), title=None, legend=None)
    place = {"width": theme.panel_width(3), "height": theme.HEIGHTS["main"]}
    panels = []
    for name in entries:
        smallest = frame.filter((pl.col("series") == name) & (pl.col("halving") == pl.col("halving").max()))
        digits = [pl.col(key).round_sig_figs(6) for key in ("predicted", "measured")]
        ends = [float(smallest["predicted"].min()), float(smallest["predicted"].max())]
        diagonal = alt.Chart(alt.InlineData([{"predicted": value, "measured": value} for value in ends]))
        axis = alt.Axis(tickCount=4)
        x = alt.X("predicted:Q", title="Predicted change, nats", axis=axis)
        y = alt.Y("measured:Q", title="Measured change, nats" if name == entries[0] else None, axis=axis)
        tooltip = ["probe_id:N", "loss:N", "predicted:Q", "measured:Q"]
        dots = alt.Chart(smallest.select("series", "loss", "probe_id", *digits)).mark_point(style="dot", size=28)
        panels.append(
            alt.layer(
                diagonal.mark_line(style="zero", color=theme.RULE).encode(x=x, y=y),
                dots.encode(x=x, y=y, color=colour, shape=shape, tooltip=tooltip),
                title=alt.Title(f"{name[:1].upper()}{name[1:]} trained", style="panel-title"),
                **place,
            )
        )
    keys = ["series", "loss", "pair_id", "halving"]
    falls = frame.group_by(keys).agg((pl.col("residual") ** 2).mean().sqrt().round_sig_figs(6)).sort(keys)
    falls = falls.with_columns(
        (0.5 ** pl.col("halving")).alias("size"), pl.concat_str("loss", "pair_id", separator=" ").alias("update")
    )
    sizes = alt.Axis(values=sorted(falls["size"].unique()))
    decades = range(math.floor(math.log10(falls["residual"].min())), math.ceil(math.log10(falls["residual"].max())) + 1)
    lines = alt.Chart(falls).encode(
        x=alt.X("size:Q", scale=alt.Scale(type="log", base=2), title="Step, share of the largest", axis=sizes),
        y=alt.Y(
            "residual:Q",
            scale=alt.Scale(type="log", domain=[10.0 ** decades[0], 10.0 ** decades[-1]]),
            title="Residual, root mean square, nats",
            axis=alt.Axis(format=".0e", values=[10.0**decade for decade in decades]),
        ),
        color=colour,
        detail="update:N",
    )
    panels.append(
        alt.layer(
            lines.mark_line(style="curve"),
            lines.mark_point(style="dot", size=28).encode(shape=shape),
            title=alt.Title("As the step is halved", style="panel-title"),
            **place,
        )
    )
    return heading, alt.concat(*panels, columns=3, title=theme.heading_of(heading, 3), spacing=theme.GAP)


def _range(values: Sequence[float], form: str) -> str:
    """The least and the greatest as readers see them, or one number where they are alike."""
    ends = dict.fromkeys(format(value, form) for value in (min(values), max(values)))
    return " to ".join(ends)
