"""The manifest: what every table was measured with, gathered from the tables' own metadata and checked."""

from collections.abc import Sequence
from typing import Any

from workflow.lib.errors import InputError
from workflow.lib.files import sha256_of
from workflow.lib.tables import read_metadata

# One model measured in two ways makes curves that cannot be compared.
AGREE_BY_MODEL = ("model_digest", "revision", "dtype")
AGREE_BY_ALL = ("engine", "compat", "max_length", "metrics", "projections", "torch", "transformers")


def manifest(samples: Sequence[str], responses: Sequence[str]) -> dict[str, Any]:
    """The facts of all samples tables, by model, and the checksums of the responses tables.

    Raises `InputError` naming both files where two tables disagree on a fact that must be one.
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
            if facts[other][fact] != table[fact]:
                raise InputError(
                    f"{path}: measured with {fact} {table[fact]}, but {other} with {facts[other][fact]}; "
                    "delete the older of the two and run again"
                )
    models: dict[str, Any] = {}
    for path, table in facts.items():
        model = models.setdefault(table["model"], {name: table[name] for name in AGREE_BY_MODEL})
        model.setdefault("tables", {})[path] = {name: table[name] for name in ("device", "limit", "purpose", "rows")}
    return {
        "engine": {name: facts[samples[0]][name] for name in AGREE_BY_ALL},
        "models": models,
        "responses": {path: {"sha256": sha256_of(path), **read_metadata(path)} for path in responses},
    }
