"""Staleness: an edit makes exactly those jobs stale whose numbers it can change, as docs/staleness.md lists them."""

import ast
import fnmatch
import json
import re
import shutil

import polars as pl
import pytest

from conftest import ROOT, SMALL_STUDY
from gradatlas.core import digest
from gradatlas.finetuning.checkpoints import Checkpoints
from gradatlas.finetuning.finetune import code_of
from test_digest import forget
from test_workflow import clone, make, snakemake, touch

STUDY = (
    """\
models: [mini, mini_random]
datasets: [mini_arithmetic, mini_taxonomy, mine]
relations: [correct, derangement, wrong_chain, shuffled]
controls: none
samples: 4
miniature: {questions: 8, accuracy_questions: 8}
"""
    + SMALL_STUDY
)
ROWS = [
    {
        "question": f"How many are {n + 2} and {n + 3}?",
        "detailed": f"There are {n + 2}. Then {n + 3} more come. Together they are {2 * n + 5}.",
        "answer": str(2 * n + 5),
    }
    for n in range(6)
]
PACKAGE = "workflow/gradatlas"
RUN, TARGETS = ("--cores", 2, "--configfile", "study.yaml"), ("all", "audit")


def project(folder):
    """A clone with a user's own dataset."""
    clone(folder)
    (folder / "study.yaml").write_text(STUDY)
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "config/mappings/mine.yaml").write_text(
        "source: mine.jsonl\ncolumns: {instruction: question, answer: answer, detailed: detailed}\n"
    )
    append(folder / "config/datasets.tsv", dataset="mine", task="math", reader="mapped", variants="none detailed",
           relations="correct", scope="user")  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One with made-up outputs: what Snakemake notes of a job, it notes of them too."""
    folder = project(tmp_path_factory.mktemp("staleness") / "clone")
    make_up(folder, *RUN, "--", *TARGETS)
    return folder


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """One in which the trained miniature was measured."""
    folder = project(tmp_path_factory.mktemp("measured") / "clone")
    make(folder, *RUN, "--", *(f"results/gradients/mini/{name}.samples.parquet" for name in ("mine", "mini_taxonomy")))
    return folder


def make_up(folder, *arguments):
    """Give every job of a run outputs that say nothing, as if it had made them."""
    for _, made in jobs_in(snakemake(folder, "-n", *arguments)).values():
        for path in (folder / name for name in made):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Of a model's card the size is read.
            if path.suffix:
                path.write_text(json.dumps({"path": str(path), "parameters": 1}))
            else:
                path.mkdir(exist_ok=True)
    done = snakemake(folder, "--touch", "--forceall", *arguments)
    assert done.returncode == 0, done.output[-3000:]


def run(folder, *arguments, targets=TARGETS):
    return snakemake(folder, *RUN, *arguments, "--", *targets)


def jobs_of(folder, *arguments, **options):
    """By job (its rule and wildcards), the inputs and outputs, of the jobs that a run would do."""
    return jobs_in(run(folder, "-n", *arguments, **options))


def jobs_in(done):
    """The same, of a dry run's output."""
    assert done.returncode == 0, done.output[-3000:]
    jobs = {}
    for rule, block in re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)*)", done.stdout + "\n", re.MULTILINE):
        lines = dict(line.strip().partition(": ")[::2] for line in block.splitlines())
        wildcards = [each.partition("=")[2] for each in lines.get("wildcards", "").split(", ")]
        if "output" in lines:
            files = [set(lines.get(kind, "").split(", ")) - {""} for kind in ("input", "output")]
            jobs[f"{rule} {'/'.join(wildcards)}".strip()] = files
    return jobs


def following(graph, roots):
    """The jobs of the patterns `roots`, and all that take what these make."""
    for root in roots:
        assert fnmatch.filter(graph, root), f"no job is called {root}"
    found = {job for root in roots for job in fnmatch.filter(graph, root)}
    while True:
        made = set().union(*(graph[job][1] for job in found))
        more = {job for job, (inputs, _) in graph.items() if inputs & made} - found
        if not more:
            return found
        found |= more


# --- Edits: of a folder's files, by path, from text to text ---


def definition(tree, name):
    """The node of a top-level definition, or of a method (``Class.method``)."""
    body = tree.body
    for part in name.split("."):
        node = next(
            node for node in body
            if getattr(node, "name", None) == part
            or part in {each.id for each in ast.walk(node) if isinstance(each, ast.Name)
                        and isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(each.ctx, ast.Store)}
        )  # fmt: skip
        body = getattr(node, "body", [])
    return node


def put(text, line, column, new):
    """`text` with `new` before this place, as a syntax tree gives it."""
    lines = text.splitlines(keepends=True)
    raw = lines[line - 1].encode()
    lines[line - 1] = (raw[:column] + new.encode() + raw[column:]).decode()
    return "".join(lines)


def in_function(module, name, new):
    """A line more at the start of a function's body, behind its docstring."""

    def edit(text):
        body = definition(ast.parse(text), name).body
        first = body[1] if len(body) > 1 and isinstance(body[0], ast.Expr) else body[0]
        return put(text, first.lineno, first.col_offset, f"{new}\n{' ' * first.col_offset}")

    return {f"{PACKAGE}/{module}.py": edit}


def code(module, name):
    """A statement more in a function."""
    return in_function(module, name, "edited = 1")


def docstring(module, name):
    """A word more in a function's docstring."""

    def edit(text):
        first = definition(ast.parse(text), name).body[0]
        return put(text, first.lineno, first.col_offset + 3, "Edited. ")

    return {f"{PACKAGE}/{module}.py": edit}


def words(module, name):
    """A word more in the last text of a definition."""

    def edit(text):
        found = [
            node for node in ast.walk(definition(ast.parse(text), name))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]  # fmt: skip
        last = max(found, key=lambda node: (node.lineno, node.col_offset))
        return put(text, last.end_lineno, last.end_col_offset - 1, " edited")

    return {f"{PACKAGE}/{module}.py": edit}


def message(module, function):
    """A word more in the first text that a module gives to a function."""

    def edit(text):
        call = min(
            (
                node for node in ast.walk(ast.parse(text))
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == function
                and isinstance(node.args[0], ast.JoinedStr | ast.Constant)
            ),
            key=lambda node: node.lineno,
        )  # fmt: skip
        return put(text, call.args[0].lineno, call.args[0].col_offset, '"Edited: " ')

    return {f"{PACKAGE}/{module}.py": edit}


def cell(sheet, row, column, value):
    """Another value in a sheet."""

    def edit(text):
        lines = [line.split("\t") for line in text.split("\n")]
        place = next(line for line in lines if not line[0].startswith("#")).index(column)
        (found,) = (line for line in lines if line[0] == row)
        assert found[place] != value
        found[place] = value
        return "\n".join("\t".join(line) for line in lines)

    return {f"config/{sheet}.tsv": edit}


def another_row(sheet, **values):
    def edit(text):
        columns = next(line for line in text.splitlines() if not line.startswith("#")).split("\t")
        return text + "\t".join(values.get(column, "") for column in columns) + "\n"

    return {f"config/{sheet}.tsv": edit}


def append(path, **values):
    (edit,) = another_row("", **values).values()
    path.write_text(edit(path.read_text()))


def column(text):
    head, found, rest = text.partition("\nCLAIMS = Table(")
    return head + found + rest.replace("pa.schema(\n        [", "pa.schema(\n        [('added', TEXT),", 1)


UNUSED = {
    "a row more in the sheets of datasets, models and runs": {
        **another_row("datasets", dataset="other", task="math", reader="mapped", relations="correct", scope="user"),
        **another_row("models", model="other", source="./nowhere", kind="base", device="cpu", dtype="float32",
                      threads="1", scope="any", trust_remote_code="false"),
        **another_row("runs", run="other", learning_rate="1e-4", steps="4", warm_up="0", evaluate_every="2"),
    },
}  # fmt: skip
# Edits that make nothing again; they are made all at once, and one by one where something is.
NONE = UNUSED | {
    "a comment in the engine": in_function("gradients/spectra", "start", "# Edited."),
    "a docstring of the engine": docstring("gradients/cores", "exact_values"),
    "an error message in core": message("core/errors", "InputError"),
    "the digest's own code": code("core/digest", "definitions"),
    "the text of the device lease": message("core/device", "progress"),
    "the help text of a job's option": docstring("gradients/jobs", "measure_gradients"),
    "a progress text of finetuning": message("finetuning/finetune", "progress"),
    "a hub error text": message("models/snapshots", "InputError"),
    "a builder that no dataset uses": code("data/responses/builders", "sentence_salad"),
    "the reader of pairs of one's own": code("data/jobs", "_mapped_pairs"),
    "an extra table that is not measured": code("gradients/extras", "_cosines"),
    "a judge that is not asked": code("finetuning/judging/reward", "RewardJudge.prefer"),
}
EDITS = {
    "a real edit of the engine": code("gradients/capture", "Capture.run"),
    "a sample of a user's file": {"mine.jsonl": lambda text: text.replace("Together", "In all", 1)},
    "a word of the arithmetic corpus": words("data/made_up/arithmetic", "OPENERS"),
    "a word of the taxonomy": words("data/made_up/taxonomy", "OPENERS"),
    "a word of the biographies": words("data/made_up/knowledge", "SENTENCES"),
    "a word of the pairs' grammar": words("data/made_up/grammar", "CLOSERS"),
    "a builder": code("data/responses/builders", "shuffled"),
    "the reader of mapped files": code("data/mapped", "read_mapped"),
    "the precision of a model": cell("models", "mini_random", "dtype", "float64"),
    "a model's title": cell("models", "mini", "title", "Mine"),
    "a dataset's title": cell("datasets", "mini_arithmetic", "title", "Sums"),
    "a run's title": cell("runs", "smoke_dpo", "title", "A run"),
    "a run's `steps`": cell("runs", "smoke_dpo", "steps", "3"),
    "the loss of a run": code("finetuning/losses", "dpo"),
    "a loss that no run uses": code("finetuning/losses", "_ipo"),
    "the judge": code("finetuning/judging/judges", "Oracle.prefer"),
    "a claim's threshold": cell("claims", "mad_none_detailed", "threshold", "11"),
    "a claim's threshold, on no dataset here": cell("claims", "unpopular_larger", "threshold", "1.1"),
    "a claim's title": cell("claims", "mad_none_detailed", "title", "Another title"),
    "the words of a finding": cell("claims", "mad_none_detailed", "finding", "jumps are {large|small}"),
    "a column more in the claims table": {f"{PACKAGE}/claims/tables.py": column},
    "a colour of the projections": {
        f"{PACKAGE}/charts/theme.py": lambda text: re.sub(r'("q": "#)\w{6}"', r'\g<1>d94a20"', text, count=1)
    },
    "a label of the audit": words("figures/audit", "SHOWN"),
}
OPTIONS = {
    "`mem_mb`": ("--set-resources", "measure_gradients:mem_mb=9000"),
    "`seed`": ("--config", "seed=1"),
    "`bootstrap`": ("--config", "bootstrap=30"),
    "`batch_tokens`": ("--config", "batch_tokens=512"),
    "`formats`": ("--config", "formats=[svg,vl.json]"),
    "`paper_axes`": ("--config", "paper_axes=true"),
    "a dataset more in the config": ("--config", "datasets=[mini_arithmetic,mini_taxonomy,mine,mini_popular]"),
    "a model more in the config": ("--config", "models=[mini,mini_random,mini_instruct]"),
}
TOUCHED = ("every file touched", "a fresh checkout of the same commit", "the folder moved")
# Made in a study of their own, by test_folders.py.
FOLDERS = {
    "a user's model folder touched, or copied without its times",
    "an older file put in place of one in a user's model folder",
    "an older file put in place of a user's data file",
    "a file added to a user's model folder, or deleted from it",
}


def listed():
    """By edit, the patterns of jobs that the table in docs/ gives."""
    lines = (ROOT / "docs/staleness.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][1:]
    return {edit: re.findall(r"`([^`]+)`", jobs) for edit, jobs, *_ in rows}


LISTED = listed()


class Edited:
    """The edits, made in a folder for as long as the block lasts."""

    def __init__(self, folder, *edits):
        self.folder, self.edits = folder, edits

    def __enter__(self):
        paths = {path for edit in self.edits for path in edit}
        self.kept = {path: (self.folder / path).read_text() for path in paths}
        for path, change in (item for edit in self.edits for item in edit.items()):
            before = (self.folder / path).read_text()
            assert change(before) != before, path
            (self.folder / path).write_text(change(before))

    def __exit__(self, *_):
        for path, text in self.kept.items():
            (self.folder / path).write_text(text)


@pytest.fixture(scope="module")
def graph(finished):
    """All jobs of the study."""
    return jobs_of(finished, "--forceall")


def test_the_table_and_the_edits_are_the_same():
    assert set(LISTED) == {*NONE, *EDITS, *OPTIONS, *TOUCHED, *FOLDERS}
    assert all(not LISTED[edit] for edit in (*NONE, *TOUCHED))


def test_what_changes_no_number_makes_nothing_again(finished):
    with Edited(finished, *NONE.values()):
        stale = jobs_of(finished)
    if stale:
        for edit, change in NONE.items():
            with Edited(finished, change):
                assert not jobs_of(finished), edit
    assert not stale


def test_another_time_or_place_makes_nothing_again(finished):
    for name in ("config", "workflow", "resources", "results", "mine.jsonl"):
        touch(finished / name)
    # As a checkout does: each file is another one.
    for name in ("config", "workflow", "profiles", "resources/miniature"):
        shutil.copytree(finished / name, finished / "fresh", copy_function=shutil.copyfile)
        shutil.rmtree(finished / name)
        shutil.move(finished / "fresh", finished / name)
    moved = finished.with_name("another place")
    finished.rename(moved)
    try:
        assert not jobs_of(moved)
    finally:
        moved.rename(finished)


# One edit for each kind of what it reaches; a dry run of each of the others is left to the slow tests.
QUICK = (
    "a real edit of the engine",
    "a sample of a user's file",
    "a word of the taxonomy",
    "a run's `steps`",
    "the judge",
    "a claim's threshold",
    "a column more in the claims table",
    "`seed`",
    "a dataset more in the config",
)


def each(edits):
    """The edits as parameters, those that are not among the quick ones marked."""
    return [pytest.param(edit, marks=() if edit in QUICK else pytest.mark.slow) for edit in edits]


@pytest.mark.parametrize("edit", each(EDITS))
def test_an_edit_makes_again_what_it_can_change(edit, finished, graph):
    with Edited(finished, EDITS[edit]):
        assert set(jobs_of(finished)) == following(graph, LISTED[edit])


@pytest.mark.parametrize("edit", each(OPTIONS))
def test_an_option_makes_again_what_it_can_change(edit, finished, graph):
    jobs = jobs_of(finished, *OPTIONS[edit])
    assert set(jobs) == following(graph | jobs, LISTED[edit])


# --- What is kept: samples, checkpoints ---


def texts_of(folder, dataset):
    """What was measured of a dataset on `mini`: by sample, variant and relation, the text that the model read."""
    keys = ["sample_id", "variant", "relation"]
    samples = pl.read_parquet(folder / f"results/gradients/mini/{dataset}.samples.parquet", columns=keys)
    responses = pl.read_parquet(folder / f"results/responses/{dataset}.parquet")
    rows = samples.join(responses, on=keys, how="left", maintain_order="left")
    return {row[:3]: row[3:] for row in rows.select(*keys, "instruction", "response").iter_rows()}


def spectra_of(folder, dataset):
    frame = pl.read_parquet(folder / f"results/gradients/mini/{dataset}.spectra.parquet")
    return frame.partition_by("sample_id", "variant", "relation", as_dict=True)


def another_answer(folder):
    """Another text of one measured sample of the user's file, which is the donor of another one's response."""
    place = int(next(iter(texts_of(folder, "mine")))[0])

    def edit(text):
        lines = text.splitlines(keepends=True)
        lines[place] = lines[place].replace("Together", "In all")
        return "".join(lines)

    return {"mine.jsonl": edit}


def another_order(folder):
    """Another draw of the builder `shuffled`."""
    path = f"{PACKAGE}/data/responses/builders.py"
    return {path: lambda text: text.replace('f"shuffled {material.seed}', 'f"shuffled again {material.seed}')}


@pytest.mark.parametrize(("edit", "dataset"), [(another_answer, "mine"), (another_order, "mini_taxonomy")])
def test_only_samples_whose_text_changed_are_computed(edit, dataset, measured, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(measured, folder)
    texts, spectra = texts_of(folder, dataset), spectra_of(folder, dataset)
    with Edited(folder, edit(folder)):
        done = run(folder, targets=[f"results/gradients/mini/{dataset}.samples.parquet"])
    assert done.returncode == 0, done.output[-3000:]
    now = texts_of(folder, dataset)
    known, wanted = set(texts.values()), set(now.values())
    facts = json.loads((folder / f"results/gradients/mini/{dataset}.run.json").read_text())
    assert (facts["computed"], facts["recalled"]) == (len(wanted - known), len(wanted & known))
    assert facts["computed"] and facts["recalled"]
    after = spectra_of(folder, dataset)
    assert all(after[row].equals(spectra[row]) for row in now if texts[row] == now[row])
    assert not any(after[row].equals(spectra[row]) for row in now if texts[row] != now[row])


def test_checkpoints_outlive_edits_that_change_nothing_and_are_set_aside_by_others(tmp_path, monkeypatch, capsys):
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(digest, "ROOT", tmp_path / "workflow")

    def opened():
        forget()
        return Checkpoints(tmp_path / "run", code_of("sft"))

    try:
        opened().save(3, {"log": "[]"})
        with Edited(tmp_path, code("finetuning/losses", "dpo"), message("finetuning/finetune", "progress")):
            assert opened().load("cpu")["step"] == 3
        with Edited(tmp_path, code("finetuning/losses", "sft")):
            assert opened().load("cpu") is None
            (aside,) = tmp_path.glob("run.*")
            assert list(aside.glob("state-*.pt")) and f"moved to {aside}" in capsys.readouterr().err
        assert opened().load("cpu")["step"] == 3 and "; resumed" in capsys.readouterr().err
    finally:
        forget()
