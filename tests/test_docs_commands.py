"""Every command of the README and the docs: those that score and compare run, the others are parsed.

Of `gradatlas` and of benchmarks, the options are parsed; of `snakemake` the options, the config against the sheets, and
the target. `.ci/run` runs the README's two set-up commands and dry-runs every config; `test_docs_python.py` runs
docs/python.md and `gradatlas watch`, `test_clusters.py` the profile of docs/clusters.md.
"""

import contextlib
import importlib
import io
import json
import re
import shlex
from pathlib import Path

import polars as pl
import pytest
import yaml
from cyclopts import MissingArgumentError
from snakemake.cli import parse_args
from snakemake.common.configfile import load_configfile

from conftest import ROOT, call, settings
from gradatlas.__main__ import JOBS
from gradatlas.core.jobs import application
from gradatlas.study.config import read_study
from test_docs_site import PAGES

TARGETS = set(re.findall(r"^ *rule (\w+):", "".join(p.read_text() for p in (ROOT / "workflow").rglob("*.smk")), re.M))
# Of a page's own config, sheet or mapping, which a reader writes first.
OWN = {"mine", "NAME"}
# Programs that are no part of this project, or that another test or .ci/run runs.
OTHERS = {
    *(
        "apptainer",
        "cp",
        "docker",
        "export",
        "git",
        "grep",
        "hf",
        "mkdir",
        "mkdocs",
        "pip",
        "pytest",
        "python",
        "python3",
    ),
    *("ruff", "snakefmt", "source"),
}


def commands(page):
    """The commands in a page's blocks and in its sentences."""
    text = (ROOT / page).read_text()
    blocks = [each for each in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if not each.startswith("#!")]
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    blocks += [each for each in re.findall(r"(?:^|\n\n)((?: {4}\S.*\n(?: {8}.*\n)*)+)", text)
               if re.match(r" {4}(gradatlas|snakemake|export|pip|python|git) ", each)]  # fmt: skip
    for block in blocks:
        for line in block.replace("\\\n", " ").splitlines():
            yield from (each.strip() for each in re.sub(r"(^|\s)#.*", "", line).split(" && ") if each.strip())
    inline = re.findall(r"`((?:gradatlas|snakemake|python -m) [^`]*)`", " ".join(text.split()))
    yield from (each + " ..." for each in inline)


ALL = sorted({(page, command) for page in PAGES for command in commands(page)})


def test_pages_have_commands():
    assert len(ALL) > 100 and {page for page, _ in ALL} >= {"README.md", "docs/papers.md", "docs/plan.md"}


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(("page", "command"), ALL)
def test_a_command_is_one(page, command):
    words = shlex.split(command.replace("[--", "--").replace("]", "]" if "=" in command else ""))
    is_cut = "..." in words
    program, *words = [word for word in words if word != "..."]
    program = program.removeprefix(".venv/bin/")
    if program == "gradatlas" or words[:2] == ["-m", "gradatlas"]:
        is_job(words[2:] if words[:1] == ["-m"] else words, is_cut)
    elif program == "snakemake":
        is_run(words)
    elif program == "python" and words[:1] == ["-m"]:
        is_module(words[1:])
    else:
        assert program in OTHERS, f"{page}: unknown program {program}"
    for word in words:
        if re.fullmatch(r"(config|profiles|resources|docs|requirements)[\w/.-]+\.\w+", word):
            assert (ROOT / word).exists() or "mine" in word or "NAME" in word, f"{page}: {word} is not there"


def is_job(words, is_cut):
    """A job of this name with these options; of a command that goes on ("..."), some may be missing."""
    if not words or words[0] in ("JOB", "x", "--help"):
        return
    assert words[0] in JOBS, words[0]
    if "--help" in words:
        return
    try:
        application(JOBS).parse_args(words, exit_on_error=False, print_error=False)
    except MissingArgumentError:
        assert is_cut, words


def is_run(words):
    """Arguments that Snakemake takes, with a config that the study accepts and targets that are rules."""
    if "kubernetes" in words:  # Its executor is installed nowhere here; the page says that it is not tested.
        return
    for option, value in (
        ("--profile", words[words.index("--profile") + 1] if "--profile" in words else ""),
        ("--workflow-profile", "profiles/slurm"),
    ):  # a site's own; its executor is not installed
        if option in words and value in words:
            place = words.index(option)
            words = words[:place] + words[place + 2 :]
    with contextlib.redirect_stderr(io.StringIO()) as shown:
        try:
            _, arguments = parse_args(words or ["--cores", "1"])
        except SystemExit:
            pytest.fail(shown.getvalue())
    assert {target.removeprefix("ga_") for target in arguments.targets} <= TARGETS | {"RULE"}
    config = {}
    for path in arguments.configfile or []:
        config |= load_configfile(path)
    for given in arguments.config or []:
        key, _, value = given.partition("=")
        config[key] = yaml.safe_load(value)
    text = json.dumps(config, default=str)
    if not re.search(rf"\b({'|'.join(OWN)})\b|gsm8k_hub|FOLDER|COMMIT|\.\./", text):
        read_study(load_configfile(ROOT / "config/config.yaml") | config, ROOT)
    elif unknown := set(config) - set(load_configfile(ROOT / "config/config.yaml")):
        pytest.fail(f"no config key: {unknown}")


def is_module(words):
    """A module with these options."""
    text = Path(importlib.util.find_spec(words[0]).origin).read_text()
    options = [word[2:].replace("-", "_") for word in words[1:] if word.startswith("--")]
    assert all(option in text.replace("-", "_") for option in options), words


def test_the_readme_scores_and_compares(tmp_path, monkeypatch):
    """Its commands as they are, on the rows of two groups of the default study's graded data."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resources").symlink_to(ROOT / "resources")
    graded = tmp_path / "results/graded/mini_graded.jsonl"
    graded.parent.mkdir(parents=True)
    call("make_graded", "--output", graded, *settings(seed=0))
    rows = [line for line in graded.read_text().splitlines() if json.loads(line)["group"] in ("clean", "noisy")]
    graded.write_text("\n".join(sorted(rows, key=lambda line: "clean" in line)[:28]) + "\n")
    run = [
        each for page, each in ALL if page == "README.md" and each.startswith(("gradatlas score", "gradatlas compare"))
    ]
    for command in reversed(run):
        done = call(*shlex.split(command)[1:])
        assert done.returncode == 0, done.stderr
    assert pl.read_parquet("scores/scores.parquet")["status"].unique().to_list() == ["ok"]
    found = pl.read_csv("compared/comparison.csv").filter(number="loss", samples="all")
    assert found.select("group_a", "group_b").rows() == [("clean", "noisy")]
    assert (tmp_path / "scores/scores.html").exists() and (tmp_path / "compared/effects.svg").exists()
