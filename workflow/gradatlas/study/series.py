"""Training series: a row of config/models.tsv with several revisions is a model at each of them."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradatlas.core.errors import InputError
from gradatlas.core.schemas import checked
from gradatlas.study.settings import Key
from gradatlas.study.sources import is_hub_id

Row = dict[str, Any]


def expand_series(models: Mapping[str, Row]) -> tuple[dict[str, Row], dict[str, list[str]]]:
    """The rows by key, each of several revisions a model of its own, NAME_LABEL; and by a series' name its keys.

    A label is what comes before ``=`` in `revision`, or else the first seven digits of the commit. Where a series is
    its own partner, each later checkpoint has the first as its partner. Raises `InputError` for several revisions of
    what is no hub model, and for a key that is there twice.
    """
    found: dict[str, Row] = {}
    series: dict[str, list[str]] = {}
    for name, row in models.items():
        entries = [entry.rpartition("=") for entry in row["revision"].split()]
        parts = [row]
        if len(entries) > 1 or any(label for label, _, _ in entries):
            if not is_hub_id(row["source"]):
                raise InputError(
                    f"config/models.tsv, '{name}': source '{row['source']}' is no hub model, and has no revisions; "
                    "give each checkpoint a row of its own"
                )
            parts = [_at(row, label or commit[:7], commit) for label, _, commit in entries]
            series[name] = [part["model"] for part in parts]
            if row["partner"] == name:
                parts = [part | {"partner": parts[0]["model"] if place else ""} for place, part in enumerate(parts)]
        for part in parts:
            checked(part["model"], Key, f"config/models.tsv, '{name}': the model of this revision")
            if part["model"] in found:
                raise InputError(
                    f"config/models.tsv, '{name}': another model is named '{part['model']}'; give other labels in "
                    "column revision, LABEL=COMMIT"
                )
            found[part["model"]] = part
    return found, series


def _at(row: Row, label: str, commit: str) -> Row:
    """A row at one of its revisions. Its folder among released statistics is that of its new name."""
    key, title = f"{row['model']}_{label}", f"{row['title'] or row['model']} ({label})"
    return {**row, "model": key, "title": title, "revision": commit, "released": ""}


def check_mirror(mirror: str, models: Mapping[str, Row]) -> None:
    """`InputError` where a folder that mirrors the hub lacks one of a model's several revisions.

    Its one folder ORG/NAME cannot stand for them all.
    """
    folder = Path(mirror).expanduser() / "models"
    if not mirror or not folder.is_dir():
        return
    revisions = defaultdict(set)
    for row in models.values():
        revisions[row["source"]].add(row["revision"])
    for name, row in models.items():
        place = folder / row["source"] / row["revision"]
        if is_hub_id(row["source"]) and len(revisions[row["source"]]) > 1 and not place.is_dir():
            raise InputError(
                f"config key 'mirror': no folder {place}, and '{name}' is one of several revisions of "
                f"{row['source']}; put its snapshot there"
            )
