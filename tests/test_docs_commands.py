"""Every command of the README and the docs is parsed; jobs run on the miniature, studies begin as dry runs.

Elsewhere: `.ci/run` runs the README's set-up, the default study and its report; `test_docs_python.py` docs/python.md
and `gradatlas watch`; `test_clusters.py` the profile of docs/clusters.md; `tests/slurm` that of docs/slurm.md.
Parsed only: programs of others (docker, apptainer, hf, pip), `gradatlas pin` (it asks the hub), commands with "...".
"""

import contextlib
import importlib
import io
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import peft
import polars as pl
import pytest
import yaml
from cyclopts import MissingArgumentError
from snakemake.cli import parse_args
from snakemake.common.configfile import load_configfile
from transformers import AutoModelForCausalLM

from conftest import ROOT, call, settings
from gradatlas.__main__ import JOBS
from gradatlas.core.jobs import application
from gradatlas.study.config import read_study
from test_docs_site import PAGES
from test_workflow import clone, snakemake

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


# Commands are run --------------------------------------------------------------------------------------------------

# Jobs that ask the hub; a loopback server stands for it in tests/test_fetch.py.
ONLINE = {"pin"}
OF_JOBS = sorted(
    (page, command)
    for page, command in ALL
    if command.startswith("gradatlas ")
    and "..." not in command
    and shlex.split(command)[1] in set(JOBS) - ONLINE
    and len(shlex.split(command)) > 2
    # tests/test_docs_python.py runs it, on what the page's callback wrote.
    and command != "gradatlas watch run"
)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, smoke, responses):
    """A folder that has what the pages call theirs: data, a model, an adapter, scores, two studies."""
    folder = tmp_path_factory.mktemp("workspace")
    for name in ("resources", "config", "docs"):
        (folder / name).symlink_to(ROOT / name)
    graded = folder / "results/graded/mini_graded.jsonl"
    graded.parent.mkdir(parents=True)
    call("make_graded", "--output", graded, *settings(seed=0))
    rows = [line for line in graded.read_text().splitlines() if json.loads(line)["group"] in ("clean", "noisy")]
    graded.write_text("\n".join(sorted(rows, key=lambda line: "clean" in line)[:28]) + "\n")
    own = [row | {"source": row["group"]} for row in map(json.loads, graded.read_text().splitlines())]
    (folder / "mine.jsonl").write_text("\n".join(map(json.dumps, own)))
    shutil.copy(responses, folder / "responses.parquet")
    shutil.copytree(smoke / "results/figures", folder / "results/figures")
    (folder / "study").symlink_to(smoke / "results")
    base = AutoModelForCausalLM.from_pretrained(ROOT / "resources/miniature/base")
    peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(folder / "FOLDER")
    answers = folder / "results/responses/mini_unpopular.parquet"
    of_study = {"reader": "miniature", "variants": ["natural"], "relations": ["correct", "derangement"], "seed": 0}
    done = call(
        "build_responses", "--dataset", "mini_unpopular", "--output", answers,
        *settings(**of_study, questions=100),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for output, data, *options in (
        ("scores", "docs/my_data.jsonl", "--group", "kind", "--prompt", "plain"),
        ("answers", answers, "--group", "relation"),
    ):
        model = folder / "resources/miniature/base"
        done = call("score", "--model", model, "--data", folder / data, *options, "--output", folder / output)
        assert done.returncode == 0, done.stderr
    # Of its own: commands of other pages write into it.
    shutil.copytree(folder / "scores", folder / "scored")
    return folder


def filled(command):
    """A command with files for its placeholders; a miniature is trained for few steps, and pictures are the smoke's."""
    words = shlex.split(re.sub(r"\[(--[^]]*)\]", r"\1", command))[1:]
    data = "responses.parquet" if words[0] == "measure-gradients" else "mine.jsonl"
    model = "resources/miniature/base"
    places = dict.fromkeys(("MODEL", "BASE", "DIR_OR_ID"), model) | dict.fromkeys(("RESULTS_A", "RESULTS_B"), "study")
    places |= {"FILE": data, "COLUMN": "source", "docs/gallery/figures.txt": "figures.txt", "docs/gallery": "gallery"}
    if words[0] == "train-miniature":
        places |= {"base": "trained/base", "instruct": "trained/instruct"}
    return [re.sub(r'"steps": \d+', '"steps": 2', places.get(word, word)) for word in words]


@pytest.mark.parametrize(("page", "command"), OF_JOBS)
def test_a_job_runs_as_the_page_states_it(page, command, workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    drawn = next(Path("results/figures/mini_arithmetic").glob("*.svg"))
    Path("figures.txt").write_text(f"mini_arithmetic/{drawn.stem}\n")
    if "--base" in command and not Path("trained/base").exists():
        shutil.copytree("resources/miniature/base", "trained/base")
    before = {*workspace.rglob("*")}
    name, *words = filled(command)
    done = call(name, *words)
    # A plan ends with 2 where something stops the study: here models without a revision.
    assert done.returncode == 0 or (name == "plan" and "cannot run to its end" in done.stderr), (page, done.stderr)
    if "--output" in words:
        assert (workspace / words[words.index("--output") + 1]).exists()
    else:
        assert name == "compare" or {*workspace.rglob("*")} > before


def test_the_scores_of_the_readme_are_whole(workspace):
    assert pl.read_parquet(workspace / "scores/scores.parquet")["status"].unique().to_list() == ["ok"]
    assert (workspace / "scores/scores.html").exists()


def test_the_comparison_of_the_readme_has_matched_pairs(workspace):
    """As many as it says, and the numbers of docs/compare.md."""
    stem = workspace / "pairs_of_the_readme"
    done = call("compare-groups", "--scores", workspace / "answers/scores.parquet", "--output", stem)
    assert done.returncode == 0, done.stderr
    found = pl.read_parquet(stem / "comparison.parquet")
    assert set(found["status"]) == {"ok"}
    [pairs] = set(found.filter(samples="matched")["samples_a"])
    assert pairs >= 20 and f"of which {pairs} pairs match" in (ROOT / "README.md").read_text()
    page = " ".join((ROOT / "docs/compare.md").read_text().split())
    assert f"{pairs} pairs have the same length" in page
    for samples, number in (
        ("all", "loss"), ("all", "nuclear_norm"), ("matched", "nuclear_norm"), ("matched", "effective_rank")
    ):  # fmt: skip
        row = found.row(by_predicate=(pl.col("samples") == samples) & (pl.col("number") == number), named=True)
        delta, low, high = (f"{row[f'cliffs_delta{end}']:.2f}".replace("-", "−") for end in ("", "_low", "_high"))
        assert f"{delta} [{low}, {high}]" in page, (samples, number)


def test_the_readme_shows_a_faulty_sample_as_the_first_outlier(workspace):
    scores = pl.read_parquet(workspace / "scores/scores.parquet")
    assert scores.sort("rank")["group"][0] == "word salad"


OF_STUDIES = sorted(
    {
        command.removeprefix(".venv/bin/")
        for _, command in ALL
        if command.removeprefix(".venv/bin/").startswith("snakemake --")
        and "..." not in command
        # Of a cluster and of its own profile (tests/slurm), and of a finished study (.ci/run).
        and not re.search(r"kubernetes|--profile mine|--report", command)
    }
    | {"snakemake -s CHECKOUT/Snakefile --directory FOLDER --cores all"}
)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A clone beside a model, with the data and the mapping of docs/your_questions.md."""
    base = tmp_path_factory.mktemp("project")
    folder = clone(base / "clone")
    (base / "checkpoints").mkdir()
    (base / "checkpoints/mine").symlink_to(folder / "resources/miniature/instruct")
    (folder / "data").mkdir()
    row = {"question": "1 + 1?", "short_solution": "So 2.", "answer": "2", "long_solution": "1 + 1 is 2.", "key": "1"}
    (folder / "data/mine.jsonl").write_text(json.dumps(row | {"source": "a", "text": "Two."}) + "\n")
    text = (ROOT / "docs/your_questions.md").read_text()
    (folder / "config/mappings/mine.yaml").write_text(re.search(r"```yaml\n(# config.*?)```", text, re.DOTALL)[1])
    sheet = folder / "config/datasets.tsv"
    columns = next(line for line in sheet.read_text().splitlines() if line[:1] != "#").split("\t")
    cells = {"dataset": "mine", "title": "My own", "task": "math", "reader": "mapped", "relations": "correct"}
    cells |= {"variants": "none simplified detailed", "scope": "user"}
    with sheet.open("a") as file:
        file.write("\t".join(cells.get(name, "") for name in columns) + "\n")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("command", OF_STUDIES)
def test_a_study_begins_as_the_page_states_it(command, project):
    """A dry run reads the configuration and the sheets, and finds a rule for each file."""
    words = [word.replace("CHECKOUT", str(project)).replace("NAME", "hh_helpful").replace("COMMIT", "0" * 40)
             for word in shlex.split(command)[1:]]  # fmt: skip
    done = snakemake(project, "-n", *words)
    assert done.returncode == 0 and "Job stats" in done.output, done.output[-3000:]
    if command == "snakemake --cores all":
        table = re.search(r"^\| step \|(?:.*\n\|)+.*", (ROOT / "docs/results.md").read_text(), re.MULTILINE)[0]
        jobs = re.findall(r"^(\w+) +\d+$", done.output.split("Job stats:")[1].split("total")[0], re.MULTILINE)
        assert sorted(re.findall(r"`(\w+)`", table)) == sorted({*jobs} - {"all"})


@pytest.mark.slow
@pytest.mark.parametrize("command", [each for each in OF_STUDIES if each.endswith("-- plan")])
def test_a_plan_is_made_as_the_page_states_it(command, project):
    """It computes nothing, so it is run."""
    done = snakemake(project, *shlex.split(command)[1:])
    assert done.returncode == 0 or "\nstop: " in done.output, done.output[-3000:]


def test_the_lines_of_a_shell_run(tmp_path):
    """What docs/offline.md does to files."""
    lines = [each for page, each in ALL if page == "docs/offline.md" and each.split()[0] in ("mkdir", "grep", "cp")]
    assert len(lines) == 3
    (tmp_path / "resources/sources").mkdir(parents=True)
    (tmp_path / "resources/sources/a").touch()
    shutil.copy(ROOT / "requirements.txt", tmp_path)
    for line in sorted(lines, key=lambda each: not each.startswith("mkdir")):
        subprocess.run(["bash", "-ec", line], cwd=tmp_path, check=True)
    assert (tmp_path / "mirror/a").exists() and "-e" not in (tmp_path / "packages.txt").read_text().split()
