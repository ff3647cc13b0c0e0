"""The image classifier: confusion and kernels, their ranks, one step's changes, and their first-order prediction."""

import json

import altair as alt
import polars as pl

from gradatlas.charts import scales, theme
from gradatlas.charts.numbers import share, two_digits
from gradatlas.charts.panel import OWN_SCALE, Axis, grid, panel, rounded, rule_at, series_palette, titled
from gradatlas.charts.theme import Heading
from gradatlas.toys import influence

_EPOCHS = (0, 1, 5, 13, 30, 50, 75, 100)


def heading_of_confusion(predictions: pl.DataFrame, kernels: pl.DataFrame) -> Heading:
    """What is drawn, and whether large kernels go with confusion, as correlations by learned class."""
    epoch = _last(predictions)
    found = influence.kernel_follows_confusion(predictions, kernels, epoch)
    wrong = predictions.filter((pl.col("epoch") == epoch) & (pl.col("observed") != pl.col("label")))
    wrong = wrong.sort("value", descending=True)
    most = ", ".join(f"{row['observed']} as {row['label']} {share(row['value'])}" for row in wrong.head(3).to_dicts())
    return Heading(
        "Mean predictions and tangent kernels, class by class",
        (f"after {epoch} epochs", f"most confused {most}"),
        (
            f"After {epoch} epochs (test accuracy {wrong['accuracy'][0]:.3f}). Left: mean prediction by true class, "
            f"most confused {most}. Right: mean norm of the tangent kernel between images of two classes (symmetric by "
            "definition). Colour: off the diagonal. Spearman's correlation of both, by learned class: "
            f"{min(found.values()):.2f} to {max(found.values()):.2f}, mean {sum(found.values()) / len(found):.2f}, "
            f"above 0 for {sum(value > 0 for value in found.values())} of {len(found)} classes.",
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
        words=pl.col("value").map_elements(share, return_dtype=pl.String),
    )
    norms = kernels.filter(pl.col("epoch") == epoch).select(
        row="learned", column="observed", value="norm", words=pl.col("norm").round(0).cast(pl.Int64).cast(pl.String)
    )
    panels = [
        _heat_map(means, names, "Label", "True class", "Mean prediction"),
        _heat_map(norms, names, "Observed class", "Learned class", "Norm of the kernel"),
    ]
    # Each with its own amounts.
    return grid(panels, 2, heading).resolve_scale(x="independent", y="independent", color="independent")


def _heat_map(frame: pl.DataFrame, names: list[str], column: str, row: str, title: str) -> alt.LayerChart:
    frame = frame.with_columns(rounded("value"), (pl.col("row") != pl.col("column")).alias("apart"))
    values = frame.filter("apart")["value"]
    low, top = values.min(), values.max()
    base = theme.Chart(frame).encode(
        x=alt.X("column:O", title=column, sort=names, axis=alt.Axis(labelAngle=0)),
        y=alt.Y("row:O", title=row, sort=names),
    )
    ramp = alt.Scale(range=list(theme.SEQUENTIAL), domain=[low + place * (top - low) / 4 for place in range(5)])
    shade = alt.condition("datum.apart", alt.Color("value:Q", scale=ramp, legend=None), alt.value(theme.GRID))
    dark = f"datum.apart && datum.value > {low + 0.625 * (top - low)}"
    ink = alt.condition(dark, alt.value("white"), alt.value(theme.INK))
    words = base.mark_text(style="number").encode(text="words:N", color=ink)
    side = theme.panel_width(2)
    return theme.layer(base.mark_rect().encode(color=shade), words, width=side, height=side * 0.8, **titled(title))


def heading_of_ranks(kernels: pl.DataFrame) -> Heading:
    """What is drawn, and how stable the ranking of kernels is, early and late."""
    ranks = influence.rank_stability(kernels)
    late = ranks.filter(pl.col("epoch") >= influence.BURN_IN)["last"].mean()
    early = ranks.filter(pl.col("epoch") < influence.BURN_IN)["last"].mean()
    return Heading(
        "Stability of the kernels’ ranking over training, and their size",
        (f"Kendall's tau {early:.2f} before epoch {influence.BURN_IN}", f"{late:.2f} from then on"),
        (
            "Left: ranking of the kernel norms over the other classes, compared with the last evaluation and with the "
            "next; mean over learned classes, band: lowest and highest. With the last, Kendall's tau is "
            f"{early:.2f} before epoch {influence.BURN_IN} and {late:.2f} from then on. Right: mean norm over pairs of "
            f"distinct images. Evaluations: epochs {', '.join(map(str, sorted(kernels['epoch'].unique())))}.",
        ),
    )


def rank_curves(kernels: pl.DataFrame, heading: Heading) -> alt.ConcatChart:
    """Stability of the kernels' ranking over training, and their size."""
    names = {"last": "with the last evaluation", "next": "with the next evaluation"}
    ranks = influence.rank_stability(kernels).unpivot(list(names), index=["epoch", "learned"])
    taus = (
        ranks.group_by("epoch", "variable", maintain_order=True)
        .agg(pl.col("value").mean(), pl.col("value").min().alias("low"), pl.col("value").max().alias("high"))
        .with_columns(pl.col("variable").replace_strict(names).alias("series"))
    )
    kind = pl.when(pl.col("learned") == pl.col("observed")).then(pl.lit("same class"))
    sizes = kernels.with_columns(kind.otherwise(pl.lit("other classes")).alias("series"))
    sizes = sizes.group_by("epoch", "series", maintain_order=True).agg(pl.col("norm").mean())
    x = epoch_axis(kernels, "Epoch, square root")
    size = (theme.panel_width(2), theme.HEIGHTS["main"])
    tau = Axis("value", "Kendall's tau", scales.Scale("linear", min(-0.5, taus["low"].min()), 1), count=6)
    norm = Axis("norm", "Norm of the kernel", scales.linear(sizes["norm"]), count=6)
    palette = series_palette([*names.values(), "same class", "other classes"])
    return grid([panel(taus, x, tau, palette, size), panel(sizes, x, norm, palette, size)], 2, heading)


def epoch_axis(frame: pl.DataFrame, title: str | None) -> Axis:
    """Square root, so that the uneven first epochs have room; its own ticks would crowd there."""
    last = _last(frame)
    return Axis("epoch", title, scales.Scale("sqrt", 0, last, tuple(each for each in _EPOCHS if each <= last)), "d")


def heading_of_change(predictions: pl.DataFrame, changes: pl.DataFrame) -> Heading:
    """What is drawn, and what one step does to similar and dissimilar classes."""
    learned, similar, dissimilar = _example(predictions)
    epoch, rate = _stepped_between(changes)
    own = _of_step(changes, learned, epoch, rate).filter(pl.col("label") == learned)
    value = {(row["observed"], row["same"]): row["change"] for row in own.to_dicts()}
    near, far = (two_digits(value[name, False], "+") for name in (similar, dissimilar))
    return Heading(
        f"Change of probability by one step on one image of class {learned}",
        (f"π({learned}) on images of {similar}: {near}", f"of {dissimilar}: {far}"),
        (
            f"Mean change by one SGD step of {rate:g} on one image of class {learned} (red) after {epoch} epochs: "
            f"π({learned}) moves by {near} on images of {similar}, by {far} on images of {dissimilar}. Similar and "
            "dissimilar: the classes whose test images are given most and least of that label in the end.",
        ),
    )


def change_bars(predictions: pl.DataFrame, changes: pl.DataFrame, heading: Heading) -> alt.ConcatChart:
    """The change of every label's probability on the same image, its class, a similar and a dissimilar class."""
    learned, similar, dissimilar = _example(predictions)
    shown = {
        f"The same {learned}": (learned, True),
        f"Another {learned}": (learned, False),
        f"Similar: {similar}": (similar, False),
        f"Dissimilar: {dissimilar}": (dissimilar, False),
    }
    drawn = _of_step(changes, learned, *_stepped_between(changes)).with_columns(rounded("change"))
    drawn = drawn.filter(pl.col("observed").is_in([learned, similar, dissimilar]))
    scale = scales.linear(drawn["change"])
    colour = alt.condition(
        f"datum.label === {json.dumps(learned)}", alt.value(theme.COLOURS["mark"]["target"]), alt.value(theme.RULE)
    )
    panels = []
    for title, (observed, same) in shown.items():
        own = drawn.filter((pl.col("observed") == observed) & (pl.col("same") == same))
        y = Axis("change", None if panels else "Change of probability", scale, labels=not panels, count=6)
        x = alt.X("label:O", title="Label", axis=alt.Axis(labelAngle=0))
        bars = theme.Chart(own).mark_bar().encode(x=x, y=y.encode(alt.Y), color=colour)
        size = {"width": theme.panel_width(4), "height": theme.HEIGHTS["main"]}
        panels.append(theme.layer(bars, rule_at(y, 0), **size, **titled(title)))
    return grid(panels, 4, heading)


def heading_of_prediction(steps: pl.DataFrame) -> Heading:
    """What is drawn; slope, cosine and order of the remainder, over epochs and small rates."""
    found = influence.first_order(steps)
    small = found.filter(pl.col("rate") == found["rate"].min())
    large = found.filter(pl.col("rate") == found["rate"].max())
    orders = found["order"].drop_nulls()
    return Heading(
        "One step of SGD: change predicted by −ηAKG and true change",
        (f"slope {small['slope'].min():.3f} to {small['slope'].max():.3f} at η = {small['rate'][0]:g}",),
        (
            "Above: change of log π of the learned label by one SGD step, for one learned image a class and all "
            f"observed images, η = {_shown_rate(steps):g}; line: equal. Below: norm of true minus predicted change "
            f"over all {small['n'][0]:,} pairs and labels; line: slope 2. At η = {small['rate'][0]:g} the slope is "
            f"{small['slope'].min():.3f} to {small['slope'].max():.3f}, and half the step leaves {orders.min():.2f} to "
            f"{orders.max():.2f} times less remainder. Median cosine at least {found['cosine'].min():.4f}; at η = "
            f"{large['rate'][0]:g} the slope is {large['slope'].min():.2f} to {large['slope'].max():.2f}: that step is "
            "not small at every epoch.",
        ),
    )


def prediction_scatter(steps: pl.DataFrame, heading: Heading) -> alt.ConcatChart:
    """Predicted against true changes at each epoch, and the remainder by rate."""
    first = steps.group_by("learned").agg(pl.col("learned_image").min())["learned_image"]
    kinds = ("same image", "same class", "other class")
    same = (
        pl.when(pl.col("learned_image") == pl.col("observed_image")).then(pl.lit(kinds[0]))
        .when(pl.col("learned") == pl.col("observed")).then(pl.lit(kinds[1])).otherwise(pl.lit(kinds[2]))
    )  # fmt: skip
    shown = steps.filter((pl.col("rate") == _shown_rate(steps)) & pl.col("learned_image").is_in(first.to_list()))
    shown = shown.select("epoch", rounded("measured"), rounded("predicted"), same.alias("pair"))
    residual = influence.first_order(steps).select("epoch", "rate", rounded("residual"))
    colour = series_palette(kinds, "pair").encode(alt.Color)
    width = theme.panel_width(3)
    above, below = [], []
    for epoch in sorted(steps["epoch"].unique()):
        own = shown.filter(pl.col("epoch") == epoch)
        scale = scales.linear([*own["measured"], *own["predicted"]])
        x = Axis("predicted", "Predicted change", scale, count=3).encode(alt.X)
        y = Axis("measured", None if above else f"True change, {OWN_SCALE}", scale, count=3).encode(alt.Y)
        diagonal = guide([{"predicted": end, "measured": end} for end in (scale.low, scale.high)], x, y)
        dots = theme.Chart(own).mark_point(style="dot").encode(x=x, y=y, color=colour)
        title = f"After {epoch} epoch{'s' if epoch != 1 else ''}"
        below.append(_residual_panel(residual.filter(pl.col("epoch") == epoch), titled_axis=not above))
        above.append(theme.layer(diagonal, dots, width=width, height=theme.HEIGHTS["main"], **titled(title)))
    return grid([*above, *below], len(above), heading)


def _residual_panel(frame: pl.DataFrame, *, titled_axis: bool) -> alt.LayerChart:
    frame = frame.sort("rate")
    least, most = frame["rate"][0], frame["rate"][-1]
    second = [{"rate": rate, "residual": frame["residual"][0] * (rate / least) ** 2} for rate in (least, most)]
    scale = scales.logarithmic([*frame["residual"], second[-1]["residual"]], 5)
    x = Axis("rate", "Step size η, log", scales.logarithmic([least, most], 4)).encode(alt.X)
    y = Axis("residual", ["Remainder, log,", OWN_SCALE] if titled_axis else None, scale, ".0e").encode(alt.Y)
    dots = theme.Chart(frame).mark_point(style="dot-alone", color=theme.INK).encode(x=x, y=y)
    return theme.layer(guide(second, x, y), dots, width=theme.panel_width(3), height=theme.HEIGHTS["minor"])


def guide(ends: list[dict], x: alt.X, y: alt.Y) -> alt.Chart:
    """A line between two points, to compare with."""
    return theme.Chart(alt.InlineData(ends)).mark_line(color=theme.RULE, strokeWidth=1).encode(x=x, y=y)


def _last(frame: pl.DataFrame) -> int:
    return int(frame["epoch"].max())


def _example(predictions: pl.DataFrame) -> tuple[str, str, str]:
    """(learned class, the class confused with it most, the one least), by the last mean predictions."""
    wrong = predictions.filter((pl.col("epoch") == _last(predictions)) & (pl.col("observed") != pl.col("label")))
    learned, similar = wrong.sort("value").row(-1, named=True)["label"], wrong.sort("value")["observed"][-1]
    return learned, similar, wrong.filter(pl.col("label") == learned).sort("value")["observed"][0]


def _stepped_between(changes: pl.DataFrame) -> tuple[int, float]:
    """The middle one of the epochs at which steps were taken, and the largest small rate."""
    epochs, rates = (sorted(changes[name].unique()) for name in ("epoch", "rate"))
    return epochs[len(epochs) // 2], rates[-2]


def _of_step(changes: pl.DataFrame, learned: str, epoch: int, rate: float) -> pl.DataFrame:
    return changes.filter((pl.col("epoch") == epoch) & (pl.col("rate") == rate) & (pl.col("learned") == learned))


def _shown_rate(steps: pl.DataFrame) -> float:
    return sorted(steps["rate"].unique())[-2]
