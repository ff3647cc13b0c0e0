"""Budgets and kernels of finetuning runs: which block moved which response, and how alike responses are to a step."""

from collections.abc import Sequence

import altair as alt
import numpy as np
import polars as pl

from gradatlas.charts import theme
from gradatlas.charts.panel import OWN_SCALE, Axis, grid, palette_of, panel, rounded, titled
from gradatlas.figures.run_curves import TYPES, Figure
from gradatlas.figures.runs import Chain, RunData
from gradatlas.kernels.tables import BUDGET, ENTANGLEMENT, KERNEL_MEANS, KERNELS
from gradatlas.statistics.bootstrap import interval, resampled_means
from gradatlas.statistics.kernels import rank_agreement

#: The types of probes of which budgets are drawn.
_SHOWN = ("chosen", "rejected", "irrelevant_train")
#: Blocks under these names as they are; others together, by what they are.
_NAMED = ("q", "k", "v", "o", "gate", "up", "down", "embedding", "output")
_GAINS = "gains, biases"
_BLOCK = (
    pl.when(pl.col("block").is_in(_NAMED)).then("block")
    .when(pl.col("block") == "embedding x output").then(pl.lit("output"))
    .otherwise(pl.lit(_GAINS)).alias("block")
)  # fmt: skip
_SIZE, _WIDE = ((theme.panel_width(columns), theme.HEIGHTS["main"]) for columns in (3, 2))
#: The lines of all panels of one figure: types of probes, and pairs of questions.
_LINES = {
    "chosen": "chosen",
    "rejected": "rejected",
    "same": "chosen and rejected of a question",
    "other": "chosen of two questions",
}


def chosen(data: RunData) -> list[list[Chain]]:
    """Each run with a budget and kernels."""
    return [[Chain((name,), row["title"] or name)] for name, row in data.runs.items() if name in data.followed]


def _place(layers: Sequence[int]) -> tuple[pl.Expr, list[str]]:
    """Where a block is, as readers see it, and all places from the input to the output."""
    layer = pl.format("layer {}", "layer")
    outside = (
        pl.when(pl.col("block").str.starts_with("embedding")).then(pl.lit("embedding")).otherwise(pl.lit("output"))
    )
    names = ["embedding", *(f"layer {each}" for each in layers), "output"]
    return pl.when(pl.col("layer").is_null()).then(outside).otherwise(layer).alias("place"), names


def budget(data: RunData, chains: Sequence[Chain]) -> Figure:
    """By layer over time, and by block over the whole run."""
    (chain,) = chains
    frame = data.table(BUDGET, chain.last).filter(pl.col("type").is_in(_SHOWN))
    place, names = _place(frame["layer"].drop_nulls().unique().sort().to_list())
    frame = frame.with_columns(place, _grouped("step").alias("part")).sort("step", maintain_order=True)
    steps = frame["part"].unique(maintain_order=True).to_list()
    cells = frame.group_by("type", "part", "place", "probe_id", maintain_order=True).agg(pl.col("predicted").sum())
    cells = cells.group_by("type", "part", "place", maintain_order=True).agg(pl.col("predicted").mean().alias("value"))
    top = float(cells["value"].abs().max() or 1)
    kinds = [kind for kind in _SHOWN if kind in set(cells["type"])]
    panels = [_map(cells.filter(pl.col("type") == kind), kind, steps, names, top, kind == kinds[0]) for kind in kinds]
    blocks = (
        frame.with_columns(_BLOCK)
        .group_by("type", "block", "probe_id", maintain_order=True)
        .agg(pl.col("predicted").sum())
    )
    panels += [_shares(data, blocks.filter(pl.col("type") == kind), kind == kinds[0]) for kind in kinds]
    changes = frame.group_by("type", "step", "probe_id", maintain_order=True).agg(
        pl.col("predicted").sum(), pl.col("measured").first()
    )
    missed = (changes["predicted"] - changes["measured"]).pow(2).sum() / changes["measured"].pow(2).sum()
    heading = theme.Heading(
        f"{chain.title}: {_certain(data, blocks)}",
        (data.title, "which part of the network made responses likelier or less likely"),
        (
            "What is drawn: how many nats of a response's change in log-probability came from the new weights of each "
            "part of the network (its budget). Above: by layer and updates, brown lower, green higher. Below: by kind "
            "of weights over the whole run, with 95 % intervals; scales differ. The title counts intervals without 0.",
            "What to look for: dark tiles, and dots far from the line at 0, are the parts that moved the responses; "
            "where the columns look alike, the run moved other responses by the same parts.",
            "Means over probed questions, of the true change of weights by the gradients along it. The parts add up "
            f"to the measured change but for {missed**0.5:.1%}.",
        ),
    )
    return heading, grid(panels, len(kinds), heading)


def _grouped(name: str) -> pl.Expr:
    return pl.col(name).map_elements(lambda value: f"{value:,}", return_dtype=pl.String)


def _certain(data: RunData, blocks: pl.DataFrame) -> str:
    """How many kinds of weights change the chosen responses by an interval without 0."""
    chosen = blocks.filter(pl.col("type") == "chosen")
    means = [_mean(data, part["predicted"]) for part in chosen.partition_by("block", maintain_order=True)]
    up, down = (sum(side(each) for each in means) for side in (lambda m: m["low"] > 0, lambda m: m["high"] < 0))
    if len(means) in (up, down):
        return f"all {len(means)} kinds of weights {'raise' if up else 'lower'} the chosen responses"
    return f"of {len(means)} kinds of weights {up} raise the chosen responses and {down} lower them"


def _map(
    part: pl.DataFrame, kind: str, steps: Sequence[str], places: Sequence[str], top: float, first: bool
) -> alt.Chart:
    """Layers by parts of the run."""
    ramp = alt.Scale(domain=[top * step / 3 for step in range(-3, 4)], range=list(theme.DIVERGING), clamp=True)
    few = len(places) <= 12
    axis = alt.Axis(labels=few or first, labelLimit=90, title=None, ticks=False, domain=False)
    if not first:
        axis.labels = False
    return (
        theme.Chart(part.with_columns(rounded("value")), width=_SIZE[0], height=max(_SIZE[1], 11 * len(places)))
        .mark_rect(style="tile")
        .encode(
            x=alt.X("part:O", sort=list(steps), title="Updates, up to", axis=alt.Axis(labelAngle=0, labelOverlap=True)),
            y=alt.Y("place:O", sort=list(reversed(places)), axis=axis),
            color=alt.Color("value:Q", scale=ramp, legend=alt.Legend(title="Nats", format=".2~g", **theme.RAMP_LEGEND)),
            tooltip=["place:N", "part:N", "value:Q"],
        )
        .properties(**titled(f"{TYPES[kind].capitalize()}"))
    )


def _mean(data: RunData, values: pl.Series) -> dict[str, float]:
    """Mean over questions with its 95 % interval."""
    means = resampled_means(values.to_numpy(), data.facts["draws"], data.facts["seed"], f"kernels {len(values)}")
    return dict(zip(("value", "low", "high"), map(float, interval(means)), strict=True))


def _shares(data: RunData, part: pl.DataFrame, first: bool) -> alt.LayerChart:
    """Mean parts by kind of matrix, with intervals over probes."""
    order = [name for name in (*_NAMED, _GAINS) if name in set(part["block"])]
    rows = [{"block": name, **_mean(data, part.filter(pl.col("block") == name)["predicted"])} for name in order]
    base = theme.Chart(pl.DataFrame(rows).with_columns(map(rounded, ("value", "low", "high")))).encode(
        y=alt.Y("block:O", sort=order, title=None, axis=alt.Axis(labels=first, ticks=False, domain=False))
    )
    zero = theme.Chart(alt.InlineData([{"zero": 0}])).mark_rule(style="zero").encode(x="zero:Q")
    x = Axis("value", f"Change by it, nats, {OWN_SCALE}", count=4)
    parts = [
        zero,
        base.mark_rule(style="interval", color=theme.INK).encode(x=x.encode(alt.X, "low"), x2="high:Q"),
        base.mark_point(style="dot-alone", color=theme.INK).encode(
            x=x.encode(alt.X), tooltip=["block:N", "value:Q", "low:Q", "high:Q"]
        ),
    ]
    return theme.layer(*parts, width=_SIZE[0], height=_SIZE[1])


def kernels(data: RunData, chains: Sequence[Chain]) -> Figure:
    """Entanglement against what followed; the norm of both gradients over time; cosines by layer."""
    (chain,) = chains
    entangled = data.table(ENTANGLEMENT, chain.last)
    scatter = _followed(entangled, data.table(BUDGET, chain.last))
    above, below = (scatter.filter((pl.col("value") > 1) == side)["change"] for side in (True, False))
    fell = [
        f"in {(side < 0).sum()} of {len(side)} cases where a step on their own pair alone {words} them"
        for side, words in ((above, "lowers"), (below, "raises"))
        if len(side)
    ]
    heading = theme.Heading(
        f"{chain.title}: chosen responses fell {', and '.join(fell)}",
        (data.title, f"{scatter['prompt'].n_unique()} questions"),
        (
            "What is drawn: how gradients of chosen and rejected responses pull on one another. The entanglement E of "
            "a pair is ⟨s+, s−⟩ over |s+|², s the gradient of log π(y|x) of its chosen and its rejected response: a "
            "small step of DPO on this pair alone lowers the chosen one where E is above 1, and raises it elsewhere.",
            "What to look for: points below 0 and left of the dashed line fell although their own pair raises them, so "
            "other pairs made them fall. A cosine near 1: a step on one response moves the other as well. Kendall's "
            "tau near 1: a step moves the same responses most at both ends of an interval.",
            "A point: a question in a part of the run, E at its start. Norms and rankings: means over questions and "
            "responses, with 95 % intervals. Cosines: means at the end of the run.",
        ),
    )
    panels = [_scatter(scatter), _norms(data, entangled), _ranks(data, chain), _cosines(data, chain)]
    return heading, grid(panels, 2, heading)


def _followed(entangled: pl.DataFrame, parts: pl.DataFrame) -> pl.DataFrame:
    """By question and part of the run: E at its start as `value`, and the chosen response's change over it."""
    sums = entangled.group_by("prompt", "step", maintain_order=True).agg(pl.col("entanglement").sum().alias("value"))
    prompt = pl.col("probe_id").str.replace(r"/[^/]*$", "").alias("prompt")
    chosen = parts.filter(pl.col("type") == "chosen").with_columns(prompt)
    changes = chosen.group_by("prompt", "since", maintain_order=True).agg(pl.col("measured").first().alias("change"))
    return sums.join(changes, left_on=["prompt", "step"], right_on=["prompt", "since"]).sort("step", "prompt")


def _scatter(points: pl.DataFrame) -> alt.LayerChart:
    dots = theme.Chart(points.with_columns(rounded("value"), rounded("change"))).mark_point(
        style="dot", size=28, color=theme.INK, opacity=0.6
    )
    dots = dots.encode(
        x=Axis("value", "Entanglement E", count=5).encode(alt.X),
        y=Axis("change", "Change of the chosen response, nats", count=5).encode(alt.Y),
        tooltip=["prompt:N", "step:Q", "value:Q", "change:Q"],
    )
    rules = [
        theme.Chart(alt.InlineData([{"x": 1}])).mark_rule(style="turn").encode(x="x:Q"),
        theme.Chart(alt.InlineData([{"y": 0}])).mark_rule(style="zero").encode(y="y:Q"),
    ]
    return theme.layer(
        *rules, dots, width=_WIDE[0], height=_WIDE[1], **titled("Pull of the own pair, and what followed")
    )


def _norms(data: RunData, entangled: pl.DataFrame) -> alt.LayerChart:
    sums = entangled.group_by("prompt", "step", maintain_order=True).agg(
        pl.col("chosen").sum().sqrt(), pl.col("rejected").sum().sqrt()
    )
    rows = [
        {"series": side, "step": step, **_mean(data, part[side])}
        for (step,), part in sums.group_by("step", maintain_order=True)
        for side in ("chosen", "rejected")
    ]  # fmt: skip
    return _lines(
        rows, Axis("step", "Updates", format=",d", count=4), "Norm of the gradient of log π(y|x)", "Size of gradients"
    )


def _ranks(data: RunData, chain: Chain) -> alt.LayerChart:
    keys, steps, taus = rank_agreement(data.table(KERNELS, chain.last))
    kinds = pl.Series(keys).str.split("/").list.last()
    rows = [
        {"series": kind, "step": step, **_mean(data, pl.Series(found[(kinds == kind).to_numpy()]))}
        for step, found in zip(steps, taus, strict=True)
        for kind in ("chosen", "rejected")
        if np.isfinite(found).all() and (kinds == kind).any()
    ]
    x = Axis("step", "Updates at the end of an interval", format=",d", count=4)
    return _lines(rows, x, "Kendall's tau (1: same order)", "Which responses a step moves most: same order?")


def _lines(rows: Sequence[dict], x: Axis, y: str, title: str) -> alt.LayerChart:
    kinds = {"series": pl.String, x.field: pl.Int64, "value": pl.Float64}
    frame = pl.DataFrame(rows, schema_overrides=kinds) if rows else pl.DataFrame(schema=kinds)
    frame = frame.sort("series", x.field)
    return panel(frame, x, Axis("value", y), palette_of("probe", _LINES), _WIDE, title=title)


def _cosines(data: RunData, chain: Chain) -> alt.LayerChart:
    """Of chosen with the same question's rejected, and with other questions' chosen."""
    kinds = {("rejected", True): _LINES["same"], ("chosen", False): _LINES["other"]}
    means = data.table(KERNEL_MEANS, chain.last).filter(pl.col("layer").is_not_null() & (pl.col("o_type") == "chosen"))
    means = means.filter(pl.col("step") == pl.col("step").max())
    rows = [
        {"series": words, "layer": layer, "value": float(part["cosine"].drop_nulls().mean())}
        for (kind, same), words in kinds.items()
        for (layer,), part in means.filter((pl.col("u_type") == kind) & (pl.col("same") == same)).group_by(
            "layer", maintain_order=True
        )
        if not part["cosine"].is_null().all()
    ]
    title = "How alike two gradients are"
    return _lines(rows, Axis("layer", "Layer", format="d"), "Cosine of gradients", title)
