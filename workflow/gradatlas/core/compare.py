"""Differences between two results folders: in every table, and in every verdict.

Rows are matched by a table's leading columns: the fewest of them, real numbers skipped, that identify every row of both
tables. All other columns are compared.
"""

from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import polars as pl

from gradatlas.core.errors import InputError
from gradatlas.core.files import write_text
from gradatlas.core.spreadsheets import csv_of

# Unfinished work and logs are no results.
_LEFT_OUT = ("journal", "logs")
# Names of the columns that comparing adds.
_ROW, _SECOND = "row", " in the second"
_LONGEST = 60
# What identifies a row of the claims table.
_CLAIM = ("claim", "model", "reference_model", "dataset", "reference_dataset", "relation", "projection", "seed")


@dataclass(frozen=True)
class Change:
    """A difference in one column of a table, or the rows, columns and tables that only one folder has.

    `rows`: compared; `changed`: those that differ, numbers by more than the tolerance. `largest` and `relative`: the
    largest absolute difference, and the largest one divided by the first folder's absolute value; None for text.
    `example`: the row of the largest difference and its two values.
    """

    table: str
    column: str
    rows: int
    changed: int
    largest: float | None
    relative: float | None
    example: str


def compare(first: str | Path, second: str | Path, tolerance: float = 0.0) -> list[Change]:
    """The differences between the tables of two results folders: Parquet, and CSV without a Parquet of its name.

    `tolerance`: relative difference up to which two numbers count as equal. Raises `InputError` for a folder that is
    missing or has no tables, and for a table that cannot be read.
    """
    first, second = Path(first), Path(second)
    ours, theirs = tables_of(first), tables_of(second)
    changes = []
    for name in sorted({*ours, *theirs}):
        if name not in ours or name not in theirs:
            changes.append(Change(name, "", 0, 0, None, None, f"only in the {'first' if name in ours else 'second'}"))
        else:
            changes += _compared(name, _read(ours[name]), _read(theirs[name]), tolerance)
    return changes


def tables_of(folder: Path) -> dict[str, Path]:
    """The tables of a results folder, by their path in it."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give two results folders")
    found = {}
    for path in sorted([*folder.rglob("*.parquet"), *folder.rglob("*.csv")]):
        name = path.relative_to(folder)
        twin = path.suffix == ".csv" and path.with_suffix(".parquet").exists()
        if not twin and name.parts[0] not in _LEFT_OUT:
            found[name.as_posix()] = path
    if not found:
        raise InputError(f"{folder}: no tables (.parquet, .csv) below it; give a results folder")
    return found


def _read(path: Path) -> pl.DataFrame:
    try:
        # As text: the types inferred for one column could differ between the folders.
        return pl.read_csv(path, infer_schema=False) if path.suffix == ".csv" else pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path}: cannot be read as a table ({error}); make it again") from None


def _compared(name: str, ours: pl.DataFrame, theirs: pl.DataFrame, tolerance: float) -> Iterator[Change]:
    for column in (*ours.columns, *theirs.columns):
        if (column in ours.columns) != (column in theirs.columns):
            folder = "first" if column in ours.columns else "second"
            yield Change(name, column, 0, 0, None, None, f"column only in the {folder}")
    shared = [column for column in ours.columns if column in theirs.columns]
    kinds = {column: _common(ours[column].dtype, theirs[column].dtype) for column in shared}
    ours, theirs = (
        frame.select(_plain(frame[column], kind) for column, kind in kinds.items()) for frame in (ours, theirs)
    )
    key = _key(ours, theirs)
    ours, theirs = (_numbered(frame, key) for frame in (ours, theirs))
    key = [*key, _ROW]
    for one, other, folder in ((ours, theirs, "first"), (theirs, ours, "second")):
        alone = one.join(other, on=key, how="anti", nulls_equal=True)
        if len(alone):
            example = f"only in the {folder}, such as {_place(alone, key)}"
            yield Change(name, "", len(one), len(alone), None, None, example)
    both = ours.join(theirs, on=key, how="inner", nulls_equal=True, suffix=_SECOND)
    for column in shared:
        if column not in key:
            yield from _column(name, both, column, key, tolerance)


def _common(one: pl.DataType, other: pl.DataType) -> pl.DataType:
    if one == other and not one.is_nested():
        return one
    return pl.Float64() if one.is_numeric() and other.is_numeric() else pl.String()


def _plain(values: pl.Series, kind: pl.DataType) -> pl.Series:
    """A column as the common kind; lists as text."""
    if values.dtype.is_nested():
        return pl.Series(values.name, list(map(str, values.to_list())), dtype=pl.String)
    return values.cast(kind)


def _key(ours: pl.DataFrame, theirs: pl.DataFrame) -> list[str]:
    """The fewest leading columns, real numbers skipped, that identify the rows of both frames; else all of them."""
    named = [column for column, kind in ours.schema.items() if not kind.is_float()]
    if {*_CLAIM} <= {*named}:
        # A claim keeps its name when its title or statement is reworded.
        named = [*_CLAIM, *(column for column in named if column not in _CLAIM)]
    for count in range(1, len(named) + 1):
        if not any(frame.select(named[:count]).is_duplicated().any() for frame in (ours, theirs)):
            return named[:count]
    return named


def _numbered(frame: pl.DataFrame, key: list[str]) -> pl.DataFrame:
    """With each row's number among those of the same key: 0 where the key identifies every row."""
    number = pl.int_range(pl.len()).over(key) if key else pl.int_range(pl.len())
    return frame.with_columns(number.alias(_ROW))


def _column(name: str, both: pl.DataFrame, column: str, key: list[str], tolerance: float) -> Iterator[Change]:
    one, other = pl.col(column), pl.col(column + _SECOND)
    differs = ~one.eq_missing(other)
    largest = relative = None
    if both[column].dtype.is_numeric():
        gap = (one.cast(pl.Float64) - other.cast(pl.Float64)).abs()
        share = gap / one.cast(pl.Float64).abs()
        # A number against null or NaN always differs.
        differs &= ~(share <= tolerance).fill_null(False) if tolerance else pl.lit(True)
        moved = both.filter(differs).with_columns(gap.alias("gap"), share.alias("share")).sort("gap", descending=True)
        largest, relative = moved["gap"].max(), moved["share"].max()
    else:
        moved = both.filter(differs)
    if len(moved):
        row = moved.row(0, named=True)
        example = f"{_place(moved, key)}: {_shown(row[column])} -> {_shown(row[column + _SECOND])}"
        yield Change(name, column, len(both), len(moved), largest, relative, example)


def _place(frame: pl.DataFrame, key: list[str]) -> str:
    row = frame.row(0, named=True)
    return ", ".join(f"{column} {row[column]}" for column in key if column != _ROW or row[_ROW] or len(key) == 1)


def _shown(value: Any) -> str:
    """A value on one line; a long text is cut."""
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def verdict_changes(first: str | Path, second: str | Path) -> list[str]:
    """A line for each claim whose verdict differs, or that only one of two results folders has ("none")."""
    verdicts = []
    for folder in (first, second):
        paths = [path for path in (Path(folder) / "claims.parquet", Path(folder) / "claims.csv") if path.is_file()]
        rows = _read(paths[0]).to_dicts() if paths else []
        verdicts.append({", ".join(str(row[key]) for key in _CLAIM if row.get(key) is not None): row for row in rows})
    ours, theirs = verdicts
    return [
        f"{name}: {ours.get(name, {}).get('verdict', 'none')} -> {theirs.get(name, {}).get('verdict', 'none')}"
        for name in sorted({*ours, *theirs})
        if ours.get(name, {}).get("verdict") != theirs.get(name, {}).get("verdict")
    ]


def write_changes(changes: list[Change], path: str | Path) -> None:
    """Write the differences as CSV."""
    names = [field.name for field in fields(Change)]
    table = pl.DataFrame([astuple(change) for change in changes], schema=names, orient="row", infer_schema_length=None)
    write_text(path, csv_of(table))


def report(changes: list[Change], verdicts: list[str]) -> list[str]:
    """The differences as lines to read: a line per table, below it one for each of its differences, then verdicts."""
    lines = []
    for table in dict.fromkeys(change.table for change in changes):
        lines.append(table)
        lines += [f"    {_line(change)}" for change in changes if change.table == table]
    lines += ["verdicts", *(f"    {line}" for line in verdicts)] if verdicts else []
    tables = len({change.table for change in changes})
    return [*lines, f"tables that differ: {tables}; verdicts that differ: {len(verdicts)}"]


def _line(change: Change) -> str:
    if not change.rows:
        return f"{change.column}: {change.example}" if change.column else change.example
    counts = f"{change.changed:,} of {change.rows:,} rows"
    if not change.column:
        return f"{counts} {change.example}"
    size = "" if change.largest is None else f" by up to {change.largest:.3g}"
    size += "" if change.relative in (None, float("inf")) else f" (relative {change.relative:.3g})"
    return f"{change.column}: {counts} differ{size}, such as {change.example}"
