"""Sample by sample: how gradients spread behind a mean, correct responses against another kind."""

import altair as alt
import numpy as np
import polars as pl

from gradatlas.charts import scales, theme
from gradatlas.charts.names import (
    label,
    projections_in_order,
    relations_in_order,
    responses_of,
    terms,
    variants_in_order,
)
from gradatlas.charts.numbers import plotted
from gradatlas.charts.panel import Axis, Palette, cells, grid, note, of, palette_of, titled
from gradatlas.figures.data import REFERENCE, Data
from gradatlas.figures.heading import counted, larger, lines_of, states_findings, with_lines
from gradatlas.statistics.counts import FEWEST_SAMPLES
from gradatlas.statistics.paired import leans

DRAWN = (
    "Distribution over samples of the nuclear norm averaged over layers, on a log axis: a kernel density between the "
    "smallest and the largest sample, all of one height, with the median and the middle 50 % and 90 % beside it."
)
# Half of a panel in pixels, and the points at which a density is drawn.
_HALF, _POINTS = 38, 48
# Labels of a log axis take this many pixels across.
_TICK = 34
_QUANTILES = {"p5": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95}


def heading(data: Data) -> theme.Heading:
    """For another kind of responses, where its gradient is more often the larger one of a sample; n; what is drawn."""
    samples = data.of("per_sample", reference=True)
    n = samples.group_by("model", "variant", "relation", "projection").agg(pl.len().alias("n"), pl.first("purpose"))
    title, other = "Gradients sample by sample", data.relation != REFERENCE
    differences = leans(samples, data.relation) if other else samples.clear()
    if states_findings(n) and not differences.is_empty():
        one = f"Gradients of {responses_of(data.relation)}, sample by sample,"
        title = larger(one, "correct ones", differences, "variants and projections")
    lost = samples.height - _positive(samples).height
    notes = [DRAWN, *([f"{lost} values are not positive and are left out."] if lost else [])]
    notes += ["Correct above the line, the others below it."] if other else []
    responses = f"correct and {responses_of(data.relation)}" if other else responses_of(data.relation)
    made = with_lines(title, n, data.title, responses, counted(n), " ".join(notes))
    return made.with_lines(lines_of(data, reference=True))


def chart(data: Data, heading: theme.Heading) -> alt.ConcatChart:
    """A panel per variant (rows) and projection (columns), all on one log axis."""
    samples = data.of("per_sample", reference=True)
    projections = projections_in_order(samples["projection"].unique())
    relations = relations_in_order(samples["relation"].unique())
    width = theme.panel_width(len(projections))
    scale = scales.logarithmic(samples["nuclear_norm"], width // _TICK)
    names = dict(zip(("correct", "other"), terms(relations).values(), strict=False))
    palette = palette_of("response", names, "relation")
    panels = []
    for variant, projection, at in cells(variants_in_order(samples["variant"].unique()), projections):
        x = Axis("value", "Nuclear norm, log" if at.bottom else None, scale, labels=at.bottom)
        rows = of(samples, variant=variant, projection=projection)
        panels.append(_panel(rows, terms(relations), x, palette, width, f"{label(variant)} · {label(projection)}"))
    return grid(panels, len(projections), heading)


def _panel(
    rows: pl.DataFrame, relations: dict[str, str], x: Axis, palette: Palette, width: int, title: str
) -> alt.LayerChart:
    shapes, marks, points = [], [], []
    for place, relation in enumerate(relations):
        values = np.sort(of(_positive(rows), relation=relation)["nuclear_norm"].to_numpy())
        side = -1 if place else 1
        about = {"relation": relations[relation], "n": len(values)}
        if len(values) >= FEWEST_SAMPLES:
            places, density = kernel_density(np.log(values))
            shapes += [about | {"value": plotted(v), "density": side * round(float(d), 3)}
                       for v, d in zip(np.exp(places), density, strict=True)]  # fmt: skip
            ends = {name: plotted(np.quantile(values, share)) for name, share in _QUANTILES.items()}
            marks.append(about | ends | {"at": side * 0.14})
        else:
            points += [about | {"value": plotted(value), "density": side * 0.4} for value in values]
    height = scales.Scale("linear", -1.05 if len(relations) > 1 else 0, 1.05)

    def y(field: str) -> alt.Y:
        return alt.Y(f"{field}:Q", scale=theme.plain(domain=[height.low, height.high], nice=False), axis=None)

    colour = palette.encode(alt.Color, len(relations) > 1)
    parts = []
    if shapes:
        area = theme.Chart(pl.DataFrame(shapes)).mark_area(style="shape")
        parts.append(area.encode(x=x.encode(alt.X), y=y("density"), color=colour))
        # As objects: Altair takes far longer over strings.
        tooltip = [alt.Tooltip(field) for field in ("relation:N", "n:Q", *(f"{name}:Q" for name in _QUANTILES))]
        base = theme.Chart(pl.DataFrame(marks)).encode(y=y("at"), color=colour, tooltip=tooltip)
        for thick, low, high in ((1, "p5", "p95"), (4, "p25", "p75")):
            parts.append(base.mark_rule(strokeWidth=thick).encode(x=x.encode(alt.X, low), x2=alt.X2(f"{high}:Q")))
        parts.append(base.mark_point(style="median").encode(x=x.encode(alt.X, "p50")))
    if points:
        ticks = theme.Chart(pl.DataFrame(points)).mark_tick(orient="vertical", size=_HALF * 0.6)
        parts.append(ticks.encode(x=x.encode(alt.X), y=y("density"), color=colour))
    parts = parts or [note("no samples")]
    zero = theme.Chart(alt.InlineData([{"zero": 0}])).mark_rule(style="zero").encode(y=y("zero"))
    return theme.layer(*parts, zero, width=width, height=_HALF * (2 if len(relations) > 1 else 1.4), **titled(title))


def kernel_density(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A Gaussian kernel density of sorted `values`, from the smallest to the largest, its highest point 1.

    Bandwidth by Silverman's rule of thumb (1986, eq. 3.31). Returns the points and the density there.
    """
    spread = min(values.std(), (np.quantile(values, 0.75) - np.quantile(values, 0.25)) / 1.34) or values.std()
    bandwidth = max(0.9 * spread * len(values) ** -0.2, 1e-3)
    places = np.linspace(values[0], values[-1], _POINTS)
    density = np.exp(-0.5 * ((places[:, None] - values) / bandwidth) ** 2).sum(1)
    return places, density / density.max()


def _positive(samples: pl.DataFrame) -> pl.DataFrame:
    return samples.filter((pl.col("nuclear_norm").is_finite() & (pl.col("nuclear_norm") > 0)).fill_null(False))
