"""The graph of jobs of studies far larger than ours: time and memory of a dry run, and until the first job starts.

  python -m benchmarks.graph [--output FILE.csv]

Each study is made up beside a copy of the workflow: model folders, all of them the committed miniature, and datasets of
a user's own, each a file and a mapping. Nothing is measured.
"""

import argparse
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gradatlas.core.files import ROOT

PARTS = ("Snakefile", "environment.yml", "workflow", "config", "profiles", "resources/miniature", "docs/glossary.md")
COLUMNS = "{instruction: question, rationale: short, answer: answer, detailed: long}"
# Runs a command, and prints its seconds of CPU and its most memory in kB.
USED = """import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss)
sys.exit(code)"""
# By name: models, datasets, and what else is in the config.
STUDIES = {
    "5 models, 50 datasets": (5, 50, {}),
    "20 models, 200 datasets": (20, 200, {}),
    "1 model, 20 datasets, 200 shards": (1, 20, {"shards": 200}),
    "3 models, 20 datasets, 200 shards": (3, 20, {"shards": 200}),
    "second study: 3 models, 5 seeds, 20 runs": (3, 0, {"seeds": 5, "runs": 20}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="table to write (.csv)")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, (models, datasets, config)) in enumerate(STUDIES.items()):
            study = make(Path(folder) / str(number), models, datasets, **config)
            dry, first = dry_run(study), first_job(study)
            rows.append(
                {"study": name, "jobs": dry.pop("jobs"), **dry, **{f"first_{key}": first[key] for key in first}}
            )
            print(*(f"{key} {value}" for key, value in rows[-1].items()), sep=", ")
    if given.output:
        with open(given.output, "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, rows[0], lineterminator="\n")
            table.writeheader()
            table.writerows(rows)


def make(folder: Path, models: int, datasets: int, seeds: int = 0, runs: int = 0, **config) -> Path:
    """Write a study of so many models and datasets into `folder`, its config as study.yaml.

    `seeds`, `runs`: of the second study, all models; the runs are the first ones of runs.tsv that are watched.
    """
    for part in PARTS:
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, folder / part)
    names = [f"own{number}" for number in range(datasets)]
    sheet = folder / "config/datasets.tsv"
    columns = sheet.read_text().splitlines()[0].split("\t")
    row = {"task": "math", "reader": "mapped", "scope": "user", "relations": "correct",
           "variants": "none simplified detailed"}  # fmt: skip
    with open(sheet, "a", encoding="utf-8") as file:
        for number, name in enumerate(names):
            file.write("\t".join({**row, "dataset": name}.get(column, "") for column in columns) + "\n")
            samples = [
                {"question": f"{number} + {n}?", "short": f"It is {number + n}", "answer": f"{number + n}",
                 "long": f"I add {n} to {number}. It is {number + n}"} for n in range(4)
            ]  # fmt: skip
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
            (folder / f"config/mappings/{name}.yaml").write_text(f"source: {name}.jsonl\ncolumns: {COLUMNS}\n")
    for number in range(models):
        shutil.copytree(folder / "resources/miniature/base", folder / f"models/m{number}")
    watched = [line.split("\t")[0] for line in (folder / "config/runs.tsv").read_text().splitlines()[1:]
               if line and not line.startswith("#")][1 : runs + 1]  # fmt: skip
    study = {
        "models": [{"model": f"m{n}", "source": f"./models/m{n}", "device": "cpu"} for n in range(models)],
        "datasets": names,
        "dynamics": {"runs": watched, "seeds": [*range(seeds or 1)],
                     "models": [f"m{number}" for number in range(models if runs else 1)]},
        **config,
    }  # fmt: skip
    (folder / "study.yaml").write_text(json.dumps(study))
    return folder


def snakemake(*arguments: str) -> list[str]:
    """Its command line, in the folder of a study."""
    return [str(Path(sys.executable).parent / "snakemake"), "--configfile", "study.yaml", *arguments]


def dry_run(folder: Path) -> dict[str, float]:
    """The jobs of a study's dry run, its seconds on the clock and of CPU, and its most memory in MB."""
    begun = time.perf_counter()
    # Through a small process: the memory of one that starts another counts as that one's.
    command = [sys.executable, "-c", USED, *snakemake("-n", "--quiet", "rules")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = next(line.split()[1] for line in done.stdout.splitlines() if line.startswith("total "))
    cpu, kilobytes = map(float, done.stdout.splitlines()[-1].split())
    return {"jobs": int(jobs), **_spent(begun, cpu, kilobytes)}


def first_job(folder: Path) -> dict[str, float]:
    """Seconds on the clock and of CPU until a study's first job starts, and the most memory until then in MB."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        snakemake("--cores", "1"), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        started = any(line.startswith("Execute ") for line in process.stdout)
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        cpu = sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
        status = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
        assert started, f"no job started in {folder}"
        return _spent(begun, cpu, int(status["VmHWM"].split()[0]))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _spent(begun: float, cpu: float, kilobytes: int) -> dict[str, float]:
    wall = time.perf_counter() - begun
    return {"wall_s": round(wall, 1), "cpu_s": round(cpu, 1), "mb": round(kilobytes * 1024 / 1e6)}


if __name__ == "__main__":
    main()
