"""The project itself: pins agree, every job explains itself, the Snakefile stays short, nothing heavy at start."""

import ast
import contextlib
import dataclasses
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from typing import get_type_hints

import docstring_parser
import pytest
import yaml

from conftest import ROOT
from gradatlas.__main__ import JOBS
from gradatlas.core.jobs import run
from gradatlas.core.schemas import meanings

JOB = "gradatlas.{}.jobs"
STUDIES = ["2410.23743", "2407.10490", "2504.10766"]


def pins(lines):
    return sorted(line.split("#")[0].strip() for line in lines if "==" in line.split("#")[0])


def test_environment_has_the_same_pins_as_requirements():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(part["pip"] for part in environment["dependencies"] if isinstance(part, dict))
    wanted = pins((ROOT / "requirements.txt").read_text().splitlines())
    assert sorted(pip) == wanted
    assert "torch==2.13.0" in wanted


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "requirements-slurm.txt"])
def test_every_requirement_is_pinned_exactly(name):
    for line in (ROOT / name).read_text().splitlines():
        line = line.split("#")[0].strip()
        assert (
            not line
            or line in ("-r requirements.txt", "-e .")
            or re.fullmatch(r"[A-Za-z0-9._-]+(\[\w+\])?==[\w.]+", line)
        ), line


def test_the_version_is_in_one_place_and_has_notes():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert (ROOT / f"docs/releases/{version}.md").read_text().startswith(f"# Gradatlas {version}\n")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert "version" not in citation and {"cff-version", "message", "title", "authors"} <= set(citation)
    assert [each["url"].rpartition("/")[2] for each in citation["references"]] == STUDIES


@pytest.mark.parametrize("name", ["slurm", "workstation"])
def test_a_profile_has_all_of_the_default_one_and_leaves_a_site_its_own(name):
    """A workflow profile replaces the default one as a whole, and its `default-resources` would replace the site's."""
    default, profile = (
        yaml.safe_load((ROOT / f"profiles/{each}/profile.yaml").read_text()) for each in ("default", name)
    )
    assert {key: profile.get(key) for key in default} == default
    assert "default-resources" not in profile


def test_retries_stand_in_profiles_alone():
    """Those of a rule would also run within a job of a cluster."""
    assert not [
        path for path in (ROOT / "workflow").rglob("*.smk") if re.search(r"^ *retries:", path.read_text(), re.M)
    ]


@pytest.mark.parametrize("name", sorted(JOBS))
def test_every_job_explains_itself_and_all_of_its_options(name, capsys):
    with contextlib.suppress(SystemExit):
        run(JOBS, [name, "--help"])
    shown = capsys.readouterr().out
    function = getattr(importlib.import_module(JOB.format(JOBS[name])), name.replace("-", "_"))
    described = {each.arg_name for each in docstring_parser.parse(function.__doc__).params}
    parameters = set(inspect.signature(function).parameters) - {"settings", "requests"}
    assert "Usage: gradatlas" in shown and function.__doc__.split(".")[0].split(":")[0].split()[0] in shown
    assert parameters - described <= {"threads"}, f"{name}: {parameters - described} is not described"
    settings = get_type_hints(function).get("settings")
    if dataclasses.is_dataclass(settings):
        known = meanings(settings)
        assert all(known.get(field.name) for field in dataclasses.fields(settings)), f"{name}: a setting has no meaning"


def test_every_job_is_called_by_a_rule_or_named_in_the_docs():
    rules = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    pages = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("[brw]*/**/README.md")]
    readme = "".join(path.read_text() for path in pages)
    for name in JOBS:
        assert f"gradatlas {name} " in rules or f"gradatlas {name}" in readme, name


def test_a_rule_passes_code_and_settings_of_the_job_that_it_calls():
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        for rule in re.split(r"^ *rule ", path.read_text(), flags=re.MULTILINE)[1:]:
            if not (called := re.search(r"python -m gradatlas ([a-z-]+)", rule)):
                continue
            name = called[1]
            root = f'code_digest("{JOBS[name]}.jobs:{name.replace("-", "_")}"'
            assert root in re.sub(r"\(\s+", "(", rule), (
                f"{path.name}, rule {rule.split(':')[0]}: params.code is not {root})"
            )


def test_snakefile_is_short():
    assert len((ROOT / "Snakefile").read_text().splitlines()) < 5
    assert len((ROOT / "workflow/Snakefile").read_text().splitlines()) < 70


def test_nothing_heavy_is_imported_at_start():
    code = "import sys; import gradatlas.study.config, gradatlas.study.runs, gradatlas.core.digest; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not {"torch", "transformers", "polars", "altair", "pyarrow", "numpy"} & set(loaded.split())


def test_the_gradient_engine_needs_no_statistics_and_no_figures():
    code = "import sys; import gradatlas.gradients.measure; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not {"polars", "altair", "snakemake"} & set(loaded.split())


def test_figures_and_statistics_of_gradients_need_no_torch():
    """It takes seconds to import, in jobs that take seconds."""
    rooms = ("figures.gallery", "figures.run_gallery", "figures.verdicts", "page.page", "statistics.summarise")
    rooms += ("statistics.regression", "claims.gather", "claims.verdicts", "page.manifest")
    code = f"import sys; import {', '.join(f'gradatlas.{room}' for room in rooms)}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not {"torch", "transformers", "sklearn"} & set(loaded.split())


# In the order of the data.
ROOMS = (
    *("core", "study", "data", "miniature", "models", "gradients", "finetuning", "kernels", "scores", "planning"),
    *("charts", "toys", "statistics", "claims", "figures", "page", "api"),
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
