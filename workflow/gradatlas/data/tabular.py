"""Rows of a file, and of a hub dataset through the `datasets` library."""

import glob
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gradatlas.core.checked import check_parquet, parquet_writer
from gradatlas.core.errors import InputError
from gradatlas.core.files import write_text
from gradatlas.core.hub import hub
from gradatlas.data.formats import READERS, Row, arrow_rows, format_of

#: Splits that are the whole file.
WHOLE = ("train", "all")
_BATCH = 1000  # rows of a `datasets` folder at a time


def read_rows(path: str | Path, split: str = "") -> Iterator[Row]:
    """The rows in the `split` (``train[:500]``) of a file (JSON, JSON Lines, CSV, Parquet) or `datasets` folder.

    A file is one split, ``train``, with slices as in the `datasets` library, also in percent. An empty `split` is all
    of a file, and of a folder with several splits ``train``. Raises `InputError` with the file, and the row if there is
    one (`gradatlas.data.formats`), for a file that is missing, of another format, empty or not readable, and for a
    split without a row.
    """
    path = Path(path)
    if path.is_dir():
        splits = _splits(path)
        name = split or chosen_split(splits, str(path))
        for part, start, stop in _slices(path, name, {each: len(rows) for each, rows in splits.items()}):
            rows = splits[part].select(range(start, stop)).with_format("arrow")
            yield from arrow_rows(rows.iter(_BATCH), path, "a dataset")
        return
    if not format_of(path):
        known = ", ".join(READERS)
        raise InputError(f"{path}: unknown format '{path.suffix}'; give one of {known}, text files also .gz or .zst")
    if not path.is_file():
        raise InputError(f"{path}: no such file; give an existing path")
    if format_of(path) == ".parquet":
        check_parquet(path, "fetch_dataset, or fetch_pairs for pairs", own=False)
    rows = READERS[format_of(path)]
    if split in ("", *WHOLE):
        found = False
        for row in rows(path):
            found = True
            yield row
        if not found:
            raise InputError(f"{path}: holds no rows; give at least one")
        return
    # All rows are counted, as a slice may count from the end or in percent.
    length = sum(1 for _ in rows(path))
    for _, start, stop in _slices(path, split, {"train": length}):
        yield from islice(rows(path), start, stop)


def _splits(folder: Path) -> dict[str, Any]:
    """The datasets of a folder that `datasets.save_to_disk` wrote, by split; the only one is called ``train``."""
    import datasets

    if not any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
        raise InputError(f"{folder}: not a dataset; give a file, or a folder that datasets.save_to_disk wrote")
    try:
        found = datasets.load_from_disk(str(folder.resolve()))
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{folder}: cannot be read as a dataset ({_line(error)}); write it again") from None
    return dict(found) if isinstance(found, datasets.DatasetDict) else {"train": found}


def chosen_split(splits: Collection[str], where: str) -> str:
    """The split taken where none is named: ``train``, or the only one; `InputError` where there is neither."""
    if "train" in splits or len(splits) == 1:
        return "train" if "train" in splits else next(iter(splits))
    raise InputError(f"{where}: has the splits {', '.join(splits)}; name one of them as 'split'")


def _slices(path: Path, split: str, lengths: Mapping[str, int]) -> list[tuple[str, int, int]]:
    """The slices (split, first row, row after the last) in `split`, of splits of these `lengths`."""
    from datasets import ReadInstruction

    try:
        pieces = ReadInstruction.from_spec(split).to_absolute(lengths)
    except (ValueError, AssertionError) as error:
        raise InputError(f"{path}: split '{split}' cannot be used ({_line(error)}); change 'split'") from None
    found = [(piece.splitname, piece.from_, max(piece.from_, piece.to)) for piece in pieces]
    if not any(stop > start for _, start, stop in found):
        length = sum(lengths[piece.splitname] for piece in pieces)
        raise InputError(f"{path}: split '{split}' has none of its {length} rows; change 'split'")
    return found


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

    With a `mirror`, a folder with ``datasets/ORG/NAME``, the rows come from there. `where`: the file or key that names
    the dataset, for messages; default: its mapping. `folder`: of a dataset with parts in folders. An empty `split` is
    ``train``, or the only one. Raises `InputError` for a missing revision, an unknown dataset, configuration or split,
    and where the hub does not answer.
    """
    named_in = where or f"config/mappings/{dataset}.yaml"
    local = Path(mirror).expanduser() / "datasets" / source if mirror else None
    if local and not local.is_dir():
        raise InputError(f"{dataset}: no folder {local} in the mirror; put a copy of the dataset {source} there")
    if local and glob.has_magic(str(local.resolve())):
        raise InputError(
            f"{dataset}: the datasets library reads the path {local.resolve()} as a pattern; give a mirror without [, "
            "* and ? in its path"
        )
    if not local and not revision:
        raise InputError(
            f"{dataset}: {source} has no revision; "
            + (
                f"give the commit's hash in {where}"
                if where
                else f"run gradatlas pin --mapping config/mappings/{dataset}.yaml on a machine with a network"
            )
        )
    place, at = (str(local), {}) if local else (source, {"revision": revision})
    with quiet_datasets() as datasets, tempfile.TemporaryDirectory() as cache:
        from httpx2 import HTTPError
        from huggingface_hub.errors import HfHubHTTPError

        try:
            table = datasets.load_dataset(
                place, name or None, split=split or None, data_dir=folder or None, cache_dir=cache, **at
            )
        except datasets.exceptions.DatasetNotFoundError:
            raise InputError(
                f"{dataset}: the hub shows no {source} at {revision}; check source and revision in "
                f"{named_in}, or, if it is gated, accept its licence and set HF_TOKEN"
            ) from None
        except (ValueError, datasets.exceptions.DatasetsError) as error:
            raise InputError(f"{dataset}: {source}: {_line(error)}; fix {named_in}") from None
        except (ConnectionError, HTTPError, HfHubHTTPError, OSError) as error:
            raise InputError(
                f"{dataset}: {source} cannot be fetched from the hub ({_line(error)}); check the network, or put a "
                f"copy into FOLDER/datasets/{source} and give --config mirror=FOLDER"
            ) from None
        if not split:
            table = table[chosen_split(table, f"{dataset}: {source}")]
        # Written by the library, which embeds images, then copied to a file with a checksum.
        plain = Path(cache) / "rows.parquet"
        table.to_parquet(plain)
        with pq.ParquetFile(plain) as rows, parquet_writer(output, rows.schema_arrow) as writer:
            for batch in rows.iter_batches():
                writer.write_batch(batch)


def pin_mapping(path: str | Path) -> str | None:
    """Fill the empty `revision` of a mapping's hub dataset with its current commit; None where it has a revision.

    The rest of the file does not change. Raises `InputError` for a file without a ``source`` or a line
    ``revision: ""``, and where the hub does not answer; then nothing is written.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a mapping, such as config/mappings/DATASET.yaml")
    # Keeps line ends and a byte order mark.
    text = path.read_bytes().decode("utf-8")
    source = re.search(r"^\ufeff?source:\s*[\"']?([^\s\"'#]+)", text, re.MULTILINE)
    if re.search(r"^revision:\s*[\"']?[0-9a-f]{40}", text, re.MULTILINE):
        return None
    empty = re.search(r"^revision:[ \t]*(?:\"\"|'')?[ \t]*(?=\r?$)", text, re.MULTILINE)
    if not source or not empty:
        raise InputError(f'{path}: has no source, or no line revision: ""; add both')
    fixes = {"source_fix": "check 'source'", "revision_fix": "check 'source'", "offline_fix": "try again"}
    with hub(str(path), source[1], kind="dataset", **fixes) as library:
        commit = library.HfApi().dataset_info(source[1], timeout=30).sha
    write_text(path, f"{text[: empty.start()]}revision: {commit}{text[empty.end() :]}")
    return commit


@contextmanager
def quiet_datasets() -> Iterator[Any]:
    """The `datasets` library, imported late, without log lines and progress bars."""
    import datasets

    datasets.disable_progress_bars()
    # Errors are raised, too.
    datasets.utils.logging.set_verbosity(datasets.utils.logging.CRITICAL)
    yield datasets


def _line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
