"""What the tests of faults share: one undisturbed study, and a seed."""

import random
import shutil

import pytest
from filelock import FileLock

from faults import study


def pytest_sessionfinish(exitstatus):
    if study.MODE == "write" and exitstatus == 0:
        study.write_rows()


@pytest.fixture
def rng():
    """Random choices; the seed is shown where the test fails."""
    print(f"FAULTS_SEED={study.SEED}")
    return random.Random(study.SEED)


@pytest.fixture(scope="session")
def reference(tmp_path_factory, worker_id):
    """The undisturbed study, made once for all processes of the tests. Read only."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "undisturbed"
    with FileLock(f"{folder}.lock"):
        if not (folder / "output.txt").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            study.make(folder)
    return folder


@pytest.fixture
def copy(reference, tmp_path):
    """A copy of it, for one test."""
    return shutil.copytree(reference, tmp_path / "copy", symlinks=True)
