"""The house itself: pins agree, every script explains itself, the Snakefile stays short, nothing heavy at start."""

import ast
import re
import subprocess
import sys

import pytest
import yaml

from conftest import ROOT, script

SCRIPTS = sorted(path.stem for path in (ROOT / "workflow/scripts").glob("*.py") if path.stem != "__init__")


def pins(lines):
    return sorted(line.split("#")[0].strip() for line in lines if "==" in line.split("#")[0])


def test_environment_has_the_same_pins_as_requirements():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(part["pip"] for part in environment["dependencies"] if isinstance(part, dict))
    wanted = pins((ROOT / "requirements.txt").read_text().splitlines())
    assert sorted(pip) == wanted
    assert "torch==2.13.0" in wanted


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_is_pinned_exactly(name):
    for line in (ROOT / name).read_text().splitlines():
        line = line.split("#")[0].strip()
        assert not line or line == "-r requirements.txt" or re.fullmatch(r"[A-Za-z0-9._-]+(\[\w+\])?==[\w.]+", line), (
            line
        )


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_has_help(name):
    done = script(name, "--help", cwd="/")
    assert done.returncode == 0 and "usage:" in done.stdout and len(done.stdout.splitlines()) > 4


def test_snakefile_is_short():
    assert len((ROOT / "Snakefile").read_text().splitlines()) < 60


def test_nothing_heavy_is_imported_at_start():
    code = "import sys; import gradatlas.study.config, gradatlas.core.digest; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not {"torch", "transformers", "polars", "altair", "pyarrow", "numpy"} & set(loaded.split())


def test_the_gradient_engine_needs_no_statistics_and_no_figures():
    code = "import sys; import gradatlas.gradients.measure; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not {"polars", "altair", "snakemake"} & set(loaded.split())


def test_figures_and_statistics_of_gradients_need_no_torch():
    """It takes seconds to import, in jobs that take seconds."""
    rooms = ("figures.gallery", "figures.overview", "figures.verdicts", "page.page", "statistics.summarise")
    rooms += ("statistics.regression", "claims.gather", "claims.verdicts", "page.manifest")
    code = f"import sys; import {', '.join(f'gradatlas.{room}' for room in rooms)}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not {"torch", "transformers", "sklearn"} & set(loaded.split())


# In the order of the data.
ROOMS = (
    *("core", "study", "data", "miniature", "models", "gradients", "finetuning", "kernels", "charts", "toys"),
    *("statistics", "claims", "figures", "page"),
)


def imports_of(path):
    """The rooms that a module imports, late ones too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "gradatlas":
            yield from [node.module.split(".")[1]] if "." in node.module else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from [alias.name.split(".")[1] for alias in node.names if alias.name.startswith("gradatlas.")]


def test_a_room_imports_only_rooms_before_it():
    package = ROOT / "workflow" / "gradatlas"
    assert {path.name for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(ROOMS)
    for place, room in enumerate(ROOMS):
        allowed = {"core"} if room == "core" else set(ROOMS[: place + 1])
        for path in (package / room).rglob("*.py"):
            assert set(imports_of(path)) <= allowed, f"{path.relative_to(package)} imports a later room"
