"""Rows of JSON, JSON Lines, CSV and Parquet files, one after another, exactly as the file has them.

Every row is read by itself: no type of a column is guessed from other rows, and no value is turned into another.
What is no valid text or no valid value of the format is an `InputError` that names file and row (from 0).
"""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradatlas.core.checked import read_lines
from gradatlas.core.errors import InputError

Row = dict[str, Any]
_SPACE = re.compile(r"[ \t\r\n]*")
# Only an escape can bring half a character into JSON.
_ESCAPED = re.compile(r"\\u[dD]")
_HALF = re.compile("[\ud800-\udfff]")
# A cell may be longer than the parser's default of 128 KiB; the largest that every platform takes.
_LONGEST_CELL = 2**31 - 1
_BATCH = 1000  # rows of a Parquet file at a time


@dataclass(frozen=True)
class RawValue:
    """A value that is no text in its file (a number, a date), in the characters that the file has for it.

    JSON keeps its literal (``0.10``, ``1e5``); a Parquet number is the shortest text that reads as it again in its
    own precision (float32 0.1 is ``0.1``), a date is in ISO form.
    """

    text: str

    def __str__(self) -> str:
        return self.text


class _Invalid(ValueError):
    """What JSON allows no file to hold, or only readers that guess accept."""


# --- JSON -------------------------------------------------------------------------------------------------------------


def json_rows(path: str | Path, plain: bool = False) -> Iterator[Row]:
    """The objects of a JSON list, or of JSON Lines, in a file that is read whole; `plain` as for `json_lines`."""
    path = Path(path)
    text = "".join(line for _, line in _lines(path))
    at = _skip(text, 0)
    listed = text[at : at + 1] == "["
    at = _skip(text, at + 1) if listed else at
    number = 0
    while at < len(text) and not (listed and text[at] == "]"):
        row, end = _value(text, at, path, number, "", plain)
        at = _skip(text, end)
        if not listed and number == 0 and at == len(text):
            raise InputError(f"{path}: holds a JSON {type(row).__name__}; a list of objects is needed")
        yield _object(row, path, number)
        number += 1
        if listed and text[at : at + 1] == ",":
            at = _skip(text, at + 1)
            if text[at : at + 1] == "]":
                raise InputError(f"{path}, row {number}: a comma and no object after it; remove it, or add the object")
        elif listed and text[at : at + 1] != "]":
            line = text.count("\n", 0, at) + 1
            raise InputError(
                f"{path}, row {number}: not JSON at line {line}: neither ',' nor ']' after row {number - 1}; the file "
                "may be cut off, fix it"
            )
    if listed and text[at : at + 1] != "]":
        raise InputError(f"{path}, row {number}: not JSON: the list has no end; the file may be cut off, fix it")
    if listed and _skip(text, at + 1) < len(text):
        raise InputError(f"{path}, row {number}: not JSON: text after the list's end; remove it")


def json_lines(path: str | Path, plain: bool = False) -> Iterator[Row]:
    """The objects of a JSON Lines file, one a line, blank lines left out; a file that begins with ``[`` is a list.

    `plain`: of a file that this project wrote, numbers are Python's.
    """
    path = Path(path)
    number = 0
    for line_number, line in _lines(path):
        at = _skip(line, 0)
        if at == len(line):
            continue
        if number == 0 and line[at] == "[":
            yield from json_rows(path, plain)
            return
        where = f" at line {line_number}"
        row, end = _value(line, at, path, number, where, plain)
        if _skip(line, end) < len(line):
            raise InputError(f"{path}, row {number}: not JSON{where}: more than one value; write one object a line")
        yield _object(row, path, number)
        number += 1


def checked_lines(path: str | Path, rule: str, own: bool = True) -> Iterator[Row]:
    """The objects of a file that `gradatlas.core.checked.write_lines` wrote; `InputError` as by its `read_lines`."""
    read_lines(path, rule, own)
    yield from (row for row in json_lines(path, plain=True) if row.keys() != {"checksum"})


def _skip(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()


def _value(text: str, at: int, path: Path, number: int, where: str, plain: bool) -> tuple[Any, int]:
    """The JSON value that begins at `at`, and where it ends."""
    try:
        value, end = (_PLAIN if plain else _DECODER).raw_decode(text, at)
        if _ESCAPED.search(text, at, end):
            _check_whole(value)
        return value, end
    except json.JSONDecodeError as error:
        where = where or f" at line {error.lineno}"
        raise InputError(
            f"{path}, row {number}: not JSON{where}: {error.msg}; the file may be cut off or damaged, fix it"
        ) from None
    except _Invalid as error:
        raise InputError(f"{path}, row {number}: {error}") from None
    except RecursionError:
        raise InputError(f"{path}, row {number}: nested too deep; write its texts at the top of an object") from None


def _object(value: Any, path: Path, number: int) -> Row:
    if not isinstance(value, dict):
        raise InputError(f"{path}, row {number}: not an object; write every row as {{name: value, ...}}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Invalid(f"key '{twice}' is there twice; remove one")
    return row


def _refuse(constant: str) -> None:
    raise _Invalid(f"{constant} is no JSON value; write null, or a number")


def _check_whole(value: Any, key: str = "") -> None:
    """`_Invalid` where a text holds half a character, which no table and no tokenizer can hold."""
    if isinstance(value, str) and _HALF.search(value):
        place = f"'{key}'" if key and not _HALF.search(key) else "a text"
        raise _Invalid(f"{place} holds half of a character (a lone surrogate); write it whole")
    if isinstance(value, dict):
        for name, each in value.items():
            _check_whole(name, key)
            _check_whole(each, key or name)
    if isinstance(value, list):
        for each in value:
            _check_whole(each, key)


_CHECKS: dict[str, Any] = {"object_pairs_hook": _unique, "parse_constant": _refuse}
_DECODER = json.JSONDecoder(**_CHECKS, parse_int=RawValue, parse_float=RawValue)
_PLAIN = json.JSONDecoder(**_CHECKS)


# --- CSV --------------------------------------------------------------------------------------------------------------


def csv_rows(path: str | Path) -> Iterator[Row]:
    """The rows of a CSV file with a header, every cell a text; lines without a cell are left out.

    A column without a name is called ``Unnamed: 0`` by its place, as pandas does, whose index is such a column.
    """
    path = Path(path)
    csv.field_size_limit(_LONGEST_CELL)
    table = csv.reader((line for _, line in _lines(path)), strict=True)
    columns: list[str] = []
    number = -1
    try:
        for cells in table:
            if not cells:
                continue
            if number < 0:
                columns = [name or f"Unnamed: {place}" for place, name in enumerate(cells)]
                _check_columns(columns, path)
            else:
                if len(cells) != len(columns):
                    raise InputError(
                        f"{path}, row {number} (line {table.line_num}): {len(cells)} cells, but {len(columns)} "
                        "columns; put cells with commas in quotes"
                    )
                if any("\0" in cell for cell in cells):
                    raise InputError(
                        f"{path}, row {number} (line {table.line_num}): holds a NUL character; the file is damaged or "
                        "not UTF-8, save it again"
                    )
                yield dict(zip(columns, cells, strict=True))
            number += 1
    except csv.Error as error:
        raise InputError(
            f"{path}, row {max(number, 0)} (line {table.line_num}): not CSV: {error}; fix the quotes, or save the file "
            "again"
        ) from None


def _check_columns(columns: Sequence[str], path: Path) -> None:
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path}: column '{twice}' is there twice; give every column its own name")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 text, counted from 1, their ends as they are; a byte order mark is no part of the text."""
    number = 0
    with open(path, "rb") as file:
        for raw in file:
            try:
                text = raw.decode("utf-8-sig" if number == 0 else "utf-8")
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{path}, line {number + 1}: not UTF-8 at byte {error.start} of the line; save the file as UTF-8"
                ) from None
            # A carriage return alone ends a line too.
            for line in io.StringIO(text, newline=""):
                number += 1
                yield number, line


# --- Parquet ----------------------------------------------------------------------------------------------------------


def parquet_rows(path: str | Path) -> Iterator[Row]:
    """The rows of a Parquet file; a checksum that a page has is verified. NaN and infinity stay Python floats."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    number = 0
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _check_columns(file.schema_arrow.names, path)
            for batch in file.iter_batches(batch_size=_BATCH):
                columns = [_column(batch, name, path, number) for name in batch.schema.names]
                for values in zip(*columns, strict=True):
                    yield dict(zip(batch.schema.names, values, strict=True))
                number += batch.num_rows
    except (pa.ArrowException, OSError, ValueError) as error:
        cause = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise InputError(
            f"{path}, row {number} or after it: cannot be read as parquet ({cause}); write the file again"
        ) from None


def _column(batch: Any, name: str, path: Path, start: int) -> list[Any]:
    column = batch.column(name)
    try:
        values = column.to_pylist()
    except UnicodeDecodeError:
        number = start + next(place for place, each in enumerate(column) if not _is_text(each))
        raise InputError(f"{path}, row {number}: column '{name}' is not UTF-8; write it as text again") from None
    return [_written(value, column.type) for value in values]


def _is_text(scalar: Any) -> bool:
    try:
        scalar.as_py()
    except UnicodeDecodeError:
        return False
    return True


def _written(value: Any, kind: Any) -> Any:
    """A value of the Arrow type `kind`: texts, truth values, None as they are; numbers and dates as `RawValue`."""
    import numpy as np
    import pyarrow.types as is_

    if value is None or isinstance(value, (str, bool)):
        return value
    if is_.is_dictionary(kind):
        return _written(value, kind.value_type)
    if is_.is_floating(kind):
        shortest = {16: np.float16, 32: np.float32}.get(kind.bit_width, float)
        return RawValue(str(shortest(value))) if math.isfinite(value) else float(value)
    if is_.is_integer(kind):
        return RawValue(str(value))
    if is_.is_decimal(kind):
        return RawValue(f"{value:f}")
    if is_.is_date(kind) or is_.is_timestamp(kind) or is_.is_time(kind):
        return RawValue(value.isoformat())
    if is_.is_list(kind) or is_.is_large_list(kind) or is_.is_fixed_size_list(kind):
        return [_written(each, kind.value_type) for each in value]
    if is_.is_struct(kind):
        return {field.name: _written(value[field.name], field.type) for field in kind}
    return value


#: The reader of a file's rows, by its suffix in lower case.
READERS: dict[str, Callable[[str | Path], Iterator[Row]]] = {
    ".json": json_rows,
    ".jsonl": json_lines,
    ".csv": csv_rows,
    ".parquet": parquet_rows,
}
