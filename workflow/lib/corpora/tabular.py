"""Rows of a file or of a hub dataset, through the `datasets` library."""

import codecs
import csv
import io
import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from workflow.lib.checked import check_parquet, parquet_writer
from workflow.lib.errors import InputError
from workflow.lib.files import write_text

# How the library calls a file's format.
FORMATS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}


def read_rows(path: str | Path, split: str) -> list[dict[str, Any]]:
    """The rows of a JSON, JSON Lines, CSV or Parquet file, cut by `split` (``train[:500]``).

    Raises `InputError` naming the file where it is missing, of another kind, not UTF-8, or not readable.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"{path}: its kind '{path.suffix}' is not known; give one of {', '.join(FORMATS)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if suffix == ".parquet":
        check_parquet(path, "fetch_dataset, or fetch_pairs for pairs", own=False)
    options: dict[str, Any] = {}
    if suffix != ".parquet":
        try:
            # Spreadsheets write a byte order mark before the first character.
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None
        if not text.strip():
            raise InputError(f"{path}: the file is empty; at least one row is needed")
        _check_list(path, text)
        options = {"keep_default_na": False} if suffix == ".csv" else {}
        columns = _csv_columns(path, text) if suffix == ".csv" else []
    with quiet_datasets() as datasets, tempfile.TemporaryDirectory() as cache:
        try:
            if suffix == ".csv":
                # All is text: an answer "007" stays one, and "NA" is an answer.
                options["features"] = datasets.Features(dict.fromkeys(columns, datasets.Value("string")))
            table = datasets.load_dataset(
                FORMATS[suffix],
                data_files=str(_without_mark(path, cache)),
                split=split,
                cache_dir=cache,
                keep_in_memory=True,
                **options,
            )
        except (ValueError, datasets.exceptions.DatasetsError) as error:
            cause = error.__cause__ or error
            raise InputError(
                f"{path}: cannot be read as {suffix[1:]}, split '{split}' ({_line(cause)}); mend the file or the "
                "mapping's split"
            ) from None
        return table.to_list()


def _without_mark(path: Path, folder: str) -> Path:
    """The file, or a copy of it without its byte order mark, which the library would read as text."""
    with open(path, "rb") as file:
        if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            return path
        content = file.read()
    plain = Path(folder) / f"plain{path.suffix.lower()}"
    plain.write_bytes(content)
    return plain


def _check_list(path: Path, text: str) -> None:
    """The library takes a lone object for one row: say what is wrong with the file instead."""
    if path.suffix.lower() == ".json" and not text.lstrip().startswith("["):
        try:
            found = json.loads(text)
        except json.JSONDecodeError:
            # Lines of objects, or damaged: the library's to read or to refuse.
            return
        raise InputError(f"{path}: holds a JSON {type(found).__name__}; a list of objects is needed")


def _csv_columns(path: Path, text: str) -> list[str]:
    """The header; a row of another length would be read as something else without a word."""
    rows = csv.reader(io.StringIO(text, newline=""))
    columns = next(rows)
    for row in rows:
        if row and len(row) != len(columns):
            raise InputError(
                f"{path}, line {rows.line_num}: {len(row)} cells, but {len(columns)} columns; quote cells with commas"
            )
    return columns


def fetch_rows(
    dataset: str,
    source: str,
    name: str,
    revision: str,
    split: str,
    output: str | Path,
    mirror: str = "",
    where: str = "",
    folder: str = "",
) -> None:
    """Write the rows of the hub dataset `source` (ORG/NAME), at the commit `revision`, as Parquet.

    With a `mirror`, a folder that holds ``datasets/ORG/NAME``, the rows come from there. `where`: what asks for them,
    in messages; the dataset's mapping without it. `folder`: of a dataset that keeps its parts in folders. Raises
    `InputError` for an unresolved revision, an unknown dataset, configuration or split, and for a hub that gives no
    answer.
    """
    asked = where or f"config/mappings/{dataset}.yaml"
    local = Path(mirror).expanduser() / "datasets" / source if mirror else None
    if local and not local.is_dir():
        raise InputError(f"{dataset}: no folder {local} in the mirror; put a copy of the dataset {source} there")
    if not local and not revision:
        raise InputError(
            f"{dataset}: the revision of {source} is unresolved; "
            + (
                f"give the commit's hash in {where}"
                if where
                else f"run python -m workflow.scripts.pin --mapping config/mappings/{dataset}.yaml on a machine with a "
                "network"
            )
        )
    place, at = (str(local), {}) if local else (source, {"revision": revision})
    with quiet_datasets() as datasets, tempfile.TemporaryDirectory() as cache:
        from httpx2 import HTTPError
        from huggingface_hub.errors import HfHubHTTPError

        try:
            table = datasets.load_dataset(
                place, name or None, split=split, data_dir=folder or None, cache_dir=cache, **at
            )
        except datasets.exceptions.DatasetNotFoundError:
            raise InputError(
                f"{dataset}: the hub shows no {source} at {revision}; check source and revision in "
                f"{asked}, or, if it is gated, accept its licence and set HF_TOKEN"
            ) from None
        except (ValueError, datasets.exceptions.DatasetsError) as error:
            raise InputError(f"{dataset}: {source}: {_line(error)}; mend {asked}") from None
        except (ConnectionError, HTTPError, HfHubHTTPError, OSError) as error:
            raise InputError(
                f"{dataset}: {source} cannot be had from the hub ({_line(error)}); check the network, or put a copy "
                f"into FOLDER/datasets/{source} and give --config mirror=FOLDER"
            ) from None
        # The library's way of writing embeds images, but knows no checksum.
        written = Path(cache) / "rows.parquet"
        table.to_parquet(written)
        with pq.ParquetFile(written) as rows, parquet_writer(output, rows.schema_arrow) as writer:
            for batch in rows.iter_batches():
                writer.write_batch(batch)


def pin_mapping(path: str | Path) -> str | None:
    """Fill the empty `revision` of a mapping's hub dataset with its current commit; None where it has one.

    All other text of the file stays. Raises `InputError` for a file without ``revision: ""`` on a line of its own
    and a ``source``, and for a hub that gives no answer: then nothing is written.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a mapping, such as config/mappings/DATASET.yaml")
    text = path.read_text(encoding="utf-8")
    source = re.search(r"^source:\s*[\"']?([^\s\"'#]+)", text, re.MULTILINE)
    if re.search(r"^revision:\s*[\"']?[0-9a-f]{40}", text, re.MULTILINE):
        return None
    empty = re.search(r"^revision:[ \t]*(?:\"\"|'')?[ \t]*$", text, re.MULTILINE)
    if not source or not empty:
        raise InputError(f'{path}: has no source, or no line revision: ""; write both')
    from httpx2 import HTTPError
    from huggingface_hub import HfApi, errors

    try:
        commit = HfApi().dataset_info(source[1], timeout=30).sha
    except errors.RepositoryNotFoundError:
        raise InputError(f"{path}: the hub shows no dataset {source[1]}; check 'source'") from None
    except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled, HTTPError) as error:
        raise InputError(
            f"{path}: no answer from the hub for {source[1]} ({type(error).__name__}); try again"
        ) from None
    write_text(path, f"{text[: empty.start()]}revision: {commit}{text[empty.end() :]}")
    return commit


@contextmanager
def quiet_datasets() -> Iterator[Any]:
    """The library, imported late, without bars in a log file."""
    import datasets

    datasets.disable_progress_bars()
    # What it says of an error is in the error.
    datasets.utils.logging.set_verbosity(datasets.utils.logging.CRITICAL)
    yield datasets


def _line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
