"""The first study's gradients along SFT on None, Simplified and Detailed, at equal updates and at equal tokens."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import altair as alt
import polars as pl

from gradatlas.charts import scales, theme
from gradatlas.charts.listing import saved, write_index
from gradatlas.charts.names import label
from gradatlas.charts.panel import OWN_SCALE, Axis, grid, panel, series_palette, variant_palette
from gradatlas.core.command import progress
from gradatlas.core.tables import read_metadata, read_table
from gradatlas.kernels.tables import BRIDGE, KERNEL_MEANS
from gradatlas.statistics.bootstrap import interval
from gradatlas.statistics.bridge import Measured

_AXES = ("updates", "tokens")
#: Two types of responses, to one question or two: the lines of the second figure.
_PAIRS = {
    ("detailed", "simplified", True): "Detailed, Simplified: same question",
    ("detailed", "none", True): "Detailed, None: same question",
    ("detailed", "simplified", False): "Detailed, Simplified: other questions",
    ("detailed", "none", False): "Detailed, None: other questions",
}


def draw_bridge(
    bridge: Sequence[str | Path],
    means: Sequence[str | Path],
    title: str,
    output: str | Path,
    formats: Sequence[str],
    *,
    draws: int,
    seed: int,
) -> None:
    """Draw one model's and seed's runs into the folder `output`, with index.json, a list of the figures.

    `bridge`, `means`: the tables ``bridge`` and ``kernel_means``, one a run each.
    """
    runs = {}
    for path, of_kernels in zip(bridge, means, strict=True):
        facts = read_metadata(path, BRIDGE)
        tables = (pl.from_arrow(read_table(kind, each)) for kind, each in ((BRIDGE, path), (KERNEL_MEANS, of_kernels)))
        runs[facts["variant"]] = (*tables, facts["places"])
    figures = {"mad": _mad(runs, title, draws, seed), "cosines": _cosines(runs, title)}
    listed = []
    for name, (heading, chart) in figures.items():
        listed.append(saved(chart, Path(output) / name, {"kind": name}, heading, formats))
        progress(f"{title}: {name}: {', '.join(listed[-1]['files'])}")
    write_index(output, "bridge", f"{title}: SFT on its own answers", listed, "draw_bridge")


Runs = Mapping[str, tuple[pl.DataFrame, pl.DataFrame, Mapping[str, Sequence[int]]]]


def _mad(runs: Runs, title: str, draws: int, seed: int) -> tuple[theme.Heading, alt.ConcatChart]:
    responses = next(iter(runs.values()))[0].select("variant", "relation").unique(maintain_order=True)
    kinds = [f"{variant}:{relation}" for variant, relation in responses.iter_rows()]
    found = {
        (axis, kind): [
            {"variant": label(variant), "x": share / len(places[axis])}
            | dict(zip(("value", "low", "high"), map(float, interval(mads)), strict=True))
            for variant, (table, _, places) in runs.items()
            for share, step in enumerate((0, *places[axis]))
            for mads in [Measured.of(table, kind, step).mads(draws, seed)]
        ]
        for axis in _AXES
        for kind in kinds
    }
    size, palette, panels = (theme.panel_width(len(kinds)), theme.HEIGHTS["main"]), variant_palette(list(runs)), []
    for (axis, kind), rows in found.items():
        ends = [row[name] for each in _AXES for row in found[each, kind] for name in ("value", "low", "high")]
        x = Axis("x", f"Share of the run, by {axis}", count=3)
        y = Axis("value", f"MAD, log, {OWN_SCALE}" if kind == kinds[0] else None, scales.logarithmic(ends, 5))
        variant, relation = kind.split(":")
        head = f"{label(variant)}, {label(relation).lower()}" if axis == "updates" else None
        panels.append(panel(pl.DataFrame(rows), x, y, palette, size, title=head))
    heading = theme.Heading(
        "MAD of held-out answers in SFT on None, Simplified or Detailed",
        (title,),
        (
            "A line: SFT on one variant. MAD: mean absolute difference of nuclear norms between neighbouring layers, "
            "geometric mean over projections, 95 % intervals over questions. Above, runs are compared after as many "
            "updates; below, after as many response tokens, for which runs on shorter answers need more updates.",
        ),
    )
    return heading, grid(panels, len(kinds), heading)


def _cosines(runs: Runs, title: str) -> tuple[theme.Heading, alt.ConcatChart]:
    """By layer, before SFT and after each run."""
    size = (theme.panel_width(2), theme.HEIGHTS["main"])
    stages = [("before SFT", next(iter(runs.values()))[1], "min")]
    stages += [(f"after SFT on {label(variant)}", means, "max") for variant, (_, means, _) in runs.items()]
    frames, panels = {}, []
    for words, means, end in stages:
        step = getattr(means["step"], end)()
        own = means.filter(pl.col("layer").is_not_null(), pl.col("step") == step)
        rows = []
        for (one, other, same), series in _PAIRS.items():
            part = own.filter(o_type=one, u_type=other, same=same)
            by_layer = part.group_by("layer", maintain_order=True).agg(pl.col("cosine").mean().alias("value"))
            rows += by_layer.with_columns(pl.lit(series).alias("series")).to_dicts()
        frames[words] = pl.DataFrame(rows, schema_overrides={"layer": pl.Int64}).sort("series", "layer")
    scale = scales.linear(pl.concat(frames.values())["value"])
    palette = series_palette(tuple(_PAIRS.values()))
    for words, frame in frames.items():
        x, y, head = Axis("layer", "Layer", format="d"), Axis("value", "Cosine", scale), words[:1].upper() + words[1:]
        panels.append(panel(frame, x, y, palette, size, title=head))
    heading = theme.Heading(
        "Cosines of gradients of fast and slow answers, to the same question and to others",
        (title,),
        ("Means over pairs of answers and over a layer's matrices, by layer.",),
    )
    return heading, grid(panels, 2, heading)
