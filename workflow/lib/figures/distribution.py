"""Sample by sample: how gradients spread behind a mean, correct responses against another kind."""

import math
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from workflow.lib.figures import findings, scales, theme
from workflow.lib.figures.names import label, projections_in_order, relations_in_order, responses_of, variants_in_order
from workflow.lib.figures.panel import DIGITS, of
from workflow.lib.figures.theme import Heading
from workflow.lib.shares import wilson

DRAWN = (
    "Distribution over samples of the nuclear norm averaged over layers, on a log axis: a kernel density between the "
    "smallest and the largest sample, all of one height, with the median and the middle 50 % and 90 % beside it."
)
# Half of a panel in pixels, and the points at which a density is drawn.
_HALF, _POINTS = 38, 48
# Labels of a log axis take this many pixels across.
_ROOM = 34
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def heading(samples: pl.DataFrame, dataset: str) -> Heading:
    """How far samples spread; for another kind of responses, how often it lies above the correct one of its sample.

    `samples`: rows of the `per_sample` table, one model and dataset, correct responses and at most one other kind.
    """
    relations = relations_in_order(samples["relation"].unique())
    title = "Gradients sample by sample"
    n = samples.group_by("variant", "relation", "projection").agg(pl.len().alias("n"), pl.col("purpose").first())
    if findings.speaks(n):
        title = _spread(samples) if len(relations) == 1 else _larger(samples, relations[-1])
    shown = responses_of(relations[0]) if len(relations) == 1 else f"correct and {responses_of(relations[-1])}"
    lost = _positive(samples, False).height
    notes = [DRAWN, *([f"{lost} values are not positive and are left out."] if lost else [])]
    if len(relations) > 1:
        notes.append("Correct above the line, the others below it.")
    lines = [f"{samples['model'][0]} · {dataset} · {shown} · n: {findings.counted(n)}", " ".join(notes)]
    return Heading(title, tuple([findings.CHECK, *lines] if findings.is_check(samples) else lines))


def chart(samples: pl.DataFrame, heading: Heading) -> alt.ConcatChart:
    """A panel a variant (rows) and projection (columns), all on one log axis."""
    projections = projections_in_order(samples["projection"].unique())
    variants = variants_in_order(samples["variant"].unique())
    relations = relations_in_order(samples["relation"].unique())
    width = theme.panel_width(len(projections))
    scale = scales.logarithmic(samples["nuclear_norm"].drop_nulls(), width // _ROOM)
    colours = theme.plain(
        domain=[label(relation) for relation in relations], range=list(theme.PAIR_COLOURS[: len(relations)])
    )
    panels = []
    for variant in variants:
        last = variant == variants[-1]
        for projection in projections:
            title = alt.Title(f"{label(variant)} · {label(projection)}", style="panel-title")
            of_panel = of(samples, variant=variant, projection=projection)
            panels.append(_panel(of_panel, relations, scale, colours, width, title, last))
    apart = alt.Resolve(scale=alt.ScaleResolveMap(x="independent", y="independent"))
    columns = len(projections)
    return alt.concat(*panels, columns=columns, title=theme.heading_of(heading, columns), resolve=apart)


def _panel(
    samples: pl.DataFrame,
    relations: list[str],
    scale: scales.Scale,
    colours: dict[str, Any],
    width: int,
    title: alt.Title,
    last: bool,
) -> alt.LayerChart:
    shapes, marks, points = [], [], []
    for place, relation in enumerate(relations):
        values = np.sort(of(_positive(samples), relation=relation)["nuclear_norm"].to_numpy())
        side = -1 if place else 1
        about = {"relation": label(relation), "n": len(values)}
        if len(values) >= findings.FEWEST:
            grid, density = kernel_density(np.log(values))
            pairs = zip(np.exp(grid), density, strict=True)
            shapes += [{**about, "value": _round(x), "density": side * round(float(y), 3)} for x, y in pairs]
            ends = dict(zip(("p5", "p25", "p50", "p75", "p95"), np.quantile(values, _QUANTILES), strict=True))
            marks.append({**about, **{name: _round(end) for name, end in ends.items()}, "at": side * 0.14})
        else:
            points += [{**about, "value": _round(value), "density": side * 0.4} for value in values]
    numbers = {"format": f",.{scale.decimals}~f", "title": "Nuclear norm, log" if last else None, "labels": last}
    x_axis = theme.plain(values=list(scale.ticks), **numbers)
    x_scale = theme.plain(type="log", domain=[scale.low, scale.high], nice=False)
    y_scale = theme.plain(domain=[-1.05 if len(relations) > 1 else 0, 1.05], nice=False)
    colour = alt.Color("relation:N", scale=colours, title=None, legend=None if len(relations) == 1 else alt.Undefined)

    def x(field: str) -> alt.X:
        return alt.X(f"{field}:Q", scale=x_scale, axis=x_axis)

    def y(field: str) -> alt.Y:
        return alt.Y(f"{field}:Q", scale=y_scale, axis=None)

    parts = []
    if shapes:
        area = alt.Chart(pl.DataFrame(shapes)).mark_area(style="shape")
        parts.append(area.encode(x=x("value"), y=y("density"), color=colour))
        base = alt.Chart(pl.DataFrame(marks)).encode(y=y("at"), color=colour)
        quantiles = (f"{name}:Q" for name in ("p5", "p25", "p50", "p75", "p95"))
        # As objects: Altair takes far longer over strings.
        tooltip = [alt.Tooltip(field) for field in ("relation:N", "n:Q", *quantiles)]
        parts.append(base.mark_rule(strokeWidth=1).encode(x=x("p5"), x2=alt.X2("p95:Q"), tooltip=tooltip))
        parts.append(base.mark_rule(strokeWidth=4).encode(x=x("p25"), x2=alt.X2("p75:Q"), tooltip=tooltip))
        parts.append(base.mark_point(style="median").encode(x=x("p50"), tooltip=tooltip))
    if points:
        ticks = alt.Chart(pl.DataFrame(points)).mark_tick(orient="vertical", size=_HALF * 0.6)
        parts.append(ticks.encode(x=x("value"), y=y("density"), color=colour))
    if not parts:
        words = alt.Chart(alt.InlineData([{"text": "no samples"}]))
        parts.append(words.mark_text(style="nothing").encode(text="text:N"))
    zero = alt.Chart(alt.InlineData([{"zero": 0}])).mark_rule(style="zero").encode(y=y("zero"))
    return alt.layer(*parts, zero, title=title, width=width, height=_HALF * (2 if len(relations) > 1 else 1.4))


def kernel_density(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A Gaussian kernel density of sorted `values`, from the smallest to the largest, its highest point 1.

    Bandwidth by Silverman's rule of thumb (1986, eq. 3.31). Returns the points and the density there.
    """
    spread = min(values.std(), (np.quantile(values, 0.75) - np.quantile(values, 0.25)) / 1.34) or values.std()
    bandwidth = max(0.9 * spread * len(values) ** -0.2, 1e-3)
    grid = np.linspace(values[0], values[-1], _POINTS)
    density = np.exp(-0.5 * ((grid[:, None] - values) / bandwidth) ** 2).sum(1)
    return grid, density / density.max()


def _positive(samples: pl.DataFrame, positive: bool = True) -> pl.DataFrame:
    above = pl.col("nuclear_norm").is_finite() & (pl.col("nuclear_norm") > 0)
    return samples.filter(above.fill_null(False) == positive)


def _spread(samples: pl.DataFrame) -> str:
    """By what factor the middle 90 % of samples differ, of the first and the last variant."""
    said = []
    variants = variants_in_order(samples["variant"].unique())
    for variant in dict.fromkeys([variants[0], variants[-1]]):
        rows = (
            _positive(of(samples, variant=variant))
            .group_by("projection")
            .agg((pl.col("nuclear_norm").quantile(0.95) / pl.col("nuclear_norm").quantile(0.05)).alias("factor"))
        )
        if rows.is_empty():
            continue
        low, high = findings.ends_of(dict(rows.iter_rows()))
        said.append(
            f"{label(variant)} {findings.between(findings.times(low[1]), low[0], findings.times(high[1]), high[0])}"
        )
    return f"The middle 90 % of samples span a factor of: {'; '.join(said)}" if said else "Gradients sample by sample"


def _larger(samples: pl.DataFrame, relation: str) -> str:
    """In what share of samples the other response's gradient is the larger one, where that is clearly not a half."""
    keys = ["variant", "projection", "sample_id"]
    pairs = of(samples, relation="correct").join(of(samples, relation=relation), on=keys, suffix="_other")
    said, unclear = [], []
    for variant in variants_in_order(pairs["variant"].unique()):
        clear, rows = {}, of(pairs, variant=variant)
        for (projection,), group in rows.group_by("projection"):
            # A tie leans to neither side.
            apart = group.filter(pl.col("nuclear_norm") != pl.col("nuclear_norm_other"))
            larger = apart.filter(pl.col("nuclear_norm_other") > pl.col("nuclear_norm")).height
            low, high = wilson(larger, apart.height) if apart.height else (0.0, 1.0)
            if low > 0.5 or high < 0.5:
                clear[projection] = larger / apart.height
        if not clear:
            unclear.append(label(variant))
            continue
        low, high = findings.ends_of(clear)
        among = rows["projection"].n_unique()
        part = "" if len(clear) == among else f" in {len(clear)} of {among} projections"
        ends = findings.between(_share(low[1]), low[0], _share(high[1]), high[0])
        said.append(f"{label(variant)} {ends}{part}")
    if not said and not unclear:
        return "Gradients sample by sample"
    if not said:
        return f"{label(relation)} against correct, sample by sample: neither is larger more often"
    if unclear:
        said.append(f"no clear lean for {' and '.join(unclear)}")
    against = f"{label(relation)} responses’ gradients above their correct ones’, share of samples"
    return f"{against}: {'; '.join(said)}"


def _share(value: float) -> str:
    # No rounding to all or none of the samples.
    whole = round(100 * value)
    bound = min(max(whole, 0 if value == 0 else 1), 100 if value == 1 else 99)
    return f"{bound} %"


def _round(value: float) -> float:
    digits = DIGITS - 1 - math.floor(math.log10(abs(value)))
    return round(float(value), digits)
