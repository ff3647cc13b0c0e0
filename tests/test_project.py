"""The house itself: pins agree, every script explains itself, the Snakefile stays short, nothing heavy at start."""

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
    assert len((ROOT / "Snakefile").read_text().splitlines()) < 70


def test_nothing_heavy_is_imported_at_start():
    code = "import sys; import workflow.lib.study, workflow.lib.digest; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not {"torch", "transformers", "polars", "altair", "pyarrow", "numpy"} & set(loaded.split())


def test_the_gradient_engine_needs_no_statistics_and_no_figures():
    code = "import sys; import workflow.lib.gradients.measure; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not {"polars", "altair", "snakemake"} & set(loaded.split())


def test_figures_and_statistics_of_gradients_need_no_torch():
    """It takes seconds to import, in jobs that take seconds."""
    rooms = ("figures.gallery", "figures.overview", "figures.verdicts", "figures.atlas.page", "statistics.summarise")
    rooms += ("statistics.regression", "statistics.claims.gather", "statistics.claims.verdicts", "provenance")
    code = f"import sys; import {', '.join(f'workflow.lib.{room}' for room in rooms)}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not {"torch", "transformers", "sklearn"} & set(loaded.split())
