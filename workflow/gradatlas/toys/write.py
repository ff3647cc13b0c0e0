"""Writing the toys' tables: one function per job."""

from pathlib import Path

from gradatlas.core.tables import write_table
from gradatlas.toys import clip, squeeze
from gradatlas.toys.tables import IMAGES, TOY_CLIP, TOY_SQUEEZE, TOY_SQUEEZE_CASES, TOY_SQUEEZE_SWEEPS


def write_squeeze(output: str | Path, draws: int, seed: int) -> None:
    """Write `toy_squeeze`, `toy_squeeze_cases` and `toy_squeeze_sweeps` (of `draws` random softmaxes) into a folder."""
    cases = squeeze.cases()
    facts = {"seed": squeeze.SEED, "generator": "numpy legacy"}
    labels = [row for case in cases for row in squeeze.label_rows(case)]
    write_table(TOY_SQUEEZE, labels, Path(output) / "toy_squeeze.parquet", facts)
    rows = [squeeze.case_row(case) for case in cases]
    write_table(TOY_SQUEEZE_CASES, rows, Path(output) / "toy_squeeze_cases.parquet", facts)
    sweeps = list(squeeze.sweep_rows(draws, seed))
    write_table(TOY_SQUEEZE_SWEEPS, sweeps, Path(output) / "toy_squeeze_sweeps.parquet", {"seed": seed})


def write_clip(output: str | Path) -> None:
    """Write the `toy_clip` table."""
    facts = {"epsilon": clip.EPSILON, "beta": clip.BETA, "size": clip.SIZE, "renewal": clip.RENEWAL}
    write_table(TOY_CLIP, list(clip.rows()), output, facts)


def write_images(source: str, image: str, label: str, seed: int, rate: float, output: str | Path) -> None:
    """Train on the images of `source` and write the four tables of `influence.track_training` into a folder.

    Raises `InputError` for images that cannot be used (`images.read_images`).
    """
    # Imported late: the other toys need no torch.
    import torch

    from gradatlas.toys.images import read_images
    from gradatlas.toys.influence import track_training

    torch.set_num_threads(1)
    images = read_images(source, image, label)
    facts = {"images": source, "n": len(images.labels), "seed": seed, "rate": rate}
    for name, rows in track_training(images, seed, rate).items():
        write_table(IMAGES[name], rows, Path(output) / f"{name}.parquet", facts)
