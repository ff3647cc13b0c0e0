"""What the tests of faults share: one undisturbed study, and a seed."""

import random
import shutil

import pytest

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
def undisturbed(made_once):
    """The undisturbed study."""
    return made_once("undisturbed", study.make)


@pytest.fixture
def copy(undisturbed, tmp_path):
    """A copy of it, for one test."""
    return shutil.copytree(undisturbed, tmp_path / "copy", symlinks=True)
