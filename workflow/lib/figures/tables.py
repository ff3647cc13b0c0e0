"""The MAD and RD tables: tidy CSV with every digit for a program, Markdown to three digits for a reader."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from workflow.lib.errors import InputError
from workflow.lib.figures.names import (
    PIPELINE_CHECK,
    SEGMENTS,
    STATISTICS,
    in_order,
    label,
    projections_in_order,
    relations_in_order,
    statistic_label,
    variants_in_order,
)
from workflow.lib.files import write_text
from workflow.lib.tables import read_table

# The study's two; the CSV has all.
SHOWN = ("nuclear_norm", "sigma_ratio")
MEASURES = {"signed": "Signed mean", "absolute": "Mean absolute"}
# Rows of a table run from model to estimate; the columns of the CSV stand in this order too.
_KEYS = ("model", "dataset", "relation", "loss_tokens", "statistic", "variant", "projection")
_ESTIMATE = ("value", "low", "high", "n")
COLUMNS = {
    "mad": (*_KEYS, "segment", "layers", *_ESTIMATE, "purpose"),
    "rd": (*_KEYS, "measure", *_ESTIMATE, "top_layers", "purpose"),
}
TITLES = {
    "mad": "Mean absolute difference of neighbouring layers (MAD)",
    "rd": "Relative difference from correct responses (RD)",
}
NOTES = {
    "mad": "How much a mean curve jumps: the mean of |s(i+1) − s(i)| over neighbouring layers i, within a segment of "
    "the layers (counted from 0), with its 95 % bootstrap interval over samples. A mean of "
    "absolute values: noise alone makes it positive, and its interval lies high where it is near zero.",
    "rd": "How far another kind of response lies from the correct one: (other − correct) / correct of the mean curves, "
    "averaged over layers with its sign and as an absolute value, with 95 % bootstrap intervals over samples; and the "
    "layers that differ most, largest first. Only the signed one can tell that there is no difference: noise alone "
    "makes the absolute one positive, and its interval never holds zero.",
}


@dataclass(frozen=True)
class Block:
    """A table to read: one model, dataset, relation, token set and statistic; a row a variant and projection."""

    kind: str
    model: str
    dataset: str
    relation: str
    loss_tokens: str
    statistic: str
    check: bool
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def write_tables(kind: str, statistics: Sequence[str | Path], csv: str | Path, markdown: str | Path) -> None:
    """Write the ``mad`` or ``rd`` tables of all `statistics` folders as one CSV and one Markdown file.

    The CSV is tidy: a row an estimate (`COLUMNS`), numbers in full, missing ones empty. `InputError` where a folder
    lacks the table.
    """
    frames = [_flat(pl.from_arrow(read_table(kind, Path(folder) / f"{kind}.parquet"))) for folder in statistics]
    frame = in_reading_order(pl.concat([frame.select(COLUMNS[kind]) for frame in frames]), kind)
    write_text(csv, frame.write_csv())
    write_text(markdown, as_markdown(kind, blocks(frame, kind)))


def read_csv(path: str | Path) -> tuple[str, pl.DataFrame]:
    """One of `write_tables`'s CSV files: its kind and its rows. `InputError` for any other file."""
    try:
        frame = pl.read_csv(path, infer_schema=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; make it with write_tables") from None
    except (pl.exceptions.PolarsError, OSError, UnicodeError) as error:
        raise InputError(f"{path}: not a readable CSV file ({error}); make it with write_tables") from None
    for kind, columns in COLUMNS.items():
        if tuple(frame.columns) == columns:
            return kind, frame.with_columns(pl.col("value", "low", "high").cast(pl.Float64), pl.col("n").cast(pl.Int64))
    raise InputError(f"{path}: neither a MAD nor an RD table, its columns are {', '.join(frame.columns)}")


def in_reading_order(frame: pl.DataFrame, kind: str) -> pl.DataFrame:
    """Rows by model, dataset, relation (correct first), then statistic, variant (fast to slow), projection."""
    orders = {
        "relation": relations_in_order(frame["relation"].unique()),
        "statistic": in_order(frame["statistic"].unique(), STATISTICS),
        "variant": variants_in_order(frame["variant"].unique()),
        "projection": projections_in_order(frame["projection"].unique()),
    }
    last = "segment" if kind == "mad" else "measure"
    orders[last] = in_order(frame[last].unique(), SEGMENTS if kind == "mad" else MEASURES)
    ranks = [
        pl.col(key).replace_strict(orders[key], list(range(len(orders[key]))), return_dtype=pl.Int32)
        if orders.get(key)
        else pl.col(key)
        for key in (*_KEYS, last)
    ]
    return frame.sort(ranks)


def blocks(frame: pl.DataFrame, kind: str) -> list[Block]:
    """The tables to read, in the order of `frame` (of `in_reading_order`), for the statistics that are `SHOWN`."""
    frame = frame.filter(pl.col("statistic").is_in(SHOWN))
    shown = []
    for key, rows in frame.group_by(_KEYS[:5], maintain_order=True):
        head, columns = _mad_columns(rows) if kind == "mad" else _rd_columns(rows)
        body = []
        for (variant, projection), group in rows.group_by("variant", "projection", maintain_order=True):
            estimates = group.to_dicts()
            cells = [next((read(row) for row in estimates if at(row)), "–") for at, read in columns]
            n = max(row["n"] for row in estimates)
            body.append((label(variant), label(projection), *cells, f"{n:,}"))
        check = bool((rows["purpose"] == PIPELINE_CHECK).any())
        shown.append(Block(kind, *key, check, ("Variant", "Projection", *head, "n"), tuple(body)))
    return shown


def as_markdown(kind: str, tables: Sequence[Block]) -> str:
    """Tables as Markdown, each under a heading that says what it is of."""
    parts = [f"# {TITLES[kind]}", NOTES[kind]]
    if not tables:
        parts.append("Nothing to show.")
    for table in tables:
        parts.append(f"## {_escaped(' · '.join(about(table)))}")
        if table.check:
            parts.append("*Pipeline check: this model was never meant for these data; no finding.*")
        rule = ["---", "---", *["---:"] * (len(table.header) - 2)]
        lines = [table.header, rule, *table.rows]
        parts.append("\n".join(f"| {' | '.join(_escaped(cell) for cell in line)} |" for line in lines))
    return "\n\n".join(parts) + "\n"


def about(table: Block) -> list[str]:
    """What a table is of, in words."""
    tokens = [] if table.loss_tokens == "all" else [f"loss on {table.loss_tokens}"]
    words = [table.model, table.dataset, f"{table.relation.replace('_', ' ')} responses", *tokens]
    return [*words, statistic_label(table.statistic)]


def three_digits(value: float | None) -> str:
    """A number to three significant digits, without an exponent where it reads well: 12345.6 -> 12,300."""
    if value is None or not math.isfinite(value):
        return "–"
    if value != 0 and not 1e-4 <= abs(value) < 1e7:
        return f"{value:.2e}".replace("-", "−")
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{round(value, digits):,.{max(digits, 0)}f}".replace("-", "−")


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """NaN as a missing number, and lists of layers as text, as a CSV file can hold them."""
    frame = frame.with_columns(pl.col("value", "low", "high").fill_nan(None))
    if "top_layers" in frame.columns:
        frame = frame.with_columns(pl.col("top_layers").cast(pl.List(pl.String)).list.join(" "))
    return frame


def _mad_columns(rows: pl.DataFrame):
    segments = rows.select("segment", "layers").unique(maintain_order=True).rows()
    known = in_order([segment for segment, _ in segments], SEGMENTS)
    head = [f"{label(name)} ({dict(segments)[name].replace('-', '–')})" for name in known]
    return head, [(lambda row, name=name: row["segment"] == name, _with_interval) for name in known]


def _rd_columns(rows: pl.DataFrame):
    known = in_order(rows["measure"].unique(), MEASURES)
    head = [*(MEASURES.get(name, label(name)) for name in known), "Top layers"]
    columns = [(lambda row, name=name: row["measure"] == name, _with_interval) for name in known]
    return head, [*columns, (lambda row: True, lambda row: (row["top_layers"] or "–").replace(" ", ", "))]


def _with_interval(row: dict) -> str:
    value, low, high = (three_digits(row[name]) for name in ("value", "low", "high"))
    return value if low == "–" or high == "–" else f"{value} [{low}, {high}]"


def _escaped(text: str) -> str:
    """Text that Markdown takes as text."""
    for character in "\\`*_<>|#":
        text = text.replace(character, f"\\{character}")
    return text
