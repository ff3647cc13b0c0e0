"""The claims on the study's irrelevant responses beside the same on corrected ones, as the page shows them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from gradatlas.claims.fixed import compare, headline
from gradatlas.claims.rows import SYMBOLS
from gradatlas.figures.fixed import NOTE, number, read, right_labels
from gradatlas.page.titles import Titles

HEADER = ("Model and dataset", "Outcome", "On the paper’s wrong answers", "On corrected ones", "Right answers")


def fixed(claims: str | Path, cells: pl.DataFrame, titles: Titles) -> dict[str, Any] | None:
    """The headline and the rows of the study's claims; None where the study's own responses were not measured.

    `claims`: the table of verdicts; `cells`: what the samples were; `titles`: of models and datasets.
    """
    table = compare(read(claims), cells)
    if table.is_empty():
        return None
    shown = table.filter(pl.col("status") == "stands")
    groups = shown.group_by("claim", maintain_order=True)
    return {
        "headline": headline(table),
        "note": f"{NOTE} Right answers: how many of the study’s responses state the right one.",
        "left_out": table.height - shown.height,
        "header": HEADER,
        "claims": [
            (rows["title"][0] or claim, [_row(row, titles) for row in rows.to_dicts()]) for (claim,), rows in groups
        ],
    }


def _row(row: Mapping[str, Any], titles: Titles) -> list[Any]:
    """A cell for each of `HEADER`: where and why not, outcome, twice symbol, verdict and number, right answers."""
    sides = [(row[f"{side}_verdict"] or "not measured", number(row, side)) for side in ("study", "fixed")]
    where = f"{titles[row['model']]} · {titles[row['dataset']]}"
    cells = [(SYMBOLS.get(verdict, ""), verdict, value) for verdict, value in sides]
    return [{"where": where, "why": row["why"]}, row["outcome"], *cells, right_labels(row)]
