"""Probes whose texts come from the study's own files: JSON Lines, a probed prompt and its responses a line."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradatlas.core.errors import InputError
from gradatlas.core.files import sha256_of
from gradatlas.core.tables import read_table
from gradatlas.data.formats import json_lines
from gradatlas.data.pairs import Pair
from gradatlas.data.tables import PAIRS
from gradatlas.study.probe_types import STUDY_FIELDS

#: The config keys that have the number of prompts, by split.
_KEYS = {"train": "probes", "held_out": "held_out_probes"}


def read_probe_files(
    files: Sequence[Path], sums: Sequence[str], counts: Mapping[str, int], pairs: str | Path, *, one_space: bool
) -> list[tuple[Pair, dict[str, str]]]:
    """The probed pairs in the order of the files, train and held out, each with its texts by type.

    `sums`: sha256 of the files. `counts`: prompts by split. `one_space`: every text begins with exactly one space, as
    answers do; otherwise as in the file. Raises `InputError` with file, row (from 0) and field for another sha256, a
    missing field, a value that is no text, a second row of a prompt, another number of prompts, and for a prompt, or
    its chosen response, that its split of the `pairs` does not have: these files would be of other data.
    """
    rows = read_table(PAIRS, pairs).to_pylist()
    found = []
    for (split, count), path, expected in zip(counts.items(), files, sums, strict=True):
        if (own := sha256_of(path)) != expected:
            raise InputError(f"{path}: sha256 is {own}, not {expected}; fetch the file again, or correct its sha256")
        texts = [_checked(row, f"{path}, row {number}") for number, row in enumerate(json_lines(path))]
        if len(texts) != count:
            raise InputError(
                f"{path}: has {len(texts)} prompts, not {count}; set config key dynamics.{_KEYS[split]} to {len(texts)}"
            )
        places: dict[str, int] = {}
        of_split = {(row["prompt"], row["chosen"].strip()): row for row in reversed(rows) if row["split"] == split}
        prompts = {prompt for prompt, _ in of_split}
        for number, row in enumerate(texts):
            where, prompt = f"{path}, row {number}", row["prompt"]
            if prompt in places:
                raise InputError(f"{where}: the prompt of row {places[prompt]} again; remove one of them")
            places[prompt] = number
            pair = of_split.get((prompt, row["chosen"].strip()))
            if pair is None:
                what = "chosen response" if prompt in prompts else "prompt"
                raise InputError(
                    f"{where}: its {what} is not in split '{split}' of {pairs}; take the pairs that the file was made "
                    f"from, in their order, and enough of them (dynamics.{split})"
                )
            given = {name: row[field] for name, field in STUDY_FIELDS.items()}
            found.append((pair, {name: f" {text.lstrip()}" for name, text in given.items()} if one_space else given))
    return found


def _checked(row: Mapping[str, Any], where: str) -> Mapping[str, str]:
    for name in ("prompt", *STUDY_FIELDS.values()):
        if name not in row:
            raise InputError(f"{where}: no field '{name}'; give all of the study's fields")
        if not isinstance(row[name], str):
            raise InputError(f"{where}: field '{name}' is not a text; correct it")
    return row
