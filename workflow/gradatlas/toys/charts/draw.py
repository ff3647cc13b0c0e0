"""The toys' figures: a softmax squeezed, a classifier's influence, the clipped objective. Tables in, charts out."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import altair as alt
import polars as pl

from gradatlas.charts.listing import saved, write_index
from gradatlas.charts.theme import Heading
from gradatlas.core.command import progress
from gradatlas.core.tables import read_table
from gradatlas.toys.charts import clip, influence, phases, squeeze
from gradatlas.toys.tables import TABLES


class Kind(NamedTuple):
    """A figure: its toy and name, the tables (``toy_{name}``) that its heading and its chart are made of."""

    toy: str
    figure: str
    tables: tuple[str, ...]
    heading: Callable[..., Heading]
    chart: Callable[..., alt.ConcatChart]


_PREDICTIONS, _CHANGES = ("predictions", "kernels"), ("predictions", "changes")
KINDS = (
    Kind("squeeze", "steps", ("squeeze", "squeeze_cases"), squeeze.heading_of_cases, squeeze.step_plots),
    Kind("squeeze", "sweeps", ("squeeze_sweeps",), squeeze.heading_of_sweeps, squeeze.sweep_curves),
    Kind("influence", "confusion", _PREDICTIONS, influence.heading_of_confusion, influence.heat_maps),
    Kind("influence", "ranks", ("kernels",), influence.heading_of_ranks, influence.rank_curves),
    Kind("influence", "kernels", ("kernels",), phases.heading_of_classes, phases.class_curves),
    Kind("influence", "phases", ("phases",), phases.heading_of_phases, phases.phase_curves),
    Kind("influence", "norms", ("norms",), phases.heading_of_norms, phases.norm_scatter),
    Kind("influence", "change", _CHANGES, influence.heading_of_change, influence.change_bars),
    Kind("influence", "prediction", ("steps",), influence.heading_of_prediction, influence.prediction_scatter),
    Kind("clip", "steps", ("clip",), clip.heading, clip.chart),
)


def draw(tables: str | Path, output: str | Path, formats: Sequence[str]) -> None:
    """Draw all toys whose tables (``toy_*.parquet``) are in the folder `tables` into the folder `output`.

    Files are ``{toy}.{figure}.{format}``; ``index.json`` lists them: dataset and dataset_title, and by figure toy,
    figure, title, subtitle (lines), files (by format), width and height (of the SVG, where drawn).
    `InputError` where a table is missing or of another kind.
    """
    frames = {name: pl.from_arrow(read_table(each, Path(tables) / f"{name}.parquet")) for name, each in TABLES.items()}
    listed = []
    for toy, figure, heading, chart in figures(frames):
        about = {"toy": toy, "figure": figure}
        listed.append(saved(chart, Path(output) / f"{toy}.{figure}", about, heading, formats))
        progress(f"toys: {toy}, {figure}: {', '.join(listed[-1]['files'])}")
    write_index(output, "toys", "Toys", listed, "draw_toys")


def figures(frames: dict[str, pl.DataFrame]) -> Iterator[tuple[str, str, Heading, alt.ConcatChart]]:
    """Toy, figure, heading and chart of each figure; `frames`: by the table's name."""
    for kind in KINDS:
        tables = [frames[f"toy_{name}"] for name in kind.tables]
        heading = kind.heading(*tables)
        yield kind.toy, kind.figure, heading, kind.chart(*tables, heading)
