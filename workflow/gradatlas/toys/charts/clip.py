"""The clipped objective of PPO and GRPO beside DPO's rejected side, step by step."""

import altair as alt
import polars as pl

from gradatlas.charts import scales, theme
from gradatlas.charts.panel import OWN_SCALE, Axis, cells, grid, panel, series_palette
from gradatlas.charts.theme import Heading
from gradatlas.toys import clip

_OBJECTIVES = {
    "dpo": "DPO, rejected side",
    "clipped": "clipped",
    "renewed": f"clipped, renewed every {clip.RENEWAL} steps",
}
_ROWS = {
    "log_prob": ("log π of the label", "main"),
    "winner_prob": ("π of the likeliest other", "minor"),
    "median_log_prob": ("Median log π of others", "minor"),
}
_SOFTMAX_TITLES = {"B": "Flat softmax", "C": "Label on a peak", "D": "Label in a valley"}


def heading(table: pl.DataFrame) -> Heading:
    """What is drawn, and how far each objective squeezes in the valley."""
    found = clip.squeezed(table.to_dicts())
    name = max(case for case, _ in found)
    dpo, clipped, steps = found[name, "dpo"], found[name, "clipped"], int(table["step"].max())
    return Heading(
        "One label pushed down by DPO’s rejected side and by the clipped objective",
        (f"gain of the likeliest label in the valley: {dpo['winner_gain']:.3f}, clipped {clipped['winner_gain']:.3f}",),
        (
            f"One label of a softmax of 50 pushed down {steps} times (cases B, C, D of the squeezing effect), first "
            f"steps alike ({clip.SIZE:g} on the logits). DPO with β = {clip.BETA:g}; clipped: PPO's and GRPO's "
            f"objective with a negative advantage, ε = {clip.EPSILON:g}: it stops after {clipped['steps']} steps, and "
            f"in the valley the likeliest label gains {clipped['winner_gain']:.3f}, with DPO {dpo['winner_gain']:.3f}. "
            "Renewed: the old policy follows and the same label is scored again.",
        ),
    )


def chart(table: pl.DataFrame, heading: Heading) -> alt.ConcatChart:
    """A column per softmax, a row per quantity, a line per objective."""
    data = table.with_columns(pl.col("objective").replace_strict(_OBJECTIVES))
    palette, last = series_palette(tuple(_OBJECTIVES.values()), "objective"), int(table["step"].max())
    panels = []
    for column, case, at in cells(_ROWS, table["case"].unique(maintain_order=True)):
        (title, height), own = _ROWS[column], data.filter(pl.col("case") == case)
        x = Axis("step", "Step" if at.bottom else None, scales.Scale("linear", 0, last))
        # Logarithms share a scale; a probability of a flat softmax would be a line on that of a peak.
        alike = column != "winner_prob"
        scale = scales.linear((data if alike else own)[column])
        y_title = [title, *([] if alike else [OWN_SCALE])] if at.left else None
        y = Axis(column, y_title, scale, count=theme.HEIGHTS[height] // 28)
        size = (theme.panel_width(3), theme.HEIGHTS[height])
        name = _SOFTMAX_TITLES.get(case, case) if at.top else None
        panels.append(panel(own, x, y, palette, size, title=name, dots=False))
    return grid(panels, 3, heading)
