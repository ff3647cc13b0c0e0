"""The verdicts as the page shows them: a line a claim with its counts, and the numbers behind it for a script."""

from pathlib import Path
from typing import Any

import polars as pl

from gradatlas.charts.names import in_order
from gradatlas.claims import rows as claim_rows
from gradatlas.claims.rows import COLUMNS, DYNAMICS, GROUPS, NOTES, STUDIES, SYMBOLS
from gradatlas.page.pieces import pack
from gradatlas.page.titles import Titles


def verdicts(path: str | Path, titles: Titles) -> dict[str, Any] | None:
    """By study the lines, in the order of the figure; None where there is no row.

    `path`: the claims table. `titles`: of models and datasets. `piece`: of every claim the rows of numbers.
    """
    rows = claim_rows.read_rows(path, titles)
    if rows.is_empty():
        return None
    shown = claim_rows.columns(rows)
    studies = in_order(rows["study"], STUDIES)
    numbers = {
        first["claim"]: [[row["statistic"], *(row[name] for name in shown)] for row in group]
        for first, group in claim_rows.by_claim(rows)
    }
    return {
        "studies": [_study(rows.filter(pl.col("study") == study), STUDIES[study]) for study in studies],
        "note": NOTES[DYNAMICS] if studies == [DYNAMICS] else f"{claim_rows.INTERVALS} {claim_rows.stand_in(rows)}",
        "piece": pack({"header": ["Number of", *(COLUMNS[name] for name in shown)], "rows": numbers}),
    }


def _study(rows: pl.DataFrame, title: str) -> dict[str, Any]:
    """One study: `counts` of its verdicts, and by group (stands, withdrawn, control) its claims, as in the sheet."""
    counted = rows.filter(pl.col("group") != "")
    groups: dict[str, list[dict[str, Any]]] = {name: [] for name in ("stands", "withdrawn", "control")}
    for first, own in claim_rows.by_claim(counted):
        groups[first["mark"] or "stands"].append(
            {
                **{name: first[name] for name in ("claim", "title", "source")},
                "trained": _counts(row["verdict"] for row in own if row["kind"] != "random"),
                "untrained": _counts(row["verdict"] for row in own if row["kind"] == "random"),
            }
        )
    return {
        "title": title,
        "counts": [
            (group, [(SYMBOLS[verdict], verdict, count) for verdict, count in of.items()])
            for group, of in claim_rows.counted(counted)
        ],
        "groups": [(GROUPS[group], lines) for group, lines in groups.items() if lines],
        "not_made": list(claim_rows.not_requested(rows)),
    }


def _counts(verdicts) -> list[tuple[str, str, int]]:
    """Symbol, verdict and count of each verdict that occurs."""
    found = list(verdicts)
    return [(SYMBOLS[verdict], verdict, found.count(verdict)) for verdict in SYMBOLS if verdict in found]
