"""The claims as the page shows them: a matrix of verdicts a study, and the numbers behind each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from gradatlas.charts.names import in_order
from gradatlas.claims import rows as claim_rows
from gradatlas.claims.rows import COLUMNS, DYNAMICS, NOTES, STUDIES, SYMBOLS


def verdicts(path: str | Path, titles: Mapping[str, str]) -> dict[str, Any] | None:
    """A matrix a study, in `studies`, and the `table` of all rows, by claim; None where there is no row.

    `path`: the claims table. `titles`: of the datasets, by key.
    """
    rows = claim_rows.read_rows(path, titles)
    if rows.is_empty():
        return None
    shown = claim_rows.columns(rows)
    studies = in_order(rows["study"], STUDIES)
    return {
        "studies": [_matrix(rows.filter(pl.col("study") == study), STUDIES[study], titles) for study in studies],
        "note": NOTES[DYNAMICS] if studies == [DYNAMICS] else f"{claim_rows.INTERVALS} {claim_rows.stand_in(rows)}",
        "header": ["In words", "Statistic", *(COLUMNS[name] for name in shown)],
        "table": [
            (
                first["title"],
                [
                    (row["place"], [row["statement"], row["statistic"], *(row[name] or "–" for name in shown)])
                    for row in group
                ],
            )
            for first, group in claim_rows.by_claim(rows)
        ],
    }


def _matrix(rows: pl.DataFrame, title: str, titles: Mapping[str, str]) -> dict[str, Any]:
    """One study: `counts` of its verdicts, `datasets` with their models, and `rows` of cells.

    A model that is untrained is marked. A cell holds all verdicts of its row, model and dataset, each with
    its place in the table.
    """
    counted = rows.filter(pl.col("group") != "")
    untrained = set(counted.filter(pl.col("group") == "untrained")["model"])
    datasets = in_order(counted["dataset"], titles)
    models = {key: sorted(set(counted.filter(pl.col("dataset") == key)["model"])) for key in datasets}
    lines = []
    for _, line in counted.group_by("claim", "of", maintain_order=True):
        first, found = line.row(0, named=True), line.to_dicts()
        cells = [
            [
                {"place": row["place"], "verdict": row["verdict"], "symbol": SYMBOLS[row["verdict"]]}
                for row in found
                if (row["dataset"], row["model"]) == (dataset, model)
            ]
            for dataset in datasets
            for model in models[dataset]
        ]
        of = ", ".join(filter(None, (first["of"], first["mark"])))
        lines.append({"title": first["title"], "of": of, "source": first["source"], "cells": cells})
    return {
        "title": title,
        "counts": [
            (group, [(SYMBOLS[verdict], verdict, count) for verdict, count in of.items()])
            for group, of in claim_rows.counted(counted)
        ],
        "datasets": [
            (titles.get(key, key), [(model, model in untrained) for model in models[key]]) for key in datasets
        ],
        "rows": lines,
        "not_made": list(claim_rows.not_requested(rows)),
    }
