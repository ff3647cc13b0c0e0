"""Statistics of a study of the paper's size: made-up spectra through the real commands, with time and peak memory.

  python -m benchmarks.scale [--models 10] [--datasets 11] [--samples 424] [--processes 2] [--draws 1000]

Each model and dataset has three variants, two relations and SAMPLES samples, 32 layers and 4 projections, so the
default makes 279,840 samples and 35.8 million rows of spectra (3 GB in a temporary folder, not timed). As in a run of
the workflow one job is one dataset, PROCESSES at a time with one thread each; then the jobs that need all datasets.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gradatlas.core.tables import write_table
from gradatlas.gradients.tables import SAMPLES, SPECTRA

VARIANTS, RELATIONS, PROJECTIONS = ("none", "simplified", "detailed"), ("correct", "derangement"), ("q", "k", "v", "o")
LAYERS = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("models", 10), ("datasets", 11), ("samples", 424), ("processes", 2), ("draws", 1000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--folder", help="where the temporary tables go (default: the system's)")
    given = parser.parse_args()
    models = [f"model{i}" for i in range(given.models)]
    datasets = [f"dataset{i}" for i in range(given.datasets)]
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        begun = time.perf_counter()
        made = [make(Path(folder), model, dataset, given.samples) for dataset in datasets for model in models]
        samples, rows = map(sum, zip(*made, strict=True))
        print(f"{samples:,} samples, {rows:,} rows made in {time.perf_counter() - begun:.0f} s")
        begun = time.perf_counter()
        with ThreadPoolExecutor(given.processes) as pool:
            list(pool.map(lambda dataset: summarise(folder, models, dataset, given.draws), datasets))
        report("summarise_gradients", begun)
        begun = time.perf_counter()
        folders = [f"{folder}/statistics/{dataset}" for dataset in datasets]
        run(
            *("regress-gradients", "--statistics", *folders, "--settings", bootstrap(given.draws)),
            *("--output", f"{folder}/regression.parquet", "--csv", f"{folder}/regression.csv"),
        )
        report("regress_gradients", begun)
        begun = time.perf_counter()
        sheet = ("--claims", "config/claims.tsv")
        with ThreadPoolExecutor(given.processes) as pool:
            list(pool.map(lambda dataset: gather(folder, models, dataset, given.draws, sheet), datasets))
        evidence = [f"{folder}/evidence/{dataset}.parquet" for dataset in datasets]
        run("test-claims", "--evidence", *evidence, *sheet, "--output", f"{folder}/claims")
        report("gather_evidence and test_claims", begun)


def make(folder: Path, model: str, dataset: str, count: int) -> tuple[int, int]:
    """Write one model's tables on one dataset; returns the numbers of samples and of rows of spectra."""
    generator = np.random.default_rng([ord(letter) for letter in model + dataset])
    cells = [(variant, relation) for variant in VARIANTS for relation in RELATIONS]
    total = len(cells) * count
    keys = {
        "model": [model] * total,
        "dataset": [dataset] * total,
        "sample_id": [f"{dataset}-{i}" for i in range(count)] * len(cells),
        "variant": [variant for variant, _ in cells for _ in range(count)],
        "relation": [relation for _, relation in cells for _ in range(count)],
        "loss_tokens": ["all"] * total,
    }
    size = np.exp(generator.normal(size=(total, 1, 1)))
    curve = np.repeat([3.0, 3.0, 2.0, 2.0, 1.0, 1.0], count)[:, None, None] ** -np.linspace(0, 1, LAYERS)[:, None]
    norms = (size * curve * np.exp(0.4 * generator.normal(size=(total, LAYERS, len(PROJECTIONS))))).ravel()
    samples = pa.table(
        {
            **keys,
            "loss": size.ravel(),
            "loss_concentration": generator.uniform(0.1, 0.9, total),
            "prompt_tokens": [50] * total,
            "response_tokens": generator.integers(2, 300, total),
            "truncated": [False] * total,
            "status": ["ok"] * total,
        }
    )
    sample, layer, projection = (axis.ravel() for axis in np.indices((total, LAYERS, len(PROJECTIONS))))
    spectra = samples.select(list(keys)).take(pa.array(sample))
    spectra = spectra.append_column("layer", pa.array(layer.astype(np.int16)))
    spectra = spectra.append_column("projection", pa.array(np.array(PROJECTIONS)[projection]))
    columns = {
        "nuclear_norm": norms,
        "nuclear_norm_scaled": norms / 32,
        "sigma_max": norms * generator.uniform(0.1, 0.9, norms.size),
        "sigma_min": np.zeros(norms.size),
        "frobenius_norm": norms * 0.7,
        "mean": norms * 1e-6,
        "max": norms * 1e-2,
        "min": norms * -1e-2,
        "effective_rank": generator.gamma(20.0, size=norms.size),
    }
    columns["sigma_ratio"] = columns["sigma_max"] / norms
    for name, column in columns.items():
        spectra = spectra.append_column(name, pa.array(column))
    facts = {"model": model, "model_digest": "made up", "revision": "", "dtype": "float32", "compat": "none"}
    facts |= {"max_length": 1024, "purpose": "study"}
    for kind, table in ((SAMPLES, samples), (SPECTRA, spectra)):
        write_table(kind, table, folder / f"{model}.{dataset}.{kind.name}.parquet", facts)
    return total, norms.size


def summarise(folder: str, models: list[str], dataset: str, draws: int) -> None:
    output = f"{folder}/statistics/{dataset}"
    run("summarise-gradients", *tables_of(folder, models, dataset), "--settings", bootstrap(draws), "--output", output)


def gather(folder: str, models: list[str], dataset: str, draws: int, sheet: tuple[str, ...]) -> None:
    about = bootstrap(draws, models=[{"model": model, "kind": "base", "seed": 0} for model in models])
    output = f"{folder}/evidence/{dataset}.parquet"
    run("gather-evidence", *tables_of(folder, models, dataset), *sheet, "--settings", about, "--output", output)


def tables_of(folder: str, models: list[str], dataset: str) -> list[str]:
    paths = {
        kind: [f"{folder}/{model}.{dataset}.{kind}.parquet" for model in models] for kind in ("samples", "spectra")
    }
    return ["--dataset", dataset, "--samples", *paths["samples"], "--spectra", *paths["spectra"]]


def bootstrap(draws: int, **more: Any) -> str:
    return json.dumps({"draws": draws, "seed": 0, **more})


def run(job: str, *arguments: str) -> None:
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    command = [sys.executable, "-m", "gradatlas", job, *arguments]
    subprocess.run(command, check=True, env={**os.environ, **one}, stderr=subprocess.DEVNULL)


def report(what: str, begun: float) -> None:
    """Print the seconds since `begun`, and of all processes so far the CPU seconds and the most memory of one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = f"{time.perf_counter() - begun:.1f} s"
    print(
        f"{what}: {seconds}; so far {used.ru_utime + used.ru_stime:.1f} CPU s, {used.ru_maxrss / 1024**2:.2f} GiB",
        flush=True,
    )


if __name__ == "__main__":
    main()
