"""Several processes on one run: the same curves as one, also after a kill."""

import os
import signal
import subprocess
import sys
import time

import polars as pl
import psutil
import pytest
from safetensors.torch import load_file

from conftest import call, script, user_error
from gradatlas.finetuning import processes
from test_dynamics_finetune import arguments, data  # noqa: F401  a fixture
from test_dynamics_judging import reward_model

#: An SGD step is linear in the gradient. RMSprop and AdamW divide by its size, and turn the rounding of a sum over
#: processes into a step as large as any other where a gradient is zero.
EXACT = {"dtype": "float64", "batch_size": 3, "prompts": 3, "generate_every": 2, "evaluate_every": 2,
         "optimiser": "sgd"}  # fmt: skip
NUMBERS = ("loss", "pull", "push", "grad_norm", "learning_rate")


def table(out, name):
    return pl.read_parquet(out / f"{name}.parquet")


#: Settings by loss.
RUNS = {
    "sft": {"target": "extend"},
    "kto": {"clip": 0.5},
    "dpo": {"negatives": "self_play"},
    "ipo": {"negatives": "on_policy", "judge": "reward"},
}


def each_in_turn(works, member):
    """Runs in the processes that a first one would have started."""
    for work, given in works:
        work(given, member)


@pytest.fixture(scope="module")
def both(data, miniature, tmp_path_factory):  # noqa: F811
    """The folder of runs in one process and in two. Those in two have the same two, whose imports take longest."""
    folder, works = tmp_path_factory.mktemp("both"), []
    reward_model(folder / "reward", miniature)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(processes, "launch", lambda work, given, count, device: works.append((work, given)))
        for loss, more in RUNS.items():
            judge = ("--judge-model", folder / "reward") if "judge" in more else ()
            for name, count in (("one", 1), ("two", 2)):
                chosen = EXACT | more | {"loss": loss, "processes": count, "steps": 3}
                done = call("finetune", *arguments(data, miniature, folder / loss / name, *judge, **chosen))
                assert done.returncode == 0, done.stderr
                assert done.stderr.count("step 3/3") == (count == 1)
    with (folder / "stderr").open("w+") as errors:
        kept = os.dup(2)
        os.dup2(errors.fileno(), 2)
        try:
            processes.launch(each_in_turn, works, 2, "cpu")
        finally:
            os.dup2(kept, 2)
            os.close(kept)
    assert (folder / "stderr").read_text().count("step 3/3") == len(RUNS)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("loss", RUNS)
def test_two_processes_do_what_one_does(loss, both):
    one, two = both / loss / "one/out", both / loss / "two/out"
    for name in NUMBERS:
        assert table(two, "training")[name].to_list() == pytest.approx(
            table(one, "training")[name].to_list(), rel=1e-12
        )
    assert table(one, "training")["ranked"].equals(table(two, "training")["ranked"])
    for name in ("log_prob_sum", "argmax_log_prob", "entropy", "g_norm"):
        numbers = [table(each, "dynamics")[name].drop_nulls().to_list() for each in (one, two)]
        assert len(numbers[0]) and numbers[1] == pytest.approx(numbers[0], rel=1e-9)
    assert table(one, "generations").equals(table(two, "generations"))
    kept, shared = (load_file(out / "model/model.safetensors") for out in (one, two))
    assert all(float((kept[name] - shared[name]).abs().max()) < 1e-12 for name in kept)


@pytest.mark.slow
def test_killed_processes_leave_no_others_and_go_on(data, miniature, tmp_path):  # noqa: F811
    more = {**EXACT, "loss": "dpo", "processes": 2}
    quiet = script("finetune", *arguments(data, miniature, tmp_path / "quiet", **more, steps=10))
    assert quiet.returncode == 0, quiet.stderr
    command = [sys.executable, "-m", "gradatlas", "finetune",
               *map(str, arguments(data, miniature, tmp_path / "killed", **more, steps=10))]  # fmt: skip
    victim = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not (tmp_path / "killed/journal/dynamics-00000004.parquet").exists():
        assert victim.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)
    children = psutil.Process(victim.pid).children()
    assert len(children) >= 2
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    deadline = time.monotonic() + 60
    while any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children):
        assert time.monotonic() < deadline, "a process outlived its parent"
        time.sleep(0.05)
    assert not (tmp_path / "killed/out").exists()
    done = script("finetune", *arguments(data, miniature, tmp_path / "killed", **more, steps=10))
    assert done.returncode == 0 and "resumes after step" in done.stderr, done.stderr
    for name in (
        "dynamics.parquet",
        "generations.parquet",
        "training.parquet",
        "status.json",
        "model/model.safetensors",
    ):
        assert (tmp_path / "killed/out" / name).read_bytes() == (tmp_path / "quiet/out" / name).read_bytes(), name


@pytest.mark.slow
def test_errors_of_the_processes_are_one_line(data, miniature, tmp_path):  # noqa: F811
    given = arguments(data, miniature, tmp_path, processes=2, batch_size=1)
    assert "2 processes cannot share batches of 1; lower config key dynamics.processes" in user_error(
        call("finetune", *given)
    )
    assert not (tmp_path / "journal").exists()
