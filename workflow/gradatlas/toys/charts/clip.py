"""The clipped objective of PPO and GRPO beside DPO's rejected side, step by step."""

import altair as alt
import polars as pl

from gradatlas.charts import scales, theme
from gradatlas.charts.theme import Heading
from gradatlas.toys import clip
from gradatlas.toys.charts.parts import grid, rounded

_OBJECTIVES = {
    "dpo": "DPO, rejected side",
    "clipped": "clipped",
    "renewed": f"clipped, renewed every {clip.RENEWAL} steps",
}
_CLIP_ROWS = {
    "log_prob": ("log π of the label", "main"),
    "winner_prob": ("π of the likeliest other", "minor"),
    "median_log_prob": ("Median log π of others", "minor"),
}
_SOFTMAX_TITLES = {"B": "Flat softmax", "C": "Label on a peak", "D": "Label in a valley"}


def heading_of_clip(table: pl.DataFrame) -> Heading:
    """How far each objective squeezes, in the valley."""
    found = clip.squeezed(table.to_dicts())
    name = max(case for case, _ in found)
    dpo, clipped, steps = found[name, "dpo"], found[name, "clipped"], int(table["step"].max())
    return Heading(
        f"The clip stops after {clipped['steps']} steps, DPO's negative gradient goes on: in a valley the "
        f"likeliest label gains {clipped['winner_gain']:.3f} against {dpo['winner_gain']:.3f}",
        (
            f"One label of a softmax of 50 pushed down {steps} times (cases B, C, D of the squeezing effect), first "
            f"steps alike ({clip.SIZE:g} on the logits). DPO with β = {clip.BETA:g}; clipped: PPO's and GRPO's "
            f"objective with a negative advantage, ε = {clip.EPSILON:g}. Renewed: the old policy follows and the same "
            "label is scored again; then the clip only slows it. Each panel has its own axis.",
        ),
    )


def clip_curves(table: pl.DataFrame, heading: Heading) -> alt.ConcatChart:
    """A column a softmax, a row a quantity, a line an objective."""
    colour = alt.Color(
        "objective:N",
        title=None,
        sort=list(_OBJECTIVES.values()),
        scale=alt.Scale(domain=list(_OBJECTIVES.values()), range=theme.ORDERED_COLOURS[:3]),
        legend=alt.Legend(labelLimit=300),
    )
    data = table.with_columns(pl.col("objective").replace_strict(_OBJECTIVES))
    cases = table["case"].unique(maintain_order=True).to_list()
    panels = []
    for column, (title, height) in _CLIP_ROWS.items():
        for case in cases:
            own = data.filter(pl.col("case") == case).select("step", "objective", rounded(column))
            scale = scales.linear(own[column], theme.HEIGHTS[height])
            x = alt.X("step:Q", title="Step" if column == [*_CLIP_ROWS][-1] else None, scale=alt.Scale(nice=False))
            y = alt.Y(
                f"{column}:Q",
                title=title if case == cases[0] else None,
                scale=alt.Scale(domain=[scale.low, scale.high], nice=False),
                axis=alt.Axis(values=list(scale.ticks), format=".6~g"),
            )
            words = (
                {"title": alt.Title(_SOFTMAX_TITLES.get(case, case), style="panel-title")}
                if column == "log_prob"
                else {}
            )
            panels.append(
                alt.layer(
                    alt.Chart(own).mark_line(style="curve").encode(x=x, y=y, color=colour),
                    width=theme.panel_width(3),
                    height=theme.HEIGHTS[height],
                    **words,
                )
            )
    return grid(panels, 3, heading)
