"""The package, installed as a user installs it."""

import shutil
import subprocess
import sys
import sysconfig

import pytest

from conftest import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The bin folder of a fresh environment that holds the package; what it needs comes from this environment."""
    folder = tmp_path_factory.mktemp("installed")
    for name in ("pyproject.toml", "README.md", "workflow"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", folder], check=True, timeout=300)
    where = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    with open(f"{where.stdout.strip()}/needed.pth", "w") as file:
        file.write(sysconfig.get_path("purelib") + "\n")
    shutil.rmtree(folder / "workflow")
    return python.parent


def ask(*words):
    done = subprocess.run(words, cwd="/", env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_is_imported_from_where_it_was_installed(installed):
    assert "venv/lib" in ask(installed / "python", "-c", "import gradatlas; print(gradatlas.__file__)")


def test_the_command_lists_its_jobs_and_explains_each(installed):
    listed = ask(installed / "gradatlas", "--help")
    assert "summarise-gradients" in listed and "squeeze-softmax" in listed
    assert "bootstrap draws" in ask(installed / "gradatlas", "summarise-gradients", "--help")


def test_a_job_runs_outside_of_the_repository(installed, tmp_path):
    ask(installed / "gradatlas", "clip-objective", "--output", tmp_path / "clip.parquet")
    assert (tmp_path / "clip.parquet").stat().st_size > 1000
