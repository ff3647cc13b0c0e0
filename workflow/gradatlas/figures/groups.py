"""Two groups of scored samples: tables and figures of the comparison."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import altair as alt
import polars as pl
import pyarrow as pa

from gradatlas.charts import scales, theme
from gradatlas.charts.names import label, projections_in_order, statistic_label
from gradatlas.charts.numbers import fixed, three_digits, with_interval
from gradatlas.charts.panel import (
    Axis,
    Palette,
    cells,
    ends_in,
    grid,
    nothing,
    of,
    panel,
    projection_palette,
    series_palette,
)
from gradatlas.charts.save import save
from gradatlas.charts.tables import Section, write_table
from gradatlas.core.command import progress
from gradatlas.core.tables import write_table as write_parquet
from gradatlas.figures.layers import axis_title, layers_of, logged
from gradatlas.statistics.groups import ALL, CURVES, MATCHED, NUMBERS, Group, comparisons, curve_rows, rows
from gradatlas.statistics.tables import COMPARISON, GROUP_CURVES

_BANDS = "Bands: 95 % bootstrap intervals over samples."
_MATCHED = (
    "Matched: pairs of samples whose length and loss are alike. A difference that matching removes is one of length or "
    "loss."
)
_NAMES = {
    "response_tokens": "response tokens",
    "ifd": "IFD",
    "gradient_norm": "gradient norm",
    "mad": "MAD over layers",
    "largest_layer_share": "share of the largest layer",
}
NOTE = (
    "Difference and ratio: a against b, of means; Cliff's delta: how often a value of a is larger than one of b, less "
    "how often smaller. Intervals: 95 %. p: Mann-Whitney, of pairs Wilcoxon's signed ranks; Holm over the numbers of "
    "one comparison. Matched: pairs of samples whose log tokens and log loss each differ by at most 0.2 standard "
    "deviations, as many as there are, the nearest first (of pairs of the same rows, those that match); intervals take "
    "the pairs as given. Scores depend on length and loss: a difference that matching removes is one of length or loss."
)


def write_comparisons(
    pairs: Sequence[tuple[Group, Group, bool]], output: Path, formats: Sequence[str], draws: int, seed: int
) -> None:
    """Write ``comparison.{parquet,csv,md,tex}``, ``curves.parquet`` and the figures of every pair of groups.

    `pairs`: as of `gradatlas.statistics.groups.read_groups`.

    Figures: ``study_form``, ``layers`` and ``effects``, with a number behind the name from the second pair on.
    """
    numbers, curves = [], []
    for a, b, paired in pairs:
        for it in comparisons(a, b, paired, seed):
            found = rows(it, draws, seed)
            if it.status != "ok":
                progress(f"{a.name} against {b.name}, {it.samples}: {it.status}")
            numbers += found
            curves += curve_rows(it, draws, seed)
    frame = pl.from_arrow(pa.Table.from_pylist(numbers, schema=COMPARISON.schema))
    frame = frame.with_columns(pl.col(pl.Float64).fill_nan(None))
    output.mkdir(parents=True, exist_ok=True)
    sections = [section for part in frame.partition_by("group_a", "group_b", "samples") for section in [_section(part)]]
    write_table(output / "comparison", frame, "Groups of samples compared", NOTE, sections)
    write_parquet(GROUP_CURVES, curves, output / "curves.parquet", {"draws": draws, "seed": seed})
    drawn = pl.from_arrow(pa.Table.from_pylist(curves, schema=GROUP_CURVES.schema))
    for place, (a, b, _) in enumerate(pairs):
        own = {"group_a": a.name, "group_b": b.name}
        for name, chart in charts(of(drawn, **own), of(frame, **own), a.name, b.name):
            save(chart, output / f"{name}{f'.{place + 1}' if place else ''}", formats)


def charts(curves: pl.DataFrame, numbers: pl.DataFrame, a: str, b: str) -> Iterator[tuple[str, alt.TopLevelMixin]]:
    """The figures of one pair of groups, each with its name, from its rows of both tables."""
    lines = [describe(numbers, samples) for samples in numbers["samples"].unique(maintain_order=True)]
    first = of(numbers, number="response_tokens").row(0, named=True)
    facts = (f"{first['samples_a']} samples of {a}, {first['samples_b']} of {b}",)
    title = f"Nuclear norm and effective rank of {a} and {b}, by layer"
    yield "study_form", study_form(of(curves, samples=ALL), [a, b], theme.Heading(title, facts, (lines[0], _BANDS)))
    yield "layers", overlaid(curves, [a, b], theme.Heading(title, facts, (*lines, _MATCHED, _BANDS)))
    effects_title = f"How far {a} and {b} differ in every score"
    words = f"Above 0: {a} is larger more often. Lines: 95 % intervals. {_MATCHED}"
    yield "effects", effects(numbers, theme.Heading(effects_title, facts, (*lines, words)))


def describe(numbers: pl.DataFrame, samples: str) -> str:
    """How many samples are compared, and how far they differ in length and loss; or why nothing is compared."""
    row = of(numbers, samples=samples, number="response_tokens").row(0, named=True)
    kind = "Pairs of the same rows" if row["paired"] and samples == ALL else f"{label(samples)} samples"
    if row["status"] != "ok":
        return f"{kind}: {row['status']}."
    balance = [
        f"log {name} {fixed(row['smd_log_' + name])}"
        for name in ("tokens", "loss")
        if row[f"smd_log_{name}"] is not None
    ]
    counts = f"{row['samples_a']} {row['group_a']}, {row['samples_b']} {row['group_b']}"
    return f"{kind}: {counts}; difference in standard deviations: {', '.join(balance) or 'unknown'}."


def study_form(curves: pl.DataFrame, groups: Sequence[str], heading: theme.Heading) -> alt.TopLevelMixin:
    """The study's figure: a row a statistic with one scale, a column a group, q k v o over layers."""
    if curves.is_empty():
        return nothing(heading, 2)
    projections = projections_in_order(curves["projection"].unique())
    panels = []
    for statistic, group, at in cells(CURVES, groups):
        part = of(curves, statistic=statistic)
        frame = of(part, group=group).with_columns(pl.col("projection").map_elements(label, return_dtype=pl.String))
        scale, palette = scales.linear(ends_in(part)), projection_palette(projections)
        panels.append(_panel(frame, scale, palette, 2, "main", group, statistic if at.left else "", at))
    return grid(panels, 2, heading)


def overlaid(curves: pl.DataFrame, groups: Sequence[str], heading: theme.Heading) -> alt.TopLevelMixin:
    """Both groups over one another: a column a projection, a row a statistic and kind of samples."""
    kinds = [samples for samples in (ALL, MATCHED) if not of(curves, samples=samples).is_empty()]
    projections = projections_in_order(curves["projection"].unique())
    if not kinds:
        return nothing(heading, 4)
    panels = []
    for (statistic, samples), projection, at in cells([(s, k) for s in CURVES for k in kinds], projections):
        part = of(curves, statistic=statistic)
        scale = scales.log_if_decades(ends_in(part), theme.HEIGHTS["small"] // 14)
        frame = of(part, samples=samples, projection=projection)
        name = f"{label(projection)}, {samples}" if len(kinds) > 1 else label(projection)
        palette = series_palette(groups, "group")
        panels.append(_panel(frame, scale, palette, len(projections), "small", name, statistic if at.left else "", at))
    return grid(panels, len(projections), heading)


def effects(numbers: pl.DataFrame, heading: theme.Heading) -> alt.TopLevelMixin:
    """Cliff's delta of every number with its interval, of all and of matched samples side by side."""
    known = numbers.filter(pl.col("cliffs_delta").is_not_null())
    if known.is_empty():
        return nothing(heading, 1)
    order = [_words(name) for name in NUMBERS if name in set(known["number"])]
    data = known.select(
        pl.col("number").map_elements(_words, return_dtype=pl.String),
        "samples", "cliffs_delta", "cliffs_delta_low", "cliffs_delta_high", "p_adjusted",
    )  # fmt: skip
    kinds = data["samples"].unique(maintain_order=True).to_list()
    palette = series_palette(kinds, "samples")
    base = theme.Chart(data).encode(
        y=alt.Y("number:N", sort=order, axis=alt.Axis(title=None, grid=True)),
        yOffset=alt.YOffset("samples:N", sort=kinds),
        color=palette.encode(alt.Color, len(kinds) > 1),
        tooltip=["number", "samples", "cliffs_delta", "p_adjusted"],
    )
    x = alt.X("cliffs_delta:Q", scale=alt.Scale(domain=[-1, 1]), axis=alt.Axis(title="Cliff's delta", grid=True))
    zero = theme.Chart(alt.InlineData([{"cliffs_delta": 0}])).mark_rule(style="zero").encode(x=x)
    lines = base.mark_rule(style="interval").encode(
        x=alt.X("cliffs_delta_low:Q", title="Cliff's delta"), x2="cliffs_delta_high:Q"
    )
    dots = base.mark_point(style="dot-alone", size=40).encode(x=x, shape=palette.encode(alt.Shape, len(kinds) > 1))
    return theme.layer(zero, lines, dots, width=430, height=24 * len(order), **theme.headed(heading, 1))


def _panel(frame, scale, palette: Palette, columns: int, height: str, title: str, statistic: str, at):
    layers = max(layers_of(frame), 2)
    width = theme.panel_width(columns)
    x_title = "Layer" if at.bottom else None
    x = Axis("layer", x_title, scales.Scale("linear", 0, layers - 1), "d", count=max(3, width // 40))
    y_title = axis_title(statistic, logged(scale)) if statistic else None
    y = Axis("value", y_title, scale, labels=at.left, count=max(3, theme.HEIGHTS[height] // 28))
    size = (width, theme.HEIGHTS[height])
    dots = width / (layers - 1) >= theme.POINT_SPACING
    return panel(frame, x, y, palette, size, title=title, dots=dots, more=("n",))


def _words(number: str) -> str:
    for name in CURVES:
        if number.startswith(name):
            part = number.removeprefix(name).lstrip("_")
            return statistic_label(name) + (f", {part} layers" if part else "")
    return _NAMES.get(number, number.replace("_", " "))


def _section(part: pl.DataFrame) -> Section:
    """The table of one comparison for a reader."""
    first = part.row(0, named=True)
    header = ("Number", "Mean a", "Mean b", "Median a", "Median b", "Difference", "Ratio", "Cliff's delta", "Hedges' g",
              "p", "p (Holm)", "Status")  # fmt: skip
    body = [
        [
            _words(row["number"]),
            *(
                with_interval(row[name], row[f"{name}_low"], row[f"{name}_high"])
                for name in ("mean_a", "mean_b", "median_a", "median_b", "difference", "ratio", "cliffs_delta")
            ),
            *(three_digits(row[name]) for name in ("hedges_g", "p_value", "p_adjusted")),
            row["status"],
        ]
        for row in part.to_dicts()
    ]
    if len({row["status"] for row in part.to_dicts()} - {"ok"}) == 1 and part["p_value"].null_count() == part.height:
        body = [["all", *["–"] * 10, first["status"]]]
    title = f"{first['group_a']} (a) and {first['group_b']} (b), {first['samples']} samples"
    return Section(title, header, body, lead=describe(part, first["samples"]).rstrip("."))
