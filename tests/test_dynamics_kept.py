"""Models that are not kept: deleted once nothing needs them, and trained again only where they are needed."""

import json

import pytest

from test_workflow import clone, planned, snakemake

SEED = "results/dynamics/mini_qa/mini/seed_0"
#: Two runs, one after the other, from the committed miniature.
HOW = ("--cores", "1", "--configfile", "config/smoke.yaml", "--config", "datasets=[]", "models=[]",
       "miniature={retrain: false}")  # fmt: skip
GONE = (*HOW, "dynamics={keep_models: false}")
#: Behind all runs: a model of a job that is asked for itself is kept.
TARGETS = ("--", "results/statistics/dynamics/mini_qa/mini/seed_0.parquet", f"{SEED}/one_step.parquet")


@pytest.mark.slow
def test_models_are_deleted_once_nothing_needs_them(tmp_path):
    folder = clone(tmp_path / "clone")
    done = snakemake(folder, *GONE, *TARGETS)
    assert done.returncode == 0, done.output[-3000:]
    for run in ("smoke_sft", "smoke_dpo"):
        left = {path.name for path in (folder / SEED / run).iterdir()}
        tables = {f"{name}.parquet" for name in ("dynamics", "generations", "training")}
        assert left == {"status.json", "machine.json", "model.json", *tables}
        assert json.loads((folder / SEED / run / "status.json").read_text())["status"] == "ok"
    assert planned(folder, *GONE, *TARGETS) == {}
    # An edit that changes no number of a training: the title of a run.
    sheet = folder / "config/runs.tsv"
    sheet.write_text(sheet.read_text().replace("smoke_dpo\t\t", "smoke_dpo\tA title\t"))
    assert planned(folder, *GONE, *TARGETS) == {}
    # A run that has to be made again needs its start again.
    sheet.write_text(sheet.read_text().replace("1e-3\t2\t", "1e-3\t3\t"))
    assert planned(folder, *GONE, *TARGETS)["finetune"] == 2
