"""Reader of the study's published files, JSON lists of {instruction, input, output}."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradatlas.core.errors import InputError
from gradatlas.data.formats import json_rows
from gradatlas.data.options import OPTIONS, check_answer
from gradatlas.data.partners import check_partners
from gradatlas.data.samples import Sample

_KEYS = ("instruction", "input", "output")


@dataclass(frozen=True)
class Entry:
    """One prompt and response of a file."""

    instruction: str
    response: str


def read_entries(path: str | Path) -> list[Entry]:
    """Read a list of entries; a non-empty `input` is added to the instruction on a new line.

    Raises `InputError` with file, row (from 0) and key for a file that is missing, empty, not UTF-8, not JSON
    (`gradatlas.data.formats`) or not a list, and for an entry without a text under `instruction` or `output`, or with a
    `system` or `context`.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give an existing path")
    entries = [_entry(path, row, entry) for row, entry in enumerate(json_rows(path))]
    if not entries:
        raise InputError(f"{path}: holds no entries; give at least one")
    return entries


def _entry(path: Path, row: int, entry: Mapping[str, Any]) -> Entry:
    check_partners(entry, _KEYS, f"{path}, row {row}", "add it to the instruction, or use the reader mapped")
    for key in ("instruction", "output"):
        if not isinstance(entry.get(key), str) or not entry[key]:
            state = "is missing" if key not in entry else "is not a text, or empty"
            raise InputError(f"{path}, row {row}: '{key}' {state}; give every entry an instruction and an output")
    extra = entry.get("input", "")
    if not isinstance(extra, str):
        raise InputError(f"{path}, row {row}: 'input' is not a text; give a string, empty if there is none")
    instruction = f"{entry['instruction']}\n{extra}" if extra else entry["instruction"]
    return Entry(instruction, entry["output"])


def read_samples(
    files: Mapping[tuple[str, str], str],
    gold: tuple[str, Callable[[str], str | None]] | None,
    options: str = "",
) -> list[Sample]:
    """The samples of a dataset from its files, one per (variant, relation), with the same rows in all files.

    `gold`: (variant, function) that gives the gold answer from that variant's correct response; None without gold
    answers. `options`: a name of `OPTIONS`. Raises `InputError` where files differ in length or in an instruction, and
    where a gold answer is not among the options.
    """
    read = {key: read_entries(path) for key, path in files.items()}
    first = next(iter(files))
    for key, entries in read.items():
        if len(entries) != len(read[first]):
            raise InputError(
                f"{files[key]}: {len(entries)} rows, but {files[first]} has {len(read[first])}; give files with the "
                "same rows"
            )
        for row, (entry, other) in enumerate(zip(entries, read[first], strict=True)):
            if entry.instruction != other.instruction:
                raise InputError(
                    f"{files[key]}, row {row}: its instruction differs from that of {files[first]}; give files with "
                    "the same rows"
                )
    if gold and (gold[0], "correct") not in files:
        raise InputError(
            f"{files[first]}: the gold answers are in the correct responses of variant '{gold[0]}'; give that file too"
        )
    variants = dict.fromkeys(variant for variant, _ in files)
    samples = [
        Sample(
            sample_id=str(row),
            instructions={variant: entry.instruction for variant in variants},
            gold=gold[1](read[gold[0], "correct"][row].response) if gold else None,
            responses={key: entries[row].response for key, entries in read.items()},
            options=OPTIONS[options](entry.instruction),
        )
        for row, entry in enumerate(read[first])
    ]
    if gold and options:
        for row, sample in enumerate(samples):
            check_answer(sample, options, f"{files[gold[0], 'correct']}, row {row}: 'output'")
    return samples
