"""Training files whose samples are scored: rows of config/scored.tsv, or written out in config key `datasets`."""

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from gradatlas.core.errors import InputError, nearest
from gradatlas.core.schemas import checked
from gradatlas.core.sheets import Row, check_case, read_sheet
from gradatlas.study.mappings import FORMATS, check_path, check_place
from gradatlas.study.settings import Prompting
from gradatlas.study.sheets import ScoredRow
from gradatlas.study.sources import is_hub_id

#: Of files, which a name of the hub does not end with.
SUFFIXES = (*FORMATS, ".gz", ".zst")
#: As a source: graded data that the workflow makes.
GRADED = "graded"


def read_scored(config: Mapping[str, Any], root: Path) -> dict[str, Row]:
    """The training files to score, by name. What an entry does not state of `Prompting` comes from the config.

    Raises `InputError` for an unknown key, a source that is not here, and a name that occurs twice.
    """
    shared = {field.name: config[field.name] for field in fields(Prompting) if field.name in config}
    sheet = read_sheet(root / "config/scored.tsv", ScoredRow, "dataset")
    rows: dict[str, Row] = {}
    for entry in config["datasets"]:
        if isinstance(entry, Mapping):
            row = checked({**shared, **entry}, ScoredRow, "config key 'datasets'")
            where = f"config key 'datasets', '{row['dataset']}'"
        elif entry in sheet:
            row, where = sheet[entry] | shared, f"config/scored.tsv, '{entry}'"
        else:
            continue
        if row["dataset"] in rows or (row["dataset"] != entry and row["dataset"] in config["datasets"]):
            raise InputError(f"{where}: this name occurs twice; give every dataset its own")
        row["source"] = os.path.expanduser(row["source"])
        check_path(row["source"], f"{where}: 'source'")
        _check_source(row, where)
        rows[row["dataset"]] = row
    check_case([*rows, *filter(lambda entry: isinstance(entry, str), config["datasets"])], "config key 'datasets'")
    return rows


def _check_source(row: Row, where: str) -> None:
    source = Path(row["source"])
    if row["source"] == GRADED:
        return
    if bool(row["url"]) != bool(row["sha256"]):
        raise InputError(f"{where}: a url needs the file's sha256, and a sha256 needs a url; give both or none")
    if row["url"]:
        check_place(row["url"], f"{where}: 'url'")
    elif is_fetched(row):
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
    # A file that is missing in a folder that is here is a mistake in the file's name.
    named = is_hub_id(row["source"]) and not source.exists() and not source.parent.is_dir()
    return named and source.suffix.lower() not in SUFFIXES
