"""The job of the scores, and the jobs of a trainer's run."""

from pathlib import Path

from gradatlas.core.jobs import Options
from gradatlas.scores.settings import Settings
from gradatlas.study.settings import Format

DEFAULTS = Settings()


def score(
    *,
    model: str,
    revision: str = "",
    adapter: str = "",
    adapter_revision: str = "",
    gpus: int = 1,
    model_name: str = "",
    data: str,
    data_revision: str = "",
    output: Path,
    title: str = "",
    select: str = "",
    by: str = "outlier",
    threads: int | None = None,
    settings: Options[Settings] = DEFAULTS,
) -> None:
    """Score every sample of a training file on a model: losses, gradient spectra, outliers, and a page that shows them.

    Killed runs continue with their finished parts. Nothing here shows that training on a selection is better.

    Parameters
    ----------
    model
        model folder, the card that fetch-model wrote (.json), or a hub id ORG/NAME with a revision
    revision
        commit hash of a hub id
    adapter
        PEFT adapter of the model: a folder, or a hub id ORG/NAME with a revision
    adapter_revision
        commit hash of a hub adapter
    gpus
        GPUs that hold the model's layers together, where one is too small
    model_name
        the model's name in the tables; default: its folder's name
    data
        training file (.json, .jsonl, .csv, .parquet, also .gz and .zst), a folder that `datasets` saved, or a hub
        dataset ORG/NAME with a --data-revision
    data_revision
        commit hash of a hub dataset
    output
        folder to write: scores.parquet, scores.csv, layers.parquet, scores.html, measured/
    title
        the page's title; default: the names of data and model
    select
        also write some rows to selected.jsonl and selected/: top:K, bottom:K, quantile:LOW:HIGH or balanced:K (of each
        group)
    by
        the number that --select goes by: of the scores, or a column of the file (data.NAME beside a score of this name)
    threads
        CPU threads of the pass; default: PyTorch's choice
    """
    from gradatlas.core.device import lease
    from gradatlas.core.errors import InputError
    from gradatlas.core.files import check_writable

    if threads is not None and threads < 1:
        raise InputError(f"--threads is {threads}; give at least 1")
    check_writable("--output", output / "scores.parquet")
    with lease(settings.device, gpus):
        import torch

        from gradatlas.api.scoring import score_data

        if threads:
            torch.set_num_threads(threads)
        score_data(
            model,
            data,
            output,
            settings,
            revision=revision,
            adapter=adapter,
            adapter_revision=adapter_revision,
            gpus=gpus,
            data_revision=data_revision,
            model_name=model_name,
            title=title,
            select=select,
            by=by,
        )


def watch(folder: Path, *, formats: tuple[Format, ...] = ("vl.json", "svg", "png")) -> None:
    """Draw layer curves, log-probabilities and their budget that callbacks have written during a training, by step.

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
