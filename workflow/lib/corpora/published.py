"""Reader of the study's published files: a JSON list of {instruction, input, output}."""

import json
from dataclasses import dataclass
from pathlib import Path

from workflow.lib.errors import InputError


@dataclass(frozen=True)
class Entry:
    """One prompt and response of a file."""

    instruction: str
    response: str


def read_entries(path: str | Path) -> list[Entry]:
    """Read a list of entries; a non-empty `input` follows the instruction on a line of its own.

    Raises `InputError` naming the file, the row (0-based) and the key, for a file that is missing, empty, not
    UTF-8, not JSON, not a list, or holds an entry without a text under `instruction` or `output`.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None
    if not text.strip():
        raise InputError(f"{path}: the file is empty; delete it and fetch it again")
    try:
        entries = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not JSON at line {error.lineno}: {error.msg}") from None
    if not isinstance(entries, list):
        raise InputError(
            f"{path}: holds a JSON {type(entries).__name__}; a list of {{instruction, input, output}} is needed"
        )
    if not entries:
        raise InputError(f"{path}: the list has no entries; at least one sample is needed")
    return [_entry(path, row, entry) for row, entry in enumerate(entries)]


def _entry(path: Path, row: int, entry: object) -> Entry:
    if not isinstance(entry, dict):
        raise InputError(f"{path}, row {row}: not an object with the keys instruction, input and output")
    for key in ("instruction", "output"):
        if not isinstance(entry.get(key), str) or not entry[key]:
            state = "is missing" if key not in entry else "is not a text, or empty"
            raise InputError(f"{path}, row {row}: '{key}' {state}; give every entry an instruction and an output")
    extra = entry.get("input", "")
    if not isinstance(extra, str):
        raise InputError(f"{path}, row {row}: 'input' is not a text; give a string, empty if there is none")
    instruction = f"{entry['instruction']}\n{extra}" if extra else entry["instruction"]
    return Entry(instruction, entry["output"])
