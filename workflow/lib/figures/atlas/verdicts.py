"""The claims as the page shows them: a matrix of verdicts, and every verdict with its numbers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from workflow.lib.figures import tables
from workflow.lib.figures.names import in_order, label, relations_in_order, responses_of, statistic_label
from workflow.lib.tables import read_table

# Told apart by shape and word too, not by colour alone.
SYMBOLS = {"holds": "✓", "fails": "✗", "inconclusive": "?"}
HEADER = (
    *("Claim", "Statement", "Model", "Against", "Dataset", "Responses", "Projection", "Seed", "Statistic"),
    *("Value", "95 % interval", "n", "Threshold", "p", "p adjusted", "Verdict", "Reason", "Source"),
)


def verdicts(path: str | Path, titles: Mapping[str, str]) -> dict[str, Any] | None:
    """The matrix (`datasets` with their models, and `rows` of cells) and the `table` of all verdicts; None of no claim.

    `path`: a table of claims; its column ``statement``, where it has one, says each claim in words. `titles`: of the
    datasets, by key. A cell of the matrix holds every verdict of its row, model and dataset, each with its place in the
    table.
    """
    frame = pl.from_arrow(read_table("claims", path))
    if frame.is_empty():
        return None
    if "statement" not in frame.columns:
        frame = frame.with_columns(pl.lit("").alias("statement"))
    datasets = in_order(frame["dataset"], titles)
    models = {key: sorted(set(frame.filter(pl.col("dataset") == key)["model"])) for key in datasets}
    columns = [(dataset, model) for dataset in datasets for model in models[dataset]]
    found = [{**row, "symbol": SYMBOLS[row["verdict"]]} for row in frame.with_row_index("place").to_dicts()]
    # Claims stand in the table's order, the kinds of response of each in the usual one.
    claims = list(dict.fromkeys((row["study"], row["claim"]) for row in found))
    relations = relations_in_order(row["relation"] or "" for row in found)
    rows: dict[tuple, dict[tuple, list[dict]]] = {}
    for row in sorted(
        found, key=lambda row: (claims.index((row["study"], row["claim"])), relations.index(row["relation"] or ""))
    ):
        cells = rows.setdefault((row["claim"], row["relation"], row["projection"]), {})
        cells.setdefault((row["dataset"], row["model"]), []).append(row)
    return {
        "counts": [(SYMBOLS[name], name, sum(row["verdict"] == name for row in found)) for name in SYMBOLS],
        "datasets": [(titles.get(key, key), models[key]) for key in datasets],
        "rows": [
            {"claim": label(claim), "of": _of(relation, projection), "cells": [cells.get(at, []) for at in columns]}
            for (claim, relation, projection), cells in rows.items()
        ],
        "header": HEADER,
        "table": [_numbers(row, titles) for row in found],
    }


def _of(relation: str | None, projection: str | None) -> str:
    """What a row of the matrix is of, beside its claim."""
    said = [responses_of(relation)] if relation else []
    return ", ".join([*said, *([label(projection)] if projection else [])])


def _numbers(row: Mapping[str, Any], titles: Mapping[str, str]) -> list[str]:
    """One verdict as cells under `HEADER`."""
    number = tables.three_digits
    known = row["low"] is not None and row["high"] is not None
    return [
        label(row["claim"]),
        row["statement"] or "–",
        row["model"],
        row["reference_model"] or "–",
        titles.get(row["dataset"], row["dataset"]),
        label(row["relation"] or "–"),
        label(row["projection"] or "–"),
        "–" if row["seed"] is None else str(row["seed"]),
        statistic_label(row["statistic"] or "–"),
        number(row["value"]),
        f"{number(row['low'])} to {number(row['high'])}" if known else "–",
        "–" if row["n"] is None else f"{row['n']:,}",
        *(number(row[name]) for name in ("threshold", "p_value", "p_adjusted")),
        f"{SYMBOLS[row['verdict']]} {row['verdict']}",
        row["reason"] or "–",
        row["source"] or "–",
    ]
