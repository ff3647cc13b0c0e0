"""Jobs for a user's own training."""

from pathlib import Path

from gradatlas.study.settings import Format


def watch(folder: Path, *, formats: tuple[Format, ...] = ("vl.json", "svg", "png")) -> None:
    """Draw the layer curves and log-probabilities that callbacks have written during a training, over its steps.

    Parameters
    ----------
    folder
        the training's output_dir, or its folder gradatlas; the figures are written beside the tables
    formats
        files of every figure
    """
    from gradatlas.api.watch import draw
    from gradatlas.core.command import progress

    for path in draw(folder, formats):
        progress(str(path))
