"""Where a released file of statistics is: its path, in a folder or in a dataset of the hub."""

import sys
from collections.abc import Iterable
from pathlib import Path

from gradatlas.core.errors import InputError

#: Where a released file stands below its folder, and how the study named its models' folders.
LAYOUT = "grads_exp/{task}/{model}/grads_{data}.jsonl"


def released_path(source_path: str, model: str) -> str:
    """The released file of the data file `source_path` (``cot_500/gsm8k_train_no_cot.json``) and a model's folder."""
    path = Path(source_path)
    return LAYOUT.format(task=path.parent.as_posix(), model=model, data=path.stem)


def find_released(place: str, revision: str, path: str, cache: str | Path) -> str:
    """The file `path` (``grads_exp/...``) of a folder, with or without its first part, or of a hub dataset.

    Hub files are kept below `cache`. Raises `InputError` for one that is not there, an unresolved revision, and a hub
    that gives no answer.
    """
    if place.startswith((".", "/", "~")) or Path(place).is_dir():
        folder = Path(place).expanduser()
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; mend config key released.source")
        for found in (folder / path, folder / path.partition("/")[2]):
            if found.is_file():
                return str(found)
        raise InputError(f"{folder / path}: no such file; add it, or choose other models, datasets or relations")
    if not revision:
        raise InputError(f"{place}: its revision is unresolved; put the commit into config key released.revision")
    return _downloaded(place, revision, path, cache)


def local_files(place: str, paths: Iterable[str]) -> list[str]:
    """Those of `paths` (``grads_exp/...``) that stand in the folder `place`; none of a hub dataset."""
    folder = Path(place).expanduser()
    found = ((folder / path, folder / path.partition("/")[2]) for path in paths)
    return [str(there) for each in found if (there := next(filter(Path.is_file, each), None))]


def _downloaded(place: str, revision: str, path: str, cache: str | Path) -> str:
    import httpx2
    from huggingface_hub import errors, hf_hub_download, utils

    utils.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        utils.disable_progress_bars()
    try:
        return hf_hub_download(
            place, path, repo_type="dataset", revision=revision, local_dir=Path(cache) / place / revision
        )
    except errors.RepositoryNotFoundError:
        raise InputError(f"{place}: the hub shows no such dataset; mend config key released.source") from None
    except errors.RevisionNotFoundError:
        raise InputError(f"{place}: has no commit {revision}; mend config key released.revision") from None
    except errors.RemoteEntryNotFoundError:
        raise InputError(
            f"{place} at {revision}: has no file {path}; choose other models, datasets or relations"
        ) from None
    except (
        errors.HfHubHTTPError,
        errors.LocalEntryNotFoundError,
        errors.OfflineModeIsEnabled,
        httpx2.HTTPError,
    ) as error:
        raise InputError(
            f"{place} at {revision}: {path} cannot be had from the hub ({type(error).__name__}); check the network, or "
            "give a folder as config key released.source"
        ) from None
