"""Notes of figures and tables on the error of a 16-bit pass."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradatlas.core.tables import read_metadata
from gradatlas.statistics.tables import CURVES


def rounding_notes(statistics: Sequence[str | Path]) -> dict[str, list[str]]:
    """By model, its note over several datasets, from folders of statistics: that of the largest error."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for folder in statistics:
        for model, facts in read_metadata(Path(folder) / "curves.parquet", CURVES).get("models", {}).items():
            found.setdefault(model, []).append(facts)
    return {
        model: rounding_note(max(each, key=lambda facts: facts.get("rounding", {}).get("largest", 0)))
        for model, each in found.items()
    }


def rounding_note(facts: Mapping[str, Any]) -> list[str]:
    """The note on a model whose passes have 16 bits, by the facts of its gradients; none for other passes."""
    found = facts.get("rounding")
    if not found:
        return []
    if "not_measured" in found:
        return [f"A {facts['dtype']} pass, whose error was not measured: {found['not_measured']}."]
    median, largest = (f"{100 * found[name]:.2g} %" for name in ("median", "largest"))
    return [
        f"A {facts['dtype']} pass: nuclear norms within {median} (median), {largest} at most, of those in float32 "
        f"({found['samples']} samples)."
    ]
