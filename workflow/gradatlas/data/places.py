"""Paths of released statistics, and their files in a folder or a dataset of the hub."""

from collections.abc import Iterable
from pathlib import Path

from gradatlas.core.errors import InputError
from gradatlas.core.hub import hub

#: Path of a released file in its folder; `model` is the study's name of the model's folder.
LAYOUT = "grads_exp/{task}/{model}/grads_{data}.jsonl"


def released_path(source_path: str, model: str) -> str:
    """The released file for the data file `source_path` (``cot_500/gsm8k_train_no_cot.json``) and a model's folder."""
    path = Path(source_path)
    return LAYOUT.format(task=path.parent.as_posix(), model=model, data=path.stem)


def find_released(source: str, revision: str, path: str, cache: str | Path) -> str:
    """The local path of the file `path` (``grads_exp/...``) in the folder or hub dataset `source`.

    In a folder, the first part of `path` may be missing. Hub files are kept in `cache`. Raises `InputError` for a
    missing file or revision, and where the hub does not answer.
    """
    if source.startswith((".", "/", "~")) or Path(source).is_dir():
        folder = Path(source).expanduser()
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; fix config key released.source")
        if found := local_files(source, [path]):
            return found[0]
        raise InputError(f"{folder / path}: no such file; add it, or choose other models, datasets or relations")
    if not revision:
        raise InputError(f"{source}: no revision is given; put the commit into config key released.revision")
    return _download(source, revision, path, cache)


def local_files(source: str, paths: Iterable[str]) -> list[str]:
    """The existing files among `paths` (``grads_exp/...``) in the folder `source`; none for a hub dataset."""
    folder = Path(source).expanduser()
    candidates = ((folder / path, folder / path.partition("/")[2]) for path in paths)
    return [str(file) for each in candidates if (file := next(filter(Path.is_file, each), None))]


def _download(source: str, revision: str, path: str, cache: str | Path) -> str:
    fixes = {
        "source_fix": "fix config key released.source",
        "revision_fix": "fix config key released.revision",
        "offline_fix": "give a folder as config key released.source",
    }
    with hub(path, source, revision, kind="dataset", **fixes) as library:
        folder = Path(cache) / source / revision
        try:
            return library.hf_hub_download(source, path, repo_type="dataset", revision=revision, local_dir=folder)
        except library.errors.RemoteEntryNotFoundError:
            raise InputError(
                f"{source} at {revision}: has no file {path}; choose other models, datasets or relations"
            ) from None
