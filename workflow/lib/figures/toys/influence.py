"""The image classifier: confusion and kernels, their ranks, one step's changes, and how well it is told."""

import json

import altair as alt
import polars as pl

from workflow.lib.dynamics.toys import influence
from workflow.lib.figures import scales, theme
from workflow.lib.figures.theme import Heading
from workflow.lib.figures.toys.parts import EXACT, FIRST, grid, rounded

_HEAT = "purples"


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
            f"After {epoch} epochs (test accuracy {pairs['accuracy'][0]:.3f}). Left: mean prediction by true class, "
            f"most confused {most}. Right: mean norm of the tangent kernel between images of two classes (symmetric by "
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
    return grid(
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
    frame = frame.with_columns(rounded("value"), (pl.col("row") != pl.col("column")).alias("apart"))
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
            "mean over learned classes, band: lowest and highest. Right: mean norm over pairs of distinct images. "
            f"Looks: epochs {', '.join(map(str, sorted(kernels['epoch'].unique())))}.",
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
    colour = alt.Color("compared:N", scale=alt.Scale(domain=names, range=[EXACT, FIRST]), title=None)
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
    return grid([taus, norms], 2, heading, colour="independent")


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
        f"Learning one {learned} moves π({learned}) on images of {similar} by {near}, of {dissimilar} by {far}",
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
        own = drawn.filter((pl.col("observed") == observed) & (pl.col("same") == same)).with_columns(rounded("change"))
        y = alt.Y(
            "change:Q",
            title="Change of probability" if not panels else None,
            scale=alt.Scale(domain=[scale.low, scale.high], nice=False),
            axis=alt.Axis(values=list(scale.ticks), labelExpr="format(datum.value, '.6~g')" if not panels else "' '"),
        )
        colour = alt.condition(f"datum.label === {json.dumps(learned)}", alt.value(theme.MARKED), alt.value(theme.RULE))
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
    return grid(panels, 4, heading)


def heading_of_prediction(steps: pl.DataFrame) -> Heading:
    """Slope, cosine and order of the remainder, over epochs and small rates."""
    found = influence.first_order(steps)
    small = found.filter(pl.col("rate") == found["rate"].min())
    large = found.filter(pl.col("rate") == found["rate"].max())
    orders = found["order"].drop_nulls()
    return Heading(
        f"−ηAKG tells one step: slope {small['slope'].min():.3f} to {small['slope'].max():.3f} at η = "
        f"{small['rate'][0]:g}; half the step leaves {orders.min():.2f} to {orders.max():.2f} times less remainder",
        (
            "Above: change of log π of the learned label by one SGD step, for one learned image a class and all "
            f"observed images, η = {_shown_rate(steps):g}; line: equal. Below: norm of true minus predicted change "
            f"over all {small['n'][0]:,} pairs and labels; line: slope 2. Median cosine at least "
            f"{found['cosine'].min():.4f}; at η = {large['rate'][0]:g} the slope is {large['slope'].min():.2f} to "
            f"{large['slope'].max():.2f}: that step is not small at every epoch.",
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
        rounded("measured"),
        rounded("predicted"),
        pl.when(pl.col("learned_image") == pl.col("observed_image"))
        .then(pl.lit("same image"))
        .when(pl.col("learned") == pl.col("observed"))
        .then(pl.lit("same class"))
        .otherwise(pl.lit("other class"))
        .alias("pair"),
    )
    residual = influence.first_order(steps).select("epoch", "rate", rounded("residual"))
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
    return grid([*above, *below], len(epochs), heading)


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
    dots = alt.Chart(frame).mark_point(style="dot-alone", color=EXACT).encode(x=x, y=y)
    return alt.layer(rule, dots, width=theme.panel_width(3), height=theme.HEIGHTS["minor"])
