"""The softmax squeezed: step plots of the cases, and the sweeps."""

import altair as alt
import polars as pl

from gradatlas.charts import scales, theme
from gradatlas.charts.panel import OWN_SCALE, SERIES, Axis, Palette, cells, grid, panel, rounded, series_palette, titled
from gradatlas.charts.theme import Heading

_ORDER = ("before", "after")
_SWEEPS = {
    "peakiness": "Peakiness (logits × …), log",
    "probability": "Probability of the label, log",
    "size": "Step on the logits, log",
}


def heading_of_cases(labels: pl.DataFrame, cases: pl.DataFrame) -> Heading:
    """What is drawn, and how many other labels rise."""
    row = {each["case"]: each for each in cases.to_dicts()}
    rising = ", ".join(f"{row[name]['rising']} of {row[name]['labels'] - 1} in {name}" for name in "BCDE")
    return Heading(
        "Label probabilities before and after one gradient step",
        (f"other labels than the likeliest that rise: {rising}",),
        (
            "One gradient step on a softmax classifier: label probabilities before (grey) and after (blue); the labels "
            "that the step is on are dots, the larger one after it. A: pulled up. B: pushed down on a flat "
            "softmax; C: on a peak; D: in a valley; E: in a valley of 1,000 labels. Other labels than the likeliest "
            f"that rise: {rising}. Control: D with label 25 pulled up in the same context, all other ratios are equal "
            f"(within {row['control']['ratio_spread']:.0e}).",
        ),
    )


def step_plots(labels: pl.DataFrame, cases: pl.DataFrame, heading: Heading) -> alt.ConcatChart:
    """A row per case: probabilities before and after by label, on a linear and on a log axis."""
    panels = []
    for case, kind, at in cells(cases.to_dicts(), ("linear", "log")):
        own = labels.filter(pl.col("case") == case["case"])
        long = own.unpivot(_ORDER, index="label", variable_name="when", value_name="probability")
        learned = [case[key] for key in ("up", "down") if case[key] is not None]
        title = f"{case['case'].capitalize()} · {_deed(case)}" if at.left else " "
        panels.append(_step_panel(long.with_columns(rounded("probability")), learned, kind, title, at.bottom))
    return grid(panels, 2, heading)


def _deed(case: dict) -> str:
    parts = [f"label {case[key]} {key}" for key in ("down", "up") if case[key] is not None]
    return f"{', '.join(parts)}, step {case['size']:.3g}"


def _step_panel(long: pl.DataFrame, learned: list[int], kind: str, title: str, last: bool) -> alt.LayerChart:
    values, height = long["probability"].to_list(), theme.HEIGHTS["difference"]
    scale = scales.linear(values) if kind == "linear" else scales.log_if_decades(values, height // 14)
    y_title = ["Probability" + (", log," if scale.kind == "log" else ","), OWN_SCALE]
    form = ".6~g" if scale.kind == "linear" else ".0e"
    y = Axis("probability", y_title, scale, form, count=3).encode(alt.Y)
    ends = scales.Scale("linear", 0, long["label"].max())
    x = Axis("label", "Label" if last else None, ends, count=6).encode(alt.X)
    palette = Palette("when", _ORDER, (theme.RULE, SERIES[0]), ())
    # Steps, and not the lines of `panel`: labels are separate places.
    lines = theme.Chart(long).mark_line(interpolate="step", strokeWidth=1.2)
    dots = theme.Chart(long.filter(pl.col("label").is_in(learned))).mark_point(
        filled=True, color=theme.COLOURS["mark"]["target"], opacity=1
    )
    size = alt.condition("datum.when === 'after'", alt.value(60), alt.value(22))
    parts = [lines.encode(x=x, y=y, color=palette.encode(alt.Color)), dots.encode(x=x, y=y, size=size)]
    return theme.layer(*parts, width=theme.panel_width(2), height=height, **titled(title))


def heading_of_sweeps(sweeps: pl.DataFrame) -> Heading:
    """What is drawn, of how many draws."""
    draws = sweeps["draw"].n_unique()
    return Heading(
        "Share of the other labels that fall when one is pushed down",
        (f"{draws} random softmaxes of 50 labels",),
        (
            f"Mean over {draws} random softmaxes of 50 labels (normal logits), band: 5 to 95 % of them. Where they are "
            "not varied: logits × 1, probability of the pushed label .001, step 1.",
        ),
    )


def sweep_curves(sweeps: pl.DataFrame, heading: Heading) -> alt.ConcatChart:
    """A panel per sweep: the share of other labels that fall."""
    panels = []
    for sweep, title in _SWEEPS.items():
        falling = pl.col("falling")
        own = sweeps.filter(pl.col("sweep") == sweep).group_by("level").agg(
            falling.mean().alias("value"), falling.quantile(0.05).alias("low"), falling.quantile(0.95).alias("high")
        ).sort("level").with_columns(series=pl.lit(title))  # fmt: skip
        x = Axis("level", title, scales.logarithmic(own["level"], 4))
        y = Axis("value", None if panels else "Others that fall", scales.Scale("linear", 0, 1), ".0%", count=5)
        size = (theme.panel_width(3), theme.HEIGHTS["main"])
        panels.append(panel(own, x, y, series_palette((title,)), size, legend=False))
    return grid(panels, 3, heading)
