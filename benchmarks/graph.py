"""The graph of jobs of studies far larger than ours: seconds and memory of a dry run, and until the first job starts.

  python -m benchmarks.graph [--output FILE.csv]

Each study is made up in a copy of the workflow: datasets of a user's own, each a file of four rows and a mapping, and
model folders with a tokenizer and a few weights. Nothing is measured.
"""

import json
import shutil
from pathlib import Path

from gradatlas.core.files import ROOT

PARTS = ("Snakefile", "environment.yml", "workflow", "config", "profiles", "resources/miniature")


def make(folder: Path, models: int, datasets: int, **config) -> Path:
    """Write a study of so many models and datasets into `folder`; its config is study.yaml there."""
    for part in PARTS:
        target = folder / part
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / part, target)
    names = [f"own{number}" for number in range(datasets)]
    columns = (folder / "config/datasets.tsv").read_text().splitlines()[0].split("\t")
    with open(folder / "config/datasets.tsv", "a", encoding="utf-8") as sheet:
        for name in names:
            row = {"dataset": name, "task": "math", "reader": "mapped", "scope": "user", "relations": "correct",
                   "variants": "none simplified detailed"}  # fmt: skip
            sheet.write("\t".join(row.get(column, "") for column in columns) + "\n")
            rows = [
                {"question": f"{n} + {number}?", "short": f"{n + number}", "answer": f"{n + number}",
                 "long": f"I add. {n + number}"} for number in range(4) for n in [names.index(name)]
            ]  # fmt: skip
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            (folder / f"config/mappings/{name}.yaml").write_text(
                f"source: {name}.jsonl\n"
                "columns: {instruction: question, rationale: short, answer: answer, detailed: long}\n"
            )
    rows = []
    for number in range(models):
        place = folder / f"models/m{number}"
        shutil.copytree(folder / "resources/miniature/instruct", place)
        kind = "instruct" if number % 2 else "base"
        rows.append({"model": f"m{number}", "source": f"./models/m{number}", "kind": kind, "device": "cpu",
                     **({"partner": f"m{number - 1}"} if number % 2 else {})})  # fmt: skip
    study = {"models": rows, "datasets": names, **config}
    (folder / "study.yaml").write_text(json.dumps(study))
    return folder
