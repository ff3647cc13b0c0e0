"""The jobs of the toys, one per rule."""

from dataclasses import dataclass
from pathlib import Path

from gradatlas.study.settings import Learning


@dataclass(frozen=True)
class SqueezeSettings:
    """Settings of the softmax toy."""

    draws: int
    """random softmaxes of each sweep"""
    seed: int = 0
    """of the sweeps; the cases have the paper's"""


@dataclass(frozen=True)
class ImageSettings(Learning):
    """What decides the classifier's numbers."""

    seed: int = 0
    """of weights, batches and the split"""


def squeeze_softmax(*, output: Path, settings: SqueezeSettings) -> None:
    """Push one label of a softmax down, in the paper's five cases, a control, and sweeps.

    Parameters
    ----------
    output
        folder for toy_squeeze.parquet, toy_squeeze_cases.parquet and toy_squeeze_sweeps.parquet
    """
    from gradatlas.toys.write import write_squeeze

    write_squeeze(output, settings.draws, settings.seed)


def train_classifier(*, images: str, output: Path, settings: ImageSettings) -> None:
    """Train an image classifier, and measure its kernels and single steps along training.

    Parameters
    ----------
    images
        digits (those of scikit-learn), a Parquet file, or a folder with one folder per class
    output
        folder for toy_predictions, toy_kernels, toy_steps and toy_changes (.parquet)
    """
    from gradatlas.toys.write import write_images

    write_images(images, settings.image, settings.label, settings.seed, settings.rate, output)


def clip_objective(*, output: Path) -> None:
    """Push one label of a softmax down by DPO's rejected side and by the clipped objective of PPO and GRPO.

    Parameters
    ----------
    output
        table to write (.parquet)
    """
    from gradatlas.toys.write import write_clip

    write_clip(output)


def draw_toys(*, tables: Path, output: Path, formats: list[str]) -> None:
    """Draw the figures of the toys.

    Parameters
    ----------
    tables
        folder with toy_*.parquet
    output
        folder to write the figures to
    formats
        any of vl.json, svg, png, pdf
    """
    from gradatlas.toys.charts.draw import draw

    draw(tables, output, formats)
