"""The package, installed as a user installs it."""

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib

import pytest
from packaging.requirements import Requirement

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
    assert "summarise-gradients" in listed and "squeeze-softmax" in listed and "Finetune a model" in listed
    assert "bootstrap draws" in ask(installed / "gradatlas", "summarise-gradients", "--help")


def test_a_job_runs_outside_of_the_repository(installed, tmp_path):
    ask(installed / "gradatlas", "clip-objective", "--output", tmp_path / "clip.parquet")
    assert (tmp_path / "clip.parquet").stat().st_size > 1000


# --- What it needs is what it declares ---

PACKAGE = ROOT / "workflow"


def imports(path):
    """The modules that a file imports, late imports too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{each.name}" for each in node.names)


def needed_by(*modules):
    """The packages other than Python's own that modules import, with all modules of this package that they import."""
    todo, seen, found = list(modules), set(), set()
    while todo:
        parts = todo.pop().split(".")
        if parts[0] != "gradatlas":
            found |= {parts[0]} - {*sys.stdlib_module_names}
            continue
        places = [PACKAGE.joinpath(*parts[:end]) for end in range(2, len(parts) + 1)]
        for path in {place.with_suffix(".py") for place in places if place.with_suffix(".py").is_file()} - seen:
            seen.add(path)
            todo += imports(path)
    return found


def installed_with(requirements):
    """The names to import of packages that `pip install` of these brings."""
    todo, seen = [Requirement(each) for each in requirements], set()
    while todo:
        each = todo.pop()
        name = re.sub(r"[-_.]+", "-", each.name).lower()
        if name in {"gradatlas", *seen}:
            continue
        try:
            listed = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        seen.add(name)
        needs = [Requirement(line) for line in listed]
        todo += [need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    names = importlib.metadata.packages_distributions()
    return {name for name, owners in names.items() if any(re.sub(r"[-_.]+", "-", o).lower() in seen for o in owners)}


# Imported late, on a GPU, and left out where they are not installed.
ON_A_GPU = {"cupy", "nvmath"}


def test_the_engine_needs_no_more_than_a_plain_installation_brings():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    modules = ("core.device", "gradients.extras", "gradients.measure", "gradients.shards", "models.snapshots")
    needed = needed_by("gradatlas.__main__", *(f"gradatlas.{each}" for each in modules))
    assert {"torch", "transformers", "xxhash"} <= needed
    # Imported late: for a model with an adapter.
    assert needed - {"peft", *ON_A_GPU} <= installed_with(declared["dependencies"])


def test_measuring_from_python_needs_no_more_than_a_plain_installation_brings():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = needed_by(*(f"gradatlas.api.{each}" for each in ("live", "spectra_callback", "probes_callback")))
    # Imported late: for files of the hub, a finetuning run in several processes, and a model with an adapter.
    assert needed - {"datasets", "accelerate", "peft", *ON_A_GPU} <= installed_with(declared["dependencies"])


def test_all_jobs_need_no_more_than_the_extra_workflow_brings():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    rooms = [f"gradatlas.{path.parent.name}.jobs" for path in PACKAGE.glob("gradatlas/*/jobs.py")]
    extra = declared["optional-dependencies"]["workflow"]
    assert needed_by(*rooms) - ON_A_GPU <= installed_with(declared["dependencies"] + extra)
