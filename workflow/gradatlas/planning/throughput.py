"""How fast a CPU core and a GPU compute: as the config states it, or as benchmarks/results/throughput.csv has it."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradatlas.core.files import ROOT

TABLE = ROOT / "benchmarks/results/throughput.csv"


@dataclass(frozen=True)
class Rate:
    """TFLOP/s of passes and of spectra on one `unit` (``core`` or ``gpu``), and where the numbers come from."""

    unit: str
    passes: float
    spectra: float
    source: str


def rates(given: Mapping[str, Any], table: Path = TABLE) -> dict[str, Rate]:
    """By unit, its rates: those `given` (config key `throughput`), each of the others from the `table`."""
    found = {}
    with open(table, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            own = given[f"{row['unit']}_pass"], given[f"{row['unit']}_spectra"]
            sources = ["config key throughput"] * (own != (None, None)) + [row["source"]] * (None in own)
            found[row["unit"]] = Rate(
                row["unit"],
                own[0] or float(row["pass_tflops"]),
                own[1] or float(row["spectra_tflops"]),
                "; ".join(sources),
            )
    return found
