"""The manifest: what every table was made with, collected from the tables' own metadata and checked."""

import importlib.metadata
import json
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gradatlas.core.checked import read_json
from gradatlas.core.errors import InputError
from gradatlas.core.files import sha256_of
from gradatlas.core.tables import read_metadata
from gradatlas.data.tables import PAIRS, RESPONSES
from gradatlas.finetuning.tables import TABLES as RUN_TABLES
from gradatlas.gradients.tables import SAMPLES
from gradatlas.models.snapshots import read_card
from gradatlas.scores.tables import SCORES
from gradatlas.statistics.tables import CELLS
from gradatlas.study.settings import PROJECTIONS
from gradatlas.toys.tables import TABLES as TOY_TABLES

# Must be equal in all tables of a model: else its curves could not be compared. The model's digest covers weights,
# config, tokenizer and chat template.
AGREE_BY_MODEL = ("model_digest", "revision", "dtype", "tf32", "attention", "chat", "mapping")
AGREE_BY_MODEL += ("adapter", "lora", "quantise", "weights")
# Must be equal in all samples tables.
AGREE_BY_ALL = (
    "engine",
    "compat",
    "max_length",
    "truncation",
    "loss_norm",
    "metrics",
    "projections",
    "torch",
    "transformers",
)
# Listed, not compared: results of two devices differ only by rounding.
LISTED = ("rounding", "device", "window", "limit", "limit_seed", "seed", "loss_tokens", "controls", "purpose", "rows")
LISTED += ("adapter_base",)
# Must be equal in all tables of one kind of one finetuned model that state it.
AGREE_BY_KIND = ("dtype", "window", "code", "torch", "transformers")
# Facts of those that name another table by its SHA-256, or a model by its digest.
TABLES, MODELS = ("pairs", "probes"), ("init", "reference", "model")
# Packages whose versions are listed.
PACKAGES = ("polars", "pyarrow", "numpy", "altair", "snakemake", "torch", "transformers", "peft", "scikit-learn")


def manifest(
    samples: Sequence[str],
    responses: Sequence[str],
    sources: Sequence[str] = (),
    statistics: Sequence[str] = (),
    learners: Mapping[str, tuple[str, Sequence[str]]] | None = None,
    pairs: Sequence[str] = (),
    toys: Sequence[str] = (),
    scores: Sequence[str] = (),
) -> dict[str, Any]:
    """The facts of all samples tables, by model; those of the statistics; checksums of responses and source files.

    `statistics`: cells tables. `learners`: by finetuned model its card, and the tables and ``status.json`` files of its
    runs, made from the `pairs` tables. `toys`: tables of the toys. `scores`: of training files' scores. The machine
    that made a table is read from the file beside it, if there is one (`core.machine`). Raises `InputError` with both
    files where two tables disagree on a fact that must be equal, where statistics are not of these `samples`, and where
    a run started from a model, or was made from a table, that is not among these.
    """
    facts = {path: read_metadata(path, SAMPLES) for path in samples}
    for path, table in facts.items():
        if "model" not in table:
            raise InputError(f"{path}: not a samples table of measure_gradients; give those")
    by_model = {(path, table["model"]): table for path, table in facts.items()}
    # A released table may not state every fact: then that is its value.
    _agree(by_model, AGREE_BY_MODEL)
    shared = {path: table | {"projections": _own(table)} for path, table in facts.items()}
    _agree({(path, "all"): table for path, table in shared.items()}, AGREE_BY_ALL)
    models: dict[str, Any] = {}
    for path, table in facts.items():
        model = models.setdefault(table["model"], {name: table.get(name) for name in AGREE_BY_MODEL})
        listed = {name: table.get(name) for name in LISTED} | {"machines": _machines(path)}
        model.setdefault("tables", {})[path] = listed
    summaries = {path: read_metadata(path, CELLS) for path in statistics}
    for path, summary in summaries.items():
        _check_summary(path, summary, models)
    # First, so that a damaged one is named, and not the tables made from it.
    pairs_facts = {path: read_metadata(path, PAIRS) for path in pairs}
    sums = {path: sha256_of(path) for path in pairs}
    dynamics = {name: _runs(card, paths, sums) for name, (card, paths) in (learners or {}).items()}
    places = [place for study in (models, dynamics) for model in study.values() for place in model["tables"].values()]
    return {
        "engine": {name: shared[samples[0]].get(name) for name in AGREE_BY_ALL} if samples else {},
        "models": models,
        "dynamics": dynamics,
        "machines": _distinct(machine for place in places for machine in place["machines"]),
        "responses": {path: {"sha256": sha256_of(path), **read_metadata(path, RESPONSES)} for path in responses},
        "pairs": {path: {"sha256": sums[path], **pairs_facts[path]} for path in pairs},
        "toys": {
            path: {"sha256": sha256_of(path), **read_metadata(path, TOY_TABLES.get(Path(path).stem))} for path in toys
        },
        "scores": {path: {"sha256": sha256_of(path), **read_metadata(path, SCORES)} for path in scores},
        "sources": {path: sha256_of(path) for path in sources},
        "statistics": {path: {key: summary[key] for key in ("draws", "seed")} for path, summary in summaries.items()},
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in PACKAGES},
    }


def _own(table: Mapping[str, Any]) -> list[str]:
    """The measured projections of a model, without the matrices of an adapter."""
    return [name for name in table.get("projections") or () if name in PROJECTIONS]


def _agree(tables: Mapping[tuple[str, str], Mapping[str, Any]], names: Iterable[str], stated: bool = False) -> None:
    """`InputError` where two tables of one owner disagree; with `stated`, only tables that state the fact count.

    `tables`: facts by (path, owner).
    """
    first: dict[tuple[str, str], tuple[str, Any]] = {}
    for name in names:
        for (path, owner), facts in tables.items():
            if stated and name not in facts:
                continue
            other, value = first.setdefault((owner, name), (path, facts.get(name)))
            if value != facts.get(name):
                raise InputError(
                    f"{path}: measured with {name} {facts.get(name)}, but {other} with {value}; "
                    "delete the older of the two and run again"
                )


def _runs(card: str, paths: Sequence[str], pairs: Mapping[str, str]) -> dict[str, Any]:
    """One finetuned model's tables, checked against its card, the `pairs` (checksums by path) and each other."""
    model = read_card(card)
    statuses = {path: read_json(path, "finetune") for path in paths if path.endswith(".json")}
    tables = {path: read_metadata(path, RUN_TABLES.get(Path(path).stem)) for path in paths if path not in statuses}
    _agree({(path, facts.get("table", "")): facts for path, facts in tables.items()}, AGREE_BY_KIND, stated=True)
    sums = {path: sha256_of(path) for path in tables}
    digests = {model["digest"], *(status.get("model_digest") for status in statuses.values())}
    made = {*pairs.values(), *sums.values()}
    known = {name: made for name in TABLES} | {name: digests for name in MODELS}
    for path, facts in tables.items():
        for name, values in known.items():
            digest = facts.get(name)
            if digest not in values and re.fullmatch("[0-9a-f]{64}", str(digest)):
                raise InputError(
                    f"{path}: made with {name} {digest}, which is not of this study; delete the file and run again"
                )
    listed = {
        path: {**facts, "sha256": sums[path], "machines": _machines(path)} for path, facts in sorted(tables.items())
    }
    card_facts = {name: model[name] for name in ("revision", "digest", "tokenizer_digest")}
    return {**card_facts, "tables": listed, "runs": statuses}


def _machines(path: str) -> list[dict[str, Any]]:
    """The machines that made a table, from the sidecar beside it: one a shard, each once; none without a sidecar."""
    of_samples = Path(path.removesuffix(".samples.parquet") + ".run.json")
    if of_samples.is_file():
        run = read_json(of_samples, "measure_gradients")
        return _distinct(shard.get("machine") for shard in run.get("shards", [run]))
    beside = Path(path).parent / "machine.json"
    return [read_json(beside, "finetune")] if beside.is_file() else []


def _distinct(machines: Iterable[dict[str, Any] | None]) -> list[dict[str, Any]]:
    found = {json.dumps(machine, sort_keys=True): machine for machine in machines if machine}
    return [found[key] for key in sorted(found)]


def _check_summary(path: str, summary: Mapping[str, Any], models: Mapping[str, Any]) -> None:
    if "models" not in summary or "draws" not in summary:
        raise InputError(f"{path}: not a cells table of summarise_gradients; give those")
    for model, known in summary["models"].items():
        for fact in ("model_digest", "revision", "dtype"):
            measured = models.get(model, {}).get(fact)
            if known[fact] != measured:
                raise InputError(
                    f"{path}: made from {model} with {fact} {known[fact]}, but it was measured with {measured}; "
                    "delete the file and run again"
                )
