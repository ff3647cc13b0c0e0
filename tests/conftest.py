"""What the tests share: the data files beside a developer's checkout, and running the scripts as a user does."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from filelock import FileLock
from snakemake.utils import update_config

import starts
from gradatlas.__main__ import JOBS
from gradatlas.core.checked import write_lines
from gradatlas.core.jobs import run

# As the scripts do for themselves: threads that wait must not spin on a shared core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
# For the processes that tests start.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "workflow"), str(ROOT)])


def shipped_config(*names):
    """The default config with shipped ones over it, as Snakemake merges them."""
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    for name in names:
        update_config(config, yaml.safe_load((ROOT / f"config/{name}.yaml").read_text()))
    return config


#: The default with all controls, probes and updates.
MINIATURE = shipped_config("miniature")

#: What makes a study of both kinds small, as the end of its config.
SMALL_STUDY = """\
bootstrap: 20
formats: [svg]
toys: {draws: 2}
dynamics:
  runs: [smoke_dpo]
  steps: 1
  train: 8
  held_out: 4
  base_documents: 4
  probes: 3
  held_out_probes: 1
  max_new_tokens: 6
  generate_prompts: 2
  one_step: {updates: 1, probes: 1, halvings: 2}
  kernels: {runs: [smoke_sft, smoke_dpo], prompts: 1, pairs: 2}
"""


def needs_shared(name):
    """Skip where the folder ../shared/`name` is absent: it holds published data that are not ours to ship."""
    return pytest.mark.skipif(
        not (SHARED / name).is_dir(), reason=f"needs {SHARED / name}, which only developers and CI have"
    )


# The files that take longest, begun first: the processes then end at about the same time. The first two wait for the
# smoke study, the third makes one of its own.
SLOWEST = (
    "test_slurm.py",
    "test_workflow.py",
    "test_kills.py",
    "test_staleness.py",
    "test_atlas_page.py",
    "test_own_pairs.py",
    "test_mapping.py",
    "test_generation.py",
)
#: Fixtures that take long to make: the tests that use one are marked ``slow``.
SLOW = {"by_snakemake", "cluster", "full", "installed", "large", "undisturbed", "workflow"}
#: Files of which most tests run the workflow: all of their tests are ``slow``.
SLOW_FILES = {
    "test_own_pairs.py",
    "test_scored_study.py",
    "test_series.py",
    "test_shards.py",
    "test_staleness.py",
    "test_untrained.py",
    "test_untrusted_models.py",
}


def pytest_collection_modifyitems(items):
    """Put the slowest files first; the others stay in their order."""
    items.sort(key=lambda item: SLOWEST.index(item.path.name) if item.path.name in SLOWEST else len(SLOWEST))
    for item in items:
        if SLOW & {*item.fixturenames} or item.path.name in SLOW_FILES:
            item.add_marker(pytest.mark.slow)


def command(name):
    """The start of a job's command line, behind the interpreter."""
    return ["-m", "gradatlas", name.replace("_", "-")]


#: Runs a command line, and prints its peak of memory.
_PEAK = (
    "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
)


def peak_of(words, **options):
    """Run a command line, and return its peak of memory in bytes.

    A process between the two: the peak of a process begins with that of the one that started it, which holds tests.
    """
    done = subprocess.run([sys.executable, "-c", _PEAK, *words], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1]) * 1024


def script(name, *arguments, **options):
    """Run a job in a process of its own; returns the finished process, output as text.

    With variables of its own (`env`) it imports everything itself, as packages read some when they are imported.
    """
    environment = {**os.environ, **options.pop("env", starts.warm())}
    whole = [sys.executable, *command(name), *map(str, arguments)]
    return subprocess.run(whole, capture_output=True, text=True, env=environment, **options)


def call(name, *arguments):
    """The same in this process, where starting one for each case would take longer than the cases."""
    errors, code = io.StringIO(), 0
    with contextlib.redirect_stderr(errors):
        try:
            run(JOBS, [name.replace("_", "-"), *map(str, arguments)])
        except SystemExit as end:
            code = end.code
    return subprocess.CompletedProcess([name, *arguments], code, "", errors.getvalue())


def settings(**values):
    """A job's settings, as its command line takes them."""
    return "--settings", json.dumps(values)


def published_files(sources, **values):
    """The arguments of build_responses for published files: `sources` are (variant, relation, path)."""
    files = [{"variant": variant, "relation": relation} for variant, relation, _ in sources]
    values = {"reader": "published", "seed": 0, "files": files} | values
    return "--sources", *(path for _, _, path in sources), *settings(**values)


def write_config(path, text="seed: 0\n"):
    """An effective config, as the job of this name writes it."""
    write_lines(path, text, "# checksum: {}")


def user_error(done):
    """The one line of a script that ended with the user's error."""
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in done.stderr, done.stderr
    return errors[0]


@pytest.fixture(scope="session")
def made_once(tmp_path_factory, worker_id):
    """``made_once(name, make)``: the folder that `make` fills, once for all processes of the tests. Read only.

    It holds the file ``finished`` beside it once it is whole; another process waits for it.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent

    def folder_of(name, make):
        folder, finished = shared / name, shared / f"{name}.finished"
        with FileLock(f"{folder}.lock"):
            if not finished.exists():
                shutil.rmtree(folder, ignore_errors=True)
                make(folder)
                finished.touch()
        return folder

    return folder_of


@pytest.fixture(scope="session")
def smoke(made_once):
    """The finished smoke study. Read only."""
    from test_workflow import make_smoke

    return made_once("smoke", make_smoke)


@pytest.fixture(scope="session")
def miniature(made_once):
    """An untrained miniature model's folder. Read only."""

    def make(folder):
        done = script("train_miniature", *settings(kind="random", seed=0, steps=0), "--output", folder)
        assert done.returncode == 0, done.stderr

    return made_once("mini_random", make)


@pytest.fixture(scope="session")
def responses(tmp_path_factory):
    """The responses table of 12 arithmetic questions: 72 rows of three variants and two relations."""
    path = tmp_path_factory.mktemp("responses") / "mini_arithmetic.parquet"
    done = script(
        "build_responses", "--dataset", "mini_arithmetic", "--output", path,
        *settings(
            reader="miniature", variants=["none", "simplified", "detailed"], relations=["correct", "derangement"],
            gold="none", seed=0, questions=12,
        ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return path
