"""A disk that is full, and one that is read-only. Needs the right to mount: root on Linux."""

import os
import subprocess

import pytest

from conftest import call
from faults.study import BOTH, LONG, assert_same, error_line, following, jobs_of, plain_run, run, survived

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
FULL = "FILE: No space left on device; free some space and run again"


@pytest.fixture
def disk(copy):
    """A copy of the study whose results are a file system of their own, 80 MB large."""
    place = copy / "results"
    whole = place.rename(copy / "whole")
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "none", place], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no right to mount a tmpfs: {done.stderr.strip()}")
    try:
        subprocess.run(["cp", "-a", f"{whole}/.", place], check=True)
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def remount(disk, mode):
    subprocess.run(["mount", "-o", f"remount,{mode}", disk], check=True)


def fill(disk, left):
    """Fill a file system, and leave about so many bytes."""
    state = os.statvfs(disk)
    with open(disk / ".filler", "wb") as file:
        file.write(bytes(max(0, state.f_bavail * state.f_frsize - left)))
    return disk / ".filler"


def some_jobs(undisturbed, rng):
    """Jobs that write into results/ alone."""
    jobs = [job for job in jobs_of(undisturbed) if all(name.startswith("results") for name in job.outputs)]
    return [job for job in jobs if job.rule == "measure_gradients"] + rng.sample(jobs, 9 if LONG else 3)


def test_full_under_each_job(disk, copy, undisturbed, rng, monkeypatch):
    monkeypatch.chdir(copy)
    jobs = some_jobs(undisturbed, rng)
    for job in jobs:
        sizes = [path.stat().st_size for name in job.outputs for path in files_of(copy / name)]
        job.remove_outputs(copy)
        filler = fill(disk, rng.randrange(max(sizes)))
        done = call(*job.arguments)
        filler.unlink()
        if done.returncode:
            error_line(done.stderr, FULL, "results/")
            done = call(*job.arguments)
        assert done.returncode == 0, done.stderr
    assert_same(copy, undisturbed)
    survived("a full disk", "below the results, under each job", len(jobs), BOTH, FULL)


def files_of(path):
    return [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]


def test_full_under_snakemake(disk, copy, undisturbed):
    for job in following(jobs_of(undisturbed), {"regress_gradients"}):
        job.remove_outputs(copy)
    filler = fill(disk, 0)
    code, output = run(copy)
    assert code == 1
    error_line(output, FULL, "results/")
    filler.unlink()
    plain_run(copy)
    assert_same(copy, undisturbed)
    survived("a full disk", "below the results, in a run of Snakemake", 1, BOTH, FULL)


def test_read_only_under_each_job(disk, copy, undisturbed, rng, monkeypatch):
    monkeypatch.chdir(copy)
    jobs = some_jobs(undisturbed, rng)
    for job in jobs:
        job.remove_outputs(copy)
        remount(disk, "ro")
        done = call(*job.arguments)
        remount(disk, "rw")
        assert done.returncode == 2
        error_line(done.stderr, "FILE: …", "results/")
        assert call(*job.arguments).returncode == 0
    assert_same(copy, undisturbed)
    line = "FILE: Read-only file system; mount it writable and run again"
    survived("read-only results", "under each job", len(jobs), BOTH, line)


def test_read_only_under_snakemake(disk, copy, undisturbed):
    for job in following(jobs_of(undisturbed), {"regress_gradients"}):
        job.remove_outputs(copy)
    remount(disk, "ro")
    code, output = run(copy)
    assert code
    line = "results: no file may be written here; change the mode or the owner of … and run again"
    error_line(output, line)
    remount(disk, "rw")
    plain_run(copy)
    assert_same(copy, undisturbed)
    survived("read-only results", "in a run of Snakemake", 1, BOTH, line)
