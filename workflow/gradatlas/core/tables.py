"""One way to write and read tables (Parquet, whole or not at all). Their columns stand in the rooms that write them.

Metadata hold deterministic facts only, so that the same numbers are the same bytes.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from gradatlas.core.checked import open_parquet, parquet_writer
from gradatlas.core.errors import InputError


@dataclass(frozen=True)
class Table:
    """A kind of table: its name, the rule (or rules) that makes it, for the errors of reading, and its columns.

    A room's tables stand in its ``tables.py``, so that they count in the digests of the jobs that write or read them.
    """

    name: str
    rule: str
    schema: pa.Schema

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return self.schema.names

    def empty(self) -> pa.Table:
        """The table without a row."""
        return self.schema.empty_table()


def write_table(table: Table, data: pa.Table | list[dict], path: str | Path, metadata: Mapping[str, Any]) -> None:
    """Write a table as Parquet with a checksum (`gradatlas.core.checked`).

    `data` has exactly the schema's columns (a table, or rows as dicts). `metadata` values are written
    as JSON under the key ``gradatlas``; give deterministic facts only.
    """
    schema = table.schema
    whole = (
        pa.Table.from_pylist(data, schema=schema) if isinstance(data, list) else data.select(schema.names).cast(schema)
    )
    facts = _facts(table, metadata)
    with parquet_writer(path, schema.with_metadata(facts)) as writer:
        writer.write_table(whole.replace_schema_metadata(facts))


@contextmanager
def table_in_parts(table: Table, path: str | Path, metadata: Mapping[str, Any]) -> Iterator[Callable[[pa.Table], None]]:
    """Write a table part by part, for what is too large to be held whole; yields what takes a part.

    The file is there once the block ends well, and not at all where it raises.
    """
    schema = table.schema.with_metadata(_facts(table, metadata))
    with parquet_writer(path, schema) as writer:
        yield lambda part: writer.write_table(part.select(schema.names).cast(schema))


def _facts(table: Table, metadata: Mapping[str, Any]) -> dict[str, str]:
    return {"gradatlas": json.dumps({"table": table.name, **metadata}, sort_keys=True)}


def read_table(table: Table, path: str | Path, columns: Sequence[str] | None = None, own: bool = True) -> pa.Table:
    """Read a table, or some of its columns; without `own` it may be a user's, which has no checksum.

    Raises `InputError` that names the file and the rule that makes it, where it is missing, damaged or lacks a column.
    """
    with open_parquet(path, table.rule, own) as file:
        found = file.schema_arrow.names
        missing = [column for column in table.names if column not in found]
        if missing:
            raise InputError(
                f"{path}: not a '{table.name}' table, column '{missing[0]}' is missing; have {', '.join(found)}"
            )
        return file.read(columns)


def read_metadata(path: str | Path, table: Table | None = None) -> dict[str, Any]:
    """The deterministic facts written with a `table`; `InputError` as by `read_table`."""
    with open_parquet(path, table.rule if table else "of this table") as file:
        return json.loads((file.schema_arrow.metadata or {}).get(b"gradatlas", b"{}"))
