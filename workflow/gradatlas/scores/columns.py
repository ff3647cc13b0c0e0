"""A file's own columns beside the scores: one type each, the same in all parts of a table."""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from gradatlas.data.training.rows import TrainingRow

_LARGEST = 2**63


class OwnColumns:
    """Learns the kinds of values in each column while rows are read, and then makes arrays of them.

    Numbers stay numbers, and true or false stays so; lists and objects become JSON text; of columns with values of
    several kinds, all values become text.
    """

    def __init__(self):
        self._kinds: dict[str, set[str]] = {}

    def watched(self, rows: Iterable[TrainingRow]) -> Iterator[TrainingRow]:
        """The rows, unchanged."""
        for row in rows:
            for name, value in row.own.items():
                self._kinds.setdefault(name, set()).update(_kind(value))
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
        return [pa.array([_value(row.own.get(name), kind) for row in rows], type=kind) for name, kind in types.items()]


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


def _value(value: Any, kind: pa.DataType) -> Any:
    if value is None or not pa.types.is_string(kind):
        return float(value) if value is not None and pa.types.is_floating(kind) else value
    return clean(value if isinstance(value, str) else as_json(value))


def as_json(value: Any) -> str:
    """A value as JSON; what JSON has no form for, such as a date, as text."""
    return json.dumps(value, ensure_ascii=False, default=str)


def clean(text: str) -> str:
    """Half of a character, which no file can hold, becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
