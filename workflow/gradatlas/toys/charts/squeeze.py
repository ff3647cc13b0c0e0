"""The softmax squeezed: step plots of the cases, and the sweeps."""

import altair as alt
import polars as pl

from gradatlas.charts import scales, theme
from gradatlas.charts.theme import Heading
from gradatlas.toys.charts.parts import EXACT, grid, rounded

_ORDER = ("before", "after")
_STEP_COLOURS = (theme.RULE, theme.ORDERED_COLOURS[0])


def heading_of_cases(cases: pl.DataFrame) -> Heading:
    """What the step does to the others, counted."""
    row = {each["case"]: each for each in cases.to_dicts()}
    said = ", ".join(f"{row[name]['rising']} of {row[name]['labels'] - 1} in {name}" for name in "BCDE")
    return Heading(
        f"Pushing one label down lifts the most likely other one; others that rise: {said}",
        (
            "One gradient step on a softmax classifier: label probabilities before (grey) and after (violet); the "
            "labels that the step is about in red, the larger dot after it. A: pulled up. B: pushed down on a flat "
            "softmax; C: on a peak; D: in a valley; E: in a valley of 1,000 labels. Control: D with label 25 pulled up "
            f"in the same context, all other ratios are equal (within {row['control']['ratio_spread']:.0e}).",
        ),
    )


def step_plots(labels: pl.DataFrame, cases: pl.DataFrame, heading: Heading) -> alt.ConcatChart:
    """A row a case: probabilities before and after by label, on a linear and on a log axis."""
    panels = []
    for case in cases.to_dicts():
        own = labels.filter(pl.col("case") == case["case"])
        learned = [case[key] for key in ("up", "down") if case[key] is not None]
        long = own.unpivot(_ORDER, index="label", variable_name="when", value_name="probability").with_columns(
            rounded("probability")
        )
        last = case == cases.row(-1, named=True)
        for kind in ("linear", "log"):
            title = f"{case['case'].capitalize()} · {_deed(case)}" if kind == "linear" else " "
            panels.append(_step_panel(long, learned, kind, title, last))
    return grid(panels, 2, heading)


def _deed(case: dict) -> str:
    parts = [f"label {case[key]} {verb}" for key, verb in (("down", "down"), ("up", "up")) if case[key] is not None]
    return f"{', '.join(parts)}, step {case['size']:.3g}"


def _step_panel(long: pl.DataFrame, learned: list[int], kind: str, title: str, last: bool) -> alt.LayerChart:
    values, height = long["probability"].to_list(), theme.HEIGHTS["difference"]
    scale = scales.linear(values, height) if kind == "linear" else scales.log_if_decades(values, height)
    count = long["label"].max()
    y = alt.Y(
        "probability:Q",
        title="Probability" + (", log" if scale.kind == "log" else ""),
        scale=alt.Scale(type=scale.kind, domain=[scale.low, scale.high], nice=False),
        axis=alt.Axis(values=list(scale.ticks), format=".6~g" if scale.kind == "linear" else ".0e"),
    )
    x = alt.X(
        "label:Q",
        title="Label" if last else None,
        scale=alt.Scale(domain=[0, count], nice=False),
        axis=alt.Axis(tickCount=6),
    )
    colour = alt.Color("when:N", scale=alt.Scale(domain=_ORDER, range=_STEP_COLOURS), sort=_ORDER, title=None)
    lines = (
        alt.Chart(long)
        .mark_line(interpolate="step", strokeWidth=1.2)
        .encode(x=x, y=y, color=colour, order=alt.Order("label:Q"))
    )
    dots = (
        alt.Chart(long.filter(pl.col("label").is_in(learned)))
        .mark_point(filled=True, color=theme.MARKED, opacity=1)
        .encode(x=x, y=y, size=alt.condition("datum.when === 'after'", alt.value(60), alt.value(22)))
    )
    width = theme.panel_width(2)
    return alt.layer(lines, dots, width=width, height=height, title=alt.Title(title, style="panel-title"))


_SWEEP_TITLES = {
    "peakiness": "Peakiness (logits × …), log",
    "probability": "Probability of the label, log",
    "size": "Step on the logits, log",
}


def heading_of_sweeps(sweeps: pl.DataFrame) -> Heading:
    """From where to where the mean share of falling labels goes in each sweep."""
    said = []
    for sweep, word in (
        ("peakiness", "a peakier softmax"),
        ("probability", "a likelier label"),
        ("size", "a larger step"),
    ):
        means = _of_sweep(sweeps, sweep)["value"]
        said.append(f"{means[0]:.0%} → {means[-1]:.0%} with {word}")
    draws = sweeps["draw"].n_unique()
    return Heading(
        f"Other labels that fall when one is pushed down: {', '.join(said)}",
        (
            f"Mean over {draws} random softmaxes of 50 labels (normal logits), band: 5 to 95 % of them. Where they are "
            "not varied: logits × 1, probability of the pushed label .001, step 1.",
        ),
    )


def _of_sweep(sweeps: pl.DataFrame, sweep: str) -> pl.DataFrame:
    return (
        sweeps.filter(pl.col("sweep") == sweep)
        .group_by("level")
        .agg(
            pl.col("falling").mean().alias("value"),
            pl.col("falling").quantile(0.05).alias("low"),
            pl.col("falling").quantile(0.95).alias("high"),
        )
        .sort("level")
    )


def sweep_curves(sweeps: pl.DataFrame, heading: Heading) -> alt.ConcatChart:
    """A panel a sweep: the share of other labels that fall."""
    panels = []
    for place, (sweep, title) in enumerate(_SWEEP_TITLES.items()):
        x = alt.X("level:Q", title=title, scale=alt.Scale(type="log", nice=False), axis=_decades(sweeps, sweep))
        scale = alt.Scale(domain=[0, 1])
        y = alt.Y("value:Q", title="Others that fall" if not place else None, scale=scale, axis=alt.Axis(format="%"))
        base = alt.Chart(_of_sweep(sweeps, sweep)).encode(x=x)
        band = base.mark_area(style="band", color=EXACT).encode(y=alt.Y("low:Q", scale=scale), y2="high:Q")
        line = base.mark_line(style="curve", color=EXACT).encode(y=y)
        dots = base.mark_point(style="dot", color=EXACT).encode(y=y)
        panels.append(alt.layer(band, line, dots, width=theme.panel_width(3), height=theme.HEIGHTS["main"]))
    return grid(panels, 3, heading)


def _decades(sweeps: pl.DataFrame, sweep: str) -> alt.Axis:
    levels = sweeps.filter(pl.col("sweep") == sweep)["level"]
    ticks = [10.0**power for power in range(-9, 4) if levels.min() <= 10.0**power * (1 + 1e-9) <= levels.max() * 1.01]
    return alt.Axis(values=ticks[:: 1 + len(ticks) // 5], format=".6~g")
