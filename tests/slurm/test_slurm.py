"""The workflow on a real Slurm: what ran where, on which GPUs, and after faults, by the controller's record."""

import hashlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cluster import GPUS, Cluster, missing, most_gpus

from conftest import ROOT
from gradatlas.gradients.journal import _batches

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
#: Which fault meets which dataset's job.
FAULTS = {"cancel": "mini_arithmetic", "node": "mini_popular", "time": "mini_taxonomy", "submit": "mini_unseen"}
HUNGRY = "mini_unpopular"

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(scope="module")
def cluster():
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip("needs pip install -r requirements-slurm.txt")
    with Cluster() as running:
        yield running


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    (folder / "partitions.yaml").write_text(PARTITIONS)
    (folder / "profile.yaml").write_text(SITE.format(partitions=folder / "partitions.yaml"))
    return folder


def submit(site, folder, *words):
    """Start the workflow as a user of the cluster does; the process, whose output goes to `folder`/submit.log."""
    command = [Path(sys.executable).with_name("snakemake"), "-s", ROOT / "Snakefile", "--directory", folder]
    command += ["--profile", site, "--workflow-profile", ROOT / "profiles/slurm", *words]
    with (folder / "submit.log").open("ab") as log:
        environment = {**os.environ, "USER": "root"}
        return subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, env=environment)


def finish(process, folder, seconds):
    code = process.wait(timeout=seconds)
    assert code == 0, (folder / "submit.log").read_text()[-4000:]


def planned(folder, *words):
    """Jobs of a run from nothing, by rule, and the rules among them that run where Snakemake runs."""
    command = [
        Path(sys.executable).with_name("snakemake"),
        "-n",
        "-s",
        ROOT / "Snakefile",
        "--directory",
        folder,
        *words,
    ]
    text = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout
    jobs = re.findall(r"^(local)?rule (\w+):$", text, re.MULTILINE)
    counts = {}
    for local, rule in jobs:
        if not local:
            counts[rule] = counts.get(rule, 0) + 1
    return counts, {rule for local, rule in jobs if local}


def rule_of(job):
    """The rule of a job of the record."""
    return job.rule.removeprefix("rule_").partition("_wildcards_")[0]


def check_record(cluster, jobs, counts, local):
    """Every job that is not local ran through Slurm; never more GPUs were held than there are."""
    done = [rule_of(job) for job in jobs if job.state == "COMPLETED"]
    assert {rule: done.count(rule) for rule in done} == counts
    assert not {rule_of(job) for job in jobs} & local
    assert {"download_model", "fetch_source", "fetch_dataset"}.isdisjoint(done)
    assert all(held <= GPUS[node] for node, held in most_gpus(jobs).items()), most_gpus(jobs)
    assert {job.partition for job in jobs if job.gpus} <= {"gpu"}
    assert {job.partition for job in jobs if not job.gpus} <= {"cpu", "gpu"}
    assert all(job.account == "physics" for job in jobs)


# The smoke study of both kinds ---------------------------------------------------------------------------------------


def test_the_smoke_study(cluster, site, tmp_path):
    """Both studies; training asks for two GPUs, and its script starts once though the site asks for a task a GPU."""
    smoke = ["--configfile", ROOT / "config/smoke.yaml"]
    counts, local = planned(tmp_path, *smoke)
    before = cluster.last()
    finish(submit(site, tmp_path, *smoke, "--set-resources", "finetune:gpu=2"), tmp_path, 1200)
    assert (tmp_path / "results/index.html").stat().st_size > 10_000
    jobs = cluster.jobs(before)
    check_record(cluster, jobs, counts, local)
    trained = [job for job in jobs if rule_of(job) == "finetune"]
    assert [job.gpus for job in trained] == [2, 2] and {job.nodes for job in trained} == {"n1"}
    assert [cluster.steps(job.id) for job in trained] == [1, 1]
    assert max(int(job.memory.removesuffix("M")) for job in jobs) < 9000


@pytest.mark.skipif(
    "DEFAULT_STUDY" not in os.environ, reason="set DEFAULT_STUDY to the folder of a finished default study"
)
def test_the_default_study_gives_the_tables_of_a_workstation(cluster, site, tmp_path):
    """Measurements continue from the finished batches of the other run, everything else is done again."""
    other = Path(os.environ["DEFAULT_STUDY"])
    subprocess.run(["cp", "-a", "--parents", "results/journal", tmp_path], cwd=other, check=True)
    counts, local = planned(tmp_path)
    before = cluster.last()
    finish(submit(site, tmp_path), tmp_path, 2400)
    check_record(cluster, cluster.jobs(before), counts, local)
    assert tables(tmp_path) == tables(other)


def tables(folder):
    """The digests of all tables and verdicts."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for kind in ("*.parquet", "*.csv", "*.md")
        for path in sorted((folder / "results").rglob(kind))
        if path.name != "training_log.csv"
    }


# Faults --------------------------------------------------------------------------------------------------------------


class Run:
    """A run of gradients on five datasets, with one job of each for a fault."""

    words = (
        "--config", "models=[mini]", f"datasets=[{','.join([*FAULTS.values(), HUNGRY])}]", "samples=16",
        "batch_tokens=128",
        "--set-resources", "measure_gradients:gpu=1",
        f"measure_gradients:runtime=1 if wildcards.dataset == '{FAULTS['time']}' else 60",
        # Less than the job needs, then enough.
        f"measure_gradients:mem_mb=(400 if wildcards.dataset == '{HUNGRY}' else 3000) * attempt",
        "--", "gradients",
    )  # fmt: skip

    def __init__(self, cluster, site, folder):
        self.cluster, self.site, self.folder = cluster, site, folder
        self.before = cluster.last()
        self.kept, self.met = {}, {}

    def segments(self, dataset):
        """The keys of finished batches, by segment of the journal."""
        paths = sorted((self.folder / "results/journal/mini" / dataset).glob("*.frames"))
        return {path.name: [key for batch in _batches(path) for key in batch["key"].to_pylist()] for path in paths}

    def job(self, dataset):
        """The running job of a dataset."""
        rows = self.cluster.jobs(self.before)
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
            time.sleep(0.1)
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
def faults(cluster, site, tmp_path_factory):
    """The run, after all its faults and its end."""
    folder = tmp_path_factory.mktemp("faults")
    run = Run(cluster, site, folder)
    process = submit(site, folder, *run.words)
    waiting = dict(FAULTS)
    while waiting:
        # Whichever job runs next meets its fault; the submitting process is killed last.
        ready = run.wait(
            lambda: [name for name in waiting if run.job(waiting[name]) and (name != "submit" or len(waiting) == 1)],
            "a job",
        )
        dataset = waiting.pop(ready[0])
        job = run.freeze(dataset)
        if ready[0] == "cancel":
            subprocess.run(["scancel", str(job.id)], check=True)
        elif ready[0] == "node":
            cluster.kill(job.nodes)
        elif ready[0] == "submit":
            process.kill()
            process.wait()
            unlock = [Path(sys.executable).with_name("snakemake"), "-s", ROOT / "Snakefile", "--directory", folder]
            subprocess.run([*unlock, "--unlock", *run.words[:-2]], check=True, capture_output=True)
            process = submit(site, folder, *run.words)
            run.resume(dataset)
    if lost := {*GPUS} - {*cluster.running}:
        run.wait(
            lambda: any(
                job.nodes not in lost
                for job in cluster.jobs(run.before)
                if job.rule == run.met[FAULTS["node"]].rule and job.state in ("RUNNING", "COMPLETED")
            ),
            "the job of the lost node elsewhere",
        )
        for node in lost:
            cluster.start_node(node)
    finish(process, folder, 900)
    cluster.wait_idle()
    return run


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The same run on this machine alone."""
    folder = tmp_path_factory.mktemp("undisturbed")
    command = [
        Path(sys.executable).with_name("snakemake"),
        "--cores",
        "2",
        "-s",
        ROOT / "Snakefile",
        "--directory",
        folder,
    ]
    subprocess.run(
        [*command, *Run.words[: Run.words.index("--set-resources")], "--", "gradients"], check=True, capture_output=True
    )
    return folder


def attempts(run, dataset):
    """All jobs of a dataset, the first one first."""
    return [
        job for job in run.cluster.jobs(run.before) if job.rule.endswith(f"measure_gradients_wildcards_mini_{dataset}")
    ]


def continued(run, dataset):
    """Nothing that was kept at the fault was computed again."""
    for name, keys in run.segments(dataset).items():
        before = {key for other in run.kept[dataset].values() for key in other}
        assert name in run.kept[dataset] or before.isdisjoint(keys)
    assert len(run.segments(dataset)) > 1
    return True


def test_faults_leave_the_tables_of_an_undisturbed_run(faults, undisturbed):
    wanted = {name: digest for name, digest in tables(undisturbed).items() if name.startswith("results/gradients")}
    assert len(wanted) == 10
    assert {name: tables(faults.folder)[name] for name in wanted} == wanted


def test_a_cancelled_job_is_retried_and_continues(faults):
    first, *_, last = attempts(faults, FAULTS["cancel"])
    assert (first.state, last.state) == ("CANCELLED", "COMPLETED")
    assert continued(faults, FAULTS["cancel"])


def test_the_job_of_a_dead_node_goes_elsewhere(faults):
    lost = faults.met[FAULTS["node"]]
    last = attempts(faults, FAULTS["node"])[-1]
    assert last.state == "COMPLETED" and last.nodes != lost.nodes
    assert continued(faults, FAULTS["node"])


def test_a_job_over_its_time_continues(faults):
    states = [job.state for job in attempts(faults, FAULTS["time"])]
    assert "TIMEOUT" in states and states[-1] == "COMPLETED"
    assert continued(faults, FAULTS["time"])


def test_a_job_over_its_memory_gets_more_and_smaller_batches(faults):
    first, *_, last = attempts(faults, HUNGRY)
    assert first.state in ("FAILED", "OUT_OF_MEMORY") and last.state == "COMPLETED"
    assert (first.memory, last.memory) == ("400M", f"{400 * len(attempts(faults, HUNGRY))}M")
    run = json.loads((faults.folder / f"results/gradients/mini/{HUNGRY}.run.json").read_text())
    assert run["batch_tokens"] == 128 >> (len(attempts(faults, HUNGRY)) - 1)


def test_a_killed_submission_continues_beside_its_old_job(faults):
    dataset = FAULTS["submit"]
    old, new = attempts(faults, dataset)[-2:]
    assert (old.state, new.state) == ("COMPLETED", "COMPLETED") and old.overlaps(new)
    assert continued(faults, dataset)


def test_gpus_are_shared_and_never_more_than_there_are(faults):
    jobs = [job for job in faults.cluster.jobs(faults.before) if job.gpus and job.start and job.end]
    assert any(one.overlaps(two) for one in jobs for two in jobs if one.id < two.id)
    assert all(held <= GPUS[node] for node, held in most_gpus(jobs).items())


# Devices -------------------------------------------------------------------------------------------------------------


def test_no_device_is_leased_inside_a_job(cluster, tmp_path):
    """Slurm assigns devices itself: a lease would let two jobs of one node wait for each other."""
    code = (
        "import os, json; from gradatlas.core.device import lease\n"
        "with lease('cuda', 1) as held: print(json.dumps([held, os.environ['CUDA_VISIBLE_DEVICES']]))"
    )
    done = subprocess.run(
        ["srun", "--partition=gpu", "--gres=gpu:1", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
    )
    held, visible = json.loads(done.stdout)
    assert not held and visible in ("0", "1"), done.stderr
