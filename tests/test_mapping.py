"""Datasets of one's own: a row and a mapping, from a file or from the hub, through the workflow's own rules."""

import csv
import json
import os
import shutil

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from conftest import ROOT, SHARED, call, needs_shared, published_files, script, settings, user_error
from gradatlas.core.errors import InputError
from gradatlas.core.schemas import checked
from gradatlas.data.mapped import variants_of
from gradatlas.data.published import read_entries
from gradatlas.data.responses.reading import normalise_newlines
from gradatlas.data.samples import FINAL
from gradatlas.study.config import read_study
from gradatlas.study.mappings import is_file
from gradatlas.study.sheets import DatasetMapping
from loopback import FakeHub
from test_workflow import clone, make, snakemake

ROWS = [
    {"key": "a", "question": "1 + 1?", "solution": "Add <<1+1=2>>them. #### 2", "long": "Let us add.\nIt is 2."},
    {"key": "b", "question": "1 + 2?", "solution": "Add. #### them #### 3", "long": "Let us add.\nIt is 3."},
    {"key": "c", "question": "2 + 2?", "solution": "Double it. #### 1,004", "long": "Let us add.\nIt is 4."},
]
MAPPING = {
    "source": "rows.jsonl",
    "columns": {"instruction": "question", "rationale": "solution", "detailed": "long", "id": "key"},
    "separator": "####",
    "remove": "<<[^>]*>>",
}
DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())


def write(path, rows):
    if path.suffix.lower() == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    return path


def build(tmp_path, rows=ROWS, name="rows.jsonl", variants=("none", "simplified", "detailed"), options="", **change):
    """Through the script; a `rows` that is a path is taken as it is."""
    path = rows if hasattr(rows, "suffix") else write(tmp_path / name, rows)
    mapping = checked({**MAPPING, **change}, DatasetMapping, "mapping")
    chosen = {"variants": variants, "relations": ["correct", "derangement"], "options": options}
    done = call(
        "build_responses", "--dataset", "own", "--sources", path, "--output", tmp_path / "own.parquet",
        *settings(reader="mapped", mapping=mapping, seed=0, **chosen),
    )  # fmt: skip
    return done, tmp_path / "own.parquet"


def responses(path):
    table = pl.read_parquet(path).filter(pl.col("relation") == "correct")
    return {(row["sample_id"], row["variant"]): row["response"] for row in table.to_dicts()}


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.csv", "rows.parquet", "rows.CSV", "rows.JSONL"])
def test_every_kind_of_file(name, tmp_path):
    done, out = build(tmp_path, name=name)
    assert done.returncode == 0, done.stderr
    found = responses(out)
    assert found["a", "none"] == "2" and found["a", "simplified"] == "Add them.\nThe final answer is 2"
    assert found["b", "simplified"] == "Add. #### them\nThe final answer is 3", "the last separator counts"
    assert found["c", "none"] == "1,004" and found["c", "detailed"] == "Let us add.\nIt is 4."
    table = pl.read_parquet(out)
    assert table["instruction"].unique().sort().to_list() == ["1 + 1?", "1 + 2?", "2 + 2?"]
    deranged = table.filter(pl.col("relation") == "derangement")
    assert deranged["label_equals_gold"].to_list() == [False] * 9


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.csv"])
def test_a_byte_order_mark_is_no_text(name, tmp_path):
    """Spreadsheets and some editors write one."""
    path = write(tmp_path / name, ROWS)
    plain = responses(build(tmp_path, path)[1])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    done, out = build(tmp_path, path)
    assert done.returncode == 0, done.stderr
    assert responses(out) == plain
    own = tmp_path / "own.json"
    own.write_bytes(b"\xef\xbb\xbf" + json.dumps([{"instruction": "Q", "output": "A"}]).encode())
    assert read_entries(own)[0].response == "A"


@pytest.mark.parametrize(
    ("source", "local"),
    [("data/rows.CSV", True), ("data/rows.xlsx", True), ("rows", True), ("ORG/NAME", False), ("../x/y", True)],
)
def test_what_is_no_hub_id_is_a_file_here(source, local, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if source == "data/rows.xlsx":
        (tmp_path / "data").mkdir()
        (tmp_path / source).write_text("x")
    assert is_file({"source": source}) is local


def test_an_unknown_kind_of_file_is_named(tmp_path):
    folder = clone(tmp_path / "clone")
    add_row(folder, "none")
    (folder / "rows.xlsx").write_text("x")
    (folder / "config/mappings/mine.yaml").write_text(yaml.safe_dump({**MAPPING, "source": "./rows.xlsx"}))
    with pytest.raises(InputError, match=r"mine\.yaml: 'source': the kind of file '\./rows\.xlsx' is not known"):
        read_study({**DEFAULT, "datasets": ["mine"]}, folder)


def test_answers_in_a_column_of_their_own_and_in_boxes(tmp_path):
    rows = [{"q": "Is it?", "why": "It is.", "answer": True}, {"q": "Was it?", "why": "Not.", "answer": False}]
    columns = {"instruction": "q", "rationale": "why", "answer": "answer"}
    change = {"columns": columns, "separator": "", "answers": {"True": "yes", "False": "no"}}
    done, out = build(tmp_path, rows, variants=("none", "simplified"), options="yes_no", **change)
    assert done.returncode == 0, done.stderr
    assert responses(out)["1", "simplified"] == "Not.\nThe final answer is no"
    rows = [{"q": "x?", "s": r"So \boxed{\frac12}."}, {"q": "y?", "s": r"So \boxed{7}."}]
    change = {"columns": {"instruction": "q", "rationale": "s"}, "separator": "", "boxed": True}
    done, out = build(tmp_path, rows, variants=("simplified", "none"), **change)
    assert done.returncode == 0, done.stderr
    assert responses(out)["0", "simplified"] == r"So \boxed{\frac12}." and responses(out)["0", "none"] == r"\frac12"
    assert pl.read_parquet(out)["gold"].to_list()[:2] == [r"\frac12", "7"]


def test_numbers_of_a_csv_file_stay_as_they_are_written(tmp_path):
    rows = [{"q": "Code?", "a": "007"}, {"q": "Else?", "a": "NA"}]
    change = {"columns": {"instruction": "q", "answer": "a"}, "separator": ""}
    done, out = build(tmp_path, rows, "rows.csv", ("none",), **change)
    assert done.returncode == 0, done.stderr
    assert responses(out) == {("0", "none"): "007", ("1", "none"): "NA"}


def test_the_split_cuts(tmp_path):
    done, out = build(tmp_path, split="train[1:]")
    assert done.returncode == 0 and {key for key, _ in responses(out)} == {"b", "c"}


BAD = {
    "an unknown column": (
        {"columns": {"instruction": "quesion", "rationale": "solution"}},
        ROWS,
        "column 'quesion' (instruction) is in no row; choose among key, question",
    ),
    "a separator in no row": ({"separator": "@@"}, ROWS, "separator '@@' is in no row of column 'solution'"),
    "a row without the separator": (
        {},
        [*ROWS, {**ROWS[0], "key": "d", "solution": "2"}],
        "row 3: column 'solution' has no '####'",
    ),
    "an empty question": ({}, [*ROWS, {**ROWS[0], "key": "d", "question": " "}], "row 3: column 'question' is empty"),
    "a missing field": (
        {},
        [*ROWS, {"key": "d", "question": "?", "solution": "a #### 1"}],
        "row 3: column 'long' is missing",
    ),
    "a list for a text": (
        {},
        [{**ROWS[0], "long": ["x"]}, {**ROWS[1], "long": ["y"]}],
        "row 0: column 'long' is not a text",
    ),
    "an empty answer": (
        {},
        [*ROWS, {**ROWS[0], "key": "d", "solution": "1 #### "}],
        "row 3: column 'solution' gives an empty answer",
    ),
    "an id twice": ({}, [*ROWS, ROWS[0]], "row 3: column 'key': 'a' is also the id of row 0"),
    "an answer that is not named": (
        {"answers": {"2": "two"}},
        ROWS,
        "row 1: column 'solution' answers '3', which is not in the mapping's answers: 2",
    ),
    "no rows": ({"split": "train[3:]"}, ROWS, "split 'train[3:]' has none of its 3 rows"),
    "an unknown split": ({"split": "test"}, ROWS, "split 'test' cannot be used (Unknown split"),
    "no box": (
        {"separator": "", "boxed": True, "columns": {"instruction": "question", "rationale": "solution"}},
        ROWS,
        "row 0: column 'solution' has no \\boxed{}",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_name_file_row_and_column(name, tmp_path):
    change, rows, message = BAD[name]
    done, out = build(tmp_path, rows, **change)
    error = user_error(done)
    assert "rows.jsonl" in error and message in error and not out.exists()


def test_an_answer_outside_of_the_options_of_its_row(tmp_path):
    rows = [{"q": "Where?\nOptions:\n- here\n- there", "a": "nowhere"}]
    change = {"columns": {"instruction": "q", "answer": "a"}, "separator": ""}
    done, _ = build(tmp_path, rows, variants=("none",), options="listed", **change)
    assert "row 0: column 'a': answers 'nowhere', which is not among the options here, there" in user_error(done)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", b'{"question": "\xff"}', "line 1: not UTF-8 at byte 14 of the line"),
        ("rows.jsonl", b" \n", "holds no rows; give at least one"),
        ("rows.json", b'{"question": ', "row 0: not JSON at line 1: Expecting value"),
        ("rows.json", b'{"question": "a"}', "holds a JSON dict; give a list of objects"),
        ("rows.json", b'"text"', "holds a JSON str; give a list of objects"),
        ("rows.csv", b"question,solution\nx,1,2\n", "row 0 (line 2): 3 cells, but 2 columns"),
        ("rows.parquet", b"no parquet", "cannot be read as parquet"),
        ("rows.txt", b"text", "unknown format '.txt'"),
    ],
)
def test_bad_files_are_named(name, content, message, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    done, _ = build(tmp_path, path)
    error = user_error(done)
    assert name in error and message in error and len(done.stderr.splitlines()) == 1


@given(
    st.text(min_size=1).filter(str.strip), st.text(min_size=1).filter(lambda text: "The final answer is" not in text)
)
def test_none_is_what_simplified_ends_with(rationale, answer):
    responses = variants_of(answer, rationale)
    assert responses["simplified"].rpartition(FINAL)[::2] == (rationale, responses["none"])


@needs_shared("paper_data")
@pytest.mark.parametrize("dataset", ["gsm8k", "strategyqa", "sensemaking"])
def test_the_published_variants_are_made_of_these_parts(dataset):
    """None is reproduced from Simplified exactly, and Simplified from its parts: 500 of 500 in every file there is."""
    folder = SHARED / "paper_data/cot_500"
    none, simplified = (
        [entry.response for entry in read_entries(folder / f"{dataset}_train_{suffix}.json")]
        for suffix in ("no_cot", "with_cot")
    )
    parts = [response.rpartition(FINAL)[::2] for response in simplified]
    assert [answer for _, answer in parts] == none and len(none) == 500
    rebuilt = [variants_of(answer, rationale)["simplified"] for rationale, answer in parts]
    assert rebuilt == simplified


def test_new_lines_written_as_two_characters(tmp_path):
    assert normalise_newlines(r"Which?\nOptions:\n- a\nb \neq \nabla") == "Which?\nOptions:\n- a\nb \\neq \\nabla"
    path = tmp_path / "none.json"
    path.write_text(json.dumps([{"instruction": r"A?\nB", "output": "1"}, {"instruction": "C", "output": "2"}]))
    for switch, expected in (({}, r"A?\nB"), ({"normalise_newlines": True}, "A?\nB")):
        chosen = published_files([("none", "correct", path)], variants=["none"], relations=["correct"], **switch)
        done = call("build_responses", "--dataset", "x", *chosen, "--output", tmp_path / "x.parquet")
        assert done.returncode == 0 and pl.read_parquet(tmp_path / "x.parquet")["instruction"][0] == expected


# --- the sheet and the mapping's own mistakes ------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path):
    """The sheets with a row and a mapping of one's own."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    add_row(tmp_path)
    return tmp_path


def add_row(root, variants="none simplified detailed", gold=""):
    with (root / "config/datasets.tsv").open("a") as sheet:
        sheet.write(f"mine\tMy own\tmath\tmapped\t{variants}\tcorrect\t{gold}\t\t\t\tuser\t\t\t\t\n")


def study(root, mapping, **config):
    (root / "config/mappings/mine.yaml").write_text(yaml.safe_dump(mapping))
    return read_study(DEFAULT | {"datasets": ["mine"], "relations": ["correct"]} | config, root)


HUB = {**MAPPING, "source": "org/name", "revision": "0" * 40}
WRONG = {
    "an unknown key": ({"colums": {}}, "unknown key 'colums': did you mean 'columns'"),
    "no question": ({"columns": {"rationale": "solution"}}, "'columns.instruction' is missing"),
    "two ways to the answer": (
        {"boxed": True},
        "the answer has to come from one of: columns.answer, separator, boxed: true",
    ),
    "no way to the answer": (
        {"separator": ""},
        "columns.rationale is Simplified, which ends with the answer; add columns.answer",
    ),
    "nothing to separate": ({"columns": {"instruction": "question"}}, "name that column"),
    "no expression": ({"remove": "(["}, "'remove': unterminated character set"),
    "a variant it does not make": (
        {"columns": {"instruction": "question", "rationale": "solution"}},
        "makes no variant 'detailed': .*; name its column, or add the dataset to config key generate.datasets",
    ),
    "a branch for a revision": ({"revision": "main"}, "'revision'"),
    "a file that is not there": ({"source": "nowhere.jsonl"}, "no file 'nowhere.jsonl' here"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mapping_s_mistakes_are_one_line(name, root):
    change, message = WRONG[name]
    with pytest.raises(InputError, match=f"config/mappings/mine.yaml: .*{message}") as caught:
        study(root, {**HUB, **change})
    assert "\n" not in str(caught.value)


def test_a_row_without_a_mapping_and_one_with_gold(root):
    with pytest.raises(InputError, match=r"config/mappings/mine.yaml: no such file"):
        read_study(DEFAULT | {"datasets": ["mine"]}, root)
    sheet = root / "config/datasets.tsv"
    sheet.write_text(sheet.read_text().replace("correct\t\t\t\t\tuser\t", "correct\tnone\t\t\t\tuser\t"))
    with pytest.raises(InputError, match="'mine': 'gold' is 'none'; a mapping names the answer itself"):
        study(root, HUB)


def test_the_shipped_mappings_are_valid():
    for path in (ROOT / "config/mappings").glob("*.yaml"):
        assert read_study(DEFAULT | {"datasets": [path.stem]}, ROOT).datasets[path.stem]["mapping"]["source"]


# --- through the rules -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_users_own_file_through_the_workflow(tmp_path):
    """A row, a mapping, a file: responses and audit; an edit of the mapping builds again."""
    folder = clone(tmp_path / "clone")
    write(folder / "rows.jsonl", ROWS)
    add_row(folder)
    (folder / "config/mappings/mine.yaml").write_text(yaml.safe_dump(MAPPING))
    arguments = [
        "--cores",
        1,
        "--config",
        "datasets=[mine]",
        "models=[mini]",
        "formats=[svg]",
        "relations=[correct,shuffled]",
    ]
    make(folder, *arguments, "--", "audit")
    assert responses(folder / "results/responses/mine.parquet")["a", "none"] == "2"
    assert "Nothing to be done" in snakemake(folder, *arguments, "--", "audit").output
    (folder / "config/mappings/mine.yaml").write_text(yaml.safe_dump({**MAPPING, "split": "train[:2]"}))
    done = snakemake(folder, *arguments, "--", "responses")
    assert done.returncode == 0 and len(responses(folder / "results/responses/mine.parquet")) == 6


@pytest.fixture
def hub(tmp_path):
    """A dataset repository as hubs have it, with a configuration."""
    folder = tmp_path / "repository"
    (folder / "main").mkdir(parents=True)
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: train\n    path: main/train.parquet\n---\n"
    )
    write(folder / "main/train.parquet", ROWS)
    with FakeHub() as running:
        running.add_dataset("org/name", folder)
        running.folder = folder
        yield running


def fetch(hub, tmp_path, revision, *more, source="org/name"):
    # Loading a model elsewhere in this process turns the hub off for its children.
    environment = {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
    }
    return script(
        "fetch_dataset", "--dataset", "mine", "--source", source, f"--revision={revision}",
        *settings(name="main", split="train[:2]"), "--output", tmp_path / "rows.parquet", *more,
        env=environment | {"NO_PROXY": "127.0.0.1"}, timeout=120,
    )  # fmt: skip


def test_a_hub_dataset_at_its_commit(hub, tmp_path):
    commit = hub.datasets["org/name"]["commit"]
    done = fetch(hub, tmp_path, commit)
    assert done.returncode == 0, done.stderr
    assert pq.read_table(tmp_path / "rows.parquet").to_pylist() == ROWS[:2]
    (tmp_path / "rows.parquet").unlink()
    for revision, source, message in (
        (
            "",
            "org/name",
            "has no revision; run gradatlas pin --mapping config/mappings/mine.yaml",
        ),
        ("f" * 40, "org/name", "the hub shows no org/name at ffff"),
        (commit, "org/other", "the hub shows no org/other at"),
    ):
        assert message in user_error(fetch(hub, tmp_path, revision, source=source))
    assert not (tmp_path / "rows.parquet").exists()


def test_pin_fills_the_revision_of_a_mapping(hub, tmp_path):
    path = tmp_path / "mine.yaml"
    text = '# Mine.\nsource: org/name  # a hub id\nrevision: ""\nname: main\n'
    path.write_text(text)
    environment = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
    done = script("pin", "--mapping", path, env=environment)
    commit = hub.datasets["org/name"]["commit"]
    assert done.returncode == 0 and done.stdout == f"{path}\t{commit}\n", done.stderr
    assert path.read_text() == text.replace('revision: ""', f"revision: {commit}")
    assert "nothing to pin" in script("pin", "--mapping", path, env=environment).stdout
    # As an editor on Windows writes it.
    path.write_bytes(b'\xef\xbb\xbfsource: org/name\r\nrevision: ""\r\nname: main\r\n')
    assert script("pin", "--mapping", path, env=environment).returncode == 0
    assert path.read_bytes() == f"\ufeffsource: org/name\r\nrevision: {commit}\r\nname: main\r\n".encode()
    path.write_text(text.replace("org/name", "org/other"))
    assert "the hub shows no dataset org/other" in user_error(script("pin", "--mapping", path, env=environment))
    path.write_text("source: org/name\n")
    assert 'no line revision: ""' in user_error(script("pin", "--mapping", path, env=environment))


def test_a_mirror_holds_a_copy_of_the_dataset(hub, tmp_path):
    shutil.copytree(hub.folder, tmp_path / "mirror/datasets/org/name")
    done = fetch(hub, tmp_path, "", "--mirror", tmp_path / "mirror")
    assert done.returncode == 0, done.stderr
    assert pq.read_table(tmp_path / "rows.parquet").num_rows == 2
    error = user_error(fetch(hub, tmp_path, "", "--mirror", tmp_path / "nowhere"))
    assert "no folder" in error and "datasets/org/name in the mirror" in error
    shutil.copytree(tmp_path / "mirror", tmp_path / "mirror [v2]")
    error = user_error(fetch(hub, tmp_path, "", "--mirror", tmp_path / "mirror [v2]"))
    assert "as a pattern; give a mirror without [, * and ? in its path" in error


@pytest.mark.slow
def test_no_network_is_one_line(hub, tmp_path):
    hub.server.shutdown()
    hub.server.server_close()
    environment = os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT")
    assert environment is None
    error = user_error(fetch(hub, tmp_path, "0" * 40))
    assert "org/name" in error and "mirror=FOLDER" in error
