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
    from gradatlas.core.tables import write_table
    from gradatlas.toys import squeeze
    from gradatlas.toys.tables import TOY_SQUEEZE, TOY_SQUEEZE_CASES, TOY_SQUEEZE_SWEEPS

    cases = squeeze.cases()
    facts = {"seed": squeeze.SEED, "generator": "numpy legacy"}
    labels = [row for case in cases for row in squeeze.label_rows(case)]
    write_table(TOY_SQUEEZE, labels, output / "toy_squeeze.parquet", facts)
    write_table(TOY_SQUEEZE_CASES, [*map(squeeze.case_row, cases)], output / "toy_squeeze_cases.parquet", facts)
    sweeps = list(squeeze.sweep_rows(settings.draws, settings.seed))
    write_table(TOY_SQUEEZE_SWEEPS, sweeps, output / "toy_squeeze_sweeps.parquet", {"seed": settings.seed})


def train_classifier(*, images: str, output: Path, settings: ImageSettings) -> None:
    """Train an image classifier, and measure its kernels and single steps along training.

    Parameters
    ----------
    images
        digits (those of scikit-learn), a Parquet file, or a folder with one folder per class
    output
        folder for toy_predictions, toy_kernels, toy_steps, toy_changes, toy_phases and toy_norms (.parquet)
    """
    import torch

    from gradatlas.core.tables import write_table
    from gradatlas.toys.images import read_images
    from gradatlas.toys.influence import track_training
    from gradatlas.toys.tables import IMAGES

    torch.set_num_threads(1)
    read = read_images(images, settings.image, settings.label)
    facts = {"images": images, "n": len(read.labels), "seed": settings.seed, "rate": settings.rate}
    for name, rows in track_training(read, settings.seed, settings.rate).items():
        write_table(IMAGES[name], rows, output / f"{name}.parquet", facts)


def clip_objective(*, output: Path) -> None:
    """Push one label of a softmax down by DPO's rejected side and by the clipped objective of PPO and GRPO.

    Parameters
    ----------
    output
        table to write (.parquet)
    """
    from gradatlas.core.tables import write_table
    from gradatlas.toys import clip
    from gradatlas.toys.tables import TOY_CLIP

    facts = {"epsilon": clip.EPSILON, "beta": clip.BETA, "size": clip.SIZE, "renewal": clip.RENEWAL}
    write_table(TOY_CLIP, list(clip.rows()), output, facts)


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
