"""Audit: counts of properties of every response set, from the responses tables."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
from ftfy.badness import is_bad

from gradatlas.core.command import progress
from gradatlas.core.files import write_text
from gradatlas.core.spreadsheets import csv_of
from gradatlas.core.tables import read_table, write_table
from gradatlas.data.responses.labels import read_label, same_answer
from gradatlas.data.samples import FINAL
from gradatlas.data.tables import AUDIT, RESPONSES
from gradatlas.study.relations import is_marked, warning_of

# Marks of the final answer; the published shuffles lose the new line before the phrase.
_MARKERS = (FINAL.strip(), "\\boxed")
# Remains of cutting responses into units: two dots in a row, an abbreviation cut in two ("e.g." gives " g. "), a lone
# closing bracket of a display formula.
_ARTEFACTS = re.compile(r"(?<!\.)\.\.(?!\.)|(?<=[.\s])[ge]\. |^\s*\\\](?:\.|\s)|\. \\\]")


def audit(responses: Sequence[str | Path], csv: str | Path, parquet: str | Path) -> pl.DataFrame:
    """Write one row per dataset, variant and relation of the responses tables, as CSV and Parquet.

    Counts of responses, except the last three:
    `n`: all; `not_constructible`: without a text, by their builder's definition; all other counts are of texts;
    `labelled`: state a readable answer, in data with gold answers;
    `label_equals_gold`: state the right answer; null where none is labelled;
    `contradicts_label`: state, in the phrase or a ``\\boxed{}``, another answer than their label, which built and
    correct responses should state (a Detailed response need not agree with its gold answer);
    `missing_final_answer`, `double_final_answer`: have the mark of a final answer ("The final answer is", or else
    ``\\boxed``) never, or more than once; null where most correct responses of the variant have no mark;
    `duplicates`: repeat an earlier response of the set;
    `mojibake`: contain wrongly decoded characters (ftfy);
    `artefacts`: contain remains of cutting;
    `own_parts`: contain parts of the sample's own response, where they should not;
    `most_uses_of_a_donor`: take their first part from the same other sample (the maximum over samples);
    `characters`, `characters_max`: of all responses together, and of the longest one; `words`: of all;
    `marked`: whether more than 1 % of labels that should be wrong are right; the log warns of these.
    """
    rows: list[dict[str, Any]] = []
    for path in responses:
        frame = pl.from_arrow(read_table(RESPONSES, path))
        marks = {variant: _mark(frame, variant) for variant in frame["variant"].unique(maintain_order=True)}
        for (variant, relation), cell in frame.group_by("variant", "relation", maintain_order=True):
            rows.append(_counts(cell, marks[variant], relation))
    for row in rows:
        if row["marked"]:
            name = f"{row['dataset']}, {row['variant']}, {row['relation']}"
            progress(warning_of(name, row["label_equals_gold"], row["labelled"]))
    write_table(AUDIT, rows, parquet, {})
    table = pl.from_arrow(pa.Table.from_pylist(rows, schema=AUDIT.schema))
    write_text(csv, csv_of(table))
    return table


def _mark(frame: pl.DataFrame, variant: str) -> str | None:
    """The mark of the final answer in most correct responses of a variant, None without one."""
    correct = frame.filter((pl.col("variant") == variant) & (pl.col("relation") == "correct"))["response"].drop_nulls()
    shares = {mark: correct.str.contains(mark, literal=True).mean() or 0 for mark in _MARKERS}
    return next((mark for mark, share in shares.items() if share > 0.5), None)


def _counts(cell: pl.DataFrame, mark: str | None, relation: str) -> dict[str, Any]:
    ok = cell.filter(pl.col("status") == "ok")
    texts = ok["response"]
    labelled = ok["label_equals_gold"].count() if cell["gold"].count() else None
    # Null, not 0, where there are no labels.
    right = ok["label_equals_gold"].sum() if labelled else None
    marks = texts.str.count_matches(mark, literal=True) if mark else None
    foreign = [
        next((source for source in sources if source != sample_id), None)
        for sample_id, sources in ok.select("sample_id", "sources").iter_rows()
    ]
    own = ok.filter(pl.col("sources").list.contains(pl.col("sample_id"))).height
    uses = pl.Series(foreign, dtype=pl.String).drop_nulls().value_counts()["count"]
    return {
        **{key: cell[key][0] for key in ("dataset", "variant", "relation")},
        "n": cell.height,
        "not_constructible": cell.height - ok.height,
        "contradicts_label": None if labelled is None else _contradictions(ok),
        "labelled": labelled,
        "label_equals_gold": right,
        "missing_final_answer": None if marks is None else (marks == 0).sum(),
        "double_final_answer": None if marks is None else (marks > 1).sum(),
        "duplicates": texts.len() - texts.n_unique(),
        "mojibake": sum(map(is_bad, texts)),
        "artefacts": sum(bool(_ARTEFACTS.search(text)) for text in texts),
        "own_parts": None if relation == "correct" else own,
        "most_uses_of_a_donor": uses.max() if uses.len() else 0,
        "characters": texts.str.len_chars().sum(),
        "characters_max": texts.str.len_chars().max() or 0,
        "words": texts.str.split(" ").list.len().sum(),
        "marked": is_marked(relation, right, labelled),
    }


def _contradictions(ok: pl.DataFrame) -> int:
    """The number of responses that state another answer than their label."""
    read = (
        (read_label(text, variant, "none"), label)
        for text, variant, label in ok.select("response", "variant", "label").iter_rows()
    )
    return sum(None not in pair and not same_answer(*pair) for pair in read)
