"""The toys' figures: a softmax squeezed, a classifier's influence, the clipped objective. Tables in, charts out."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import polars as pl

from workflow.lib.command import progress
from workflow.lib.figures.listing import saved, write_index
from workflow.lib.figures.toys import clip, influence, squeeze
from workflow.lib.tables import SCHEMAS, read_table


def draw(tables: str | Path, output: str | Path, formats: Sequence[str]) -> None:
    """Draw all toys whose tables (``toy_*.parquet``) stand in the folder `tables` into the folder `output`.

    Files are ``{toy}.{figure}.{format}``; ``index.json`` lists them: dataset and dataset_title, and by figure toy,
    figure, title, subtitle (lines), files (by format), width and height (of the SVG, where drawn).
    `InputError` where a table is missing or of another kind.
    """
    names = [name for name in SCHEMAS if name.startswith("toy_")]
    frames = {name: pl.from_arrow(read_table(name, Path(tables) / f"{name}.parquet")) for name in names}
    listed = []
    for toy, figure, heading, chart in figures(frames):
        about = {"toy": toy, "figure": figure}
        listed.append(saved(chart(heading), Path(output) / f"{toy}.{figure}", about, heading, formats))
        progress(f"toys: {toy}, {figure}: {', '.join(listed[-1]['files'])}")
    write_index(output, "toys", "Toys", listed, "draw_toys")


def figures(frames: dict[str, pl.DataFrame]) -> Iterator[tuple]:
    """Toy, figure, heading, and the chart as a function of the heading."""
    labels, cases, sweeps = (frames[f"toy_squeeze{part}"] for part in ("", "_cases", "_sweeps"))
    yield "squeeze", "steps", squeeze.heading_of_cases(cases), partial(squeeze.step_plots, labels, cases)
    yield "squeeze", "sweeps", squeeze.heading_of_sweeps(sweeps), partial(squeeze.sweep_curves, sweeps)
    predictions, kernels, steps, changes = (
        frames[f"toy_{name}"] for name in ("predictions", "kernels", "steps", "changes")
    )
    yield (
        "influence",
        "confusion",
        influence.heading_of_confusion(predictions, kernels),
        partial(influence.heat_maps, predictions, kernels),
    )
    yield "influence", "ranks", influence.heading_of_ranks(kernels), partial(influence.rank_curves, kernels)
    yield (
        "influence",
        "change",
        influence.heading_of_change(predictions, changes),
        partial(influence.change_bars, predictions, changes),
    )
    yield (
        "influence",
        "prediction",
        influence.heading_of_prediction(steps),
        partial(influence.prediction_scatter, steps),
    )
    yield "clip", "steps", clip.heading_of_clip(frames["toy_clip"]), partial(clip.clip_curves, frames["toy_clip"])
