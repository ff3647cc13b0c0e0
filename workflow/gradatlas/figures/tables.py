"""The MAD and RD tables: tidy Parquet and CSV with every digit for a program, Markdown and LaTeX for a reader.

Where the study's own number is known, it is beside ours (config/published.tsv).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from gradatlas.charts.names import (
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
from gradatlas.charts.numbers import three_digits, with_interval
from gradatlas.charts.tables import Section, read_written, write_table
from gradatlas.core.errors import InputError
from gradatlas.core.tables import read_table
from gradatlas.statistics.rounding import rounding_notes
from gradatlas.statistics.shapes import Shapes, read_shapes, sentence
from gradatlas.statistics.tables import TABLES

# The study's two; the CSV has all.
SHOWN = ("nuclear_norm", "sigma_ratio")
MEASURES = {"signed": "Signed mean", "absolute": "Mean absolute"}
# Rows of a table run from model to estimate; the columns of the CSV are in this order too.
_KEYS = ("model", "dataset", "relation", "loss_tokens", "statistic", "variant", "projection")
# Statistics that do not correct for noise have no `corrected`.
_ESTIMATE = ("value", "corrected", "low", "high", "n")
COLUMNS = {
    "mad": (*_KEYS, "segment", "layers", *_ESTIMATE, "purpose", "published"),
    "rd": (*_KEYS, "measure", *_ESTIMATE, "top_layers", "purpose", "published"),
}
# Of each kind, the column in which the estimates of one projection differ.
_WHICH = {"mad": "segment", "rd": "measure"}
CHECK = "Pipeline check: this model was never meant for these data; no finding"
TITLES = {
    "mad": "Mean absolute difference of neighbouring layers (MAD)",
    "rd": "Relative difference from correct responses (RD)",
}
NOTES = {
    "mad": "How much a mean curve jumps: the mean of |s(i+1) − s(i)| over neighbouring layers i, within a segment of "
    "the layers (counted from 0), with its 95 % bootstrap interval over samples. A mean of "
    "absolute values: noise alone makes it positive. A second number before the interval is the estimate corrected for "
    "that, which the interval is of; without one the interval lies high where MAD is near zero.",
    "rd": "How far another kind of response lies from the correct one: (other − correct) / correct of the mean curves, "
    "averaged over layers with its sign and as an absolute value, with 95 % bootstrap intervals over samples; and the "
    "layers that differ most, largest first. Only the signed one can show that there is no difference: noise alone "
    "makes the absolute one positive. A second number before an interval is the estimate corrected for that, which the "
    "interval is of. The signed one's interval is bootstrap-t; that of a claim is Student's t, on another scale.",
}


@dataclass(frozen=True)
class Block:
    """A table to read: one model, dataset, relation, token set and statistic; a row per variant and projection.

    `estimates`: the same for a page that is narrow, a row per estimate, below a row of the variant alone.
    """

    kind: str
    model: str
    dataset: str
    relation: str
    loss_tokens: str
    statistic: str
    check: bool
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    estimates: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def write_tables(
    kind: str, statistics: Sequence[str | Path], output: str | Path, published: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Write the ``mad`` or ``rd`` tables of all `statistics` folders into the folder `output`.

    Parquet and CSV are tidy: a row per estimate (`COLUMNS`), numbers in full, missing ones empty. `published`: rows of
    config/published.tsv. `InputError` where a folder has no such table.
    """
    frames = [_flat(pl.from_arrow(read_table(TABLES[kind], Path(folder) / f"{kind}.parquet"))) for folder in statistics]
    every = _beside_published(pl.concat(frames), kind, published)
    frame = in_reading_order(every.select(name for name in COLUMNS[kind] if name in every.columns), kind)
    shown = blocks(frame, kind, published, read_shapes(statistics), rounding_notes(statistics))
    write_table(Path(output) / kind, frame, TITLES[kind], NOTES[kind], [_section(block) for block in shown])


def _section(block: Block) -> Section:
    header, *rows = block.estimates
    return Section(
        " · ".join(about(block)),
        block.header,
        block.rows,
        block.notes,
        left=2,
        narrow=(header, rows),
        caption=f"{block.kind.upper()}: {', '.join(about(block))}",
        lead=CHECK if block.check else "",
    )


def read_estimates(path: str | Path) -> tuple[str, pl.DataFrame]:
    """The rows of one of `write_tables`’s files, and their kind, from the Parquet file of that name.

    Raises `InputError` for a missing, damaged or any other file.
    """
    frame = read_written(path, "write_tables")
    for kind, columns in COLUMNS.items():
        if [name for name in columns if name in frame.columns] == frame.columns and _WHICH[kind] in frame.columns:
            return kind, frame
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


def blocks(
    frame: pl.DataFrame,
    kind: str,
    published: Sequence[Mapping[str, Any]] = (),
    shapes: Mapping[str, Shapes] | None = None,
    rounded: Mapping[str, Sequence[str]] | None = None,
) -> list[Block]:
    """The tables to read, in the order of `frame` (of `in_reading_order`), for the statistics that are `SHOWN`.

    Notes name the sources of `published` numbers, those that belong to no single row, and by `shapes` the models whose
    layers differ in shape. `rounded`: notes on models whose passes have 16 bits.
    """
    frame = frame.filter(pl.col("statistic").is_in(SHOWN))
    shown = []
    for key, rows in frame.group_by(_KEYS[:5], maintain_order=True):
        head, columns = _mad_columns(rows) if kind == "mad" else _rd_columns(rows)
        known = [row for row in rows.to_dicts() if row["published"]]
        body = []
        for (variant, projection), group in rows.group_by("variant", "projection", maintain_order=True):
            estimates = group.to_dicts()
            cells = [next((read(row) for row in estimates if at(row)), "–") for at, read in columns]
            cells += [next((row["published"] for row in estimates if row["published"]), "–")] if known else []
            n = max(row["n"] for row in estimates)
            body.append((label(variant), label(projection), *cells, f"{n:,}"))
        check = bool((rows["purpose"] == PIPELINE_CHECK).any())
        beside = [f"Published ({known[0][_WHICH[kind]]})"] if known else []
        header = ("Variant", "Projection", *head, *beside, "n")
        long = tuple(_long(rows, kind, bool(known)))
        of_model = (*sentence((shapes or {}).get(key[0])), *(rounded or {}).get(key[0], ()))
        notes = (*of_model, *_notes(key, kind, published))
        shown.append(Block(kind, *key, check, header, tuple(body), long, notes))
    return shown


def _long(rows: pl.DataFrame, kind: str, known: bool) -> Iterator[tuple[str, ...]]:
    """A header, then a row per estimate, with the corrected one and the interval apart; before them their variant."""
    last = ("Top layers",) if kind == "rd" else ("Published",) if known else ()
    yield ("Projection", "Layers" if kind == "mad" else "Measure", "Plain", "Corrected", "95 % interval", *last, "n")
    for (variant,), group in rows.group_by("variant", maintain_order=True):
        yield (label(variant),)
        for row in group.to_dicts():
            interval = with_interval(row["value"], row["low"], row["high"]).partition(" ")[2] or "–"
            if kind == "mad":
                part = f"{label(row['segment'])} ({row['layers'].replace('-', '–')})"
                more = (row["published"] or "–",) if known else ()
            else:
                part = MEASURES.get(row["measure"], label(row["measure"]))
                more = ((row["top_layers"] or "–").replace(" ", ", "),)
            estimates = (three_digits(row["value"]), three_digits(row.get("corrected")), interval)
            yield (label(row["projection"]), part, *estimates, *more, f"{row['n']:,}")


def _notes(key: tuple[str, ...], kind: str, published: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is published of one table and belongs to no single projection, and the sources of all of it."""
    of_table = [row for row in published if (row["table"], *(row[name] for name in _KEYS[:3])) == (kind, *key[:3])]
    of_table = [row for row in of_table if key[3] == "all" and row["statistic"] == key[4]]
    words = [f"{label(row['variant'])} {row['value']}" for row in of_table if not row["projection"]]
    sources = dict.fromkeys(row["source"] for row in of_table)
    notes = [f"Published, of no single projection: {', '.join(words)}."] if words else []
    return [*notes, *(f"Published numbers: {source}." for source in sources)]


def _beside_published(frame: pl.DataFrame, kind: str, published: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """The published number of each estimate, as it is printed; null where none is known."""
    keys = ["model", "dataset", "relation", "statistic", "variant", "projection", _WHICH[kind]]
    known = [{**row, _WHICH[kind]: row["part"]} for row in published if row["table"] == kind and row["projection"]]
    schema = dict.fromkeys([*keys, "published"], pl.String)
    beside = pl.DataFrame([{**row, "published": row["value"]} for row in known], schema=schema)
    found = frame.join(beside, on=keys, how="left", maintain_order="left")
    return found.with_columns(pl.when(pl.col("loss_tokens") == "all").then("published"))


def about(table: Block) -> list[str]:
    """What a table is of, in words."""
    tokens = [] if table.loss_tokens == "all" else [f"loss on {table.loss_tokens}"]
    words = [table.model, table.dataset, f"{table.relation.replace('_', ' ')} responses", *tokens]
    return [*words, statistic_label(table.statistic)]


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """NaN as a missing number, and lists of layers as text, as a CSV file can hold them."""
    numbers = [name for name in _ESTIMATE[:-1] if name in frame.columns]
    frame = frame.with_columns(pl.col(numbers).fill_nan(None))
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
    """An estimate with its interval, and before that the corrected one that the interval is of, where it differs."""
    value, corrected = three_digits(row["value"]), three_digits(row.get("corrected"))
    text = with_interval(row["value"], row["low"], row["high"])
    return text if text == value or corrected in ("–", value) else text.replace(value, f"{value}; {corrected}", 1)
