"""The claims as the page shows them: a matrix of verdicts, and the numbers behind each."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from workflow.lib.figures.ability import OF_TWO
from workflow.lib.figures.names import in_order, label, relations_in_order, responses_of
from workflow.lib.figures.tables import three_digits
from workflow.lib.figures.verdicts import ABILITY_TESTS, DYNAMICS, INTERVALS, NOTES, STAND_IN
from workflow.lib.tables import read_table

# Told apart by shape and word too, not by colour alone.
SYMBOLS = {"holds": "✓", "fails": "✗", "inconclusive": "?"}
# Of a claim that is tested on each projection and on all together, the page shows the latter.
OVERALL = "all"
# What stands beside a claim that is not one of the study's present ones.
STATUS = {"withdrawn": "withdrawn by the study", "control": "control"}
# What is counted apart, as in the figure: verdicts on what the study says now are not those on what it took back, nor
# controls, nor its claims on untrained networks.
GROUPS = {
    "stands": "The study’s claims",
    "withdrawn": "Withdrawn",
    "control": "Controls",
    "untrained": "The study’s claims on untrained networks, controls too",
}
# A matrix each, in this order; others by their key.
STUDIES = {"layer_gradients": "Layer gradients", "learning_dynamics": "Learning dynamics"}
# Columns of the table of verdicts that are shown where any verdict has them.
COLUMNS = {
    "statement": "In words",
    "model": "Model",
    "reference_model": "Against model",
    "dataset": "Dataset",
    "reference_dataset": "Against dataset",
    "relation": "Responses",
    "projection": "Projection",
    "seed": "Seed",
    "statistic": "Statistic",
    "value": "Value",
    "interval": "Interval",
    "n": "n",
    "direction": "Claimed",
    "threshold": "Threshold",
    "margin": "Margin",
    "published": "Published",
    "untrained": "Untrained network",
    "tokens": "Response tokens",
    "reference_tokens": "Tokens compared with",
    "accuracies": "What the model can do",
    "ability_test": "Ability by",
    "chance": "By chance",
    "p_value": "p",
    "p_adjusted": "p adjusted",
    "verdict": "Verdict",
    "reason": "Reason",
}


def verdicts(path: str | Path, titles: Mapping[str, str]) -> dict[str, Any] | None:
    """A matrix a study, in `studies`, and the `table` of all their verdicts, by claim; None of no claim.

    `path`: a table of claims; its columns ``title`` (of a claim) and ``statement`` (of one verdict, with its number)
    say them in words, where it has them. `titles`: of the datasets, by key.
    """
    frame = pl.from_arrow(read_table("claims", path))
    whole = (pl.col("projection") == OVERALL).fill_null(False)
    frame = frame.filter(whole | ~whole.any().over("claim"))
    if frame.is_empty():
        return None
    found = [{**row, "symbol": SYMBOLS[row["verdict"]]} for row in frame.with_row_index("place").to_dicts()]
    studies = in_order(frame["study"], STUDIES)
    # One of several seeds, and what was not asked, are no verdicts: they stand in the table alone.
    judged = [row for row in found if row["status"] not in ("seed", "not_asked")]
    shown = [name for name in COLUMNS if name == "interval" or any(row.get(name) not in (None, "") for row in found)]
    return {
        "studies": [
            {
                "title": STUDIES.get(key, label(key)),
                **_matrix([row for row in judged if row["study"] == key], titles),
                "not_asked": _not_asked([row for row in found if row["study"] == key]),
            }
            for key in studies
        ],
        "note": NOTES[DYNAMICS] if studies == [DYNAMICS] else f"{INTERVALS} {_stand_in(frame)}".strip(),
        "header": [COLUMNS[name] for name in shown],
        "table": [
            (
                own[0].get("title") or _name(own[0]["claim"]),
                [(row["place"], [_text(name, row, titles) for name in shown]) for row in own],
            )
            for claim in dict.fromkeys((row["study"], row["claim"]) for row in found)
            for own in [[row for row in found if (row["study"], row["claim"]) == claim]]
        ],
    }


def _matrix(found: list[dict[str, Any]], titles: Mapping[str, str]) -> dict[str, Any]:
    """One study: `counts` of its verdicts, `datasets` with their models, and `rows` of cells.

    A model is told with whether it is untrained. A cell holds all verdicts of its row, model and dataset, each with its
    place in the table. What is in none of `GROUPS` stands in the table alone.
    """
    found = [row for row in found if _group(row) in GROUPS]
    datasets = in_order([row["dataset"] for row in found], titles)
    models = {key: sorted({row["model"] for row in found if row["dataset"] == key}) for key in datasets}
    columns = [(dataset, model) for dataset in datasets for model in models[dataset]]
    # Claims stand in the table's order, the kinds of response of each in the usual one.
    claims = list(dict.fromkeys(row["claim"] for row in found))
    relations = relations_in_order(row["relation"] or "" for row in found)
    rows: dict[tuple, list[dict]] = {}
    for row in sorted(found, key=lambda row: (claims.index(row["claim"]), relations.index(row["relation"] or ""))):
        rows.setdefault((row["claim"], row["relation"], row["projection"]), []).append(row)
    groups = {key: [row for row in found if _group(row) == key] for key in GROUPS}
    untrained = {row["model"] for row in groups["untrained"]}
    return {
        "counts": [(title, _counts(groups[key])) for key, title in GROUPS.items() if groups[key]],
        "datasets": [
            (titles.get(key, key), [(model, model in untrained) for model in models[key]]) for key in datasets
        ],
        "rows": [
            {
                "title": own[0].get("title") or _name(key[0]),
                "of": _of(own[0]),
                "source": own[0]["source"] or "",
                "cells": [[row for row in own if (row["dataset"], row["model"]) == column] for column in columns],
            }
            for key, own in rows.items()
        ],
    }


def _stand_in(frame: pl.DataFrame) -> str:
    """What is to be known of abilities that are no answers of the model's own."""
    used = (frame["ability_test"] == OF_TWO).any()
    return f"Where ability is by the {ABILITY_TESTS[OF_TWO]}, {STAND_IN}" if used else ""


def _not_asked(rows: list[dict[str, Any]]) -> list[str]:
    """The titles of the claims that this configuration makes no runs or data for."""
    return list(dict.fromkeys(row["title"] for row in rows if row["status"] == "not_asked"))


def _group(row: dict[str, Any]) -> str:
    of_study = row["status"] == "control" and row["claim_status"] not in (None, "control")
    return "untrained" if of_study else row["status"]


def _counts(rows: list[dict]) -> list[tuple[str, str, int]]:
    return [(SYMBOLS[name], name, sum(row["verdict"] == name for row in rows)) for name in SYMBOLS]


def _name(claim: str) -> str:
    return re.sub(r"\b(mad|rd)\b", lambda found: found[0].upper(), label(claim), flags=re.IGNORECASE)


def _relation(row: dict[str, Any]) -> str:
    """Responses, or of the second study a run, the one that it is held against, and a type of probe."""
    if row["study"] == "learning_dynamics":
        return row["relation"].replace("_", " ").replace(":", " against ").replace("/", ", ")
    return responses_of(row["relation"])


def _of(row: dict[str, Any]) -> str:
    """What a row of the matrix is of, beside its claim."""
    projection = row["projection"] if row["projection"] != OVERALL else None
    said = [_relation(row)] if row["relation"] else []
    said += [label(projection)] if projection else []
    return ", ".join([*said, *([STATUS[row["claim_status"]]] if row.get("claim_status") in STATUS else [])])


def _text(name: str, row: dict[str, Any], titles: Mapping[str, str]) -> str:
    """One number or word of a verdict."""
    if name == "interval":
        return f"{three_digits(row['low'])} to {three_digits(row['high'])}" if row["low"] is not None else "–"
    value = row[name]
    if value in (None, ""):
        return "–"
    if name in ("dataset", "reference_dataset"):
        return titles.get(value, value)
    if name in ("relation", "projection"):
        return label(value)
    if name == "ability_test":
        return ABILITY_TESTS[value]
    if name == "verdict":
        return f"{row['symbol']} {value}"
    return f"{value:,}" if name in ("n", "seed") else three_digits(value) if isinstance(value, float) else str(value)
