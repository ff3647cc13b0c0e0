"""The manifest: what every table was measured with, gathered from the tables' own metadata and checked."""

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from workflow.lib.errors import InputError
from workflow.lib.files import sha256_of
from workflow.lib.tables import read_metadata

# One model measured in two ways makes curves that cannot be compared. The model's digest is over weights, config,
# tokenizer and chat template.
AGREE_BY_MODEL = ("model_digest", "revision", "dtype", "tf32", "attention", "chat", "mapping")
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
# Listed, not compared: another device makes the same numbers, but for rounding.
LISTED = ("device", "window", "limit", "limit_seed", "seed", "loss_tokens", "controls", "purpose", "rows")
# What made the other outputs.
PACKAGES = ("polars", "pyarrow", "numpy", "altair", "snakemake")


def manifest(
    samples: Sequence[str],
    responses: Sequence[str],
    sources: Sequence[str] = (),
    statistics: Sequence[str] = (),
) -> dict[str, Any]:
    """The facts of all samples tables, by model; those of the statistics; checksums of responses and source files.

    `statistics`: cells tables. Raises `InputError` naming both files where two tables disagree on a fact that must be
    one, or where statistics are of other measurements than `samples`.
    """
    facts = {path: read_metadata(path) for path in samples}
    for path, table in facts.items():
        if "model" not in table:
            raise InputError(f"{path}: not a samples table of measure_gradients; give those")
    first: dict[tuple[str, str], str] = {}
    for path, table in facts.items():
        for fact in (*AGREE_BY_MODEL, *AGREE_BY_ALL):
            owner = table["model"] if fact in AGREE_BY_MODEL else "all"
            other = first.setdefault((owner, fact), path)
            # Released statistics do not say all.
            if facts[other].get(fact) != table.get(fact):
                raise InputError(
                    f"{path}: measured with {fact} {table.get(fact)}, but {other} with {facts[other].get(fact)}; "
                    "delete the older of the two and run again"
                )
    models: dict[str, Any] = {}
    for path, table in facts.items():
        model = models.setdefault(table["model"], {name: table.get(name) for name in AGREE_BY_MODEL})
        model.setdefault("tables", {})[path] = {name: table.get(name) for name in LISTED}
    summaries = {path: read_metadata(path) for path in statistics}
    for path, summary in summaries.items():
        _check_summary(path, summary, models)
    return {
        "engine": {name: facts[samples[0]].get(name) for name in AGREE_BY_ALL},
        "models": models,
        "responses": {path: {"sha256": sha256_of(path), **read_metadata(path)} for path in responses},
        "sources": {path: sha256_of(path) for path in sources},
        "statistics": {path: {key: summary[key] for key in ("draws", "seed")} for path, summary in summaries.items()},
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in PACKAGES},
    }


def _check_summary(path: str, summary: Mapping[str, Any], models: Mapping[str, Any]) -> None:
    if "models" not in summary or "draws" not in summary:
        raise InputError(f"{path}: not a cells table of summarise_gradients; give those")
    for model, known in summary["models"].items():
        for fact in ("model_digest", "revision", "dtype"):
            measured = models.get(model, {}).get(fact)
            if known[fact] != measured:
                raise InputError(
                    f"{path}: of {model} with {fact} {known[fact]}, but it was measured with {measured}; "
                    "delete the file and run again"
                )
