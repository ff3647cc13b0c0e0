"""Runs that differ in their learning rate alone: over updates, and against what training aims at.

The aim is the margin log pi(chosen) - log pi(rejected) for losses on pairs, and log pi(chosen) for SFT. After as many
updates a larger rate has gone further; at one margin, rates are compared by what it cost.
"""

from collections.abc import Sequence

import altair as alt
import polars as pl

from gradatlas.charts import theme
from gradatlas.charts.panel import Axis, Palette, grid, rounded, titled
from gradatlas.figures.run_curves import Figure, facts_of, of_measure, probes_of
from gradatlas.figures.runs import Chain, RunData, rates

#: Rows of panels: title, type, measure, title of the axis.
SHOWN = (
    ("Chosen", "chosen", "log_prob_sum", "Nats"),
    ("Rejected", "rejected", "log_prob_sum", "Nats"),
    ("Likeliest tokens along chosen", "chosen", "argmax_log_prob", "Nats"),
    ("Norm of A along chosen", "chosen", "a_norm", "Mean over tokens"),
)


def chosen(data: RunData) -> list[list[Chain]]:
    """Three rates or more."""
    return [group for group in rates(data.runs) if len(group) > 2]


def sweep(data: RunData, chains: Sequence[Chain]) -> Figure:
    """A row per measure: over updates, and against the aim. A colour a rate; means over probes and seeds."""
    names = {chain.last: written(data.runs[chain.last]["learning_rate"]) for chain in chains}
    frame = data.frame.filter(pl.col("run").is_in(names))
    seeds, entries, loss = frame["seed"].n_unique(), tuple(names.values()), data.runs[chains[0].last]["loss"]
    heading = theme.Heading(
        f"{loss.upper()} at learning rates {entries[0]} to {entries[-1]}",
        facts_of(data),
        (
            f"Means over {probes_of(frame)} trained questions"
            + (f" and {seeds} seeds" if seeds > 1 else "")
            + "; a point is an evaluation. Left: over updates. Right: against the "
            + ("margin, log π(chosen) − log π(rejected)." if loss != "sft" else "chosen responses' log-probability."),
        ),
    )
    # An evaluation that a seed did not reach, since its run stopped early, is left out.
    means = frame.group_by("run", "step", "type", "measure").agg(pl.col("value").mean(), pl.col("seed").n_unique())
    means = means.filter(pl.col("seed") == seeds).with_columns(pl.col("run").replace_strict(names).alias("rate"))
    aim = _level(means, "chosen")
    if loss != "sft":
        aim = aim.join(_level(means, "rejected"), on=["run", "step"]).with_columns(pl.col("aim") - pl.col("aim_right"))
    palette = Palette("rate", entries, theme.ramp(len(entries)), ("circle",) * len(entries))
    over = Axis("step", "Updates", format=",d", count=5)
    against = Axis("aim", "Margin, nats" if loss != "sft" else "Log-probability of chosen, nats")
    panels = [
        _lines(of_measure(means, kind, measure).join(aim, on=["run", "step"]), name, x, Axis("value", unit), palette)
        for name, kind, measure, unit in SHOWN
        for x in (over, against)
    ]
    return heading, grid(panels, 2, heading)


def written(rate: float) -> str:
    """A learning rate as in ``5e-6``."""
    return f"{rate:.0e}".replace("e-0", "e-")


def _level(means: pl.DataFrame, kind: str) -> pl.DataFrame:
    return of_measure(means, kind, "log_prob_sum").select("run", "step", pl.col("value").alias("aim"))


def _lines(part: pl.DataFrame, title: str, x: Axis, y: Axis, palette: Palette) -> alt.LayerChart:
    data = part.sort("run", "step").select("rate", "step", *map(rounded, ("aim", "value")))
    base = theme.Chart(data).encode(x=x.encode(alt.X), y=y.encode(alt.Y), color=palette.encode(alt.Color))
    tooltip = ["rate:N", "step:Q", "aim:Q", "value:Q"]
    # In the order of updates: a margin may fall.
    parts = [base.mark_line(style="curve").encode(order="step:Q"), base.mark_point(style="dot").encode(tooltip=tooltip)]
    return theme.layer(*parts, width=theme.panel_width(2), height=theme.HEIGHTS["small"], **titled(title))
