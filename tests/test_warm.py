"""Jobs that start as copies of a process with the large packages: they behave as processes of their own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gradatlas.core import warm

# Stands for the package, and does what its arguments say.
JOB = """\
import os, sys, time

if __name__ == "__main__":
    from gradatlas.core.warm import run_in_copy

    code = run_in_copy()
    if code is not None:
        print("waited", code, file=sys.stderr)
        sys.exit(code)
    exec(sys.argv[1])
"""
START = """\
import os, sys
from gradatlas.core import warm
warm.start(["torch", "nothing_of_this_name"])
print(os.environ[warm.VARIABLE], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A package with this server and another command line."""
    place = tmp_path_factory.mktemp("package")
    (place / "gradatlas/core").mkdir(parents=True)
    for path in ("__init__.py", "core/__init__.py"):
        (place / "gradatlas" / path).touch()
    (place / "gradatlas/core/warm.py").write_text(Path(warm.__file__).read_text())
    (place / "gradatlas/__main__.py").write_text(JOB)
    return place


def started(package):
    """A process that has started a server and waits for its input to end, and the way to the server's socket."""
    environment = {**os.environ, "PYTHONPATH": str(package)}
    run = subprocess.Popen(
        [sys.executable, "-c", START],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    return run, Path(run.stdout.readline().strip())


@pytest.fixture(scope="module")
def server(package):
    run, socket = started(package)
    waited(socket.exists)
    yield socket
    run.communicate("")


def waited(done, seconds=300):
    limit = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < limit
        time.sleep(0.05)


def job(package, socket, code, *words, **more):
    environment = {**os.environ, "PYTHONPATH": str(package), warm.VARIABLE: str(socket), **more.pop("env", {})}
    return subprocess.Popen(
        [sys.executable, "-m", "gradatlas", code, *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **more,
    )  # fmt: skip


def test_a_copy_has_the_caller_s_folder_environment_and_outputs(package, server, tmp_path):
    code = "print(os.getcwd(), os.environ['ASKED'], 'torch' in sys.modules); print('said', file=sys.stderr)"
    done = job(package, server, code, cwd=tmp_path, env={"ASKED": "für {x}"})
    out, errors = done.communicate()
    assert (out, errors, done.returncode) == (f"{tmp_path} für {{x}} True\n", "said\nwaited 0\n", 0)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("sys.exit(2)", 2),
        ("1 / 0", 1),
        ("os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("os.kill(os.getpid(), 15)", -signal.SIGTERM),
    ],
)
def test_a_copy_s_end_is_the_job_s(package, server, code, expected):
    done = job(package, server, code)
    _, errors = done.communicate()
    assert done.returncode == expected
    assert ("ZeroDivisionError" in errors) == (expected == 1)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_job_ends_its_copy(package, server, tmp_path, number):
    waiting = job(package, server, f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    waited(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    copy = int((tmp_path / "pid").read_text())
    waiting.send_signal(number)
    waiting.communicate()
    waited(lambda: not Path(f"/proc/{copy}").exists())
    assert waiting.returncode == -number


def test_an_edit_of_the_code_acts_in_the_next_copy(package, server):
    path = package / "gradatlas/__main__.py"
    try:
        path.write_text(JOB.replace("exec(sys.argv[1])", "print('edited')"))
        assert job(package, server, "").communicate()[0] == "edited\n"
    finally:
        path.write_text(JOB)


def test_two_copies_run_at_once_with_random_numbers_of_their_own(package, server, tmp_path):
    """Each waits until the other one runs."""
    code = "open(sys.argv[2], 'w')\nwhile not os.path.exists(sys.argv[3]): time.sleep(0.05)\n"
    code += "import random, tempfile; print(random.random(), tempfile.mktemp())"
    one, two = tmp_path / "one", tmp_path / "two"
    both = [job(package, server, code, *names) for names in ((one, two), (two, one))]
    first, second = (each.communicate(timeout=300)[0].split() for each in both)
    assert len(first) == len(second) == 2 and not {*first} & {*second}


def test_a_job_starts_as_usual_without_a_server(package, tmp_path):
    done = job(package, tmp_path / "nothing", "print('torch' in sys.modules)")
    assert done.communicate() == ("False\n", "") and done.returncode == 0


def test_a_server_ends_with_the_process_that_started_it(package, tmp_path):
    run, socket = started(package)
    waited(socket.exists)
    code = "open(sys.argv[2], 'w')\nwhile os.path.exists(sys.argv[3]): time.sleep(0.05)\nprint('done')"
    left = job(package, socket, code, tmp_path / "begun", socket.parent)
    waited((tmp_path / "begun").exists)
    run.kill()
    run.communicate()
    waited(lambda: not socket.parent.exists())
    # As the jobs of a killed Snakemake do.
    assert left.communicate()[0] == "done\n" and left.returncode == 0
