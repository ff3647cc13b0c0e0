"""Partner columns, which belong to a question: Alpaca's `input`, a passage (`context`), a `system` message.

They are added to the question where a mapping names them, and refused otherwise, so that none is ignored silently.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from gradatlas.core.command import progress
from gradatlas.core.errors import InputError
from gradatlas.data.formats import RawValue
from gradatlas.study.relations import PARTNERS


def with_partners(question: str, row: Mapping[str, Any], columns: Mapping[str, str], at: str) -> str:
    """The question with its partners on separate lines: system before it, context and input after it.

    `columns`: the mapping's, part to column. A partner may be empty or missing in a row. `at`: file and row, for the
    `InputError` where one is not a text.
    """
    texts = {part: _text(row, columns[part], at) for part in PARTNERS if part in columns}
    parts = [texts.get("system"), question, texts.get("context"), texts.get("input")]
    return "\n".join(part for part in parts if part)


def check_partners(
    row: Mapping[str, Any], used: Collection[str], at: str, remedy: str = "", partners: Collection[str] = PARTNERS
) -> None:
    """`InputError` naming `at` for one of the `partners` that is not empty and not among the columns `used`."""
    for name, value in row.items():
        part = name.strip().casefold()
        if part in partners and name not in used and not _is_empty(value):
            raise InputError(
                f"{at}: column '{name}' is not empty, but not used; "
                + (remedy or f"name it as columns.{part} in the mapping, or delete it from the file")
            )


def report_left_out(names: Iterable[str], used: Collection[str], where: str) -> None:
    """Log the columns that a mapping does not use."""
    left = [name for name in names if name not in used]
    if left:
        progress(f"{where}: columns not used: {', '.join(left)}")


def _text(row: Mapping[str, Any], column: str, at: str) -> str:
    value = row.get(column)
    if _is_empty(value):
        return ""
    if not isinstance(value, (str, bool, RawValue)):
        raise InputError(f"{at}: column '{column}' is not a text; give every row a text, or leave it empty")
    return str(value)


def _is_empty(value: Any) -> bool:
    # pandas writes a missing number as NaN.
    return value is None or value != value or value in ([], {}) or (isinstance(value, str) and not value.strip())
