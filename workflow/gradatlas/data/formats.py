"""Readers of JSON, JSON Lines, CSV and Parquet files that give every row exactly as in the file.

No type is inferred from other rows, and no value is converted. An invalid text or value is an `InputError` with file
and row (from 0).
"""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradatlas.core.checked import read_lines
from gradatlas.core.errors import InputError

Row = dict[str, Any]
_SPACE = re.compile(r"[ \t\r\n]*")
# A lone surrogate can only come from an escape.
_ESCAPED = re.compile(r"\\u[dD]")
_HALF = re.compile("[\ud800-\udfff]")
# A cell may be longer than the parser's default of 128 KiB; this is the largest limit on every platform.
_LONGEST_CELL = 2**31 - 1
_BATCH = 1000  # rows of a Parquet file at a time


@dataclass(frozen=True)
class RawValue:
    """A number or a date, as text in the form of the file.

    JSON: the literal (``0.10``, ``1e5``). Parquet: the shortest text of the number in its precision (float32 0.1 is
    ``0.1``), or a date in ISO form.
    """

    text: str

    def __str__(self) -> str:
        return self.text


def plain(value: Any, left_out: Callable[[Any], bool] = lambda value: False) -> Any:
    """A value without the form in which its file writes it: numbers as numbers, dates as text.

    `left_out`: which values of an object, at any depth, are left out with their keys.
    """
    if isinstance(value, RawValue):
        try:
            return json.loads(value.text)
        except ValueError:
            return value.text
    if isinstance(value, Mapping):
        return {key: plain(each, left_out) for key, each in value.items() if not left_out(each)}
    return [plain(each, left_out) for each in value] if isinstance(value, list | tuple) else value


class _Invalid(ValueError):
    """JSON that is invalid, or that only lenient readers accept."""


# --- JSON -------------------------------------------------------------------------------------------------------------


def json_rows(path: str | Path, plain: bool = False) -> Iterator[Row]:
    """The objects of a JSON list or of JSON Lines; the file is read at once. `plain` as for `json_lines`."""
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
            raise InputError(f"{path}: holds a JSON {type(row).__name__}; give a list of objects")
        yield _object(row, path, number)
        number += 1
        if listed and text[at : at + 1] == ",":
            at = _skip(text, at + 1)
            if text[at : at + 1] == "]":
                raise InputError(f"{path}, row {number}: a comma without an object after it; remove the comma")
        elif listed and text[at : at + 1] != "]":
            line = text.count("\n", 0, at) + 1
            raise InputError(
                f"{path}, row {number}: not JSON at line {line}: no ',' or ']' after row {number - 1}; fix the file, "
                "which may be cut off"
            )
    if listed and text[at : at + 1] != "]":
        raise InputError(f"{path}, row {number}: not JSON: the list has no end; fix the file, which may be cut off")
    if listed and _skip(text, at + 1) < len(text):
        raise InputError(f"{path}, row {number}: not JSON: text after the list's end; remove it")


def json_lines(path: str | Path, plain: bool = False) -> Iterator[Row]:
    """The objects of a JSON Lines file, without blank lines; a file that begins with ``[`` is read as a list.

    `plain`: numbers become Python's, for files that this project wrote.
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
            raise InputError(f"{path}, row {number}: not JSON{where}: more than one value; write one object per line")
        yield _object(row, path, number)
        number += 1


def checked_lines(path: str | Path, rule: str, own: bool = True) -> Iterator[Row]:
    """The objects of a file written by `gradatlas.core.checked.write_lines`; `InputError` as by `read_lines`."""
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
            f"{path}, row {number}: not JSON{where}: {error.msg}; fix the file, which may be cut off or damaged"
        ) from None
    except _Invalid as error:
        raise InputError(f"{path}, row {number}: {error}") from None
    except RecursionError:
        raise InputError(f"{path}, row {number}: nested too deeply; give its texts as values of one object") from None
    except ValueError as error:
        # A whole number of thousands of digits.
        raise InputError(f"{path}, row {number}: {error}; shorten or remove it") from None


def _object(value: Any, path: Path, number: int) -> Row:
    if not isinstance(value, dict):
        raise InputError(f"{path}, row {number}: not an object; give every row as {{name: value, ...}}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Invalid(f"key '{twice}' occurs twice; remove one")
    return row


def _refuse(constant: str) -> None:
    raise _Invalid(f"{constant} is not a JSON value; write null or a number")


def _check_whole(value: Any, key: str = "") -> None:
    """`_Invalid` where a text contains a lone surrogate, which tables and tokenizers do not accept."""
    if isinstance(value, str) and _HALF.search(value):
        place = f"'{key}'" if key and not _HALF.search(key) else "a text"
        raise _Invalid(f"{place} contains half of a character (a lone surrogate); write the complete character")
    if isinstance(value, dict):
        for name, each in value.items():
            _check_whole(name, key)
            _check_whole(each, key or name)
    if isinstance(value, list):
        for each in value:
            _check_whole(each, key)


# NaN and infinity are Python floats, as of Parquet: Python's json writes them, also into published data.
_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=float, parse_int=RawValue, parse_float=RawValue)
_PLAIN = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse)


# --- CSV --------------------------------------------------------------------------------------------------------------


def csv_rows(path: str | Path) -> Iterator[Row]:
    """The rows of a CSV file with a header; every cell is a text, and empty lines are skipped.

    A column without a name, such as an index written by pandas, is called ``Unnamed: 0`` by its position.
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
                        "columns; quote cells with commas"
                    )
                if any("\0" in cell for cell in cells):
                    raise InputError(
                        f"{path}, row {number} (line {table.line_num}): contains a NUL character; save the file again, "
                        "as UTF-8"
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
        raise InputError(f"{path}: column '{twice}' occurs twice; give every column its own name")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 text, numbered from 1, with their line ends and without a byte order mark."""
    number = 0
    for raw in _unpacked(path):
        try:
            text = raw.decode("utf-8-sig" if number == 0 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}, line {number + 1}: not UTF-8 at byte {error.start} of the line; save the file as UTF-8"
            ) from None
        # A carriage return also ends a line.
        for line in io.StringIO(text, newline=""):
            number += 1
            yield number, line


def _unpacked(path: Path) -> Iterator[bytes]:
    """The lines of a file, decompressed if its name ends with one of `PACKED`."""
    if path.suffix.lower() not in PACKED:
        with open(path, "rb") as file:
            yield from file
        return
    import pyarrow as pa

    try:
        with pa.OSFile(str(path)) as file, pa.CompressedInputStream(file, PACKED[path.suffix.lower()]) as stream:
            yield from io.BufferedReader(stream)
    except OSError as error:
        raise InputError(f"{path}: cannot be decompressed ({error}); write the file again") from None


# --- Parquet and Arrow ------------------------------------------------------------------------------------------------


def parquet_rows(path: str | Path) -> Iterator[Row]:
    """The rows of a Parquet file; checksums of pages are verified. NaN and infinity are Python floats."""
    import pyarrow.parquet as pq

    def batches() -> Iterator[Any]:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _check_columns(file.schema_arrow.names, Path(path))
            yield from file.iter_batches(batch_size=_BATCH)

    yield from arrow_rows(batches(), Path(path), "parquet")


def arrow_rows(batches: Iterator[Any], path: Path, kind: str) -> Iterator[Row]:
    """The rows of Arrow batches or tables from `path`, which is `kind`; values as by `parquet_rows`."""
    import pyarrow as pa

    number = 0
    try:
        for batch in batches:
            columns = [_column(batch, name, path, number) for name in batch.schema.names]
            for values in zip(*columns, strict=True):
                yield dict(zip(batch.schema.names, values, strict=True))
            number += batch.num_rows
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"{path}, row {number} or later: cannot be read as {kind} ({_cause(error)}); write the file again"
        ) from None


def _cause(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


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
    """A value of the Arrow type `kind`: numbers and dates as `RawValue`; texts, booleans and None unchanged."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.types as is_

    if isinstance(value, str) and isinstance(kind, pa.JsonType):
        return _DECODER.decode(value)
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


#: The reader of a file, by its suffix in lower case.
READERS: dict[str, Callable[[str | Path], Iterator[Row]]] = {
    ".json": json_rows,
    ".jsonl": json_lines,
    ".ndjson": json_lines,
    ".csv": csv_rows,
    ".parquet": parquet_rows,
}
#: Compressions of text files, by the last suffix: ``rows.jsonl.gz``.
PACKED = {".gz": "gzip", ".zst": "zstd"}


def format_of(path: str | Path) -> str:
    """The key of `READERS` for a file, by its name; empty: unknown."""
    path = Path(path)
    packed = path.suffix.lower() in PACKED
    suffix = Path(path.stem if packed else path.name).suffix.lower()
    return suffix if suffix in READERS and not (packed and suffix == ".parquet") else ""
