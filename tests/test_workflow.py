"""The workflow as its user runs it: from a clone, twice, after edits, on the study's own data."""

import contextlib
import html
import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import polars as pl
import pytest

import starts
from conftest import ROOT, SHARED, call, needs_shared, peak_of
from gradatlas.charts.listing import read_index
from gradatlas.core.tables import read_metadata

# No Python on it: rules must find their own.
BARE = {"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/"), "LANG": "C.UTF-8"}
# What an environment may hold, and no file may.
SECRETS = {
    name: f"planted-secret-of-{name.lower()}"
    for name in ("OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "SLURM_JWT", "PGPASSWORD")
}
SMOKE = ("--cores", "2", "--configfile", "config/smoke.yaml")
IGNORED = shutil.ignore_patterns(
    ".git", ".venv", ".snakemake", "results", "logs", "__pycache__", ".*_cache", "sources", "tests"
)


def snakemake(folder, *arguments, env=(), apart=False):
    """Run Snakemake in `folder`, as ``env -i PATH=/usr/bin:/bin snakemake ...``; `apart`: started as a user does."""
    environment = BARE | SECRETS | dict(env)
    if apart:
        command = [starts.PROGRAM, *map(str, arguments)]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    else:
        done = starts.snakemake(folder, arguments, environment)
    done.output = done.stdout + done.stderr
    return done


def spent():
    """Processor seconds of all processes that ended: what else the machine does is no part of it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def clone(folder):
    """The project without anything made by it."""
    shutil.copytree(ROOT, folder, ignore=IGNORED)
    shutil.rmtree(folder / "resources/models", ignore_errors=True)
    return folder


def planned(folder, *arguments, **options):
    """The jobs that a run would do, by rule."""
    done = snakemake(folder, "-n", *arguments, **options)
    assert done.returncode == 0, done.output
    if "Nothing to be done" in done.output:
        return {}
    table = done.output.split("Job stats:")[-1].split("total")[0]
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE) if name != "job"}


def commands(output):
    """The jobs that Snakemake printed with ``-p``: name, arguments and log."""
    found = re.findall(r"python -m gradatlas ([\w-]+) (.*?) > (\S+) 2>&1", output)
    return [(name, shlex.split(words), Path(log)) for name, words, log in found]


def make(folder, *arguments):
    """Make results in a folder: jobs run in this process, a third of the time of one for each; what a dry-run printed.

    Snakemake then records their outputs, as it does after jobs of its own.
    """
    done = snakemake(folder, "-n", "-p", *arguments)
    assert done.returncode == 0, done.output[-3000:]
    with contextlib.chdir(folder):
        for name, given, log in commands(done.output):
            ended = call(name, *given)
            assert ended.returncode == 0, (name, ended.stderr)
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(ended.stderr)
    touched = snakemake(folder, "--touch", "--forceall", *arguments)
    assert touched.returncode == 0, touched.output[-3000:]
    return done.output


def counted(folder):
    """Rows, and distinct ones computed and recalled, of the last gradients job of a model and dataset."""
    log = (folder / "logs/measure_gradients/mini/mini_arithmetic.log").read_text()
    counts = re.search(r"(\d+) rows \(.*\): (\d+) computed, (\d+) from the journal", log)
    return tuple(map(int, counts.groups()))


# What Snakemake, a shell, a regular expression, Markdown, HTML and LaTeX read as their own.
NASTY = r"""{easy} {model} "q" 'a' $HOME `id` %d & <script>alert(1)</script> \input{x}; #_^~ | a*b"""
TITLED = {"models": ("mini", "M"), "datasets": ("mini_arithmetic", "D"), "runs": ("smoke_dpo", "R")}


def retitle(folder):
    """Give a model, a dataset and a run such a title, in sheets with a byte order mark and CRLF."""
    for name, (key, mark) in TITLED.items():
        sheet = folder / f"config/{name}.tsv"
        lines = [line.split("\t") for line in sheet.read_text(encoding="utf-8").split("\n")]
        for cells in lines:
            if cells[0] == key:
                cells[lines[0].index("title")] = f"{mark} {NASTY}"
        text = "\r\n".join("\t".join(cells) for cells in lines)
        sheet.write_bytes(text.encode("utf-8-sig"))


def holders(folder, secrets):
    """The files below a folder that hold one of these texts, in archives and compressed tables too."""
    found, wanted = [], [text.encode() for text in secrets]
    for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
        contents = [path.read_bytes()]
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                contents += [archive.read(name) for name in archive.namelist()]
        if path.suffix == ".parquet":
            contents.append(repr(pl.read_parquet(path).to_dicts()).encode())
        if any(text in content for content in contents for text in wanted):
            found.append(path)
    return found


def make_smoke(folder):
    """A clone in which the smoke study was run, with titles that may be nobody's pattern."""
    retitle(clone(folder))
    make(folder, *SMOKE)


@pytest.fixture(scope="module")
def finished(smoke, tmp_path_factory):
    """A copy of it for this module."""
    return shutil.copytree(smoke, tmp_path_factory.mktemp("finished") / "clone")


@pytest.fixture(scope="module")
def by_snakemake(tmp_path_factory):
    """The same by Snakemake, each job in a process of its own."""
    folder = clone(tmp_path_factory.mktemp("by_snakemake") / "clone")
    retitle(folder)
    done = snakemake(folder, *SMOKE, apart=True)
    assert done.returncode == 0, done.output[-3000:]
    (folder / "output.txt").write_text(done.output)
    return folder


def results_of(folder):
    """All files of the results by their paths, without times, hosts and work in progress."""
    root = folder / "results"
    named = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in named.items() if not VARYING.match(name)}


VARYING = re.compile(r"journal/|(.*\.run|.*machine|manifest)\.json$|.*\.snakemake_timestamp$")


@pytest.mark.parametrize("config", ["config", "paper", "laptop", "smoke", "seeds", "dynamics", "miniature"])
def test_dry_run_of_every_shipped_config(config, tmp_path):
    begun = spent()
    jobs = planned(ROOT, "--directory", tmp_path, "--configfile", f"config/{config}.yaml", apart=True)
    # About 3 s on most machines.
    assert spent() - begun < 10
    wanted = {"config": 15, "paper": 110, "laptop": 2, "smoke": 4, "seeds": 40, "dynamics": 15, "miniature": 15}
    assert jobs["measure_gradients"] >= wanted[config] and jobs["all"] == 1
    if config == "paper":
        assert (
            jobs["fetch_source"] == 56
            and jobs["fetch_model"] == 12
            and jobs["download_model"] == 10 + 2
            and jobs["write_untrained"] == 2
        )


@pytest.mark.slow
def test_makes_everything_with_its_own_python(smoke, by_snakemake):
    """From a shell without a Python: the same bytes as in the process of the tests."""
    assert results_of(by_snakemake) == results_of(smoke)
    line = r"^\d+ of \d+ jobs after \d+ s(, about \d+ min left if the others take as long)?; now (.*)$"
    lines = re.findall(line, (by_snakemake / "output.txt").read_text(), re.M)
    assert any("mini" in running for _, running in lines)
    # Not the last line: when it was written, no job may have run.
    assert any(left for left, _ in lines)


def test_makes_everything(finished):
    for name in (
        "index.html",
        "more.html",
        "manifest.json",
        "config.effective.yaml",
        "tables/mad.csv",
        "tables/rd.md",
        "tables/dynamics.md",
        "tables/win_rates.md",
        "claims.csv",
        "findings.md",
        "findings.json",
        "figures/claims/findings_gradients.svg",
        "figures/claims/dynamics.svg",
    ):
        assert (finished / "results" / name).stat().st_size > 100
    figures = list((finished / "results/figures/mini_arithmetic").glob("*.svg"))
    assert {path.name.split(".")[0] for path in figures} == {"mini", "mini_random"}
    manifest = json.loads((finished / "results/manifest.json").read_text())
    assert len(manifest["models"]["mini"]["tables"]) == 2
    page = (finished / "results/index.html").read_text()
    for path in re.findall(r'src="([^"]+\.svg)"', page):
        assert (finished / "results" / path).is_file()
    # Every figure is a thumbnail, on this page or the other, but those that state that there is nothing to draw.
    both = page + (finished / "results/more.html").read_text()
    for path in (finished / "results").rglob("*.svg"):
        caption = path.with_suffix(".caption.md").read_text() if path.with_suffix(".caption.md").exists() else ""
        shown = f'src="{path.relative_to(finished / "results")}"' in both
        assert shown or caption.startswith("**No claim"), path
    assert "mini_random" in page
    assert (finished / "results/figures/dynamics/mini_qa/mini/seed_0/smoke_dpo.curves.svg").is_file()
    assert (finished / "results/figures/generations/mini_qa/mini/seed_0/win_rate.svg").is_file()
    answers = pl.read_csv(finished / "results/tables/accuracy.csv")
    assert set(answers["model"]) == {"mini", "mini_random"}
    assert set(answers["dataset"]) == {"mini_arithmetic", "mini_unpopular"}
    # Untrained for all purposes: every figure says that they cannot.
    for mark in ("cannot do this task", "does not know these"):
        marked = re.findall(rf'<figure data-model="(\w+)"(?:(?!</figure>).)*>{mark}<', page, re.DOTALL)
        assert set(marked) == {"mini", "mini_random"}, mark


def test_a_title_is_text_on_the_page_and_in_figures_and_tables(finished):
    page = "".join((finished / f"results/{name}.html").read_text() for name in ("index", "more"))
    assert "<script>alert" not in page
    shown = " ".join(html.unescape(re.sub(r"<script.*?</script>|<[^>]*>", "", page, flags=re.DOTALL)).split())
    assert all(f"{mark} {NASTY}" in shown for _, mark in TITLED.values())
    tables = finished / "results/tables"
    assert f"D {NASTY}" in pl.read_csv(tables / "scope.csv")["title"].to_list()
    tex = (tables / "scope.tex").read_text()
    assert r"D \{easy\} \{model\}" in tex and r"\textbackslash{}input\{x\}" in tex and r"\input{x}" not in tex
    assert r"\<script\>" in (tables / "scope.md").read_text()
    svg = (finished / "results/figures/mini_arithmetic/mini.correct.variants.svg").read_text()
    listed = read_index(finished / "results/figures/mini_arithmetic")["figures"]
    entry = next(each for each in listed if each["files"]["svg"] == "mini.correct.variants.svg")
    # The picture has as many of its facts as fit; the list of figures has all.
    assert f"D {NASTY}" in " ".join(entry["subtitle"]) and "<script" not in svg


@pytest.mark.slow
def test_no_secret_of_the_environment_is_in_any_file(by_snakemake):
    """Results, logs, Snakemake's own records, its report; the search itself finds what is planted."""
    done = snakemake(by_snakemake, *SMOKE, "--report", "report.zip")
    assert done.returncode == 0, done.output[-2000:]
    assert (by_snakemake / "report.zip").stat().st_size > 10_000
    assert holders(by_snakemake, SECRETS.values()) == []
    assert next(iter(SECRETS.values())) not in done.output
    planted = by_snakemake / "planted.zip"
    with zipfile.ZipFile(planted, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", SECRETS["HF_TOKEN"])
    assert holders(by_snakemake, SECRETS.values()) == [planted]
    planted.unlink()
    (by_snakemake / "report.zip").unlink()


def test_texts_of_the_config_are_no_patterns(tmp_path):
    """A dry run: prompt, endpoint and its model, mirror, a path with a shell's and a pattern's characters."""
    folder = clone(tmp_path / "clone [v2] $HOME")
    row = f"mine\tMine {NASTY}\tother\tmapped" + "\t" * 11
    with (folder / "config/datasets.tsv").open("a") as sheet:
        sheet.write(row + "\n")
    (folder / "rows [1] $HOME *.jsonl").write_text('{"q": "a", "r": "b"}\n')
    (folder / "config/mappings/mine.yaml").write_text(
        'source: "rows [1] $HOME *.jsonl"\ncolumns: {instruction: q, response: r}\n'
    )
    written = 'generate={datasets: [mine], model: "m{x}", endpoint: "http://h/{v}", prompt: "- {a} {instruction}"}'
    jobs = planned(folder, *SMOKE, "--config", "datasets=[mine]", "mirror=/tmp/{zz}", written, "--", "responses")
    assert jobs == {"generate_detailed": 1, "build_responses": 1, "responses": 1}


def test_a_second_run_has_nothing_to_do(finished):
    begun = spent()
    done = snakemake(finished, *SMOKE, apart=True)
    assert done.returncode == 0 and "Nothing to be done" in done.output
    # About 3 s on most machines.
    assert spent() - begun < 10


def test_the_plan_is_what_the_run_made(finished):
    done = snakemake(finished, *SMOKE, "--", "plan")
    assert done.returncode == 0 and re.search(r"^finetune +models +3 ", done.output, re.MULTILINE), done.output
    facts = json.loads((finished / "results/plan.json").read_text())
    rows = {row["what"]: row for row in facts["rows"]}
    for model in ("mini", "mini_random"):
        table = pl.read_parquet(finished / f"results/gradients/{model}/mini_arithmetic.samples.parquet")
        row = rows[f"{model}, mini_arithmetic"]
        assert row["count"] == table.height and not row["bound"]
        assert row["tokens"] > 0.7 * (table["prompt_tokens"] + table["response_tokens"]).sum()
    folder = finished / "results/dynamics/mini_qa/mini/seed_0"

    def made(pattern):
        return sum(pl.read_parquet(path).height for path in folder.glob(pattern))

    models = [*folder.glob("*/model.json"), *folder.glob("*/snapshots/*.json")]
    assert rows["models"]["count"] == len(models)
    assert rows["free responses"]["count"] == rows["scores"]["count"] == made("*/generations.parquet") > 0
    assert rows["judgements"]["count"] == made("judgements.parquet") > 0
    assert rows["probes"]["count"] == made("probes.parquet") and rows["updates"]["count"] == made("*/training.parquet")
    assert rows["log-probabilities of probes"]["count"] == made("*/dynamics.parquet")
    size = sum(path.stat().st_size for path in (finished / "results/dynamics/mini_qa").rglob("*") if path.is_file())
    kept = sum(row["kept"] for row in facts["rows"] if row["what"] in OF_RUNS)
    assert kept == pytest.approx(size, rel=0.2)


OF_RUNS = {"probes", "models", "updates", "log-probabilities of probes", "free responses", "scores", "judgements"}


@pytest.mark.slow
def test_jobs_ask_for_the_memory_that_they_take(by_snakemake, tmp_path):
    """Of these short jobs not all of the peak is seen: factors of two are tested in test_plan_costs.py."""
    done = snakemake(by_snakemake, *SMOKE, "-n", "-p", "--forceall")
    printed = re.split(r"^(?:local)?rule (\w+):$", done.output, flags=re.MULTILINE)[1:]
    asked, commands = {}, {}
    for rule, text in zip(printed[::2], printed[1::2], strict=True):
        if found := re.search(r"resources: .*", text):
            asked[rule] = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", found[0])}
            commands[rule] = re.search(r"Shell command: python (.*) > ", text)
    copy = shutil.copytree(by_snakemake, tmp_path / "copy", ignore=shutil.ignore_patterns("journal"))
    for rule in ("measure_gradients", "finetune", "check_step"):
        peak = peak_of(["sh", "-c", f"exec {sys.executable} {commands[rule][1]}"], cwd=copy)
        assert peak < asked[rule]["mem_mb"] * 1e6 < 2e9, rule
        assert asked[rule]["runtime"] <= 60


def touch(folder):
    """Give every file and folder the time of now, deepest first."""
    for place, _, names in os.walk(folder, topdown=False):
        for path in [*(os.path.join(place, name) for name in names), place]:
            os.utime(path)


def test_touching_files_and_folders_makes_nothing_stale(finished):
    for name in ("config", "workflow", "resources", "results"):
        touch(finished / name)
    # Models and figures, of both studies.
    for name in ("dynamics/mini_qa/mini/seed_0/smoke_sft/model", "figures/mini_arithmetic", "figures/toys"):
        time.sleep(0.01)
        os.utime(finished / "results" / name)
    assert planned(finished, *SMOKE) == {}


def test_a_copy_with_other_times_has_nothing_to_do(finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder, copy_function=shutil.copyfile)
    touch(folder / "results/models")
    touch(folder / "resources")
    assert planned(folder, *SMOKE) == {}


def test_a_file_that_is_gone_from_a_models_folder_is_named(finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    runs = folder / "results/dynamics/mini_qa/mini/seed_0"
    (runs / "smoke_sft/model/model.safetensors").unlink()
    (runs / "smoke_dpo/dynamics.parquet").unlink()
    done = snakemake(folder, *SMOKE, "--", "results/dynamics/mini_qa/mini/seed_0/smoke_dpo/dynamics.parquet")
    assert done.returncode == 1
    line = (folder / "logs/finetune/mini_qa/mini/seed_0/smoke_dpo.log").read_text()
    assert "smoke_sft/model/model.safetensors: is gone since the card results/dynamics" in line
    assert "run again (rule fetch_model, or finetune for the model of a run)" in line and line.count("\n") == 1


@pytest.mark.slow
def test_of_a_users_own_model_and_of_a_twin_the_content_counts(tmp_path):
    """Touched files and folders make nothing stale; another byte does, and a lost file of a twin is an error."""
    shutil.copytree(ROOT / "resources/miniature/base", tmp_path / "mine")
    shutil.copytree(ROOT / "resources/miniature/base", tmp_path / "mirror/models/org/tiny")
    models = [
        "{model: mine, source: ./mine, kind: base, device: cpu, threads: 1}",
        "{model: tiny, source: org/tiny, kind: base, device: cpu, threads: 1}",
        "{model: twin, source: org/tiny, kind: random, partner: tiny, seed: 0, device: cpu, threads: 1}",
    ]
    given = ["--directory", tmp_path, *SMOKE, "--config", f"models=[{','.join(models)}]", "mirror=mirror", "--"]
    given += ["models"]
    done = snakemake(ROOT, *given)
    assert done.returncode == 0, done.output[-3000:]
    for name in ("mine", "mirror", "results", "resources"):
        touch(tmp_path / name)
    assert planned(ROOT, *given) == {}
    config = tmp_path / "mine/config.json"
    config.write_text(config.read_text() + "\n")
    assert planned(ROOT, *given) == {"fetch_model": 1, "models": 1}
    (tmp_path / "results/models/twin/config.json").unlink()
    (tmp_path / "resources/models/twin.json").unlink()
    done = snakemake(ROOT, *given)
    line = (tmp_path / "logs/fetch_model/twin.log").read_text()
    assert "results/models/twin/config.json: no such file, though results/models/twin.sha256 lists it" in line
    assert "delete results/models/twin.sha256 and run again (rule write_untrained)" in line


def test_another_row_in_a_sheet_makes_nothing_stale(finished):
    with (finished / "config/models.tsv").open("a") as sheet:
        sheet.write("other\tOther\t./nowhere\t\tbase\t\t\tcpu\tfloat32\t1\tany\tfalse\t\t\t\t\t\t\t\t\t\t\t\n")
    assert planned(finished, *SMOKE) == {}


def test_a_comment_makes_nothing_stale_and_an_edit_what_follows(finished):
    path = finished / "workflow/gradatlas/statistics/bootstrap.py"
    text = path.read_text()
    path.write_text(text.replace("LEVEL = 0.95", "# A comment.\nLEVEL = 0.95"))
    assert planned(finished, *SMOKE) == {}
    path.write_text(text.replace("LEVEL = 0.95", "LEVEL = 0.90"))
    jobs = planned(finished, *SMOKE)
    assert jobs["summarise_gradients"] == 2 and jobs["draw_figures"] == 2
    assert not {"train_miniature", "build_responses", "measure_gradients"} & set(jobs)
    path.write_text(text)


def test_a_smaller_subset_is_measured_from_the_journal(finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    wanted = "results/gradients/mini/mini_arithmetic.spectra.parquet"
    done = snakemake(folder, *SMOKE, "--config", "samples=3", "--", wanted)
    assert done.returncode == 0, done.output[-3000:]
    assert "train_miniature" not in done.output and "build_responses" not in done.output
    # Three samples of three variants and two relations, and eight rows of controls each.
    assert counted(folder)[:2] == (42, 0)


@pytest.mark.slow
def test_shards_take_finished_work_and_make_the_same_tables(finished, tmp_path):
    """One job or two of a model and dataset: nothing is computed again, and the bytes are the same."""
    folder = clone(tmp_path / "clone")
    for kept in ("results/models", "results/responses", "results/journal", "resources/models", ".snakemake", "config"):
        shutil.copytree(finished / kept, folder / kept, dirs_exist_ok=True)
    wanted = ["results/gradients/mini/mini_arithmetic.spectra.parquet"]
    done = snakemake(folder, *SMOKE, "--config", "shards=2", "--", *wanted)
    assert done.returncode == 0, done.output[-3000:]
    logs = [folder / f"logs/measure_gradients/mini/mini_arithmetic/{part}.log" for part in (1, 2)]
    assert all(" 0 computed, " in log.read_text() for log in logs)
    for kind in ("samples", "spectra"):
        name = f"results/gradients/mini/mini_arithmetic.{kind}.parquet"
        assert (folder / name).read_bytes() == (finished / name).read_bytes()
    assert not list((folder / "results/shards").rglob("*.parquet"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "sampels=3"], "config: unknown key 'sampels': did you mean 'samples'?"),
        (["--config", "models=[minni]"], "unknown name 'minni': did you mean 'mini'?"),
    ],
    ids=["key", "model"],
)
def test_a_mistake_in_the_config_is_one_line_and_exit_code_2(arguments, message, tmp_path):
    done = snakemake(ROOT, "-n", "--directory", tmp_path, *arguments)
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == [
        next(line for line in done.stderr.splitlines() if message in line)
    ]
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@needs_shared("paper_data")
def test_the_same_rules_on_the_studys_own_data(tmp_path):
    """Published files from a mirror through a model of a local folder, marked as a pipeline check throughout."""
    tiny = f"{{model: tiny, source: {SHARED / 'reference_stats/model'}, scope: none, device: cpu, threads: 1}}"
    arguments = [
        "-s", ROOT / "Snakefile", "--cores", 2, "--configfile", ROOT / "config/paper.yaml", "--config",
        f"mirror={SHARED / 'paper_data'}", "samples=4", "bootstrap=50", "formats=[svg]",
        f"models=[{tiny}]", "datasets=[math_algebra,wiki_popular]", "variants={wiki_popular: [length_100]}",
    ]  # fmt: skip
    make(tmp_path, *arguments)
    samples = pl.read_parquet(tmp_path / "results/gradients/tiny/math_algebra.samples.parquet")
    assert samples.height == 4 * 2 * 3 and samples["relation"].n_unique() == 3
    assert samples["sample_id"].n_unique() == 4
    assert (
        read_metadata(tmp_path / "results/gradients/tiny/math_algebra.samples.parquet")["purpose"] == "pipeline check"
    )
    curves = pl.read_parquet(tmp_path / "results/statistics/wiki_popular/curves.parquet")
    assert curves["purpose"].unique().to_list() == ["pipeline check"] and curves["variant"].unique().to_list() == [
        "length_100"
    ]
    assert "pipeline check" in (tmp_path / "results/index.html").read_text()
    assert "Nothing to be done" in snakemake(tmp_path, *arguments).output


@needs_shared("paper_data")
def test_a_wrong_checksum_stops_with_one_line_in_the_log(tmp_path):
    mirror = tmp_path / "mirror"
    shutil.copytree(SHARED / "paper_data/wiki_popularity", mirror / "wiki_popularity")
    path = mirror / "wiki_popularity/long_tail_wikipedia.json"
    path.chmod(0o644)
    path.write_text(path.read_text(encoding="utf-8") + " ", encoding="utf-8")
    done = snakemake(
        ROOT, "--cores", 1, "--directory", tmp_path / "run", "--configfile", ROOT / "config/paper.yaml", "--config",
        f"mirror={mirror}", "datasets=[wiki_unpopular]", "relations=[correct]", "--", "responses",
    )  # fmt: skip
    assert done.returncode == 1
    line = (tmp_path / "run/logs/fetch_source/wiki_popularity/long_tail_wikipedia.json.log").read_text()
    assert line.startswith("error: ") and line.count("\n") == 1 and "37f0447c7a6f2827" in line
    assert line.strip() in done.output, "show-failed-logs shows the log where the user looks"
    assert not (tmp_path / "run/resources/sources/wiki_popularity/long_tail_wikipedia.json").exists()


def test_altered_committed_weights_stop_with_one_line(tmp_path):
    """The default takes the committed miniatures, once their checksums hold."""
    folder = clone(tmp_path / "clone")
    assert "train_miniature" not in planned(folder, "--config", "models=[mini, mini_instruct]")
    assert (
        planned(folder, "--config", "models=[mini, mini_instruct]", "miniature={retrain: true}")["train_miniature"] == 2
    )
    path = folder / "resources/miniature/base/model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    done = snakemake(folder, "--cores", 1, "--", "resources/models/mini.json")
    assert done.returncode == 1
    line = (folder / "logs/fetch_model/mini.log").read_text()
    assert line.startswith("error: ") and line.count("\n") == 1 and "base/model.safetensors: its sha256 is not" in line
    assert not (folder / "resources/models/mini.json").exists()
