"""The GPU lease between real processes: never the same device twice, free again however the holder ends."""

import os
import subprocess
import sys
import time

from conftest import ROOT
from gradatlas.core.device import visible_devices

HOLD = """
import os, sys, time
from gradatlas.core.device import lease
with lease(sys.argv[3], int(sys.argv[2]), sys.argv[1], poll=0.05) as held:
    print(os.environ.get("CUDA_VISIBLE_DEVICES"), "held" if held else "free", flush=True)
    time.sleep(60)
"""


def holder(folder, count=1, device="auto", **environment):
    base = {key: value for key, value in os.environ.items() if key not in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID")}
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, folder, str(count), device],
        cwd=ROOT,
        env=base | environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_devices_three_jobs_and_a_kill(tmp_path):
    jobs = [holder(tmp_path, CUDA_VISIBLE_DEVICES="7,9") for _ in range(2)]
    try:
        # The elements of the visible list, not indices into it.
        assert sorted(job.stdout.readline().split()[0] for job in jobs) == ["7", "9"]
        jobs.append(holder(tmp_path, CUDA_VISIBLE_DEVICES="7,9"))
        time.sleep(0.5)
        os.set_blocking(jobs[2].stdout.fileno(), False)
        assert jobs[2].stdout.readline() == "", "a third job got a device that is held"
        os.set_blocking(jobs[2].stdout.fileno(), True)
        jobs[0].kill()
        assert jobs[2].stdout.readline().split() in (["7", "held"], ["9", "held"])
    finally:
        for job in jobs:
            job.kill()
            job.communicate()


def test_a_job_that_wants_several_holds_none_until_it_has_all(tmp_path):
    jobs = [holder(tmp_path, CUDA_VISIBLE_DEVICES="7,8,9")]
    try:
        assert jobs[0].stdout.readline().split() == ["7", "held"]
        jobs.append(holder(tmp_path, 3, CUDA_VISIBLE_DEVICES="7,8,9"))
        # While it waits, the other two can be had.
        jobs.append(holder(tmp_path, 2, CUDA_VISIBLE_DEVICES="7,8,9"))
        assert jobs[2].stdout.readline().split() == ["8,9", "held"]
        jobs[0].kill()
        jobs[2].kill()
        assert jobs[1].stdout.readline().split() == ["7,8,9", "held"]
    finally:
        for job in jobs:
            job.kill()
            job.communicate()


def test_nothing_to_choose_takes_no_lease(tmp_path):
    cases = [(1, {"SLURM_JOB_ID": "12"}), (3, {}), (1, {"device": "cpu"})]
    for count, given in cases:
        job = holder(tmp_path, count, **given, CUDA_VISIBLE_DEVICES="0,1")
        assert job.stdout.readline().split() == ["0,1", "free"]
        job.kill()
        job.communicate()
    assert not list(tmp_path.iterdir())


def test_a_single_device_is_leased_too(tmp_path):
    jobs = [holder(tmp_path, 1, CUDA_VISIBLE_DEVICES="3")]
    try:
        assert jobs[0].stdout.readline().split() == ["3", "held"]
        jobs.append(holder(tmp_path, 1, CUDA_VISIBLE_DEVICES="3"))
        jobs[0].kill()
        assert jobs[1].stdout.readline().split() == ["3", "held"]
    finally:
        for job in jobs:
            job.kill()
            job.communicate()


def test_an_empty_list_hides_all_devices():
    assert visible_devices({"CUDA_VISIBLE_DEVICES": ""}) == []
    assert visible_devices({"CUDA_VISIBLE_DEVICES": "GPU-1a, GPU-2b"}) == ["GPU-1a", "GPU-2b"]
