"""Figures of what callbacks have written so far, over the steps of training.

Layer curves, log-probabilities, and each block's part in their changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import altair as alt
import polars as pl

from gradatlas.api.tables import TRAINING_BUDGET, TRAINING_PROBES, TRAINING_SPECTRA
from gradatlas.charts import scales, theme
from gradatlas.charts.names import STATISTICS, in_order, label, projections_in_order
from gradatlas.charts.panel import Axis, Palette, cells, grid, of, palette_of, panel, series_palette
from gradatlas.charts.save import save
from gradatlas.core.errors import InputError
from gradatlas.core.tables import read_table
from gradatlas.figures.layers import axis_title, logged
from gradatlas.figures.run_curves import TYPES, line_panel
from gradatlas.models.decoders import ATTENTION
from gradatlas.study.settings import PROJECTIONS

SIDES = ("chosen", "rejected")
_KINDS = ("attention", "feed-forward", "embedding and output", "norms and biases", "adapters")
_WHOLE, _SUM = "measured", "sum over blocks"
_TICK = 14  # pixels of an axis to a tick of a log axis


def draw(folder: Path, formats: Sequence[str]) -> list[Path]:
    """Draw the tables in `folder`, a training's output folder or its ``gradatlas``, beside them; returns the files.

    Raises `InputError` where there is no table.
    """
    places = [place for place in (folder / "gradatlas", folder) if any(place.glob("*.parquet"))]
    drawn = []
    charts = {
        "spectra": (TRAINING_SPECTRA, spectra_chart),
        "probes": (TRAINING_PROBES, probes_chart),
        "budget": (TRAINING_BUDGET, budget_chart),
    }
    for name, (table, chart) in charts.items():
        for place in places[:1]:
            path = place / f"{name}.parquet"
            if path.exists():
                files = save(chart(pl.from_arrow(read_table(table, path))), place / name, formats)
                drawn += [place / file for file in files.values()]
    if not drawn:
        raise InputError(
            f"{folder}: has no spectra.parquet or probes.parquet of a callback; give the output_dir of a training "
            "with GradientSpectra or ResponseProbes"
        )
    return drawn


@dataclass(frozen=True)
class _Ramp(Palette):
    """Colours of numbers, such as steps, from first to last: one ramp, with a legend of its ends."""

    def encode(self, kind: type, legend: bool = True) -> alt.Color | alt.Shape:
        if kind is alt.Shape:
            return alt.Shape(value="circle")
        ends = [int(entry) for entry in self.entries]
        shown = alt.Legend(
            title=self.column.capitalize(), values=sorted({ends[0], ends[-1]}), format=",d", **theme.RAMP_LEGEND
        )
        scale = theme.plain(range=list(theme.RAMP), domain=[ends[0], max(ends[-1], ends[0] + 1)])
        return alt.Color(f"{self.column}:Q", scale=scale, legend=shown if legend else None)


def spectra_chart(rows: pl.DataFrame) -> alt.ConcatChart:
    """Means over probes by layer: a panel per metric (rows) and projection (columns), a line per step."""
    ok = rows.filter(pl.col("layer").is_not_null())
    if ok.is_empty():
        raise InputError("spectra.parquet: no probe could be measured; its column status gives the reasons")
    metrics = [name for name in STATISTICS if not ok[name].is_null().all()]
    projections = projections_in_order(ok["projection"].unique())
    means = ok.group_by("step", "layer", "projection").agg(pl.col(metrics).mean()).sort("step", "layer")
    steps, samples = means["step"].unique().sort().to_list(), ok.n_unique(["sample", "response"])
    palette = _Ramp("step", tuple(map(str, steps)), (), ())
    layers = int(means["layer"].max()) + 1
    panels = []
    for metric, projection, at in cells(metrics, projections):
        frame = means.select("step", "layer", "projection", value=metric)
        size = theme.panel_width(len(projections)), theme.HEIGHTS["main" if at.top else "minor"]
        scale = scales.log_if_decades(means[metric], size[1] // _TICK)
        x = Axis("layer", "Layer" if at.bottom else None, scales.Scale("linear", 0, max(1, layers - 1)), "d",
                 labels=at.bottom, count=max(3, size[0] // 40))  # fmt: skip
        title = axis_title(metric, logged(scale)) if at.left else None
        y = Axis("value", title, scale, labels=at.left, count=max(3, size[1] // 28))
        panels.append(
            panel(of(frame, projection=projection), x, y, palette, size, title=label(projection) if at.top else None,
                  detail="step", dots=False)
        )  # fmt: skip
    text = (
        f"{samples} fixed probes, measured at {len(steps)} steps from {steps[0]:,} to {steps[-1]:,}. Means over probes."
    )
    facts = (f"{samples} fixed probes", f"{len(steps)} steps")
    heading = theme.Heading("Gradients of the probes, layer by layer, during training", facts, (text,))
    return grid(panels, len(projections), heading)


def probes_chart(rows: pl.DataFrame) -> alt.ConcatChart:
    """Means over pairs by step: chosen and its rephrases, rejected and its own, and the likeliest tokens along them."""
    ok = rows.filter(pl.col("status") == "ok")
    types = in_order(ok["type"].unique(), TYPES)
    rejected = [name for name in types if name.startswith("rejected")]
    shown = (
        ("Chosen, and its rephrases", [name for name in types if name not in rejected], "log_prob_sum"),
        ("Rejected, and its rephrases", rejected, "log_prob_sum"),
        ("Likeliest token at each position, along", [name for name in types if name in SIDES], "argmax_log_prob"),
    )
    means = ok.group_by("step", "type").agg(pl.col("log_prob_sum", "argmax_log_prob").mean(), pl.len().alias("n"))
    palette = palette_of("probe", {kind: TYPES.get(kind, kind) for kind in types})
    panels = []
    for title, kinds, measure in shown:
        if not kinds:
            continue
        part = means.filter(pl.col("type").is_in(kinds)).sort("step")
        names = pl.col("type").replace(TYPES)
        part = part.select(names.alias("series"), pl.lit("").alias("run"), pl.col("step").alias("x"),
                           pl.col(measure).alias("value"), "n")  # fmt: skip
        panels.append(line_panel(part, title, palette, "Optimizer step"))
    text = f"Log-probability in nats, summed over a response's tokens: means over {ok['pair'].n_unique()} fixed pairs."
    facts = (f"{ok['pair'].n_unique()} fixed pairs",)
    return grid(panels, 2, theme.Heading("Log-probabilities of the responses during training", facts, (text,)))


def budget_chart(rows: pl.DataFrame) -> alt.VConcatChart:
    """Changes of chosen and rejected since the first step: whole, by kind of block, and by layer."""
    sides = [side for side in SIDES if side in rows["type"]] or [rows["type"][0]]
    names = {name: _KINDS[0 if name in ATTENTION else 1] for name in PROJECTIONS}
    kind = (
        pl.when(pl.col("block").str.contains("lora_")).then(pl.lit(_KINDS[4]))
        .when(pl.col("block").is_in(["embedding", "output"])).then(pl.lit(_KINDS[2]))
        .otherwise(pl.col("block").replace_strict(names, default=_KINDS[3]))
    )  # fmt: skip
    of_pair = rows.group_by("since", "step", "type", "pair").agg(pl.col("predicted").sum(), pl.col("measured").first())
    parts = {
        "Change of log π": of_pair.rename({"predicted": _SUM}).unpivot(
            [_WHOLE, _SUM], index=["step", "type", "pair"], variable_name="series"
        ),
        "By kind of block": rows.with_columns(kind.alias("series"), value="predicted"),
        "By layer": rows.drop_nulls("layer").with_columns(series=pl.col("layer"), value="predicted"),
    }  # fmt: skip
    # Without adapters, no entry for them.
    kinds = [each for each in _KINDS if each in set(parts["By kind of block"]["series"])]
    start, panels = int(rows["since"].min()), []
    for (title, frame), side, at in cells(parts.items(), sides):
        sums = [_summed(of(frame, type=each), start) for each in sides]
        layers = title == "By layer"
        entries = frame["series"].unique().sort().cast(pl.String).to_list()
        palette = _Ramp("layer", tuple(entries), (), ()) if layers else series_palette([_WHOLE, _SUM, *kinds])
        own = sums[sides.index(side)].rename({"series": "layer"} if layers else {})
        x = Axis("step", "Optimizer step" if at.bottom else None, format=",d", count=5)
        y = Axis("value", f"{title}, nats" if at.left else None, scales.linear(pl.concat(sums)["value"]), count=5)
        panels.append(
            panel(own, x, y, palette, (theme.panel_width(2), theme.HEIGHTS["main"]), level=0.0,
                  title=TYPES.get(side, side).capitalize() if at.top else None)
        )  # fmt: skip
    gap = (of_pair["predicted"] - of_pair["measured"]).pow(2).sum() / of_pair["measured"].pow(2).sum()
    pairs = rows["pair"].n_unique()
    text = (
        f"Means over {pairs} fixed pairs of the change since step {start:,}. A block's part is that along the change "
        "of its weights between two evaluations, by the gradients halfway. What the parts of all blocks miss of the "
        f"measured changes: {gap**0.5:.3f} of their norm."
    )
    heading = theme.Heading("Which blocks changed the log-probabilities", (f"{pairs} fixed pairs",), (text,))
    # Layers have a ramp of their own.
    parts = [alt.concat(*each, columns=len(sides)).resolve_scale(x="independent", y="independent")
             for each in (panels[: -len(sides)], panels[-len(sides) :])]  # fmt: skip
    chart = alt.vconcat(*parts, **theme.headed(heading, len(sides)))
    return chart.resolve_scale(color="independent", shape="independent")


def _summed(frame: pl.DataFrame, start: int) -> pl.DataFrame:
    """Columns series, step, value: the mean over pairs of the sum of all changes up to a step, 0 at the start."""
    changes = frame.group_by("series", "step").agg(pl.col("value").sum() / frame["pair"].n_unique())
    zeros = changes.select("series").unique().with_columns(
        pl.lit(start, frame.schema["step"]).alias("step"), value=pl.lit(0.0)
    )  # fmt: skip
    return pl.concat([zeros, changes]).sort("series", "step").with_columns(pl.col("value").cum_sum().over("series"))
