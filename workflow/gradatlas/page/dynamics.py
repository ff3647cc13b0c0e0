"""The second study on the page: its finetuning runs, and its figures, folder by folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from gradatlas.charts.listing import read_index
from gradatlas.charts.names import label
from gradatlas.charts.tables import Section
from gradatlas.core.checked import damaged, read_json
from gradatlas.figures.run_curves import TYPES
from gradatlas.figures.run_table import change, read_runs
from gradatlas.figures.win_rates import read_win_rates, sections
from gradatlas.page.drawn import drawn

TOYS = "toys"
# Captions by the last part of a figure's kind, or by its toy; any other is captioned by that key.
CAPTIONS = {
    "curves": "Probes of one run",
    "chains": "Chains of runs",
    "norms": "Norms of A and G, the likeliest token and all others",
    "extend": "SFT on both responses, and its controls",
    "length": "Length of SFT and squeezing",
    "losses": "Preference losses on the same pairs",
    "negatives": "Pairs: of the data, and sampled from the model",
    "influence": "Influence of each type of response on the others",
    "influence_time": "SignDelta and LBK over time",
    "one_step": "One step, predicted and measured",
}
TOY_CAPTIONS = {
    "squeeze": "The squeezing effect in a softmax",
    "influence": "Influence in an image classifier",
    "clip": "The clipped objective",
}
# Drawn for every run, and so shown in a section that is closed at first.
EVERY_RUN = "curves"

Runs = Mapping[str, Mapping[str, Any]]


def runs_of(rows: Runs, statuses: Sequence[tuple[str, str, str | Path]]) -> dict[str, Any]:
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
            stopped.append(f"{_title(rows, status['run'])} ({model}, seed {seed}: {words})")
        ended.setdefault(status["run"], {}).setdefault(words, []).append(f"{model} {seed}")
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


def changes_of(path: str | Path, rows: Runs) -> list[dict[str, Any]]:
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
        tables.append({"title": f"{model}, seed {seed}", "header": header, "rows": body})
    return tables


def rates_of(path: str | Path, rows: Runs) -> list[Section]:
    """The win rates of each model and seed, from the CSV of `write_win_rates`; `rows`: of config/runs.tsv, by name."""
    return list(sections(read_win_rates(path), rows, {}, ()))


def groups_of(folders: Sequence[str | Path], base: Path) -> dict[str, list[dict[str, Any]]]:
    """The figures of each folder with a list of them (``index.json``), by section: ``dynamics`` or ``toys``.

    A group has a title, `figures`, and `every`, the figures drawn for every run. `base`: the folder of the page.
    """
    found: dict[str, list[dict[str, Any]]] = {"dynamics": [], TOYS: []}
    for folder in map(Path, folders):
        index = read_index(folder)
        section = TOYS if index.get("dataset") == TOYS else "dynamics"
        shown = [_figure(entry, folder, base) for entry in index["figures"]]
        every = [figure for figure in shown if figure["kind"] == EVERY_RUN]
        others = [figure for figure in shown if figure["kind"] != EVERY_RUN]
        if shown:
            found[section].append({"title": index["dataset_title"], "figures": others, "every": every})
    return found


def _figure(entry: Mapping[str, Any], folder: Path, base: Path) -> dict[str, Any]:
    if "toy" in entry:
        return drawn(entry, folder, base, entry["toy"], TOY_CAPTIONS.get(entry["toy"], label(entry["toy"])))
    # ``dpo.curves`` and ``chains.2`` are of the kinds curves and chains.
    kind = [part for part in entry["kind"].split(".") if not part.isdigit()][-1]
    return drawn(entry, folder, base, kind, CAPTIONS.get(kind, label(kind)))


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
