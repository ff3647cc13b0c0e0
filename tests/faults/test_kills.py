"""Kill -9 of Snakemake and of its jobs, at random moments."""

import contextlib
import os
import shutil
import signal
import threading
import time

import psutil

from faults.study import BOTH, LONG, SAME, assert_same, jobs_of, plain_run, run, start, survived
from gradatlas.core.files import replacing, write_text
from gradatlas.finetuning.checkpoints import Checkpoints
from test_workflow import clone

LOCKED = "the remaining lock was likely caused by a kill signal or a power loss. It can be removed with the --unlock"
KEPT = "results/journal"


def processes(snakemake):
    """The processes of jobs below a Snakemake, by their command line behind ``python -m gradatlas``."""
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(snakemake.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                command = process.cmdline()
                if command[1:3] == ["-m", "gradatlas"]:
                    yield tuple(command[3:]), process


def kill(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGKILL)
        return True


def unlock(folder):
    """What Snakemake's error asks for after a kill."""
    code, output = run(folder)
    assert code == 1 and LOCKED in " ".join(output.split()), output
    assert run(folder, "--unlock")[0] == 0


def kill_all(folder, jobs, rng, mains):
    """Run the study, and kill each of the `jobs` once and Snakemake `mains` times; the targets for the runs after it.

    Snakemake is killed with its jobs and, every second time, alone: its jobs then go on beside those of the next run.
    """
    targets = ["--", "all"]
    left = {job.arguments: job for job in jobs}
    patience = dict.fromkeys(left, 4.0)  # seconds
    killed = 0
    while left or killed < mains:
        for job in left.values():
            # It has ended before its kill: make it again, although what follows is made.
            if all((folder / name).exists() for name in job.outputs):
                job.remove_outputs(folder)
                targets += job.outputs
        snakemake = start(folder, "--keep-going", *targets)
        end, due = float("inf"), {}
        while snakemake.poll() is None and time.monotonic() < end:
            if killed < mains and end == float("inf") and list((folder / ".snakemake/locks").glob("*")):
                end = time.monotonic() + rng.uniform(0, 12)
            for arguments, process in processes(snakemake):
                if arguments in left and process.pid not in due:
                    due[process.pid] = (time.monotonic() + rng.uniform(0, patience[arguments]), arguments, process)
                    # Shorter the next time, for a job that ends before.
                    patience[arguments] *= 0.7
            for moment, arguments, process in list(due.values()):
                if arguments in left and time.monotonic() > moment and process.is_running() and kill(process):
                    del left[arguments]
            time.sleep(0.2)
        if snakemake.poll() is None:
            (os.kill if killed % 2 else os.killpg)(snakemake.pid, signal.SIGKILL)
            snakemake.wait()
            # A run that has failed already may have given up its lock.
            if list((folder / ".snakemake/locks").glob("*")):
                killed += 1
                unlock(folder)
    return targets


def test_jobs_and_snakemake(undisturbed, tmp_path, rng):
    """The long one from nothing: every job and Snakemake. The quick one: what is long, from what is finished."""
    jobs = jobs_of(undisturbed)
    assert {job.rule for job in jobs} > {"train_miniature", "measure_gradients", "finetune", "generate_start",
                                         "judge_generations", "draw_figures", "write_atlas"}  # fmt: skip
    if LONG:
        folder = clone(tmp_path / "clone")
        shutil.copy(undisturbed / "study.yaml", folder)
    else:
        folder = shutil.copytree(undisturbed, tmp_path / "copy")
        shutil.rmtree(folder / KEPT)
        jobs = [job for job in jobs if job.rule in ("measure_gradients", "finetune", "draw_overview")]
    mains = max(2, 50 - len(jobs)) if LONG else 2
    plain_run(folder, *kill_all(folder, jobs, rng, mains))
    assert_same(folder, undisturbed)
    survived("kill -9", "every job, once", len(jobs), SAME)
    survived("kill -9", "Snakemake, with its jobs", -(-mains // 2), BOTH, f"… {LOCKED} argument.")
    survived("kill -9", "Snakemake alone: its jobs go on beside those of the next run", mains // 2, BOTH,
             f"… {LOCKED} argument.")  # fmt: skip


def test_temporary_files_of_killed_writers(tmp_path):
    path, left, other = tmp_path / "a.txt", tmp_path / ".a.0_killed.txt", tmp_path / ".a.b.0_killed.txt"
    for each in (left, other):
        each.touch()
    with replacing(path) as temporary:
        temporary.write_text("one")
        # A writer that lives keeps its own.
        write_text(path, "two")
        assert not left.exists() and other.exists() and temporary.exists()
    assert path.read_text() == "one"


def test_a_second_process_of_a_run_waits_and_continues(tmp_path, capsys):
    first, found = Checkpoints(tmp_path / "run", {}), []

    def wait():
        second = Checkpoints(tmp_path / "run", {})
        found.append(second.load("cpu"))
        second.remove()

    waiting = threading.Thread(target=wait)
    waiting.start()
    said = ""
    while "another process works on this run" not in said:
        assert waiting.is_alive(), said
        time.sleep(0.05)
        said += capsys.readouterr().err
    assert waiting.is_alive() and not found
    first.save(7, {})
    first.remove()
    waiting.join(30)
    assert found == [{"step": 7}]
    # Nobody waited for the second one.
    assert not list(tmp_path.iterdir())
