"""Reader of the study's published files: a JSON list of {instruction, input, output}."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow.lib.corpora.formats import json_rows
from workflow.lib.corpora.options import OPTIONS, check_answer
from workflow.lib.corpora.partners import check_partners
from workflow.lib.corpora.samples import Sample
from workflow.lib.errors import InputError, nearest

_KEYS = ("instruction", "input", "output")


@dataclass(frozen=True)
class Entry:
    """One prompt and response of a file."""

    instruction: str
    response: str


def read_entries(path: str | Path) -> list[Entry]:
    """Read a list of entries; a non-empty `input` follows the instruction on a line of its own.

    Raises `InputError` naming the file, the row (0-based) and the key, for a file that is missing, empty, not
    UTF-8, not JSON (`workflow.lib.corpora.formats`), not a list, or holds an entry without a text under `instruction`
    or `output`, or with a `system` or `context` that would be left out.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    entries = [_entry(path, row, entry) for row, entry in enumerate(json_rows(path))]
    if not entries:
        raise InputError(f"{path}: holds no entries; at least one sample is needed")
    return entries


def _entry(path: Path, row: int, entry: Mapping[str, Any]) -> Entry:
    check_partners(entry, _KEYS, f"{path}, row {row}", "join it to the instruction, or take the reader mapped")
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
    """The samples of a dataset from its files, one per (variant, relation); rows pair by position.

    `gold`: (variant, function of that variant's correct response) giving the gold answer; None: there is none.
    `options`: a name of `OPTIONS`. Raises `InputError` where files differ in length or in an instruction, and where
    a gold answer is not among the options.
    """
    if options not in OPTIONS:
        raise InputError(f"--options '{options}' is not known: {nearest(options, filter(None, OPTIONS))}")
    read = {key: read_entries(path) for key, path in files.items()}
    first = next(iter(files))
    for key, entries in read.items():
        if len(entries) != len(read[first]):
            raise InputError(
                f"{files[key]}: {len(entries)} rows, but {files[first]} has {len(read[first])}; "
                "the files of one dataset pair row by row"
            )
        for row, (entry, other) in enumerate(zip(entries, read[first], strict=True)):
            if entry.instruction != other.instruction:
                raise InputError(
                    f"{files[key]}, row {row}: its instruction is not that of {files[first]}; "
                    "the files of one dataset pair row by row"
                )
    if gold and (gold[0], "correct") not in files:
        raise InputError(f"{files[first]}: the gold answers stand in variant '{gold[0]}', whose file is not given")
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
