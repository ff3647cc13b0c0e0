"""How fast a CPU core and a GPU compute: as config key `throughput` states, or as it was measured here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rate:
    """TFLOP/s of passes and of spectra on one core or GPU, and where the numbers come from."""

    passes: float
    spectra: float
    source: str


#: Medians over the nine shapes of benchmarks/results/engine.csv, by the formulas of `costs`.
CORE = Rate(0.0969, 0.0197, "measured: benchmarks/results/engine.csv, an AMD EPYC")
#: Medians over 64 to 1,024 tokens of benchmarks/results/gpu.csv: float32 without TF32, the fastest solver.
GPU = Rate(41.9, 6.37, "measured: benchmarks/results/gpu.csv, an NVIDIA H100")


def rates(given: Mapping[str, Any]) -> dict[str, Rate]:
    """By unit, ``core`` or ``gpu``, its rates: those `given` (config key `throughput`), the others from above."""
    found = {}
    for unit, rate in (("core", CORE), ("gpu", GPU)):
        own = given[f"{unit}_pass"], given[f"{unit}_spectra"]
        sources = ["config key throughput"] * (own != (None, None)) + [rate.source] * (None in own)
        found[unit] = Rate(own[0] or rate.passes, own[1] or rate.spectra, "; ".join(sources))
    return found
