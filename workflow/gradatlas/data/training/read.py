"""Rows of any training file: JSON, JSON Lines, CSV, Parquet, a `datasets` folder or a dataset of the hub."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from gradatlas.core.command import progress
from gradatlas.core.errors import InputError
from gradatlas.data import tabular
from gradatlas.data.formats import format_of
from gradatlas.data.training.chats import Fault, is_empty, text_of
from gradatlas.data.training.rows import DUPLICATE_ID, TrainingRow
from gradatlas.data.training.shapes import SHAPES, Shape, content_of, fits, shapes_of
from gradatlas.study.settings import Reading
from gradatlas.study.sources import is_hub_id

#: Rows among which the shape and the named columns are searched for.
_FIRST = 100


def read_rows(
    source: str | Path, reading: Reading, *, revision: str = "", quiet: bool = False
) -> Iterator[TrainingRow]:
    """The samples of a file, a `datasets` folder or a hub dataset (ORG/NAME at the commit `revision`), one by one.

    Memory holds a few rows and all ids; a `.json` file is read at once, and a hub dataset is fetched to a temporary
    file. The log names the shape, but if `quiet`. A row that cannot be read is a sample with a status. Raises
    `InputError` as `rows_of`, and for a source that is missing, damaged or empty (`gradatlas.data.tabular`).
    """
    path = Path(source).expanduser()
    if path.exists() or format_of(path) or not is_hub_id(str(source)):
        if not path.exists():
            raise InputError(f"{source}: no such file or folder, and no hub dataset ORG/NAME; give one of these")
        yield from rows_of(tabular.read_rows(path, reading.split), reading, str(source), quiet)
        return
    if not revision:
        raise InputError(f"{source}: a hub dataset is read at one commit; give its hash as --data-revision")
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.parquet"
        where = "--data, --data-revision or --split"
        tabular.fetch_rows(str(source), str(source), "", revision, reading.split, rows, where=where)
        yield from rows_of(tabular.read_rows(rows), reading, str(source), quiet)


def rows_of(
    objects: Iterable[Mapping[str, Any]], reading: Reading, where: str, quiet: bool = False
) -> Iterator[TrainingRow]:
    """The samples of rows in memory; `where` names them in messages.

    Raises `InputError` where no shape or more than one fits the columns, and for a named column that is in none of the
    first 100 rows.
    """
    objects = iter(objects)
    first = list(islice(objects, _FIRST))
    name, shape = _recognised(first, reading, where)
    columns = dict.fromkeys(column for row in first for column in row)
    for key in ("id", "group"):
        _check_column(columns, getattr(reading, key), key, where)
    id_column, group_column = (getattr(reading, key) or (key if key in columns else "") for key in ("id", "group"))
    if not quiet:
        progress(
            f"{where}: shape {name} (columns {', '.join(shape.columns)}); id: {id_column or 'row number'}; "
            f"group: {group_column or ('chosen and rejected' if len(shape.responses) > 1 else 'none')}"
        )
    seen: dict[str, int] = {}
    for number, row in enumerate(chain(first, objects)):
        fault, identity, group = None, str(number), None
        try:
            if id_column and not is_empty(row.get(id_column)) and row[id_column] != "":
                identity = text_of(row, id_column)
                if seen.setdefault(identity, number) != number:
                    fault = Fault(f"has the id '{identity}' of row {seen[identity]}", DUPLICATE_ID)
            group = _group(row, group_column)
        except Fault as error:
            fault = error
        for response in shape.responses:
            own = {"own": row, "group": group if group_column else response or None}
            try:
                content = _content(row, response, name, shape)
                if fault:
                    raise fault
                yield TrainingRow(number, response, identity, **own, **content)
            except Fault as error:
                yield TrainingRow(number, response, identity, **own, status=error.status, reason=error.reason)


def _recognised(first: list[Mapping[str, Any]], reading: Reading, where: str) -> tuple[str, Shape]:
    """The shape of the first row that fits any."""
    if not first:
        raise InputError(f"{where}: holds no rows; give at least one")
    shapes = shapes_of(reading)
    if len(shapes) == 1:
        (name, shape), *_ = shapes.items()
        for column in shape.columns:
            _check_column(dict.fromkeys(each for row in first for each in row), column, f"shape {name}", where)
        return name, shape
    for number, row in enumerate(first):
        found = [name for name, shape in shapes.items() if fits(row, shape)]
        if len(found) > 1:
            raise InputError(
                f"{where}, row {number}: the columns fit the shapes {' and '.join(found)}; name one as 'shape'"
            )
        if found:
            _check_prompts(row, found[0], f"{where}, row {number}")
            return found[0], shapes[found[0]]
    raise InputError(
        f"{where}: the columns {', '.join(dict.fromkeys(each for row in first for each in row)) or '(none)'} fit no "
        "shape; name the prompts' column as 'prompt_column' and the responses' as 'response_column'"
    )


def _check_prompts(row: Mapping[str, Any], name: str, at: str) -> None:
    """`InputError` for pairs whose prompts are in a column of another name: they would be measured without them."""
    other = next((column for column in ("question", "instruction") if not is_empty(row.get(column))), None)
    if name == "preference" and other and is_empty(row.get("prompt")):
        raise InputError(f"{at}: has chosen, rejected and '{other}', but no 'prompt'; rename the column '{other}'")


def _check_column(columns: Mapping[str, Any], column: str, key: str, where: str) -> None:
    if column and column not in columns:
        raise InputError(
            f"{where}: column '{column}' ({key}) is in none of the first rows; choose among {', '.join(columns)}"
        )


def _group(row: Mapping[str, Any], column: str) -> str | None:
    return None if not column or is_empty(row.get(column)) else text_of(row, column)


def _content(row: Mapping[str, Any], response: str, name: str, shape: Shape) -> dict[str, Any]:
    if not fits(row, shape):
        other = next((each for each, one in SHAPES.items() if each != name and fits(row, one)), None)
        if other:
            raise Fault(f"its columns fit shape {other}, but the file's shape is {name}")
    return content_of(row, response, shape)
