"""Reading and writing tables as Parquet. A table's schema is in the package that writes it.

Metadata hold deterministic facts only, so that equal numbers give equal bytes.
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
    """A kind of table: its name, the rule that makes it (for error messages), and its columns.

    Defined in the ``tables.py`` of the package that writes it, so that schemas count in the digests of jobs.
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
    """Write a table as Parquet with a checksum (`gradatlas.core.checked`), atomically.

    `data`: a table, or rows as dicts, with exactly the schema's columns. `metadata`: deterministic facts, written as
    JSON under the key ``gradatlas``.
    """
    if isinstance(data, list):
        data = pa.Table.from_pylist(data, schema=table.schema)
    with table_in_parts(table, path, metadata) as write:
        write(data)


@contextmanager
def table_in_parts(table: Table, path: str | Path, metadata: Mapping[str, Any]) -> Iterator[Callable[[pa.Table], None]]:
    """Write a table in parts, to save memory; yields a function that writes one part.

    The file appears only if the block ends without an error.
    """
    schema = table.schema.with_metadata(_facts(table, metadata))
    with parquet_writer(path, schema) as writer:
        yield lambda part: writer.write_table(part.select(schema.names).cast(schema))


def _facts(table: Table, metadata: Mapping[str, Any]) -> dict[str, str]:
    return {"gradatlas": json.dumps({"table": table.name, **metadata}, sort_keys=True)}


def read_table(table: Table, path: str | Path, columns: Sequence[str] | None = None, own: bool = True) -> pa.Table:
    """Read a table, or some of its columns. `own=False`: it may be a user's file, without a checksum.

    Raises `InputError` with the file and the rule that makes it, where the file or a column is missing or damaged.
    """
    with open_parquet(path, table.rule, own) as file:
        found = file.schema_arrow.names
        missing = [column for column in table.names if column not in found]
        if missing:
            raise InputError(
                f"{path}: not a '{table.name}' table, column '{missing[0]}' is missing; it has {', '.join(found)}"
            )
        return file.read(columns)


def read_metadata(path: str | Path, table: Table | None = None) -> dict[str, Any]:
    """The metadata written with a `table`; `InputError` as by `read_table`."""
    with open_parquet(path, table.rule if table else "of this table") as file:
        return json.loads((file.schema_arrow.metadata or {}).get(b"gradatlas", b"{}"))
