"""The workflow on a real Slurm: what ran where, on which GPUs, and after faults, by the controller's record."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from cluster import FAULTY, GPUS, Cluster, missing, most_gpus

from conftest import ROOT
from faults.study import LONG
from gradatlas.gradients.journal import _batches
from test_workflow import make

# A user's own profile: an account, partitions by what a job needs, and `tasks`, which many sites ask for.
SITE = """\
default-resources:
  slurm_account: physics
  tasks: 1
slurm-partition-config: {partitions}
slurm-init-seconds-before-status-checks: 2
"""
PARTITIONS = """\
partitions:
  cpu: {max_runtime: 60, max_mem_mb: 64000, max_threads: 2}
  gpu: {max_runtime: 60, max_mem_mb: 64000, max_threads: 2, max_gpu: 2}
"""
FAULTY_PARTITION = """\
partitions:
  faulty: {max_runtime: 60, max_mem_mb: 64000, max_threads: 2, max_gpu: 2}
"""
#: Which dataset's job meets which fault, by the runs that are made one after the other.
LOST = {"node": "mini_popular"}
FAULTS = {"cancel": "mini_arithmetic", "time": "mini_taxonomy", "memory": "mini_unpopular"}
KILLED = {"submit": "mini_unseen"}
DATASETS = [*LOST.values(), *FAULTS.values(), *KILLED.values()]

#: Of an environment with requirements-slurm.txt; the other tests are of one without it.
PYTHON = os.environ.get("SLURM_PYTHON", sys.executable)

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(scope="module")
def cluster():
    if subprocess.run([PYTHON, "-c", "import snakemake_executor_plugin_slurm"]).returncode:
        pytest.skip("needs pip install -r requirements-slurm.txt, or SLURM_PYTHON, of an environment with it")
    with Cluster() as running:
        yield running


def profile(folder, partitions):
    (folder / "partitions.yaml").write_text(partitions)
    (folder / "profile.yaml").write_text(SITE.format(partitions=folder / "partitions.yaml"))
    return folder


def snakemake(folder, *words, source=ROOT):
    """Its command line, for results in a folder."""
    start = [PYTHON, "-m", "snakemake", "-s", source / "Snakefile", "--directory", folder]
    return list(map(str, [*start, *words]))


def submit(site, folder, *words, source=ROOT):
    """Start the workflow as a user of the cluster does; the process, whose output goes to `folder`/submit.log."""
    slurm = ("--profile", site, "--workflow-profile", ROOT / "profiles/slurm")
    command = snakemake(folder, *slurm, *words, source=source)
    with (folder / "submit.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "USER": "root"})


def finish(process, folder, seconds):
    code = process.wait(timeout=seconds)
    assert code == 0, (folder / "submit.log").read_text()[-4000:]


def planned(folder, *words, source=ROOT):
    """Jobs of a run from nothing that are for nodes, by rule."""
    folder.mkdir(exist_ok=True)
    command = snakemake(folder, "-n", *words, source=source)
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    counts = Counter(re.findall(r"^rule (\w+):$", text, re.MULTILINE))
    return {rule: count for rule, count in counts.items() if rule not in local_rules()}


def local_rules():
    """The rules that run where Snakemake runs, as they state it themselves."""
    files = [ROOT / "workflow/Snakefile", *(ROOT / "workflow/rules").glob("*.smk")]
    rules = [part for path in files for part in re.split(r"^ *rule ", path.read_text(), flags=re.MULTILINE)[1:]]
    return {rule.partition(":")[0] for rule in rules if "localrule: True" in rule}


def rule_of(job):
    """The rule of a job of the record."""
    return job.rule.removeprefix("rule_").partition("_wildcards_")[0]


def check_record(jobs, counts):
    """Every job that is not local ran through Slurm; never more GPUs were held than there are."""
    done = [rule_of(job) for job in jobs if job.state == "COMPLETED"]
    assert {rule: done.count(rule) for rule in done} == counts
    assert {"download_model", "fetch_source", "fetch_dataset", "fetch_pairs", "fetch_images"} <= local_rules()
    assert {rule_of(job) for job in jobs}.isdisjoint(local_rules())
    assert all(held <= GPUS[node] for node, held in most_gpus(jobs).items()), most_gpus(jobs)
    assert {job.partition for job in jobs if job.gpus} <= {"gpu"}
    assert {job.partition for job in jobs if not job.gpus} <= {"cpu", "gpu"}
    assert all(job.account == "physics" for job in jobs)


def tables(folder):
    """The digests of all tables and verdicts."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for kind in ("*.parquet", "*.csv", "*.md")
        for path in sorted((folder / "results").rglob(kind))
        if path.name != "training_log.csv"
    }


# Faults --------------------------------------------------------------------------------------------------------------


def study(datasets):
    """Gradients of the miniature on some datasets, in many small batches."""
    return ["--config", "models=[mini]", f"datasets=[{','.join(datasets)}]", "samples=16", "batch_tokens=128"]


class Run:
    """A run of gradients on some datasets, a job of one GPU each, whose jobs meet faults."""

    def __init__(self, cluster, site, folder, datasets):
        self.cluster, self.site, self.folder = cluster, site, folder
        self.kept, self.met = {}, {}
        self.study = study(datasets)
        self.words = [
            *self.study,
            "--set-resources", "measure_gradients:gpu=1",
            # Less than the job needs, then enough.
            f"measure_gradients:mem_mb=(400 if wildcards.dataset == '{FAULTS['memory']}' else 3000) * attempt",
            "--", "gradients",
        ]  # fmt: skip
        self.process = submit(site, folder, *self.words)

    def submit_again(self):
        """Kill the submitting process and start it again, as a user would."""
        self.process.kill()
        self.process.wait()
        subprocess.run(snakemake(self.folder, *self.study, "--unlock"), check=True, capture_output=True)
        self.process = submit(self.site, self.folder, *self.words)

    def finish(self):
        finish(self.process, self.folder, 900)

    def segments(self, dataset):
        """The keys of finished batches, by segment of the journal."""
        paths = sorted((self.folder / "results/journal/mini" / dataset).glob("*.frames"))
        return {path.name: [key for batch in _batches(path) for key in batch["key"].to_pylist()] for path in paths}

    def job(self, dataset):
        """The running job of a dataset."""
        rows = self.cluster.jobs(self.folder)
        return next(
            (job for job in reversed(rows) if job.state == "RUNNING" and job.rule.endswith(f"mini_{dataset}")), None
        )

    def processes(self, dataset):
        """The processes that measure a dataset."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                words = (place / "cmdline").read_bytes().split(b"\0")
                here = os.readlink(place / "cwd") == str(self.folder)
            except OSError:
                continue
            if here and words[0].endswith(b"python") and f"results/responses/{dataset}.parquet".encode() in words:
                found.append(int(place.name))
        return found

    def wait(self, condition, what, seconds=300):
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < end, f"{what}: not within {seconds} s\n" + self.log()
            time.sleep(0.25)
        return found

    def freeze(self, dataset):
        """Stop the job of a dataset after its second batch, as one that hangs; returns it."""
        self.wait(lambda: sum(map(len, self.segments(dataset).values())) > 1, f"two batches of {dataset}")
        for process in self.processes(dataset):
            os.kill(process, signal.SIGSTOP)
        self.kept[dataset] = self.segments(dataset)
        self.met[dataset] = self.job(dataset)
        return self.met[dataset]

    def resume(self, dataset):
        """Let a stopped job continue, once another one has finished a batch."""
        self.wait(lambda: len(self.segments(dataset)) > 1, "a batch of the second job")
        for process in self.processes(dataset):
            os.kill(process, signal.SIGCONT)

    def log(self):
        return (self.folder / "submit.log").read_text()[-4000:]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return profile(tmp_path_factory.mktemp("faulty"), FAULTY_PARTITION)


@pytest.fixture(scope="module")
def lost(cluster, started, site, tmp_path_factory):
    """A run whose job's node died."""
    run = Run(cluster, site, tmp_path_factory.mktemp("lost"), LOST.values())
    job = run.freeze(LOST["node"])
    cluster.kill(job.nodes)
    run.finish()
    cluster.start_node(job.nodes)
    cluster.wait_idle(FAULTY)
    return run


@pytest.fixture(scope="module")
def faults(cluster, site, lost, tmp_path_factory):
    """A run whose jobs were cancelled, hung over their time, or exceeded their memory."""
    run = Run(cluster, site, tmp_path_factory.mktemp("faults"), FAULTS.values())
    waiting = {"cancel", "time"}
    while waiting:
        fault = run.wait(lambda: [name for name in waiting if run.job(FAULTS[name])], "a job")[0]
        waiting.remove(fault)
        job = run.freeze(FAULTS[fault])
        # A minute is the shortest limit: set once the job hangs, however long it took to get there.
        command = ["scancel", job.id] if fault == "cancel" else ["scontrol", "update", f"job={job.id}", "timelimit=1"]
        subprocess.run(map(str, command), check=True)
    return run


@pytest.fixture(scope="module")
def undisturbed(faults, tmp_path_factory):
    """The same on this machine alone; made while a job of the run before hangs until its time is over."""
    folder = tmp_path_factory.mktemp("undisturbed")
    make(folder, "-s", ROOT / "Snakefile", "--cores", 2, *study(DATASETS), "--", "gradients")
    return folder


@pytest.fixture(scope="module")
def killed(cluster, site, faults, undisturbed, tmp_path_factory):
    """A run whose submitting process was killed, beside the one before."""
    run = Run(cluster, site, tmp_path_factory.mktemp("killed"), KILLED.values())
    run.freeze(KILLED["submit"])
    run.submit_again()
    run.resume(KILLED["submit"])
    run.finish()
    faults.finish()
    cluster.wait_idle(FAULTY)
    return run


def attempts(run, dataset):
    """All jobs of a dataset, the first one first."""
    return [
        job for job in run.cluster.jobs(run.folder) if job.rule.endswith(f"measure_gradients_wildcards_mini_{dataset}")
    ]


def check_continued(run, dataset):
    """Nothing that was kept at the fault was computed again."""
    before, segments = run.kept[dataset], run.segments(dataset)
    known = {key for keys in before.values() for key in keys}
    assert len(segments) > len(before) and known
    assert all(known.isdisjoint(keys) for name, keys in segments.items() if name not in before)


def test_faults_leave_the_tables_of_an_undisturbed_run(lost, faults, killed, undisturbed):
    wanted = {name: digest for name, digest in tables(undisturbed).items() if name.startswith("results/gradients")}
    assert len(wanted) == 2 * len(DATASETS)
    for run in (lost, killed):
        found = {name: digest for name, digest in tables(run.folder).items() if name.startswith("results/gradients")}
        assert found == {name: wanted[name] for name in found}
    # A retry has smaller batches, which round differently.
    for dataset in FAULTS.values():
        one, two = (
            pl.read_parquet(folder / f"results/gradients/mini/{dataset}.spectra.parquet")
            for folder in (faults.folder, undisturbed)
        )
        keys = [name for name, kind in one.schema.items() if not kind.is_float()]
        assert one.select(keys).equals(two.select(keys))
        assert one["nuclear_norm"].to_numpy() == pytest.approx(two["nuclear_norm"].to_numpy(), rel=1e-4)


def test_the_job_of_a_dead_node_goes_elsewhere(lost):
    before, after = lost.met[LOST["node"]], attempts(lost, LOST["node"])[-1]
    assert after.state == "COMPLETED" and after.nodes != before.nodes
    check_continued(lost, LOST["node"])


def test_a_cancelled_job_is_retried_and_continues(faults, killed):
    first, *_, last = attempts(faults, FAULTS["cancel"])
    assert (first.state, last.state) == ("CANCELLED", "COMPLETED")
    check_continued(faults, FAULTS["cancel"])


def test_a_job_over_its_time_continues(faults, killed):
    states = [job.state for job in attempts(faults, FAULTS["time"])]
    assert "TIMEOUT" in states and states[-1] == "COMPLETED"
    check_continued(faults, FAULTS["time"])


def test_a_job_over_its_memory_gets_more_and_smaller_batches(faults, killed):
    jobs = attempts(faults, FAULTS["memory"])
    assert jobs[0].state in ("FAILED", "OUT_OF_MEMORY") and jobs[-1].state == "COMPLETED"
    assert [job.memory for job in jobs] == [f"{400 * (at + 1)}M" for at in range(len(jobs))]
    run = json.loads((faults.folder / f"results/gradients/mini/{FAULTS['memory']}.run.json").read_text())
    assert run["batch_tokens"] == 128 >> (len(jobs) - 1)


def test_a_killed_submission_continues_beside_its_old_job(killed):
    old, new = attempts(killed, KILLED["submit"])
    assert (old.state, new.state) == ("COMPLETED", "COMPLETED") and old.overlaps(new)
    check_continued(killed, KILLED["submit"])


def test_gpus_are_shared_and_never_more_than_there_are(faults, killed):
    jobs = [job for job in faults.cluster.jobs(faults.folder) if job.gpus and job.start and job.end]
    assert any(one.overlaps(two) for one in jobs for two in jobs if one.id < two.id)
    assert all(held <= GPUS[node] for node, held in most_gpus(jobs).items())


# The smoke study of both kinds ---------------------------------------------------------------------------------------


#: With ``FAULTS=long`` all jobs; else what computes, and one job that draws.
TARGETS = () if LONG else ("results/claims.csv", "results/figures/mini_unpopular")


def config_of(source):
    return "--configfile", source / "config/smoke.yaml"


@pytest.fixture(scope="module")
def started(cluster, smoke, tmp_path_factory):
    """The smoke study while it runs: its process and folder."""
    site, folder = profile(tmp_path_factory.mktemp("site"), PARTITIONS), tmp_path_factory.mktemp("smoke")
    words = (*config_of(smoke), "--set-resources", "finetune:gpu=2", "--", *TARGETS)
    process = submit(site, folder, *words, source=smoke)
    yield process, folder
    process.kill()


@pytest.fixture(scope="module")
def study_of_slurm(started):
    """Its folder, once it has ended; faults happen in the meantime."""
    process, folder = started
    finish(process, folder, 2400)
    return folder


def test_the_smoke_study(cluster, smoke, study_of_slurm):
    """Both studies; training asks for two GPUs, and its script starts once though the site asks for a task a GPU."""
    folder = study_of_slurm
    assert len(list((folder / "results/figures/mini_unpopular").glob("*.svg"))) > 10
    if LONG:
        assert (folder / "results/index.html").stat().st_size > 10_000
    jobs = cluster.jobs(folder)
    check_record(jobs, planned(folder.with_name("planned"), *config_of(smoke), "--", *TARGETS, source=smoke))
    trained = [job for job in jobs if rule_of(job) == "finetune"]
    assert [job.gpus for job in trained] == [2, 2] and {job.nodes for job in trained} == {"n1"}
    assert [cluster.steps(job.id) for job in trained] == [1, 1]
    # A second process of one run would wait for the first.
    logs = [path.read_text() for path in (folder / "logs/finetune").rglob("*.log")]
    assert len(logs) == 2 and not any("another process works on this run" in log for log in logs)
    assert max(int(job.memory.removesuffix("M")) for job in jobs) < 9000


def test_a_study_gives_the_tables_of_a_workstation(smoke, study_of_slurm):
    ours, theirs = tables(study_of_slurm), tables(smoke)
    assert len(ours) > 30 and ours == (theirs if LONG else {name: theirs[name] for name in ours})


# Devices -------------------------------------------------------------------------------------------------------------


def test_no_device_is_leased_inside_a_job(cluster, tmp_path):
    """Slurm assigns devices itself: a lease would let two jobs of one node wait for each other."""
    code = (
        "import os, json; from gradatlas.core.device import lease\n"
        "with lease('cuda', 1) as held: print(json.dumps([held, os.environ['CUDA_VISIBLE_DEVICES']]))"
    )
    done = subprocess.run(
        ["srun", "--partition=gpu", "--gres=gpu:1", PYTHON, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
    )
    held, visible = json.loads(done.stdout)
    assert not held and visible in ("0", "1"), done.stderr
