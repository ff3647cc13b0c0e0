"""Tables as files, each in four formats: Parquet and CSV with every digit, Markdown and LaTeX for a reader."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from gradatlas.charts import latex
from gradatlas.core.checked import open_parquet, parquet_writer
from gradatlas.core.errors import InputError
from gradatlas.core.files import write_text
from gradatlas.core.spreadsheets import csv_of


@dataclass(frozen=True)
class Section:
    """One table to read, under its title.

    `left`: how many columns are words, aligned left. `narrow`: header and rows for a page in print, where they differ
    (a row of one cell heads those below it). `columns`: LaTeX's layout, if not of `left`. `caption`: in print, if not
    the title. `lead`: a line above.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    left: int = 1
    narrow: tuple[Sequence[str], Sequence[Sequence[str]]] | None = None
    columns: str = ""
    caption: str = ""
    lead: str = ""


def write_table(stem: str | Path, frame: pl.DataFrame, title: str, note: str, sections: Sequence[Section]) -> None:
    """Write a table as ``{stem}.parquet``, ``.csv``, ``.md`` and ``.tex``.

    `frame`: the rows for programs. `title`, `note` and `sections`: for readers.
    """
    stem = Path(stem)
    # Without polars' own metadata: the same numbers are the same bytes.
    table = frame.to_arrow().replace_schema_metadata(None)
    with parquet_writer(stem.with_suffix(".parquet"), table.schema) as writer:
        writer.write_table(table)
    write_text(stem.with_suffix(".csv"), csv_of(frame))
    write_text(stem.with_suffix(".md"), markdown(title, [note], sections))
    write_text(stem.with_suffix(".tex"), _latex(title, note, sections))


def read_written(path: str | Path, rule: str) -> pl.DataFrame:
    """A table of `write_table`, named by any of its files: its Parquet file alone has a checksum."""
    with open_parquet(Path(path).with_suffix(".parquet"), rule) as file:
        return pl.from_arrow(file.read())


def read_exactly(path: str | Path, rule: str, columns: Sequence[str], name: str, stem: str) -> pl.DataFrame:
    """The same, of these columns; `InputError` for another table than that of `name`, whose files are `stem`.*."""
    frame = read_written(path, rule)
    if frame.columns != list(columns):
        raise InputError(
            f"{path}: not the table of {name}, its columns are {', '.join(frame.columns)}; give {stem}.csv"
        )
    return frame


def markdown(title: str, notes: Iterable[str], sections: Sequence[Section]) -> str:
    """A document of tables, each below its title; `notes` are written as they are, and may have markup."""
    parts = [f"# {title}", *notes]
    for section in sections:
        parts += [f"## {escaped(section.title)}"] if section.title else []
        parts += [f"*{escaped(section.lead)}.*"] if section.lead else []
        rule = ["---"] * section.left + ["---:"] * (len(section.header) - section.left)
        head, *rows = ([escaped(cell) for cell in row] for row in (section.header, *section.rows))
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows)))
        parts += [escaped(note) for note in section.notes]
    return "\n\n".join(parts if sections else [*parts, "Nothing to show."]) + "\n"


def escaped(text: str) -> str:
    """Text that Markdown takes as text."""
    for character in "\\`*_<>|#":
        text = text.replace(character, f"\\{character}")
    # No link, and no end of a row.
    return re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]+", " ", text.replace("](", "]\\("))


def _latex(title: str, note: str, sections: Sequence[Section]) -> str:
    """Tables to be read by ``\\input``, each with its caption."""
    parts = [latex.preamble(f"{title}. {note}")]
    for section in sections:
        header, rows = section.narrow or (section.header, section.rows)
        columns = section.columns or "l" * section.left + "r" * (len(header) - section.left)
        words = [section.caption or section.title, *([section.lead] if section.lead else []), *section.notes]
        parts.append(latex.longtable(". ".join(each.rstrip(".") for each in words), columns, header, rows))
    return "\n".join(parts)
