"""All datasets of one model at a glance: MAD and RD by dataset and variant, and layer by layer."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import altair as alt
import numpy as np
import polars as pl

from workflow.lib.figures import findings, scales, theme
from workflow.lib.figures.names import label, projections_in_order, responses_of, variants_in_order
from workflow.lib.figures.panel import DIGITS, of
from workflow.lib.figures.theme import Heading
from workflow.lib.statistics.shapes import Shapes, steps

ROW, TALL = 13, 24
# Width in pixels below which a number does not fit into a cell.
_FITS = 40
# Labels of rows are cut beyond this many pixels.
_LABELS = 260
# The widest cell, and the mean width of a letter of its label.
_WIDEST, _LETTER = 64, 5.4
MAD = "MAD of the mean nuclear norm: mean absolute difference of neighbouring layers, over all layers."
STEPS = "Absolute difference of the mean nuclear norm between neighbouring layers; MAD is the mean of a row."
RD = "Signed RD: relative difference from correct responses of the mean nuclear norm, averaged over layers."
BY_LAYER = "Signed relative difference from correct responses of the mean nuclear norm, layer by layer."
UNSURE = "Numbers in percent; in brackets where the 95 % bootstrap interval holds zero."


@dataclass(frozen=True)
class Data:
    """What stands in the rows: titles and families of datasets by key, in order; `asked`: those with any sample, usable
    or not, of the model and relation drawn."""

    titles: Mapping[str, str]
    families: Mapping[str, str]
    asked: Collection[str] = ()


def mad_heading(mad: pl.DataFrame, data: Data) -> Heading:
    """In how many datasets and projections the first variant's MAD lies clearly above the last one's.

    `mad`: of one model and relation, whole curves (segment ``all``) of the nuclear norm.
    """
    title = "MAD by dataset and variant"
    if findings.speaks(mad):
        above = below = pairs = 0
        keys = ["dataset", "projection"]
        first, last = _ends(mad)
        if first != last:
            both = of(mad, variant=first).join(of(mad, variant=last), on=keys, suffix="_last")
            for row in both.filter(_known("low", "high", "low_last", "high_last")).to_dicts():
                pairs += 1
                above += row["low"] > row["high_last"]
                below += row["high"] < row["low_last"]
        if pairs:
            where = f"{pairs} pairs of dataset and projection"
            title = f"{label(first)}’s MAD lies clearly above {label(last)}’s in {above} of {where}"
            title += f", clearly below in {below}" if below else ""
    return Heading(title, _subtitle(mad, data, MAD))


def rd_heading(rd: pl.DataFrame, data: Data) -> Heading:
    """How many cells differ clearly from correct responses. `rd`: one model and relation, signed."""
    relation = rd["relation"][0]
    title = f"{label(relation)} against correct responses, by dataset and variant"
    known = rd.filter(_known("low", "high"))
    if findings.speaks(rd) and not known.is_empty():
        above, below = known.filter(pl.col("low") > 0).height, known.filter(pl.col("high") < 0).height
        title = (
            f"{label(relation)}: RD from correct responses clearly above zero in {above} of {known.height} cells, "
            f"clearly below in {below}"
        )
    return Heading(title, _subtitle(rd, data, f"{RD} {UNSURE}"))


def steps_heading(steps: pl.DataFrame, data: Data) -> Heading:
    """Between which layers most mean curves take their largest step. `steps`: of `steps_of`."""
    title = "Steps from layer to layer, by dataset"
    finite = findings.finite(steps, None)
    if findings.speaks(steps) and not finite.is_empty():
        keys = ["dataset", "variant", "projection"]
        largest = finite.sort("value", "layer", descending=[True, False]).unique(
            keys, keep="first", maintain_order=True
        )
        place = largest.group_by("layer").len().sort(["len", "layer"], descending=[True, False]).row(0)
        between = f"between layers {place[0]} and {place[0] + 1}"
        title = f"The largest step lies {between} in {place[1]} of {largest.height} mean curves"
    return Heading(title, _subtitle(steps, data, STEPS))


def differences_heading(rd_layers: pl.DataFrame, data: Data) -> Heading:
    """At which layer most curves that differ clearly do so most. `rd_layers`: one model and relation."""
    relation = rd_layers["relation"][0]
    title = f"{label(relation)} against correct responses, layer by layer"
    clear = findings.finite(rd_layers, None).filter((pl.col("low") > 0) | (pl.col("high") < 0))
    if findings.speaks(rd_layers) and not clear.is_empty():
        keys = ["dataset", "variant", "projection"]
        top = clear.sort(pl.col("value").abs(), "layer", descending=[True, False])
        top = top.unique(keys, keep="first", maintain_order=True)
        place = top.group_by("layer").len().sort(["len", "layer"], descending=[True, False]).row(0)
        of_all = rd_layers.select(keys).unique().height
        title = (
            f"{label(relation)}: {top.height} of {of_all} curves differ clearly from correct ones somewhere, "
            f"{place[1]} of them most at layer {place[0]}"
        )
    return Heading(title, _subtitle(rd_layers, data, BY_LAYER))


def steps_of(curves: pl.DataFrame, shapes: Shapes | None = None) -> pl.DataFrame:
    """|s(i+1) − s(i)| of each mean curve, `layer` i; one row less a curve than `curves` has. No interval.

    `shapes`: of a model whose layers differ in shape; there only neighbours of one shape have a row.
    """
    if shapes:
        taken = zip(shapes, steps(shapes, list(shapes)).tolist(), strict=True)
        kept = [(name, layer) for name, each in taken for layer, alike in enumerate(each) if alike]
        alike = pl.DataFrame(kept, {"projection": pl.String, "layer": curves.schema["layer"]}, orient="row")
        return steps_of(curves).join(alike, on=["projection", "layer"], how="semi", maintain_order="left")
    keys = ["model", "dataset", "relation", "variant", "projection", "purpose", "n"]
    after = curves.with_columns(pl.col("layer") - 1)
    return (
        curves.join(after.select(*keys, "layer", "value"), on=[*keys, "layer"], suffix="_after", maintain_order="left")
        .with_columns((pl.col("value_after") - pl.col("value")).abs().alias("value"))
        .select(*keys, "layer", "value")
    )


def matrix(frame: pl.DataFrame, data: Data, heading: Heading, signed: bool) -> alt.ConcatChart:
    """Datasets by variants, numbers in the cells; a panel a projection, a row of panels a group of datasets.

    `frame`: one model and relation, one row a dataset, variant and projection.
    """
    projections = projections_in_order(frame["projection"].unique())
    groups = groups_of(frame, data)
    width = theme.panel_width(len(projections))
    domain = _domain(frame["value"], signed)
    colour = _colour(domain, signed)
    panels = []
    for datasets, variants in groups:
        rows = [data.titles[key] for key in datasets]
        columns = [label(variant) for variant in variants]
        cell = min(_WIDEST, width // len(columns))
        turned = max(map(len, columns)) * _LETTER > cell
        for projection in projections:
            cells = _cells(of(frame, dataset=datasets, projection=projection), data, domain, signed)
            first = projection == projections[0]
            x_axis = theme.plain(title=None, labelAngle=-40 if turned else 0, ticks=False, domain=False)
            x = alt.X("variant:N", sort=columns, scale=theme.plain(domain=columns), axis=x_axis)
            base = alt.Chart(pl.DataFrame(cells)).encode(x=x, y=_rows("title", rows, first))
            tooltip = [alt.Tooltip(field) for field in ("title:N", "variant:N", "value:Q", "low:Q", "high:Q", "n:Q")]
            parts = [base.mark_rect(style="tile").encode(color=colour, tooltip=tooltip)]
            if cell >= _FITS:
                for ink in (theme.INK, "white"):
                    text = base.transform_filter(alt.datum.ink == ink).mark_text(style="number", color=ink)
                    parts.append(text.encode(text="text:N"))
            title = {"title": alt.Title(label(projection), style="panel-title")} if datasets == groups[0][0] else {}
            size = {"width": cell * len(columns), "height": TALL * len(rows)}
            panels.append(alt.layer(*parts, **size, **title))
    return _grid(panels, len(projections), heading)


def by_layer(frame: pl.DataFrame, data: Data, heading: Heading, signed: bool) -> alt.ConcatChart:
    """Datasets and variants by layers (or the steps between them); a panel a projection.

    `frame`: one model and relation, one row a dataset, variant, projection and layer.
    """
    projections = projections_in_order(frame["projection"].unique())
    width = theme.panel_width(len(projections))
    layers = int(frame["layer"].max()) + 1
    rows = [
        _row(data, dataset, variant)
        for dataset in data.titles
        for variant in variants_in_order(of(frame, dataset=dataset)["variant"].unique())
    ]
    colour = _colour(_domain(frame["value"], signed), signed)
    ticks = list(scales.layer_ticks(layers))
    panels = []
    for projection in projections:
        cells = [
            {"row": _row(data, row["dataset"], row["variant"]), **_plain(row, signed), "layer": row["layer"]}
            for row in of(frame, projection=projection).to_dicts()
        ]
        x_axis = theme.plain(
            values=ticks, labelAngle=0, title="Layer" if signed else "Layer i (to i + 1)", domain=False
        )
        x = alt.X("layer:O", scale=theme.plain(domain=list(range(layers)), paddingInner=0), axis=x_axis)
        base = alt.Chart(pl.DataFrame(cells)).encode(x=x, y=_rows("row", rows, projection == projections[0]))
        rect = base.mark_rect().encode(
            color=colour, tooltip=[alt.Tooltip(field) for field in ("row:N", "layer:O", "value:Q", "n:Q")]
        )
        title = alt.Title(label(projection), style="panel-title")
        panels.append(rect.properties(width=width, height=ROW * len(rows), title=title))
    return _grid(panels, len(projections), heading)


def groups_of(frame: pl.DataFrame, data: Data) -> list[tuple[list[str], list[str]]]:
    """Datasets that share a variant or a family, with the variants of all of them; in the datasets' order."""
    variants = {key: set(of(frame, dataset=key)["variant"]) for key in data.titles}
    groups: list[tuple[list[str], set[str]]] = []
    for key, names in variants.items():
        if not names:
            continue
        family = data.families.get(key)
        mine = [
            group
            for group in groups
            if group[1] & names or (family and any(data.families.get(other) == family for other in group[0]))
        ]
        joined = [other for group in mine for other in group[0]]
        groups = [group for group in groups if group not in mine]
        groups.append(([*joined, key], names.union(*(group[1] for group in mine))))
    place = list(data.titles).index
    ordered = sorted((sorted(keys, key=place), variants_in_order(names)) for keys, names in groups)
    return sorted(ordered, key=lambda group: place(group[0][0]))


def _row(data: Data, dataset: str, variant: str) -> str:
    return f"{data.titles[dataset]} · {label(variant)}"


def _rows(field: str, entries: Sequence[str], named: bool) -> alt.Y:
    axis = theme.plain(title=None, labels=named, ticks=False, domain=False, grid=False, labelLimit=_LABELS)
    return alt.Y(f"{field}:N", sort=list(entries), scale=theme.plain(domain=list(entries)), axis=axis)


def _cells(frame: pl.DataFrame, data: Data, domain: tuple[str, list[float]], signed: bool) -> list[dict]:
    return [
        {
            "title": data.titles[row["dataset"]],
            "variant": label(row["variant"]),
            **_plain(row, signed),
            "text": _text(row, signed),
            "ink": _ink(row["value"], domain, signed),
        }
        for row in frame.to_dicts()
    ]


def _plain(row: dict, signed: bool) -> dict:
    names = [name for name in ("value", "low", "high") if name in row]
    # A ratio and its inverse are equally far from 1: differences are coloured by the logarithm of their ratio.
    ratio = {"ratio": _rounded(_log_ratio(row["value"]))} if signed else {}
    return {name: _rounded(row[name]) for name in names} | ratio | {"n": row["n"]}


def _log_ratio(value: float | None) -> float | None:
    return math.log1p(value) if value is not None and math.isfinite(value) and value > -1 else None


def _rounded(value: float | None) -> float | None:
    return float(f"{value:.{DIGITS}g}") if value is not None and math.isfinite(value) else None


def _text(row: dict, signed: bool) -> str:
    value = row["value"]
    if value is None or not math.isfinite(value):
        return "–"
    if not signed:
        return findings.times(value) if value > 0 else "0"
    text = findings.percentage(value).replace(" %", "")
    return text if row["low"] > 0 or row["high"] < 0 else f"({text})"


def _domain(values: pl.Series, signed: bool) -> tuple[str, list[float]]:
    """Kind of scale and the values of its colours, from the smallest to the largest."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if signed:
        end = max((abs(_log_ratio(value) or 0.0) for value in finite), default=1.0) or 1.0
        count = len(theme.DIVERGING)
        return "linear", [end * (2 * i / (count - 1) - 1) for i in range(count)]
    count = len(theme.SEQUENTIAL)
    scale = scales.log_if_decades(finite, 190)
    if scale.kind == "log":
        return "log", [scale.low * (scale.high / scale.low) ** (i / (count - 1)) for i in range(count)]
    return "linear", [scale.high * i / (count - 1) for i in range(count)]


def _ink(value: float | None, of_scale: tuple[str, list[float]], signed: bool) -> str:
    """White or ink, whichever stands out more from the colour of a value's cell."""
    kind, domain = of_scale
    at = _log_ratio(value) if signed else value
    if at is None or not math.isfinite(at) or (kind == "log" and at <= 0):
        return theme.INK
    if kind == "log":
        at, domain = math.log(at), [math.log(end) for end in domain]
    channels = np.array([[int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)] for code in _palette(signed)]).T
    behind = _luminance([np.interp(at, domain, channel) for channel in channels])
    ink = _luminance([int(theme.INK[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return "white" if 1.05 / (behind + 0.05) > (behind + 0.05) / (ink + 0.05) else theme.INK


def _luminance(channels: Sequence[float]) -> float:
    """Relative luminance of red, green and blue from 0 to 1 (WCAG 2.1)."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in channels]
    return float(np.dot((0.2126, 0.7152, 0.0722), linear))


def _palette(signed: bool) -> tuple[str, ...]:
    return theme.DIVERGING if signed else theme.SEQUENTIAL


def _colour(of_scale: tuple[str, list[float]], signed: bool) -> alt.Color:
    kind, domain = of_scale
    colours = list(_palette(signed))
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


def _known(*names: str) -> pl.Expr:
    return pl.all_horizontal(pl.col(*names).is_finite().fill_null(False))


def _ends(frame: pl.DataFrame) -> tuple[str, str]:
    """First and last of the variants of the dataset that has most of them."""
    most = (
        frame.group_by("dataset")
        .agg(pl.col("variant").n_unique())
        .sort(["variant", "dataset"], descending=[True, False])
    )
    variants = variants_in_order(of(frame, dataset=most["dataset"][0])["variant"].unique())
    return variants[0], variants[-1]


def _subtitle(frame: pl.DataFrame, data: Data, drawn: str) -> tuple[str, ...]:
    relation = frame["relation"][0]
    missing = [title for key, title in data.titles.items() if key not in {*frame["dataset"], *data.asked}]
    empty = frame.filter(~pl.col("value").is_finite().fill_null(False)).height
    notes = [
        *([f"Not measured: {', '.join(missing)}."] if missing else []),
        *([f"{empty} of {frame.height} cells have no finite value."] if empty else []),
    ]
    lines = [
        f"{frame['model'][0]} · {responses_of(relation)} · n: {findings.span(frame['n'])} a cell",
        " ".join([drawn, *notes]),
    ]
    checks = [title for key, title in data.titles.items() if _checked(of(frame, dataset=key))]
    if checks:
        lines.insert(
            0, f"PIPELINE CHECK, no finding, where the model was never meant for the data: {', '.join(checks)}."
        )
    return tuple(lines)


def _checked(frame: pl.DataFrame) -> bool:
    return not frame.is_empty() and findings.is_check(frame)


def _grid(panels: Sequence[alt.LayerChart], columns: int, heading: Heading) -> alt.ConcatChart:
    apart = alt.Resolve(scale=alt.ScaleResolveMap(x="independent", y="independent"))
    return alt.concat(*panels, columns=columns, title=theme.heading_of(heading, columns), resolve=apart)
