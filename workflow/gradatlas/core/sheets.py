"""Tab-separated sheets of config/: rows typed and completed by a schema."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gradatlas.core.errors import InputError
from gradatlas.core.schemas import checked, meaning_of, schema_of

Row = dict[str, Any]


def read_sheet(path: Path, kind: Any, key: str | None) -> dict[Any, Row]:
    """The rows of a sheet by `key` (None: by line number), each checked against the dataclass `kind`.

    A cell is text; the schema says what it becomes (a number, true or false, a list separated by spaces). An empty
    cell takes the default. Raises `InputError` naming file, line and column.
    """
    try:
        # Editors write a byte order mark; only the ends of lines end a row.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    schema = schema_of(kind)
    lists = {name for name, part in schema["properties"].items() if part.get("type") == "array"}
    table = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    header = next(table, [])
    for column in schema["required"]:
        if column not in header:
            meaning = meaning_of(schema_of(kind, described=True), column)
            raise InputError(f"{path}, line 1: column '{column}' is missing: {meaning}")
    rows: dict[Any, Row] = {}
    for number, cells in enumerate(table, start=2):
        if not any(cells) or cells[0].startswith("#"):
            continue
        where = f"{path}, line {number}"
        if len(cells) != len(header):
            raise InputError(f"{where}: {len(cells)} cells, but {len(header)} columns; cells are separated by tabs")
        texts = {column: cell for column, cell in zip(header, cells, strict=True) if cell}
        row = checked({name: cell.split() if name in lists else cell for name, cell in texts.items()}, kind, where)
        name = row[key] if key else number
        if name in rows:
            raise InputError(f"{where}: '{name}' is in an earlier line too; give every row its own name")
        rows[name] = row
    return rows


def check_case(names: Iterable[str], where: str) -> None:
    """`InputError` for two keys that differ in case alone: where a disk ignores case, their files would be one."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise InputError(
                f"{where}: '{other}' and '{name}' differ in case alone, and some disks do not distinguish their files; "
                "rename one"
            )
