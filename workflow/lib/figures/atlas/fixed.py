"""Which conclusions survive the fixed data, as the page shows it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from workflow.lib.figures.atlas.verdicts import SYMBOLS
from workflow.lib.figures.fixed import NAMES, NOTE, number, read, right_labels
from workflow.lib.statistics.claims.fixed import compare, headline

HEADER = ("Claim", "Model", "Dataset", "The study’s responses", "of them right answers", "on them", "on corrected ones")
HEADER += ("Verdict on the study’s", "Verdict on the corrected", "Outcome", "Why")


def fixed(claims: str | Path, cells: pl.DataFrame, titles: Mapping[str, str]) -> dict[str, Any] | None:
    """The headline and the rows of the study's claims; None where the study's own responses were not measured.

    `claims`: the table of verdicts; `cells`: what the samples were; `titles`: of the datasets, by key.
    """
    table = compare(read(claims), cells)
    if table.is_empty():
        return None
    shown = table.filter(pl.col("status") == "stands")
    return {
        "headline": headline(table),
        "note": NOTE,
        "left_out": table.height - shown.height,
        "header": HEADER,
        "rows": [_row(row, titles) for row in shown.to_dicts()],
    }


def _row(row: Mapping[str, Any], titles: Mapping[str, str]) -> dict[str, Any]:
    where = [row["title"] or row["claim"], row["model"], titles.get(row["dataset"], row["dataset"])]
    numbers = [NAMES[row["study_relation"]], right_labels(row), number(row, "study"), number(row, "fixed")]
    sides = [row[f"{side}_verdict"] for side in ("study", "fixed")]
    return {
        "cells": [*where, *numbers],
        "verdicts": [(SYMBOLS.get(verdict, ""), verdict or "–") for verdict in sides],
        "outcome": row["outcome"],
        "why": row["why"],
    }
