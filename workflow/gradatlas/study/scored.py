"""Training files whose samples are scored: entries of config key `datasets` that are written out."""

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from gradatlas.core.errors import InputError, nearest
from gradatlas.core.schemas import checked
from gradatlas.core.sheets import Row, check_case
from gradatlas.study.mappings import FORMATS, check_path
from gradatlas.study.settings import Prompting
from gradatlas.study.sheets import ScoredRow
from gradatlas.study.sources import is_hub_id

#: Of files, which a name of the hub does not end with.
SUFFIXES = (*FORMATS, ".gz", ".zst")


def is_scored(entry: Any) -> bool:
    """Whether an entry of config key `datasets` is a training file to score, not a row of datasets.tsv."""
    return isinstance(entry, Mapping)


def read_scored(config: Mapping[str, Any]) -> dict[str, Row]:
    """The training files to score, by name. What an entry does not state of `Prompting` comes from the config.

    Raises `InputError` for an unknown key, a source that is not here, and a name that occurs twice.
    """
    shared = {field.name: config[field.name] for field in fields(Prompting) if field.name in config}
    rows: dict[str, Row] = {}
    for entry in filter(is_scored, config["datasets"]):
        row = checked({**shared, **entry}, ScoredRow, "config key 'datasets'")
        where = f"config key 'datasets', '{row['dataset']}'"
        if row["dataset"] in rows or row["dataset"] in config["datasets"]:
            raise InputError(f"{where}: this name occurs twice; give every dataset its own")
        row["source"] = os.path.expanduser(row["source"])
        check_path(row["source"], f"{where}: 'source'")
        _check_source(row, where)
        rows[row["dataset"]] = row
    check_case([*rows, *(entry for entry in config["datasets"] if not is_scored(entry))], "config key 'datasets'")
    return rows


def _check_source(row: Row, where: str) -> None:
    source = Path(row["source"])
    if is_fetched(row):
        if not row["revision"]:
            raise InputError(f"{where}: '{source}' is no file here; of a hub dataset, give its 'revision' too")
    elif row["revision"]:
        raise InputError(f"{where}: 'revision' belongs to a hub dataset, and '{source}' is a file; remove it")
    elif not source.exists():
        beside = [str(path) for path in source.parent.iterdir()] if source.parent.is_dir() else []
        raise InputError(f"{where}: no file '{source}' here: {nearest(str(source), beside)}")


def is_fetched(row: Mapping[str, Any]) -> bool:
    """Whether a scored dataset comes from the hub."""
    source = Path(row["source"])
    return is_hub_id(row["source"]) and not source.exists() and source.suffix.lower() not in SUFFIXES
