"""A file's own columns beside the scores: one type each, the same in all parts of a table."""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from gradatlas.data.formats import plain
from gradatlas.data.training.rows import TrainingRow

_LARGEST = 2**63
# What of a CSV file is a number; a leading zero makes a name.
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")


class OwnColumns:
    """Learns the kinds of values in each column while rows are read, and then makes arrays of them.

    Numbers stay numbers, and true or false stays so; lists and objects become JSON text; of columns with values of
    several kinds, all values become text. `cells`: all values are cells of a CSV file, and columns of numbers alone
    (or nothing) are numbers.
    """

    def __init__(self, cells: bool = False):
        self._cells = cells
        self._kinds: dict[str, set[str]] = {}

    def watched(self, rows: Iterable[TrainingRow]) -> Iterator[TrainingRow]:
        """The rows, unchanged."""
        for row in rows:
            for name, value in row.own.items():
                self._kinds.setdefault(name, set()).update(_kind(self._read(value)))
            yield row

    def fields(self, taken: Collection[str]) -> list[pa.Field]:
        """The columns in the order of their first value; one with a name of `taken` becomes ``data.NAME``."""
        found: dict[str, pa.DataType] = {}
        for name, kinds in self._kinds.items():
            shown = clean(name)
            while shown in taken or shown in found:
                shown = f"data.{shown}"
            found[shown] = _type(kinds)
        return [pa.field(*column) for column in found.items()]

    def arrays(self, rows: Sequence[TrainingRow]) -> list[pa.Array]:
        """One array for each of `fields`."""
        types = {name: _type(kinds) for name, kinds in self._kinds.items()}
        return [pa.array([self._value(row.own.get(name), kind) for row in rows], kind) for name, kind in types.items()]

    def _read(self, value: Any) -> Any:
        if self._cells and isinstance(value, str):
            return json.loads(value) if _NUMBER.fullmatch(value) else value or None
        return plain(value)

    def _value(self, value: Any, kind: pa.DataType) -> Any:
        if pa.types.is_string(kind):
            value = plain(value)
            return None if value is None else clean(value if isinstance(value, str) else as_json(value))
        read = self._read(value)
        return float(read) if read is not None and pa.types.is_floating(kind) else read


def as_json(value: Any) -> str:
    """A plain value as JSON; what JSON has no form for as text."""
    return json.dumps(value, ensure_ascii=False, default=str)


def clean(text: str) -> str:
    """Half of a character, which no file can hold, becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _kind(value: Any) -> set[str]:
    if value is None:
        return set()
    if isinstance(value, bool):
        return {"bool"}
    if isinstance(value, int):
        return {"int" if -_LARGEST <= value < _LARGEST else "text"}
    return {"float" if isinstance(value, float) else "text"}


def _type(kinds: set[str]) -> pa.DataType:
    if kinds == {"bool"}:
        return pa.bool_()
    if kinds == {"int"}:
        return pa.int64()
    return pa.float64() if kinds and kinds <= {"int", "float"} else pa.string()
