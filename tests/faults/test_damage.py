"""Damaged files: empty, truncated, a bit flipped."""

import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import cycle
from pathlib import Path

import yaml

from conftest import ROOT, call
from faults.study import (
    BOTH,
    KINDS,
    LINE,
    LONG,
    assert_same,
    damaged,
    error_line,
    jobs_of,
    plain_run,
    run,
    survived,
)
from gradatlas.core.errors import InputError
from gradatlas.study.config import read_study
from gradatlas.study.runs import read_plan
from test_workflow import results_of

DAMAGE = "empty, truncated, a bit flipped"
#: By the end of an input's name, the line about it.
INPUTS = {
    ".parquet": "FILE: …; delete it and run again (rule RULE)",
    ".json": "FILE: …; … run again (rule RULE)",
    ".sha256": "FILE: …; delete … and run again…",
    ".yaml": "FILE: …; delete it and run again (rule write_config)",
    ".safetensors": "FILE: …; … run again (rule RULE)",
}


def made_inputs(job, folder):
    """The files that a job reads and other jobs have made, the weights behind a card too."""
    for name in job.inputs:
        if name.startswith(("results", "resources/models")) and Path(name).suffix in INPUTS:
            yield name
        if name.endswith("model.json"):
            yield name.replace("model.json", "model/model.safetensors")
        if name == "resources/models/mini.json":
            yield "results/models/mini/model.safetensors"


def test_inputs_of_jobs(copy, undisturbed, rng, monkeypatch):
    """Each is refused in one line, or changes no byte of what the job makes."""
    monkeypatch.chdir(copy)
    cases = [(job, name) for job in jobs_of(undisturbed) for name in made_inputs(job, copy)]
    cases = rng.sample(cases, 60 if LONG else 12)
    for (job, name), kind in zip(cases, cycle(KINDS)):
        path = copy / name
        content = path.read_bytes()
        path.write_bytes(damaged(content, kind, rng))
        done = call(*job.arguments)
        path.write_bytes(content)
        if done.returncode:
            assert done.returncode == 2, (job.rule, name, kind)
            error_line(done.stderr, INPUTS[path.suffix], name)
    # What was refused has written nothing, and what was not read has changed nothing.
    assert_same(copy, undisturbed)
    survived(DAMAGE, "inputs of jobs: tables, cards, checksums, weights, config", len(cases), LINE, "FILE: …; …")


def fix(folder, line):
    """Do what a line asks for."""
    asked = re.search(r"; delete (\S+)", line)[1]
    path = folder / (re.match(r"error: (.+?): ", line)[1] if asked in ("it", "this") else asked)
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_a_rerun_after_damage(copy, undisturbed, rng):
    """In a finished study Snakemake finds each by its content, and the job that reads it refuses it."""
    names = [
        "results/responses/mini_arithmetic.parquet",
        "resources/models/mini.json",
        "results/models/mini/model.safetensors",
    ][: 3 if LONG else 1]
    for name, kind in zip(names, cycle(KINDS[1:])):
        path = copy / name
        path.write_bytes(damaged(path.read_bytes(), kind, rng))
        code, output = run(copy)
        assert code == 1, (name, output[-3000:])
        fix(copy, error_line(output, "…", name))
    plain_run(copy)
    # A deleted intermediate table is made again when something needs it, or asks for it.
    plain_run(copy, "--", "all", *(f"results/{each}" for each in {*results_of(undisturbed)} - {*results_of(copy)}))
    assert_same(copy, undisturbed)
    survived(DAMAGE, "a table, a card and weights in a finished study", len(names), BOTH,
             "FILE: …; … and run again (rule RULE)")  # fmt: skip


def test_files_that_no_job_reads(copy, undisturbed, rng):
    names = [
        "results/index.html",
        "results/tables/fixed_data.md",
        "results/tables/regression.csv",
        "results/tables/claims.md",
    ]
    for name in names:
        path = copy / name
        path.write_bytes(damaged(path.read_bytes(), "truncated", rng))
    code, output = run(copy)
    assert code == 0 and "Nothing to be done" in output
    for name in names:
        (copy / name).unlink()
    plain_run(copy)
    assert_same(copy, undisturbed)
    survived(DAMAGE, "a page or a table for readers only", len(names),
             "not noticed; deleted, it is written again with the same bytes")  # fmt: skip


def test_the_journal(copy, undisturbed, rng, monkeypatch):
    monkeypatch.chdir(copy)
    (job,) = (job for job in jobs_of(undisturbed) if job.rule == "measure_gradients")
    (segment,) = (copy / "results/journal").rglob("*.frames")
    content, tries = segment.read_bytes(), 9 if LONG else 3
    line = "FILE: damaged at byte …; delete this file to compute its samples again"
    for _, kind in zip(range(tries), cycle(KINDS)):
        job.remove_outputs(copy)
        for other in segment.parent.glob("*.frames"):
            other.unlink()
        segment.write_bytes(damaged(content, kind, rng))
        done = call(*job.arguments)
        if done.returncode:
            fix(copy, error_line(done.stderr, line, segment.name))
            done = call(*job.arguments)
        assert done.returncode == 0, done.stderr
        assert_same(copy, undisturbed)
    survived(DAMAGE, "a segment of the journal", tries, BOTH, line)


def test_checkpoints(copy, undisturbed, rng, monkeypatch):
    monkeypatch.chdir(copy)
    job = next(job for job in jobs_of(undisturbed) if job.rule == "finetune")
    job.remove_outputs(copy)
    kept = copy / job.arguments[job.arguments.index("--journal") + 1]
    victim = subprocess.Popen([sys.executable, "-m", "gradatlas", *job.arguments], stderr=subprocess.DEVNULL)
    while not list(kept.glob("state-*.pt")):
        assert victim.poll() is None, "the job ended before it could be killed"
        time.sleep(0.002)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    aside = shutil.copytree(kept, copy / "kept")
    tries, line = 9 if LONG else 3, "FILE: …; delete … and run again, from the start"
    for _, kind in zip(range(tries), cycle(KINDS)):
        job.remove_outputs(copy)
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(aside, kept)
        path = rng.choice(sorted(kept.iterdir()))
        path.write_bytes(damaged(path.read_bytes(), kind, rng))
        done = call(*job.arguments)
        if done.returncode:
            fix(copy, error_line(done.stderr, line, path.name))
            done = call(*job.arguments)
        assert done.returncode == 0, done.stderr
        shutil.rmtree(kept, ignore_errors=True)
        assert_same(copy, undisturbed)
    survived(DAMAGE, "a checkpoint of finetuning", tries, BOTH, line)


SHEETS = ("models.tsv", "datasets.tsv", "runs.tsv", "claims.tsv", "claims_dynamics.tsv", "sources.tsv")


def test_sheets(tmp_path, rng):
    """A sheet is the user's to edit: damage that leaves a valid sheet is an edit, which Git shows."""
    for name in ("config", "resources/miniature"):
        shutil.copytree(ROOT / name, tmp_path / name)
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    tries, refused = 100 if LONG else 20, 0
    for _, name, kind in zip(range(tries), cycle(SHEETS), cycle([*KINDS, "bit flipped"])):
        sheet = tmp_path / "config" / name
        content = sheet.read_bytes()
        sheet.write_bytes(damaged(content, kind, rng))
        try:
            study = read_study(config, tmp_path)
            read_plan(study.config["dynamics"], tmp_path, study.config["generate"]["model"])
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
        sheet.write_bytes(content)
    assert refused
    survived(DAMAGE, "a sheet", tries, f"{LINE}, or an edit, where the sheet is still valid", "FILE, line …: …")
