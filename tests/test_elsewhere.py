"""The workflow as others use it: below their own Snakefile, from another folder, in folders of any name."""

import os
import shutil
import subprocess

import pytest

import starts
from conftest import ROOT

SMALL = ["--config", "samples=6", "models=[mini_random]", "datasets=[mini_arithmetic]", "bootstrap=20"]
STATISTICS = "results/statistics/mini_arithmetic/curves.parquet"


def snakemake(*words, cwd, package=None):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if package:
        environment["PYTHONPATH"] = str(package)
    done = starts.snakemake(cwd, ["--cores", "1", *words], environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A copy of the workflow, as a person or snakedeploy makes it, in a folder with a space and other letters."""
    folder = tmp_path_factory.mktemp("Kopie für später")
    for name in ("workflow", "config", "resources/miniature", "profiles"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.mark.slow
def test_a_copy_in_a_folder_of_any_name_runs(copied):
    snakemake(*SMALL, "--", STATISTICS, cwd=copied)
    assert (copied / STATISTICS).is_file()
    assert "Nothing to be done" in snakemake(*SMALL, "--", STATISTICS, cwd=copied)


@pytest.mark.slow
def test_as_a_module_with_a_prefix_of_names_and_paths(tmp_path):
    (tmp_path / "Snakefile").write_text(
        "module gradatlas:\n"
        f"    snakefile: {str(ROOT / 'workflow' / 'Snakefile')!r}\n"
        "    config: {'samples': 6, 'models': ['mini_random'], 'datasets': ['mini_arithmetic'], 'bootstrap': 20}\n"
        "    prefix: 'atlas'\n"
        "use rule * from gradatlas as ga_*\n"
        "rule mine:\n"
        "    default_target: True\n"
        "    input: rules.ga_all.input\n"
    )
    assert "ga_measure_gradients" in snakemake("--dry-run", cwd=tmp_path)
    snakemake("ga_statistics", cwd=tmp_path)
    assert (tmp_path / "atlas" / STATISTICS).is_file()
    # Everything below the prefix, kept work too.
    made = {path.name for path in tmp_path.iterdir()} - {".snakemake"}
    assert made == {"Snakefile", "atlas"}


@pytest.mark.slow
def test_deployed_from_a_git_repository(copied, tmp_path):
    """The folder that snakedeploy writes: a copy of the config, and a module that Snakemake reads out of Git.

    `gitfile` in place of `github`: what Snakemake does with both is the same, without a network. The package is
    importable as after ``pip install -e``.
    """
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(copied)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "Snakefile", "environment.yml", "workflow", "config", "resources"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "release"], check=True)
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "workflow").mkdir()
    (tmp_path / "workflow" / "Snakefile").write_text(
        "configfile: 'config/config.yaml'\n"
        "module gradatlas:\n"
        f"    snakefile: gitfile({str(copied)!r}, path='workflow/Snakefile', ref='HEAD')\n"
        "    config: config\n"
        "use rule * from gradatlas\n"
    )
    snakemake(*SMALL, "--", STATISTICS, cwd=tmp_path, package=copied / "workflow")
    assert (tmp_path / STATISTICS).is_file()


@pytest.mark.parametrize("snakefile", ["Snakefile", "workflow/Snakefile"])
def test_from_another_folder_and_into_another(tmp_path, snakefile):
    """`-s` and `--directory` name the jobs, inputs and outputs of a run within the checkout."""
    within = snakemake("--dry-run", *SMALL, "--directory", tmp_path / "a", cwd=ROOT)
    (tmp_path / "b").mkdir()
    without = snakemake("--dry-run", *SMALL, "-s", ROOT / snakefile, cwd=tmp_path / "b")
    assert stats_of(within) == stats_of(without) and "all" in stats_of(without)


def stats_of(text):
    """Jobs and counts of a dry-run."""
    lines = text.split("Job stats:")[1].split("total")[0].splitlines()
    return {words[0]: words[1] for line in lines if len(words := line.split()) == 2 and words[1].isdecimal()}
