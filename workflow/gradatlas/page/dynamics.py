"""The second study on the page: its finetuning runs, what each changed, and win rates."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from gradatlas.charts.names import label
from gradatlas.charts.tables import Section
from gradatlas.core.checked import damaged, read_json
from gradatlas.figures.run_curves import TYPES
from gradatlas.figures.run_table import change, read_runs
from gradatlas.figures.win_rates import read_win_rates, sections
from gradatlas.page.titles import Titles

Runs = Mapping[str, Mapping[str, Any]]


def runs_of(rows: Runs, statuses: Sequence[tuple[str, str, str | Path]], titles: Titles) -> dict[str, Any]:
    """The runs as a table: what each is trained on, and how it ended for every model and seed.

    `rows`: of config/runs.tsv, by name; `statuses`: (model, seed, file ``status.json``) of each. `stopped` names those
    that diverged.
    """
    ended: dict[str, dict[str, list[str]]] = {}
    stopped = []
    for model, seed, path in statuses:
        status = _status(path)
        words = status["status"]
        if words != "ok":
            words = f"{words} at step {status['step']}"
            stopped.append(f"{_title(rows, status['run'])} ({titles[model]}, seed {seed}: {words})")
        ended.setdefault(status["run"], {}).setdefault(words, []).append(f"{titles[model]} {seed}")
    return {
        "header": ["Run", "Starts from", "Loss", "Trained on", "Updates", "Batch size", "Ended (model, seed)"],
        "rows": [
            [
                _title(rows, name),
                _title(rows, row["init"]) or "the model",
                row["loss"].upper(),
                _trained_on(row),
                f"{row['steps']:,}",
                f"{row['batch_size']:,}",
                "; ".join(f"{words}: {', '.join(where)}" for words, where in ended.get(name, {}).items()) or "–",
            ]
            for name, row in rows.items()
        ],
        "stopped": stopped,
    }


def changes_of(path: str | Path, rows: Runs, titles: Titles) -> list[dict[str, Any]]:
    """The change of each run from start to end: a table for each model and seed, a row for each type of
    probe, a column for each run.

    `path`: the CSV of `write_dynamics_table`; `rows`: of config/runs.tsv, by name. Probed questions that are trained
    on; of the likeliest token, only along the chosen responses.
    """
    tables = []
    of_response = pl.col("measure") == "log_prob_sum"
    frame = read_runs(path).filter(of_response | (pl.col("type") == "chosen"), split="train")
    frame = frame.sort("measure", descending=True, maintain_order=True)
    for (model, seed), part in frame.group_by("model", "seed", maintain_order=True):
        runs = part["run"].unique(maintain_order=True)
        body = []
        for (measure, kind), cells in part.group_by("measure", "type", maintain_order=True):
            changes = {row["run"]: change(row) for row in cells.to_dicts()}
            name = TYPES.get(kind, label(kind)) if measure == "log_prob_sum" else f"likeliest token along {kind}"
            body.append([name, *(changes.get(run, "–") for run in runs)])
        header = ["Probe", *(_title(rows, run) for run in runs)]
        tables.append({"title": f"{titles[model]}, seed {seed}", "header": header, "rows": body})
    return tables


def rates_of(path: str | Path, rows: Runs, titles: Titles) -> list[Section]:
    """The win rates of each model and seed, from the CSV of `write_win_rates`; `rows`: of config/runs.tsv, by name."""
    return list(sections(read_win_rates(path), rows, titles, ()))


def _status(path: str | Path) -> dict[str, Any]:
    status = read_json(path, "finetune")
    missing = [key for key in ("run", "status", "step") if key not in status]
    if missing:
        raise damaged(path, f"not a run's status, '{missing[0]}' is missing", "finetune")
    return status


def _title(rows: Runs, name: str) -> str:
    return rows.get(name, {}).get("title") or name


_PAIRS = {"off_policy": "pairs", "on_policy": "own samples, ranked", "self_play": "chosen against own samples"}


def _trained_on(row: Mapping[str, Any]) -> str:
    """What a run's updates are on, in words."""
    if row["loss"] == "sft":
        words = {"extend": "chosen and rejected"}.get(row["target"], row["target"].replace("_", " "))
    else:
        words = _PAIRS[row["negatives"]]
    questions = "; the probed prompts" if row["probed"] else "; other questions" if row["split"] == "base" else ""
    return words + questions + (", by LoRA" if row["parameters"] == "lora" else "")
