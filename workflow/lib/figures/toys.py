"""The toys' figures: a softmax squeezed, a classifier's influence, the clipped objective. Tables in, charts out."""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import altair as alt
import polars as pl

from workflow.lib.command import progress
from workflow.lib.dynamics.toys import clip, influence
from workflow.lib.figures import scales, theme
from workflow.lib.figures.save import save, size_of_svg
from workflow.lib.figures.theme import Heading
from workflow.lib.files import write_text
from workflow.lib.tables import SCHEMAS, read_table

DIGITS = 6
_ORDER = ("before", "after")
_STEP_COLOURS = (theme.RULE, theme.ORDERED_COLOURS[0])
_HEAT = "purples"
_EXACT, _FIRST = theme.ORDERED_COLOURS[0], theme.ORDERED_COLOURS[1]


def draw(tables: str | Path, output: str | Path, formats: Sequence[str]) -> None:
    """Draw all toys whose tables (``toy_*.parquet``) stand in the folder `tables` into the folder `output`.

    Files are ``{toy}.{figure}.{format}``; ``index.json`` lists them: dataset and dataset_title, and by figure toy,
    figure, title, subtitle (lines), files (by format), width and height (of the SVG, where drawn).
    `InputError` where a table is missing or of another kind.
    """
    names = [name for name in SCHEMAS if name.startswith("toy_")]
    frames = {name: pl.from_arrow(read_table(name, Path(tables) / f"{name}.parquet")) for name in names}
    listed = []
    for toy, figure, heading, chart in _figures(frames):
        files = save(chart(heading), Path(output) / f"{toy}.{figure}", formats)
        size = size_of_svg(Path(output) / files["svg"]) if "svg" in files else ()
        entry = {"toy": toy, "figure": figure, "title": heading.title, "subtitle": list(heading.subtitle)}
        listed.append({**entry, "files": files, **dict(zip(("width", "height"), size, strict=False))})
        progress(f"toys: {toy}, {figure}: {', '.join(files)}")
    index = {"dataset": "toys", "dataset_title": "Toys", "figures": listed}
    write_text(Path(output) / "index.json", json.dumps(index, indent=1, ensure_ascii=False) + "\n")


def _figures(frames: dict[str, pl.DataFrame]) -> Iterator[tuple]:
    """Toy, figure, heading, and the chart as a function of the heading."""
    labels, cases, sweeps = (frames[f"toy_squeeze{part}"] for part in ("", "_cases", "_sweeps"))
    yield "squeeze", "steps", heading_of_cases(cases), partial(step_plots, labels, cases)
    yield "squeeze", "sweeps", heading_of_sweeps(sweeps), partial(sweep_curves, sweeps)
    predictions, kernels, steps, changes = (
        frames[f"toy_{name}"] for name in ("predictions", "kernels", "steps", "changes")
    )
    yield "influence", "confusion", heading_of_confusion(predictions, kernels), partial(heat_maps, predictions, kernels)
    yield "influence", "ranks", heading_of_ranks(kernels), partial(rank_curves, kernels)
    yield "influence", "change", heading_of_change(predictions, changes), partial(change_bars, predictions, changes)
    yield "influence", "prediction", heading_of_prediction(steps), partial(prediction_scatter, steps)
    yield "clip", "steps", heading_of_clip(frames["toy_clip"]), partial(clip_curves, frames["toy_clip"])


# Squeezing


def heading_of_cases(cases: pl.DataFrame) -> Heading:
    """What the step does to the others, counted."""
    row = {each["case"]: each for each in cases.to_dicts()}
    said = ", ".join(f"{row[name]['rising']} of {row[name]['labels'] - 1} in {name}" for name in "BCDE")
    return Heading(
        f"Pushing one label down lifts the most likely other one; others that rise: {said}",
        (
            "One gradient step on a softmax classifier: label probabilities before (grey) and after (violet); the labels "
            "that the step is about in red, the larger dot after it. A: pulled up. B: pushed down on a flat softmax; C: on "
            "a peak; D: in a valley; E: in a valley of 1,000 labels. Control: D with label 25 pulled up in the same "
            f"context, all other ratios are equal (within {row['control']['ratio_spread']:.0e}).",
        ),
    )


def step_plots(labels: pl.DataFrame, cases: pl.DataFrame, heading: Heading) -> alt.ConcatChart:
    """A row a case: probabilities before and after by label, on a linear and on a log axis."""
    panels = []
    for case in cases.to_dicts():
        own = labels.filter(pl.col("case") == case["case"])
        learned = [case[key] for key in ("up", "down") if case[key] is not None]
        long = own.unpivot(_ORDER, index="label", variable_name="when", value_name="probability").with_columns(
            _rounded("probability")
        )
        last = case == cases.row(-1, named=True)
        for kind in ("linear", "log"):
            title = f"{case['case'].capitalize()} · {_deed(case)}" if kind == "linear" else " "
            panels.append(_step_panel(long, learned, kind, title, last))
    return _grid(panels, 2, heading)


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
        band = base.mark_area(style="band", color=_EXACT).encode(y=alt.Y("low:Q", scale=scale), y2="high:Q")
        line = base.mark_line(style="curve", color=_EXACT).encode(y=y)
        dots = base.mark_point(style="dot", color=_EXACT).encode(y=y)
        panels.append(alt.layer(band, line, dots, width=theme.panel_width(3), height=theme.HEIGHTS["main"]))
    return _grid(panels, 3, heading)


def _decades(sweeps: pl.DataFrame, sweep: str) -> alt.Axis:
    levels = sweeps.filter(pl.col("sweep") == sweep)["level"]
    ticks = [10.0**power for power in range(-9, 4) if levels.min() <= 10.0**power * (1 + 1e-9) <= levels.max() * 1.01]
    return alt.Axis(values=ticks[:: 1 + len(ticks) // 5], format=".6~g")


# Influence


def _last(frame: pl.DataFrame) -> int:
    return int(frame["epoch"].max())


def heading_of_confusion(predictions: pl.DataFrame, kernels: pl.DataFrame) -> Heading:
    """Whether large kernels go with confusion, as correlations by learned class."""
    epoch = _last(predictions)
    found = influence.kernel_follows_confusion(predictions, kernels, epoch)
    positive = sum(value > 0 for value in found.values())
    pairs = predictions.filter((pl.col("epoch") == epoch) & (pl.col("observed") != pl.col("label"))).sort(
        "value", descending=True
    )
    most = ", ".join(
        f"{row['observed']} as {row['label']} {row['value']:.2f}".replace(" 0.", " .")
        for row in pairs.head(3).to_dicts()
    )
    mean = sum(found.values()) / len(found)
    return Heading(
        f"Rank correlation of kernels and confusion: mean {mean:.2f}, above 0 for {positive} of {len(found)} classes",
        (
            f"After {epoch} epochs (test accuracy {pairs['accuracy'][0]:.3f}). Left: mean prediction by true class, most "
            f"confused {most}. Right: mean norm of the tangent kernel between images of two classes (symmetric by "
            "definition). Colour: off the diagonal. Spearman's correlation of both, by learned class: "
            f"{min(found.values()):.2f} to {max(found.values()):.2f}.",
        ),
    )


def heat_maps(predictions: pl.DataFrame, kernels: pl.DataFrame, heading: Heading) -> alt.ConcatChart:
    """Mean prediction and kernel norm, class by class."""
    epoch = _last(predictions)
    names = predictions["observed"].unique(maintain_order=True).to_list()
    means = predictions.filter(pl.col("epoch") == epoch).select(
        row="observed",
        column="label",
        value="value",
        words=pl.col("value").map_elements(_share, return_dtype=pl.String),
    )
    norms = kernels.filter(pl.col("epoch") == epoch).select(
        row="learned", column="observed", value="norm", words=pl.col("norm").round(0).cast(pl.Int64).cast(pl.String)
    )
    return _grid(
        [
            _heat_map(means, names, "Label", "True class", "Mean prediction"),
            _heat_map(norms, names, "Observed class", "Learned class", "Norm of the kernel"),
        ],
        2,
        heading,
        colour="independent",
    )


def _share(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")


def _heat_map(frame: pl.DataFrame, names: list[str], column: str, row: str, title: str) -> alt.LayerChart:
    frame = frame.with_columns(_rounded("value"), (pl.col("row") != pl.col("column")).alias("apart"))
    top = frame.filter("apart")["value"].max()
    low = frame.filter("apart")["value"].min()
    base = alt.Chart(frame).encode(
        x=alt.X("column:O", title=column, sort=names, axis=alt.Axis(labelAngle=0)),
        y=alt.Y("row:O", title=row, sort=names),
    )
    shade = alt.condition(
        "datum.apart",
        alt.Color("value:Q", scale=alt.Scale(scheme=_HEAT, domain=[low, top]), legend=None),
        alt.value(theme.GRID),
    )
    ink = alt.condition(
        f"datum.apart && datum.value > {low + 0.55 * (top - low)}", alt.value("white"), alt.value(theme.INK)
    )
    cells = base.mark_rect().encode(color=shade)
    words = base.mark_text(fontSize=9.5).encode(text="words:N", color=ink)
    side = theme.panel_width(2)
    return alt.layer(cells, words, width=side, height=side * 0.8, title=alt.Title(title, style="panel-title"))


def heading_of_ranks(kernels: pl.DataFrame) -> Heading:
    """How stable the ranking of kernels is, early and late."""
    ranks = influence.rank_stability(kernels)
    late = ranks.filter(pl.col("epoch") >= influence.BURN_IN)["last"].mean()
    early = ranks.filter(pl.col("epoch") < influence.BURN_IN)["last"].mean()
    return Heading(
        f"Ranking of the classes by kernel: Kendall's tau with the end {early:.2f} before epoch {influence.BURN_IN}, "
        f"{late:.2f} from then on",
        (
            "Left: ranking of the kernel norms over the other classes, compared with the last look and with the next; "
            "mean over learned classes, band: lowest and highest. Right: mean norm over pairs of distinct images. Looks: "
            f"epochs {', '.join(map(str, sorted(kernels['epoch'].unique())))}.",
        ),
    )


def rank_curves(kernels: pl.DataFrame, heading: Heading) -> alt.ConcatChart:
    """Stability of the kernels' ranking over training, and their size."""
    ranks = influence.rank_stability(kernels).unpivot(["last", "next"], index=["epoch", "learned"])
    data = (
        ranks.group_by("epoch", "variable", maintain_order=True)
        .agg(pl.col("value").mean(), pl.col("value").min().alias("low"), pl.col("value").max().alias("high"))
        .with_columns(pl.concat_str(pl.lit("with the "), "variable", pl.lit(" look")).alias("compared"))
    )
    names = ["with the last look", "with the next look"]
    colour = alt.Color("compared:N", scale=alt.Scale(domain=names, range=[_EXACT, _FIRST]), title=None)
    # Square root, so that the messy first epochs have room.
    x = alt.X(
        "epoch:Q",
        title="Epoch, square root",
        scale=alt.Scale(type="sqrt", domain=[0, _last(kernels)]),
        axis=_epochs(kernels),
    )
    y_scale = alt.Scale(domain=[min(-0.5, data["low"].min()), 1], nice=False)
    base = alt.Chart(data).encode(x=x, color=colour)
    y = alt.Y("value:Q", title="Kendall's tau", scale=y_scale)
    taus = alt.layer(
        base.mark_area(style="band").encode(y=alt.Y("low:Q", scale=y_scale), y2="high:Q"),
        base.mark_line(style="curve").encode(y=y),
        base.mark_point(style="dot").encode(y=y),
        width=theme.panel_width(2),
        height=theme.HEIGHTS["main"],
    )
    kind = (
        pl.when(pl.col("learned") == pl.col("observed")).then(pl.lit("same class")).otherwise(pl.lit("other classes"))
    )
    sizes = (
        kernels.with_columns(kind.alias("kind"))
        .group_by("epoch", "kind", maintain_order=True)
        .agg(pl.col("norm").mean())
    )
    both = alt.Color(
        "kind:N",
        scale=alt.Scale(domain=["same class", "other classes"], range=list(theme.ORDERED_COLOURS[2:4])),
        title=None,
    )
    norm = alt.Chart(sizes).encode(x=x, y=alt.Y("norm:Q", title="Norm of the kernel"), color=both)
    norms = alt.layer(
        norm.mark_line(style="curve"),
        norm.mark_point(style="dot"),
        width=theme.panel_width(2),
        height=theme.HEIGHTS["main"],
    )
    return _grid([taus, norms], 2, heading, colour="independent")


def _epochs(frame: pl.DataFrame) -> alt.Axis:
    return alt.Axis(values=[epoch for epoch in (0, 1, 5, 13, 30, 50, 75, 100) if epoch <= _last(frame)], format="d")


def _example(predictions: pl.DataFrame) -> tuple[str, str, str]:
    """(learned class, the class confused with it most, the one least), by the last mean predictions."""
    wrong = predictions.filter((pl.col("epoch") == _last(predictions)) & (pl.col("observed") != pl.col("label")))
    learned, similar = wrong.sort("value").row(-1, named=True)["label"], wrong.sort("value")["observed"][-1]
    return learned, similar, wrong.filter(pl.col("label") == learned).sort("value")["observed"][0]


def _stepped_between(changes: pl.DataFrame) -> tuple[int, float]:
    """The middle one of the epochs at which steps were taken, and the largest small rate."""
    epochs, rates = (sorted(changes[name].unique()) for name in ("epoch", "rate"))
    return epochs[len(epochs) // 2], rates[-2]


def heading_of_change(predictions: pl.DataFrame, changes: pl.DataFrame) -> Heading:
    """What one step does to similar and dissimilar classes."""
    learned, similar, dissimilar = _example(predictions)
    epoch, rate = _stepped_between(changes)
    own = changes.filter(
        (pl.col("epoch") == epoch)
        & (pl.col("rate") == rate)
        & (pl.col("learned") == learned)
        & (pl.col("label") == learned)
    )
    value = {(row["observed"], row["same"]): row["change"] for row in own.to_dicts()}
    near, far = (f"{value[name, False]:+.2g}".replace("-", "−") for name in (similar, dissimilar))
    return Heading(
        f"Learning one {learned} moves the belief in {learned} on images of {similar} by {near}, of {dissimilar} by {far}",
        (
            f"Mean change of probability by one SGD step of {rate:g} on one image of class {learned} (red) after "
            f"{epoch} epochs. Similar and dissimilar: the classes whose test images are given most and least of that "
            "label in the end.",
        ),
    )


def change_bars(predictions: pl.DataFrame, changes: pl.DataFrame, heading: Heading) -> alt.ConcatChart:
    """The change of every label's probability on the same image, its class, a similar and a dissimilar class."""
    learned, similar, dissimilar = _example(predictions)
    epoch, rate = _stepped_between(changes)
    panels = []
    step = (pl.col("epoch") == epoch) & (pl.col("rate") == rate) & (pl.col("learned") == learned)
    drawn = changes.filter(step & pl.col("observed").is_in([learned, similar, dissimilar]))
    scale = scales.linear(drawn["change"], theme.HEIGHTS["main"])
    for title, observed, same in (
        (f"The same {learned}", learned, True),
        (f"Another {learned}", learned, False),
        (f"Similar: {similar}", similar, False),
        (f"Dissimilar: {dissimilar}", dissimilar, False),
    ):
        own = drawn.filter((pl.col("observed") == observed) & (pl.col("same") == same)).with_columns(_rounded("change"))
        y = alt.Y(
            "change:Q",
            title="Change of probability" if not panels else None,
            scale=alt.Scale(domain=[scale.low, scale.high], nice=False),
            axis=alt.Axis(values=list(scale.ticks), labelExpr="format(datum.value, '.6~g')" if not panels else "' '"),
        )
        colour = alt.condition(f"datum.label === '{learned}'", alt.value(theme.MARKED), alt.value(theme.RULE))
        bars = (
            alt.Chart(own)
            .mark_bar()
            .encode(x=alt.X("label:O", title="Label", axis=alt.Axis(labelAngle=0)), y=y, color=colour)
        )
        zero = alt.Chart(alt.InlineData([{"zero": 0}])).mark_rule(style="zero").encode(y="zero:Q")
        panels.append(
            alt.layer(
                bars,
                zero,
                width=theme.panel_width(4),
                height=theme.HEIGHTS["main"],
                title=alt.Title(title, style="panel-title"),
            )
        )
    return _grid(panels, 4, heading)


def heading_of_prediction(steps: pl.DataFrame) -> Heading:
    """Slope, cosine and order of the remainder, over epochs and small rates."""
    found = influence.first_order(steps)
    small = found.filter(pl.col("rate") == found["rate"].min())
    large = found.filter(pl.col("rate") == found["rate"].max())
    orders = found["order"].drop_nulls()
    return Heading(
        f"−ηAKG tells one step: slope {small['slope'].min():.3f} to {small['slope'].max():.3f} at η = "
        f"{small['rate'][0]:g}; half the step leaves a remainder {orders.min():.2f} to {orders.max():.2f} times smaller",
        (
            "Above: change of log π of the learned label by one SGD step, for one learned image a class and all observed "
            f"images, η = {_shown_rate(steps):g}; line: equal. Below: norm of true minus predicted change over all "
            f"{small['n'][0]:,} pairs and labels; line: slope 2. Median cosine at least {found['cosine'].min():.4f}; at η "
            f"= {large['rate'][0]:g} the slope is {large['slope'].min():.2f} to {large['slope'].max():.2f}: that step is "
            "not small at every epoch.",
        ),
    )


def _shown_rate(steps: pl.DataFrame) -> float:
    return sorted(steps["rate"].unique())[-2]


def prediction_scatter(steps: pl.DataFrame, heading: Heading) -> alt.VConcatChart:
    """Predicted against true changes at each epoch, and the remainder by rate."""
    epochs = sorted(steps["epoch"].unique())
    first = steps.group_by("learned").agg(pl.col("learned_image").min())["learned_image"]
    shown = steps.filter(
        (pl.col("rate") == _shown_rate(steps)) & pl.col("learned_image").is_in(first.to_list())
    ).select(
        "epoch",
        _rounded("measured"),
        _rounded("predicted"),
        pl.when(pl.col("learned_image") == pl.col("observed_image"))
        .then(pl.lit("same image"))
        .when(pl.col("learned") == pl.col("observed"))
        .then(pl.lit("same class"))
        .otherwise(pl.lit("other class"))
        .alias("pair"),
    )
    residual = influence.first_order(steps).select("epoch", "rate", _rounded("residual"))
    kinds = ["same image", "same class", "other class"]
    colour = alt.Color("pair:N", sort=kinds, title=None, scale=alt.Scale(domain=kinds, range=theme.ORDERED_COLOURS[:3]))
    above, below = [], []
    rates = sorted(steps["rate"].unique())
    for epoch in epochs:
        own = shown.filter(pl.col("epoch") == epoch)
        scale = scales.linear([*own["measured"], *own["predicted"]], theme.HEIGHTS["main"])
        domain = alt.Scale(domain=[scale.low, scale.high], nice=False)
        ticks = alt.Axis(values=list(scale.ticks[:: -1 - len(scale.ticks) // 5]), format=".6~g")
        line = alt.Chart(alt.InlineData([{"predicted": end, "measured": end} for end in (scale.low, scale.high)]))
        x = alt.X("predicted:Q", title="Predicted change", scale=domain, axis=ticks)
        y = alt.Y("measured:Q", title="True change" if epoch == epochs[0] else None, scale=domain, axis=ticks)
        dots = alt.Chart(own).mark_point(style="dot").encode(x=x, y=y, color=colour)
        above.append(
            alt.layer(
                line.mark_line(color=theme.RULE, strokeWidth=1).encode(x=x, y=y),
                dots,
                width=theme.panel_width(3),
                height=theme.HEIGHTS["main"],
                title=alt.Title(f"After {epoch} epoch{'s' if epoch != 1 else ''}", style="panel-title"),
            )
        )
        below.append(_residual_panel(residual.filter(pl.col("epoch") == epoch), rates, epoch == epochs[0]))
    return _grid([*above, *below], len(epochs), heading)


def _residual_panel(frame: pl.DataFrame, rates: list[float], titled: bool) -> alt.LayerChart:
    smallest = frame.sort("rate").row(0, named=True)
    second = [{"rate": r, "residual": smallest["residual"] * (r / rates[0]) ** 2} for r in (rates[0], rates[-1])]
    scale = scales.log_if_decades([*frame["residual"], second[-1]["residual"]], theme.HEIGHTS["minor"])
    x = alt.X(
        "rate:Q", title="Step size η, log", scale=alt.Scale(type="log", nice=False), axis=alt.Axis(values=[0.001, 0.01])
    )
    y = alt.Y(
        "residual:Q",
        title="Remainder, log" if titled else None,
        scale=alt.Scale(type="log", domain=[scale.low, scale.high], nice=False),
        axis=alt.Axis(values=list(scale.ticks), format=".0e"),
    )
    rule = alt.Chart(alt.InlineData(second)).mark_line(color=theme.RULE, strokeWidth=1).encode(x=x, y=y)
    dots = alt.Chart(frame).mark_point(style="dot-alone", color=_EXACT).encode(x=x, y=y)
    return alt.layer(rule, dots, width=theme.panel_width(3), height=theme.HEIGHTS["minor"])


# The clipped objective

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
            f"One label of a softmax of 50 pushed down {steps} times (cases B, C, D of the squeezing effect), first steps "
            f"alike ({clip.SIZE:g} on the logits). DPO with β = {clip.BETA:g}; clipped: PPO's and GRPO's objective with a "
            f"negative advantage, ε = {clip.EPSILON:g}. Renewed: the old policy follows and the same label is scored "
            "again; then the clip only slows it. Each panel has its own axis.",
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
            own = data.filter(pl.col("case") == case).select("step", "objective", _rounded(column))
            x = alt.X("step:Q", title="Step" if column == [*_CLIP_ROWS][-1] else None, scale=alt.Scale(nice=False))
            y = alt.Y(
                f"{column}:Q",
                title=title if case == cases[0] else None,
                scale=alt.Scale(zero=column == "winner_prob", nice=True),
                axis=alt.Axis(tickCount=4),
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
    return _grid(panels, 3, heading)


def _rounded(name: str) -> pl.Expr:
    return pl.col(name).round_sig_figs(DIGITS).alias(name)


def _grid(panels: Sequence[alt.LayerChart], columns: int, heading: Heading, colour: str = "shared") -> alt.ConcatChart:
    apart = alt.Resolve(scale=alt.ScaleResolveMap(x="independent", y="independent", color=colour))
    return alt.concat(*panels, columns=columns, title=theme.heading_of(heading, columns), resolve=apart)
