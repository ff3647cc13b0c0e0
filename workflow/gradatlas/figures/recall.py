"""Recall of planted faults by every score: a table, and a panel a fault."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import altair as alt
import polars as pl
import pyarrow as pa

from gradatlas.charts import scales, theme
from gradatlas.charts.names import label, statistic_label
from gradatlas.charts.numbers import share, with_interval
from gradatlas.charts.panel import Axis, grid, of, panel, series_palette, titled
from gradatlas.charts.save import save
from gradatlas.charts.tables import Section, write_table
from gradatlas.core.errors import InputError
from gradatlas.core.tables import read_table
from gradatlas.core.tables import write_table as write_parquet
from gradatlas.scores.tables import SCORES
from gradatlas.statistics.recall import ANY, recall_curves, recall_rows
from gradatlas.statistics.tables import RECALL, RECALL_CURVES

NOTE = (
    "Recall at k: the share of the planted samples that are among the first k in the order of a score; k is the number "
    "planted. One fault is searched among its samples and the clean ones, wrong responses of all kinds among all "
    "samples. High, low: the end of the score that is searched first. Intervals: 95 %, bootstrap over samples. Random: "
    "mean and middle 95 % of random orders. An exact copy has the scores of its original, so no score of single "
    "samples can find it; inner products of gradients between samples can. No training on a selection was tried."
)
# Searches that are drawn as curves; more could not be told apart.
_CURVES = (
    ("nuclear_norm", "high"),
    ("effective_rank", "low"),
    ("outlier", "high"),
    ("loss", "high"),
    ("response_tokens", "low"),
)
_COLUMNS = 4


def write_recall(
    scores: Mapping[str, Path], titles: Mapping[str, str], output: Path, formats: Sequence[str], draws: int, seed: int
) -> None:
    """Write ``recall.{parquet,csv,md,tex}``, ``curves.parquet`` and the figures ``recall`` and ``curves``.

    `scores`: by model, its scores.parquet of the graded data. Raises `InputError` for data without planted faults.
    """
    rows, curves = [], []
    for model, path in scores.items():
        frame = pl.from_arrow(read_table(SCORES, path))
        found = list(recall_rows(model, frame, draws, seed))
        if not found:
            raise InputError(f"{path}: no row is in a group of a known fault; score the file that make-graded writes")
        rows += found
        curves += recall_curves(model, frame)
    frame = pl.from_arrow(pa.Table.from_pylist(rows, schema=RECALL.schema))
    output.mkdir(parents=True, exist_ok=True)
    write_table(output / "recall", frame, "Recall of planted faults", NOTE, _sections(frame, titles))
    write_parquet(RECALL_CURVES, curves, output / "curves.parquet", {})
    save(chart(frame, titles), output / "recall", formats)
    first = next(iter(scores))
    drawn = of(pl.DataFrame(curves), model=first)
    save(curves_chart(drawn, titles.get(first, first), frame), output / "curves", formats)


def chart(frame: pl.DataFrame, titles: Mapping[str, str]) -> alt.TopLevelMixin:
    """A panel a fault; in it every score's recall with its interval, by model, and the band of a random order."""
    frame = frame.with_columns(
        pl.struct("number", "end").map_elements(_words, return_dtype=pl.String).alias("score"),
        pl.col("model").replace(dict(titles)),
    )
    models, order = (frame[name].unique(maintain_order=True).to_list() for name in ("model", "score"))
    palette = series_palette(models, "model")
    panels = []
    for (fault,), part in frame.group_by("fault", maintain_order=True):
        left = not len(panels) % _COLUMNS
        down = alt.Axis(title=None, ticks=False, domain=False, grid=True, labels=left, labelLimit=170)
        base = theme.Chart(part).encode(
            y=alt.Y("score:N", sort=order, axis=down),
            yOffset=alt.YOffset("model:N", sort=models),
            color=palette.encode(alt.Color),
            tooltip=["score", "model", "value", "low", "high", "planted", "samples"],
        )
        title = None if len(panels) < frame["fault"].n_unique() - _COLUMNS else "Recall"
        across = alt.Axis(title=title, values=[0, 0.5, 1], format="~g")
        x = alt.X("value:Q", scale=alt.Scale(domain=[0, 1]), axis=across)
        chance = theme.Chart(part.head(1))
        parts = [
            chance.mark_rect(color=theme.GRID).encode(x="chance_low:Q", x2="chance_high:Q"),
            chance.mark_rule(style="turn").encode(x="chance:Q"),
            base.mark_rule(style="interval").encode(x="low:Q", x2="high:Q"),
            base.mark_point(style="dot-alone", size=28).encode(x=x, shape=palette.encode(alt.Shape)),
        ]
        name = f"{label(_fault(fault))} ({part['planted'][0]} of {part['samples'][0]})"
        panels.append(theme.layer(*parts, width=theme.panel_width(_COLUMNS), height=17 * len(order), **titled(name)))
    facts = ("share of the planted samples among the first k", "k: how many are planted", "grey: random orders")
    lines = (
        "Share of the planted samples among the first k in the order of a score; k: how many are planted. Loss, "
        "length and a random order are the baselines. Lines: 95 % intervals over samples. Grey, dashed: the middle "
        "95 % and the mean of random orders. Exact copies have the scores of their originals: no score of single "
        "samples finds them.",
    )
    return grid(panels, _COLUMNS, theme.Heading("Recall of planted faults by each score", facts, lines))


def curves_chart(curves: pl.DataFrame, model: str, recall: pl.DataFrame) -> alt.TopLevelMixin:
    """A panel a fault; the share of the planted samples that are found among the first k, by some scores."""
    names = [_words({"number": number, "end": end}) for number, end in _CURVES]
    curves = curves.with_columns(pl.struct("number", "end").map_elements(_words, return_dtype=pl.String).alias("score"))
    palette = series_palette(names, "score")
    faults = curves["fault"].unique(maintain_order=True).to_list()
    panels = []
    for place, fault in enumerate(faults):
        part = of(curves, fault=fault, score=names)
        x_title = "First k samples" if place >= len(faults) - _COLUMNS else None
        x = Axis("k", x_title, scales.Scale("linear", 0, int(part["k"].max())), count=3)
        y = Axis("value", "Share found" if not place % _COLUMNS else None, scales.Scale("linear", 0, 1), count=3)
        planted = of(recall, fault=fault)["planted"][0]
        size = (theme.panel_width(_COLUMNS), theme.HEIGHTS["small"])
        panels.append(panel(part, x, y, palette, size, title=label(_fault(fault)), dots=False, turns=[planted]))
    lines = ("Dashed: k is the number planted. A random order finds them along the diagonal.",)
    heading = theme.Heading("Planted faults found among the first samples of an order", (model,), lines)
    return grid(panels, _COLUMNS, heading)


def _words(row: Mapping[str, str]) -> str:
    names = {"response_tokens": "tokens", "ifd": "IFD"}
    return f"{names.get(row['number'], statistic_label(row['number']))}, {row['end']}"


def _sections(frame: pl.DataFrame, titles: Mapping[str, str]) -> list[Section]:
    sections = []
    for (model,), part in frame.group_by("model", maintain_order=True):
        faults = part["fault"].unique(maintain_order=True).to_list()
        body = []
        for (number, end), rows in part.group_by("number", "end", maintain_order=True):
            body.append([_words({"number": number, "end": end}), *_cells(rows, ("value", "low", "high"))])
        by_chance = part.unique("fault", maintain_order=True)
        body.append(["random", *_cells(by_chance, ("chance", "chance_low", "chance_high"))])
        header = ("Score", *map(_fault, faults))
        sections.append(Section(titles.get(model, model), header, body))
    return sections


def _cells(rows: pl.DataFrame, ends: Sequence[str]) -> list[str]:
    return [with_interval(*row, share) for row in rows.select(ends).rows()]


def _fault(name: str) -> str:
    return "all wrong ones" if name == ANY else name.replace("_", " ")
