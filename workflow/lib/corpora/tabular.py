"""Rows of a file or of a hub dataset, through the `datasets` library."""

import csv
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workflow.lib.errors import InputError
from workflow.lib.files import replacing

# How the library calls a file's format.
FORMATS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}


def read_rows(path: str | Path, split: str) -> list[dict[str, Any]]:
    """The rows of a JSON, JSON Lines, CSV or Parquet file, cut by `split` (``train[:500]``).

    Raises `InputError` naming the file where it is missing, of another kind, not UTF-8, or not readable.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise InputError(f"{path}: its kind '{path.suffix}' is not known; give one of {', '.join(FORMATS)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix != ".parquet":
        try:
            if not path.read_text(encoding="utf-8").strip():
                raise InputError(f"{path}: the file is empty; at least one row is needed")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None
    with _quiet() as datasets, tempfile.TemporaryDirectory() as cache:
        try:
            options = {"data_files": str(path), "split": split, "cache_dir": cache, "keep_in_memory": True}
            if path.suffix == ".csv":
                with open(path, encoding="utf-8", newline="") as file:
                    columns = next(csv.reader(file))
                # All is text: an answer "007" stays one, and "NA" is an answer.
                texts = datasets.Features(dict.fromkeys(columns, datasets.Value("string")))
                options |= {"features": texts, "keep_default_na": False}
            table = datasets.load_dataset(FORMATS[path.suffix], **options)
        except (ValueError, datasets.exceptions.DatasetsError) as error:
            cause = error.__cause__ or error
            raise InputError(
                f"{path}: cannot be read as {path.suffix[1:]}, split '{split}' ({_line(cause)}); mend the file or the "
                "mapping's split"
            ) from None
        return table.to_list()


def fetch_rows(
    dataset: str, source: str, name: str, revision: str, split: str, output: str | Path, mirror: str = ""
) -> None:
    """Write the rows of the hub dataset `source` (ORG/NAME), at the commit `revision`, as Parquet.

    With a `mirror`, a folder that holds ``datasets/ORG/NAME``, the rows come from there. Raises `InputError` for an
    unresolved revision, an unknown dataset, configuration or split, and for a hub that gives no answer.
    """
    local = Path(mirror).expanduser() / "datasets" / source if mirror else None
    if local and not local.is_dir():
        raise InputError(f"{dataset}: no folder {local} in the mirror; put a copy of the dataset {source} there")
    if not local and not revision:
        raise InputError(
            f"{dataset}: the revision of {source} is unresolved; put its commit into config/mappings/{dataset}.yaml"
        )
    place, at = (str(local), {}) if local else (source, {"revision": revision})
    with _quiet() as datasets, tempfile.TemporaryDirectory() as cache:
        from httpx2 import HTTPError
        from huggingface_hub.errors import HfHubHTTPError

        try:
            table = datasets.load_dataset(place, name or None, split=split, cache_dir=cache, **at)
        except datasets.exceptions.DatasetNotFoundError:
            raise InputError(
                f"{dataset}: the hub shows no {source} at {revision}; check source and revision in "
                f"config/mappings/{dataset}.yaml, or, if it is gated, accept its licence and set HF_TOKEN"
            ) from None
        except (ValueError, datasets.exceptions.DatasetsError) as error:
            raise InputError(f"{dataset}: {source}: {_line(error)}; mend config/mappings/{dataset}.yaml") from None
        except (ConnectionError, HTTPError, HfHubHTTPError, OSError) as error:
            raise InputError(
                f"{dataset}: {source} cannot be had from the hub ({_line(error)}); check the network, or put a copy "
                f"into FOLDER/datasets/{source} and give --config mirror=FOLDER"
            ) from None
        with replacing(output) as temporary:
            table.to_parquet(temporary)


@contextmanager
def _quiet() -> Iterator[Any]:
    """The library, imported late, without bars in a log file."""
    import datasets

    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity_error()
    yield datasets


def _line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
