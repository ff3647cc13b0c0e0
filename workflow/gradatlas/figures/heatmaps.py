"""All datasets of one model at a glance: MAD and RD by dataset and variant, and layer by layer."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import altair as alt
import polars as pl

from gradatlas.charts import scales, theme
from gradatlas.charts.names import TERMS, label, projections_in_order, responses_of, variants_in_order
from gradatlas.charts.numbers import plotted, span, two_digits
from gradatlas.charts.panel import cells, grid, of, titled
from gradatlas.figures.data import Data
from gradatlas.figures.heading import (
    clear_differences,
    finite,
    larger,
    left_out,
    right_labels,
    states_findings,
)
from gradatlas.statistics.counts import LEFT_OUT, has_check
from gradatlas.statistics.shapes import Shapes, steps

ROW, TALL = 13, 24
# Labels of rows are cut beyond this many pixels.
_LABELS = 260
# The widest cell; sizes of the type of its label and its number.
_WIDEST, _HEAD, _NUMBER = 64, 9, 10
# Beyond this share of a ramp numbers are white: those of one hue darken slowly, those of two only at their ends.
_DARK = {False: 0.625, True: 0.83}
UNSURE = "Numbers in percent; in brackets where the 95 % bootstrap interval holds zero."


@dataclass(frozen=True)
class Heatmap:
    """One kind of heatmap: its rows of the data of one model and relation, its title, what is drawn.

    `signed`: relative differences from correct responses, and not amounts. `by_layer`: a column per layer, and not a
    column a variant with numbers in the cells.
    """

    rows: Callable[[Data], pl.DataFrame]
    title: Callable[[pl.DataFrame, Data], str]
    drawn: str
    signed: bool = False
    by_layer: bool = False

    def is_drawn(self, data: Data) -> bool:
        """Whether there is a row: one layer has no steps, and correct responses no difference from themselves."""
        return not self.rows(data).is_empty()

    def heading(self, data: Data) -> theme.Heading:
        """The title, n, what is drawn, what was not measured and what was left out."""
        frame, titles = self.rows(data), _titles(data)
        measured = {*frame["dataset"], *data.of("cells")["dataset"]}
        missing = [name for key, name in titles.items() if key not in measured]
        empty = frame.height - finite(frame).height
        notes = [
            *([f"Not measured: {', '.join(missing)}."] if missing else []),
            *([f"{empty} of {frame.height} cells have no finite value."] if empty else []),
        ]
        n = span(frame["n"].min(), frame["n"].max())
        checks = [name for key, name in titles.items() if has_check(of(frame, dataset=key))]
        check = f"PIPELINE CHECK, no finding, where the model was never meant for the data: {', '.join(checks)}."
        facts = (frame["model"][0], responses_of(data.relation), f"n = {n} a cell")
        lines = (
            *([check] if checks else []),
            " ".join([self.drawn, *notes]),
            # A difference is of two relations.
            *left_out_by_dataset(data.of("cells", reference=self.signed), titles),
            *right_labels(data.of("cells"), titles),
            *data.notes,
        )
        return theme.Heading(self.title(frame, data), facts, lines)

    def chart(self, data: Data, heading: theme.Heading) -> alt.ConcatChart:
        """A panel per projection."""
        draw = _by_layer if self.by_layer else _matrix
        return draw(self.rows(data), data, heading, signed=self.signed)


def _mad_title(mad: pl.DataFrame, data: Data) -> str:
    """In how many datasets and projections the first variant's MAD is clearly larger than the last one's."""
    first, last = _ends(mad)
    if states_findings(mad) and first != last:
        differences = clear_differences(of(mad, variant=first), of(mad, variant=last), ["dataset", "projection"])
        if not differences.is_empty():
            return larger(f"MAD of {label(first)}", label(last), differences, "datasets and projections")
    return "MAD by dataset and variant"


def _difference_title(rows: pl.DataFrame, data: Data) -> str:
    """In how many cells mean gradients differ clearly from those of correct responses."""
    if states_findings(rows) and rows["low"].is_finite().any():
        return larger(f"Mean gradients of {responses_of(data.relation)}", "correct ones", finite(rows), "cells")
    return f"{TERMS.get(data.relation, label(data.relation))} against correct responses, by dataset"


MAD = Heatmap(
    lambda data: of(data.of("mad"), statistic="nuclear_norm", segment="all"),
    _mad_title,
    "MAD of the mean nuclear norm: mean absolute difference of neighbouring layers, over all layers.",
)
STEPS = Heatmap(
    lambda data: curve_steps(of(data.of("curves"), statistic="nuclear_norm"), data.shapes),
    lambda rows, data: "Steps from layer to layer, by dataset",
    "Absolute difference of the mean nuclear norm between neighbouring layers; MAD is the mean of a row.",
    by_layer=True,
)
RD = Heatmap(
    lambda data: of(data.of("rd"), statistic="nuclear_norm", measure="signed"),
    _difference_title,
    "Signed RD: relative difference from correct responses of the mean nuclear norm, averaged over layers. " + UNSURE,
    signed=True,
)
DIFFERENCES = Heatmap(
    lambda data: of(data.of("rd_layers"), statistic="nuclear_norm"),
    _difference_title,
    "Signed relative difference from correct responses of the mean nuclear norm, layer by layer.",
    signed=True,
    by_layer=True,
)


def curve_steps(curves: pl.DataFrame, shapes: Shapes | None = None) -> pl.DataFrame:
    """|s(i+1) − s(i)| of each mean curve, `layer` i; one row less a curve than `curves` has. No interval.

    `shapes`: of a model whose layers differ in shape; there only neighbours of one shape have a row.
    """
    if shapes:
        taken = zip(shapes, steps(shapes, list(shapes)).tolist(), strict=True)
        kept = [(name, layer) for name, each in taken for layer, alike in enumerate(each) if alike]
        alike = pl.DataFrame(kept, {"projection": pl.String, "layer": curves.schema["layer"]}, orient="row")
        return curve_steps(curves).join(alike, on=["projection", "layer"], how="semi", maintain_order="left")
    keys = ["model", "dataset", "relation", "variant", "projection", "purpose", "n"]
    after = curves.with_columns(pl.col("layer") - 1)
    return (
        curves.join(after.select(*keys, "layer", "value"), on=[*keys, "layer"], suffix="_after", maintain_order="left")
        .with_columns((pl.col("value_after") - pl.col("value")).abs().alias("value"))
        .select(*keys, "layer", "value")
    )


def _matrix(frame: pl.DataFrame, data: Data, heading: theme.Heading, *, signed: bool) -> alt.ConcatChart:
    """Datasets by variants, numbers in the cells; a panel per projection, a row of panels per group of datasets.

    `frame`: one row per dataset, variant and projection.
    """
    projections = projections_in_order(frame["projection"].unique())
    width = theme.panel_width(len(projections))
    kind, domain = ramp(frame["value"], signed)
    field, colour = "ratio" if signed else "value", _colour(kind, domain, signed)
    ink = alt.condition(
        f"abs(datum.{field}) > {dark_from(kind, domain, signed)}", alt.value("white"), alt.value(theme.INK)
    )
    titles = _titles(data)
    panels = []
    for (keys, variants), projection, at in cells(groups_of(frame, data), projections):
        columns = [label(variant) for variant in variants]
        cell = min(_WIDEST, width // len(columns))
        turned = max(theme.width_of(word, _HEAD) for name in columns for word in name.split()) > cell
        rows = [
            {"title": titles[row["dataset"]], "variant": label(row["variant"]), "text": _text(row, signed)}
            | _drawn(row, signed)
            for row in of(frame, dataset=keys, projection=projection).to_dicts()
        ]  # fmt: skip
        level = {"labelAngle": -40} if turned else {"labelAngle": 0, "labelExpr": "split(datum.label, ' ')"}
        x_axis = theme.plain(title=None, labelFontSize=_HEAD, ticks=False, domain=False, **level)
        x = alt.X("variant:N", sort=columns, scale=theme.plain(domain=columns), axis=x_axis)
        base = theme.Chart(pl.DataFrame(rows)).encode(x=x, y=_rows("title", [titles[key] for key in keys], at.left))
        tooltip = [alt.Tooltip(field) for field in ("title:N", "variant:N", "value:Q", "low:Q", "high:Q", "n:Q")]
        parts = [base.mark_rect(style="tile").encode(color=colour, tooltip=tooltip)]
        if max(theme.width_of(row["text"], _NUMBER) for row in rows) <= cell:
            parts.append(base.mark_text(style="number").encode(text="text:N", color=ink))
        size = {"width": cell * len(columns), "height": TALL * len(keys)}
        panels.append(theme.layer(*parts, **size, **titled(label(projection) if at.top else None)))
    return grid(panels, len(projections), heading)


def _by_layer(frame: pl.DataFrame, data: Data, heading: theme.Heading, *, signed: bool) -> alt.ConcatChart:
    """Datasets and variants by layers (or the steps between them); a panel per projection.

    `frame`: one row per dataset, variant, projection and layer.
    """
    projections = projections_in_order(frame["projection"].unique())
    layers = int(frame["layer"].max()) + 1
    titles = _titles(data)
    rows = [
        f"{titles[dataset]} · {label(variant)}"
        for dataset in titles
        for variant in variants_in_order(of(frame, dataset=dataset)["variant"].unique())
    ]
    # Labels of separate places are all drawn, or every second; here first, quarters and last can be read.
    ticks = sorted({round((layers - 1) * quarter / 4) for quarter in range(5)})
    x_axis = theme.plain(values=ticks, labelAngle=0, title="Layer" if signed else "Layer i (to i + 1)", domain=False)
    x = alt.X("layer:O", scale=theme.plain(domain=list(range(layers)), paddingInner=0), axis=x_axis)
    colour = _colour(*ramp(frame["value"], signed), signed)
    tooltip = [alt.Tooltip(field) for field in ("row:N", "layer:O", "value:Q", "n:Q")]
    panels = []
    for projection in projections:
        data_ = [
            {"row": f"{titles[row['dataset']]} · {label(row['variant'])}", **_drawn(row, signed), "layer": row["layer"]}
            for row in of(frame, projection=projection).to_dicts()
        ]
        base = theme.Chart(pl.DataFrame(data_)).encode(x=x, y=_rows("row", rows, not panels))
        size = {"width": theme.panel_width(len(projections)), "height": ROW * len(rows)}
        rect = base.mark_rect().encode(color=colour, tooltip=tooltip)
        panels.append(rect.properties(**size, **titled(label(projection))))
    return grid(panels, len(projections), heading)


def groups_of(frame: pl.DataFrame, data: Data) -> list[tuple[list[str], list[str]]]:
    """Datasets that share a variant or a family, with the variants of all of them; in the datasets' order."""
    families = {each.key: each.family for each in data.datasets}
    groups: list[tuple[list[str], set[str]]] = []
    for key, family in families.items():
        names = set(of(frame, dataset=key)["variant"])
        if not names:
            continue
        touched = [group for group in groups
                if group[1] & names or (family and any(families[other] == family for other in group[0]))]  # fmt: skip
        groups = [group for group in groups if group not in touched]
        joined = [other for group in touched for other in group[0]]
        groups.append(([*joined, key], names.union(*(group[1] for group in touched))))
    place = list(families).index
    ordered = [(sorted(keys, key=place), variants_in_order(names)) for keys, names in groups]
    return sorted(ordered, key=lambda group: place(group[0][0]))


def ramp(values: pl.Series, signed: bool) -> tuple[str, list[float]]:
    """Kind of scale and the values of its colours, from the smallest to the largest."""
    found = [value for value in values if value is not None and math.isfinite(value)]
    if signed:
        end = max((abs(_log_ratio(value) or 0.0) for value in found), default=1.0) or 1.0
        count = len(theme.DIVERGING)
        return "linear", [end * (2 * i / (count - 1) - 1) for i in range(count)]
    count = len(theme.SEQUENTIAL)
    scale = scales.log_if_decades(found, 6)
    if scale.kind == "log":
        return "log", [scale.low * (scale.high / scale.low) ** (i / (count - 1)) for i in range(count)]
    return "linear", [scale.high * i / (count - 1) for i in range(count)]


def dark_from(kind: str, domain: list[float], signed: bool) -> float:
    """The value (of a difference, its size) from which the ramp is so dark that numbers on it are white."""
    share = _DARK[signed]
    return domain[0] * (domain[-1] / domain[0]) ** share if kind == "log" else domain[-1] * share


def _titles(data: Data) -> dict[str, str]:
    return {each.key: each.title for each in data.datasets}


def _rows(field: str, entries: Sequence[str], named: bool) -> alt.Y:
    axis = theme.plain(title=None, labels=named, ticks=False, domain=False, grid=False, labelLimit=_LABELS)
    return alt.Y(f"{field}:N", sort=list(entries), scale=theme.plain(domain=list(entries)), axis=axis)


def _drawn(row: dict, signed: bool) -> dict:
    # A ratio and its inverse are equally far from 1: differences are coloured by the logarithm of their ratio.
    ratio = {"ratio": plotted(_log_ratio(row["value"]))} if signed else {}
    return {name: plotted(row[name]) for name in ("value", "low", "high") if name in row} | ratio | {"n": row["n"]}


def _log_ratio(value: float | None) -> float | None:
    return math.log1p(value) if value is not None and math.isfinite(value) and value > -1 else None


def _text(row: dict, signed: bool) -> str:
    value = row["value"]
    if value is None or not math.isfinite(value):
        return "–"
    if not signed:
        return two_digits(max(value, 0))
    text = two_digits(100 * value, "+")
    return text if row["low"] > 0 or row["high"] < 0 else f"({text})"


def _colour(kind: str, domain: list[float], signed: bool) -> alt.Color:
    colours = list(theme.DIVERGING if signed else theme.SEQUENTIAL)
    scale = theme.plain(type=kind, domain=domain, range=colours, interpolate="rgb")
    title = "Relative to correct, log of ratio" if signed else f"Nuclear norm{', log' if kind == 'log' else ''}"
    ends = [domain[0], domain[len(domain) // 2], domain[-1]]
    numbers = (
        {"labelExpr": "(datum.value === 0 ? '0' : format(100 * (exp(datum.value) - 1), '+,.2~r')) + ' %'"}
        if signed
        else {"format": ".2~g"}
    )
    legend = alt.Legend(title=title, values=ends, **numbers, **theme.RAMP_LEGEND)
    return alt.Color("ratio:Q" if signed else "value:Q", scale=scale, legend=legend)


def _ends(frame: pl.DataFrame) -> tuple[str, str]:
    """First and last of the variants of the dataset that has most of them."""
    most = frame.group_by("dataset").agg(pl.col("variant").n_unique())
    first = most.sort(["variant", "dataset"], descending=[True, False])["dataset"][0]
    variants = variants_in_order(of(frame, dataset=first)["variant"].unique())
    return variants[0], variants[-1]


def left_out_by_dataset(cells: pl.DataFrame, titles: dict[str, str]) -> list[str]:
    """A line on how many samples of each dataset were left out, and why: those of all its variants together."""
    named = cells.filter(pl.col("dataset").is_in(list(titles))).with_columns(pl.col("dataset").replace(titles))
    counts = named.group_by("dataset", maintain_order=True).agg(pl.sum("n", "n_ok", *LEFT_OUT))
    return left_out(counts, ("dataset",))
