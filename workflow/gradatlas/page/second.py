"""The second study on the page: which finetuning runs there were, and its figures, folder by folder."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from gradatlas.charts.listing import read_index
from gradatlas.charts.names import label
from gradatlas.core.checked import damaged, read_json
from gradatlas.figures.run_curves import TYPES
from gradatlas.figures.run_table import change, read_runs

TOYS = "toys"
# What a figure is of, by the last part of its kind; others by that part itself.
CAPTIONS = {
    "curves": "Probes of one run",
    "chains": "Chains of runs",
    "norms": "Norms of A and G, the likeliest token and all others",
    "extend": "SFT on both responses, and its controls",
    "length": "Length of SFT and squeezing",
    "losses": "Losses of preference on the same pairs",
    "negatives": "Given rejected responses and the model’s own",
    "influence": "Influence of what is learnt on what is observed",
    "influence_time": "SignDelta and LBK over time",
    "one_step": "One step, predicted and measured",
}
_TOYS = {
    "squeeze": "A softmax squeezed",
    "influence": "An image classifier’s influence",
    "clip": "The clipped objective",
}
# One a run: shown on request.
_EVERY = "curves"


def runs_of(rows: Mapping[str, Mapping[str, Any]], statuses: Sequence[tuple[str, str, str | Path]]) -> dict[str, Any]:
    """The runs as a table: what each learns, and how it ended for every model and seed.

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
        "header": ["Run", "Starts from", "Loss", "Learns", "Updates", "Batch", "Ended (model, seed)"],
        "rows": [
            [
                _title(rows, name),
                _title(rows, row["init"]) if row["init"] in rows else row["init"] or "the model",
                row["loss"].upper() if row["loss"] in ("sft", "dpo", "ipo", "sppo", "kto") else row["loss"],
                _learns(row),
                f"{row['steps']:,}",
                f"{row['batch_size']:,}",
                "; ".join(f"{words}: {', '.join(where)}" for words, where in ended.get(name, {}).items()) or "–",
            ]
            for name, row in rows.items()
        ],
        "stopped": stopped,
    }


def changes_of(path: str | Path, rows: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each run moved, from start to end: a table a model and seed, a row a type of probe, a column a run.

    `path`: the CSV of `write_dynamics_table`; `rows`: of config/runs.tsv, by name. Probes that are trained on.
    """
    tables = []
    frame = read_runs(path).filter((pl.col("measure") == "log_prob_sum") | (pl.col("type") == "chosen"), split="train")
    for (model, seed), part in frame.group_by("model", "seed", maintain_order=True):
        runs = part["run"].unique(maintain_order=True)
        body = []
        for (measure, kind), cells in part.sort("measure", descending=True, maintain_order=True).group_by(
            "measure", "type", maintain_order=True
        ):
            told = {row["run"]: change(row) for row in cells.to_dicts()}
            name = TYPES.get(kind, label(kind)) if measure == "log_prob_sum" else f"likeliest token along {kind}"
            body.append([name, *(told.get(run, "–") for run in runs)])
        header = ["Probe", *(_title(rows, run) for run in runs)]
        tables.append({"title": f"{model}, seed {seed}", "header": header, "rows": body})
    return tables


def groups_of(
    folders: Sequence[str | Path], link: Callable[[Path], str], formats: Mapping[str, str]
) -> dict[str, list[dict]]:
    """The figures of each folder with a list of them (``index.json``), under the section that shows them.

    Sections: ``dynamics``, ``toys``. A group has a title, `figures`, and `every`, one a run. `link`: the way from the
    page to a file; `formats`: their names to readers.
    """
    found: dict[str, list[dict]] = {"dynamics": [], TOYS: []}
    for folder in map(Path, folders):
        index = read_index(folder)
        toys = index.get("dataset") == TOYS
        shown = [_figure(entry, folder, link, formats, toys) for entry in index["figures"]]
        group = {
            "title": index["dataset_title"],
            "figures": [figure for figure in shown if figure["kind"] != _EVERY],
            "every": [figure for figure in shown if figure["kind"] == _EVERY],
        }
        if shown:
            found[TOYS if toys else "dynamics"].append(group)
    return found


def _figure(entry: dict, folder: Path, link: Callable[[Path], str], formats: Mapping[str, str], toys: bool) -> dict:
    files = {name: link(folder / file) for name, file in entry["files"].items()}
    # ``dpo.curves`` and ``chains.2`` are of the kinds curves and chains.
    parts = [part for part in entry.get("kind", "").split(".") if not part.isdigit()]
    kind = entry["toy"] if toys else parts[-1]
    return {
        "kind": kind,
        "title": entry["title"],
        "caption": _TOYS.get(kind, label(kind)) if toys else CAPTIONS.get(kind, label(kind)),
        "description": " ".join([f"{entry['title']}.", *entry["subtitle"]]),
        "image": files.get("svg") or files.get("png"),
        "width": entry.get("width"),
        "height": entry.get("height"),
        "files": [(formats.get(name, name), file) for name, file in files.items()],
    }


def _status(path: str | Path) -> dict[str, Any]:
    status = read_json(path, "finetune")
    missing = [key for key in ("run", "status", "step") if key not in status]
    if missing:
        raise damaged(path, f"not a run's status, '{missing[0]}' is missing", "finetune")
    return status


def _title(rows: Mapping[str, Mapping[str, Any]], name: str) -> str:
    return (rows[name]["title"] if name in rows else "") or name


def _learns(row: Mapping[str, Any]) -> str:
    """What a run's updates are on, in words."""
    if row["loss"] == "sft":
        words = {"extend": "chosen and rejected"}.get(row["target"], row["target"].replace("_", " "))
    else:
        words = "pairs" if row["negatives"] == "off_policy" else "pairs, rejected ones sampled"
    where = "; the probed prompts" if row["probed"] else "; other questions" if row["split"] == "base" else ""
    return words + where + (", by LoRA" if row["parameters"] == "lora" else "")
