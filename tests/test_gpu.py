"""Which GPUs are visible, the lease on them between real processes, and what a run says of them before it starts."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import starts
from conftest import ROOT, command, settings, user_error
from gradatlas.core.device import check_devices, visible_devices
from gradatlas.core.errors import InputError

HOLD = """
import os, sys, time
from gradatlas.core.device import lease
with lease(sys.argv[3], int(sys.argv[2]), sys.argv[1], poll=0.05) as held:
    print(os.environ.get("CUDA_VISIBLE_DEVICES"), "held" if held else "free", flush=True)
    time.sleep(float(sys.argv[4]))
"""
GPUS = {f"GPU-{letter * 8}-0000-0000-0000-00000000000{at}": [] for at, letter in enumerate("abcd")}
DIVIDED = {"GPU-aaaaaaaa-00": ["MIG-11111111-00", "MIG-22222222-00"], "GPU-bbbbbbbb-00": []}


def machine_with(folder, gpus):
    """A PATH with an nvidia-smi that lists these GPUs and their MIG instances, as the real one does."""
    lines = []
    for at, (uuid, instances) in enumerate(gpus.items()):
        lines.append(f"GPU {at}: NVIDIA A100-SXM4-40GB (UUID: {uuid})")
        lines += [f"  MIG 1g.5gb      Device  {n}: (UUID: {each})" for n, each in enumerate(instances)]
    return tool(folder, "cat <<'END'\n" + "\n".join(lines) + "\nEND")


def tool(folder, script):
    """A PATH with this nvidia-smi."""
    path = folder / "bin/nvidia-smi"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/bin/sh\n[ "$*" = -L ] || exit 9\n{script}\n')
    path.chmod(0o755)
    return f"{path.parent}:{os.environ['PATH']}"


@pytest.fixture
def start(tmp_path):
    """Start a process that takes a lease, and prints what it got; all are ended after the test."""
    jobs = []
    (tmp_path / "locks").mkdir()

    def started(count=1, device="auto", seconds=60, folder=tmp_path / "locks", job=None, **environment):
        base = {key: value for key, value in os.environ.items() if key not in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID")}
        jobs.append(
            subprocess.Popen(
                [sys.executable, *map(str, job or ["-c", HOLD, folder, count, device, seconds])],
                cwd=ROOT,
                env=base | environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return jobs[-1]

    yield started
    for job in jobs:
        job.kill()
        job.communicate()


def got(job):
    return job.stdout.readline().split()


def waits(job):
    """Wait until a job waits."""
    line = job.stderr.readline()
    assert "waiting" in line, line


def holds_none(job):
    """Whether a waiting job has still got nothing."""
    time.sleep(0.4)
    os.set_blocking(job.stdout.fileno(), False)
    line = job.stdout.readline()
    os.set_blocking(job.stdout.fileno(), True)
    return line == ""


def test_two_devices_three_jobs_and_a_kill(start):
    one, two = (start(CUDA_VISIBLE_DEVICES="7,9") for _ in range(2))
    # The elements of the visible list, not indices into it.
    assert sorted([got(one), got(two)]) == [["7", "held"], ["9", "held"]]
    three = start(CUDA_VISIBLE_DEVICES="7,9")
    waits(three)
    assert holds_none(three), "a third job got a device that is held"
    one.kill()
    assert got(three) in (["7", "held"], ["9", "held"])


def test_jobs_are_served_in_the_order_in_which_they_came(start):
    first = start(CUDA_VISIBLE_DEVICES="7,8")
    assert got(first) == ["7", "held"]
    large = start(2, CUDA_VISIBLE_DEVICES="8,7")
    waits(large)
    late = start(CUDA_VISIBLE_DEVICES="7,8")
    waits(late)
    # One that shares no GPU with them is not in their queue.
    assert got(start(CUDA_VISIBLE_DEVICES="9")) == ["9", "held"]
    assert holds_none(late), "a job overtook one that wants more GPUs"
    first.kill()
    assert got(large) == ["8,7", "held"]
    assert holds_none(late)
    large.kill()
    assert got(late) == ["7", "held"]


def test_small_jobs_do_not_starve_a_large_one(start):
    small = [start(CUDA_VISIBLE_DEVICES="0,1,2") for _ in range(3)]
    assert sorted(map(got, small)) == [["0", "held"], ["1", "held"], ["2", "held"]]
    large = start(3, CUDA_VISIBLE_DEVICES="0,1,2")
    waits(large)
    late = start(CUDA_VISIBLE_DEVICES="0,1,2")
    waits(late)
    for job in small:
        assert holds_none(late)
        job.kill()
    assert got(large) == ["0,1,2", "held"]
    assert holds_none(late)


def test_a_killed_waiting_job_leaves_the_queue(start):
    first = start(CUDA_VISIBLE_DEVICES="7")
    assert got(first) == ["7", "held"]
    killed, next_one = start(CUDA_VISIBLE_DEVICES="7"), None
    waits(killed)
    next_one = start(CUDA_VISIBLE_DEVICES="7")
    waits(next_one)
    killed.kill()
    first.kill()
    assert got(next_one) == ["7", "held"]


def test_partly_shared_lists_do_not_deadlock(start):
    """Each of three jobs wants two GPUs of a ring: whoever took one and waited for the next would stop all."""
    for _ in range(2):
        jobs = [start(2, seconds=0.2, CUDA_VISIBLE_DEVICES=pair) for pair in ("0,1", "1,2", "2,0")]
        assert [got(job) for job in jobs] == [["0,1", "held"], ["1,2", "held"], ["2,0", "held"]]


def test_a_slurm_job_takes_a_lease_only_where_it_has_more_than_it_needs(start):
    for count in (1, 2):
        given = ",".join(map(str, range(count)))
        for _ in range(2):
            assert got(start(count, SLURM_JOB_ID="12", CUDA_VISIBLE_DEVICES=given)) == [given, "free"]
    # As under salloc: parallel jobs of one allocation.
    jobs = [start(SLURM_JOB_ID="12", CUDA_VISIBLE_DEVICES="0,1") for _ in range(2)]
    assert sorted(map(got, jobs)) == [["0", "held"], ["1", "held"]]
    waits(start(SLURM_JOB_ID="12", CUDA_VISIBLE_DEVICES="0,1"))
    # Under cgroups 0 is another GPU in another allocation.
    assert got(start(SLURM_JOB_ID="13", CUDA_VISIBLE_DEVICES="0,1")) == ["0", "held"]


def test_nothing_to_choose_takes_no_lease(start, tmp_path):
    for count, device in [(3, "auto"), (1, "cpu")]:
        assert got(start(count, device, CUDA_VISIBLE_DEVICES="0,1")) == ["0,1", "free"]
    assert not list((tmp_path / "locks").iterdir())


def test_one_gpu_has_one_lease_whatever_it_is_called(start, tmp_path):
    first, second, *_ = GPUS
    given = {"PATH": machine_with(tmp_path, GPUS)}
    assert got(start(CUDA_VISIBLE_DEVICES="0", **given)) == ["0", "held"]
    # All are visible, and the first is held.
    assert got(start(**given)) == [second, "held"]
    waits(start(CUDA_VISIBLE_DEVICES=first, **given))
    waits(start(CUDA_VISIBLE_DEVICES="GPU-bbbb", **given))


def test_instances_of_a_divided_gpu_are_leased_one_by_one(start, tmp_path):
    given = {"PATH": machine_with(tmp_path, DIVIDED)}
    assert [got(start(**given))[0] for _ in range(3)] == ["MIG-11111111-00", "MIG-22222222-00", "GPU-bbbbbbbb-00"]
    waits(start(CUDA_VISIBLE_DEVICES="MIG-2222", **given))
    # A process sees one instance at most: two of them are no two GPUs.
    assert got(start(2, **given)) == ["None", "free"]


LISTS = ["0,1", "1,0", "3", "0,-1,1", "-1", "0,,1", "", " ", "0, 2", "01", "x", "NoDevFiles", "0,GPU-a", "GPU-a,GPU-b",
         "GPU-a", "GPU-a,1", "GPU-a,-1,GPU-b", "MIG-a,MIG-b", "MIG-a,GPU-b", "MIG-GPU-a/1/0"]  # fmt: skip


@pytest.mark.parametrize("given", LISTS)
def test_a_list_is_read_as_torch_reads_it(given, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    monkeypatch.setenv("PATH", "/nowhere")
    found = [int(name) if name.isdecimal() else name for name in visible_devices(os.environ)]
    assert found == torch.cuda._parse_visible_devices()


def test_names_are_checked_against_the_gpus_that_there_are(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", machine_with(tmp_path, GPUS))
    uuids = list(GPUS)
    for given, expected in {
        "1,4,0": {"1": uuids[1]},
        "GPU-cc,GPU-": {"GPU-cc": uuids[2]},
        "GPU-e,GPU-a": {},
        "GPU-d,GPU-a": {"GPU-d": uuids[3], "GPU-a": uuids[0]},
    }.items():
        assert visible_devices({"CUDA_VISIBLE_DEVICES": given}) == expected, given
    assert visible_devices({}) == {uuid: uuid for uuid in uuids}
    monkeypatch.setenv("PATH", machine_with(tmp_path, DIVIDED))
    for given, expected in {
        "0,1": {"0": "MIG-11111111-00", "1": "GPU-bbbbbbbb-00"},
        "MIG-2": {"MIG-2": "MIG-22222222-00"},
        "MIG-GPU-aaaaaaaa-00/1/0": {"MIG-GPU-aaaaaaaa-00/1/0": "MIG-GPU-aaaaaaaa-00/1/0"},
    }.items():
        assert visible_devices({"CUDA_VISIBLE_DEVICES": given}) == expected, given


@pytest.mark.parametrize("given", ["0,0", "1,0,01", "GPU-a,GPU-b,GPU-a", "GPU-aa,GPU-aaa", "MIG-a,MIG-a"])
def test_a_gpu_named_twice_is_an_error(given, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", machine_with(tmp_path, GPUS) if given == "GPU-aa,GPU-aaa" else "/nowhere")
    with pytest.raises(InputError, match=f"^CUDA_VISIBLE_DEVICES={given} names a GPU twice"):
        visible_devices({"CUDA_VISIBLE_DEVICES": given})


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, for a /dev of its own")
@pytest.mark.parametrize("failure", ["No such file", "version mismatch"])
def test_gpus_that_nvidia_smi_does_not_list_are_an_error(failure, tmp_path):
    path = os.environ["PATH"] if failure == "No such file" else tool(tmp_path, f"echo {failure}; exit 18")
    (tmp_path / "dev").mkdir()
    prepare = f"""
        mount -t tmpfs none {tmp_path}/dev && cd {tmp_path}/dev && touch null urandom nvidia0
        mount --bind /dev/null null && mount --bind /dev/urandom urandom && mount --rbind . /dev
        exec {sys.executable} -c '
import os
from gradatlas.core.device import visible_devices
print(visible_devices(os.environ))'
    """
    environment = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"} | {"PATH": path}
    outcomes = [
        subprocess.run(["unshare", "-m", "sh", "-c", prepare], env=environment | given, capture_output=True, text=True)
        for given in ({}, {"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": ""})
    ]
    assert re.search(f"InputError: this machine has NVIDIA devices.*{failure}.*set CUDA_VISIBLE", outcomes[0].stderr)
    assert [done.stdout for done in outcomes[1:]] == ["{'0': '-0'}\n", "{}\n"]


def test_a_run_that_would_share_or_wait_is_refused():
    two = {"CUDA_VISIBLE_DEVICES": "0,1", "PATH": "/nowhere"}
    fine = [({1}, None), ({1}, 2), ({1, 2}, 2), ({1}, 1), ({2}, None), (set(), 8)]
    for wanted, limit in fine:
        check_devices(wanted, limit, two)
    check_devices({4}, None, {"CUDA_VISIBLE_DEVICES": ""})  # on the CPU
    in_slurm = two | {"SLURM_JOB_ID": "12"}
    check_devices({1}, None, in_slurm)  # leases
    check_devices({1, 2}, 2, in_slurm)
    refused = [
        ({1}, 8, two, "--resources gpu=8 is given, but 2 GPUs are visible (0,1)"),
        ({1}, 1, {"CUDA_VISIBLE_DEVICES": ""}, "--resources gpu=1 is given, but 0 GPUs are visible (none)"),
        (
            {1, 4},
            None,
            two,
            "a job asks for 4 GPUs, but can use 2 of 0,1",
        ),
        (
            {1, 2},
            1,
            two,
            "a job asks for 2 GPUs, but can use 2 of 0,1, and --resources gpu=1 is given",
        ),
        (
            {2},
            None,
            {"CUDA_VISIBLE_DEVICES": "MIG-a,MIG-b"},
            "a job asks for 2 GPUs, but can use 0 of",
        ),
        ({1, 2}, None, in_slurm, "parallel jobs would share GPUs: 2 GPUs are visible (0,1) to this Slurm job"),
    ]
    for wanted, limit, environment, message in refused:
        with pytest.raises(InputError, match=re.escape(message)):
            check_devices(wanted, limit, environment)


WRITER = {"writer": {"name": "m", "device": "auto"}}
RUN = {"name": "r", "learning_rate": 1, "steps": 1, "device": "auto"}
JUDGED = {
    "judge": "reward",
    "runs": [{"name": "r", "steps": 1, "baselines": []}],
    "model": {"name": "m", "device": "auto"},
}
ALONG = {"run": "r", "device": "auto"}
#: The jobs on models, each with options that are enough for it to begin.
LEASING = {
    "measure-gradients": ["--responses", "x", "--samples", "x", "--spectra", "x", *settings(device="auto")],
    "generate-detailed": ["--dataset", "mini_arithmetic", "--kept", "x", "--output", "x",
                          *settings(reader="miniature", seed=0, files=[], prompt="{instruction}", **WRITER)],
    "write-rephrases": ["--pairs", "x", "--kept", "x", "--output", "x", *settings(train=1, held_out=1, **WRITER)],
    "build-probes": ["--pairs", "x", "--output", "x", *settings(train=1, held_out=1, device="auto")],
    "generate-start": ["--pairs", "x", "--output", "x", *settings(device="auto")],
    "finetune": ["--init", "x", "--pairs", "x", "--output", "x", "--journal", "x", *settings(**RUN)],
    "score": ["--data", "x", "--output", "x", *settings(device="auto")],
    "measure-budget": ["--init", "x", "--folder", "x", "--probes", "x", "--output", "x", *settings(**ALONG)],
    "measure-kernels": ["--init", "x", "--folder", "x", "--probes", "x", "--kernels", "x", "--means", "x",
                        "--entanglement", "x", "--journal", "x", *settings(**ALONG)],
    "train-on-variant": ["--responses", "x", "--output", "x", "--journal", "x",
                         *settings(variant="none", variants=["none"], device="auto")],
    "measure-bridge": ["--init", "x", "--folder", "x", "--responses", "x", "--output", "x", "--journal", "x", "--kinds",
                       "none:correct", *settings(device="auto")],
    "judge-generations": ["--generations", "x", "--scores", "x", "--pairs", "x", "--output", "x", *settings(**JUDGED)],
}  # fmt: skip


def test_every_rule_with_gpus_has_a_job_that_leases_them():
    rules = [text for path in (ROOT / "workflow/rules").glob("*.smk") for text in path.read_text().split("rule ")[1:]]
    jobs = [re.search(r"python -m gradatlas ([\w-]+)", text)[1] for text in rules if re.search(r"^ +gpu=", text, re.M)]
    assert {*jobs} == {*LEASING}


@pytest.mark.parametrize("job", LEASING)
def test_torch_is_imported_after_the_lease(job, start):
    """CUDA reads the list of visible GPUs once."""
    name = f"GPU-of-test-{os.getpid()}"
    model = [] if "--init" in LEASING[job] else ["--model", "x"]
    try:
        assert got(start(folder="", CUDA_VISIBLE_DEVICES=name)) == [name, "held"]
        waiting = start(job=[*command(job), *model, *LEASING[job]], CUDA_VISIBLE_DEVICES=name)
        waits(waiting)
        assert "torch" not in Path(f"/proc/{waiting.pid}/maps").read_text()
    finally:
        Path(f"/tmp/gradatlas-gpu-{os.getuid()}/{name}.lock").unlink()


ON_A_GPU = f"{{model: one, source: {ROOT / 'resources/miniature/base'}, scope: none, device: auto, threads: 1}}"


@pytest.mark.slow
def test_the_workstation_profile_counts_the_gpus(tmp_path):
    """Real runs: refused in one line before any job, done without a GPU, and done on two."""

    def run(*arguments, **environment):
        words = [
            "--workflow-profile", "profiles/workstation", *arguments,
            "--directory", tmp_path / "study",
            "--config", f"models=[{ON_A_GPU}]", "datasets=[mini_arithmetic]", "samples=1", "--", "gradients",
        ]  # fmt: skip
        bare = {"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/"), "PYTHONPATH": os.environ["PYTHONPATH"]}
        return starts.snakemake(ROOT, words, bare | environment)

    # Jobs lease in the folder of all jobs of this user.
    uuids = [f"GPU-of-test-{os.getpid()}-{at}" for at in range(2)]
    two = {"PATH": machine_with(tmp_path, {uuid: [] for uuid in uuids})}
    for arguments, environment, message in [
        (["--resources", "gpu=8"], two, "--resources gpu=8 is given, but 2 GPUs are visible"),
        ([], two | {"CUDA_VISIBLE_DEVICES": "1,1"}, "CUDA_VISIBLE_DEVICES=1,1 names a GPU twice"),
    ]:
        assert message in user_error(run(*arguments, **environment))
    assert not (tmp_path / "study/results").exists()

    log = tmp_path / "study/logs/measure_gradients/one/mini_arithmetic.log"
    done = run()
    assert done.returncode == 0 and "gpu=0" in done.stderr, done.stderr
    assert "leased" not in log.read_text()
    done = run("--forcerun", "measure_gradients", **two)
    assert done.returncode == 0 and 'Resource("gpu", 2)' in done.stderr, done.stderr
    assert f"GPU {uuids[0]} of {','.join(uuids)} leased" in log.read_text()
    for uuid in uuids:
        Path(f"/tmp/gradatlas-gpu-{os.getuid()}/{uuid}.lock").unlink()
