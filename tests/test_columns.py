"""Columns of a user's rows: partners are used or refused, a response without variants is natural, answers may lack."""

import json

import polars as pl
import pytest
import yaml

from conftest import ROOT, call, published_files, settings, user_error
from gradatlas.core.errors import InputError
from gradatlas.core.schemas import checked
from gradatlas.core.sheets import read_sheet
from gradatlas.core.tables import read_metadata
from gradatlas.data.pairs import mapped_pairs
from gradatlas.study.config import read_study
from gradatlas.study.mappings import check_prompt
from gradatlas.study.sheets import DatasetMapping, GradientClaimRow
from test_mapping import DEFAULT, build, root, study, write  # noqa: F401
from test_partial import gradients

ALPACA = [
    {"instruction": "Answer the question.", "input": "Is it 2?", "output": "Yes, it is 2.", "score": 1},
    {"instruction": "Answer the question.", "input": "Is it 3?", "output": "No, it is not.", "score": 2},
    {"instruction": "Say hello.", "input": "", "output": "Hello, my friend.", "kind": "greeting"},
]
CHAT = {"instruction": "instruction", "response": "output"}


def natural(tmp_path, rows=ALPACA, columns=CHAT, relations=("correct", "derangement"), **change):
    """Through the script, as the one variant `natural`."""
    path = rows if hasattr(rows, "suffix") else write(tmp_path / "rows.jsonl", rows)
    given = {"source": str(path), "columns": columns} | change
    mapping = checked(given, DatasetMapping, "mapping")
    variant = "natural" if "response" in columns else "detailed"
    done = call(
        "build_responses", "--dataset", "own", "--sources", path, "--output", tmp_path / "own.parquet",
        *settings(reader="mapped", mapping=mapping, variants=[variant], relations=list(relations), seed=0),
    )  # fmt: skip
    return done, tmp_path / "own.parquet"


# --- partners ---------------------------------------------------------------------------------------------------------


def test_a_partner_column_is_joined_where_the_mapping_names_it(tmp_path):
    done, out = natural(tmp_path, columns={**CHAT, "input": "input"})
    assert done.returncode == 0, done.stderr
    table = pl.read_parquet(out).filter(pl.col("relation") == "correct")
    assert table["instruction"].to_list() == [
        "Answer the question.\nIs it 2?", "Answer the question.\nIs it 3?", "Say hello.",
    ]  # fmt: skip
    assert table["variant"].unique().to_list() == ["natural"] and table["gold"].to_list() == [None] * 3
    assert "columns not used: score, kind" in done.stderr and done.stderr.count("not used") == 1


def test_system_is_before_the_question_and_context_after_it(tmp_path):
    rows = [{"q": "Who?", "System": "Be brief.", "passage": "Ann ran.", "a": "Ann"}, {"q": "Why?", "a": "So."}]
    columns = {"instruction": "q", "response": "a", "system": "System", "context": "passage"}
    done, out = natural(tmp_path, rows, columns, ["correct"])
    assert done.returncode == 0, done.stderr
    assert pl.read_parquet(out)["instruction"].to_list() == ["Be brief.\nWho?\nAnn ran.", "Why?"]


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.csv", "rows.parquet"])
@pytest.mark.parametrize("column", ["input", "context", "system", "Input", " input"])
def test_a_partner_column_that_nothing_uses_is_refused(column, name, tmp_path):
    rows = [{"instruction": "a", "output": "x", column: " "}, {"instruction": "b", "output": "y", column: "This."}]
    error = user_error(natural(tmp_path, write(tmp_path / name, rows))[0])
    assert f"{name}, row 1: column '{column}' is not empty, but not used; name it as columns." in error
    done, _ = natural(tmp_path, write(tmp_path / name, [{**row, column: ""} for row in rows]))
    assert done.returncode == 0, done.stderr


def test_the_row_of_a_slice_names_the_slice(tmp_path):
    error = user_error(natural(tmp_path, ALPACA, split="train[1:]")[0])
    assert "rows.jsonl, split 'train[1:]', row 0: column 'input' is not empty" in error


def test_published_files_use_or_refuse_them_too(tmp_path):
    path = tmp_path / "own.json"
    path.write_text(json.dumps([{"instruction": "a", "output": "b", "system": "Be brief."}]))
    done = call(
        "build_responses", "--dataset", "x", "--output", tmp_path / "x.parquet",
        *published_files([("none", "correct", path)], variants=["none"], relations=["correct"]),
    )  # fmt: skip
    assert "own.json, row 0: column 'system' is not empty, but not used; add it" in user_error(done)


PAIRS = {
    "format": "plain",
    "columns": {"prompt": "q", "chosen": "g", "rejected": "b"},
    "template": "Human: {prompt}",
    "order": "drawn",
}


def test_pairs_use_or_refuse_them_too(capsys):
    rows = [{"q": "a", "g": "x", "b": "y", "n": 1}, {"q": "b", "g": "x", "b": "y", "system": "Be brief."}]
    with pytest.raises(InputError, match=r"p.csv, row 1: column 'system' is not empty, but not used"):
        mapped_pairs(rows, PAIRS, "p.csv", "train", 1, 0)
    used = {**PAIRS, "columns": PAIRS["columns"] | {"system": "system"}}
    found = mapped_pairs(rows, used, "p.csv", "train", 9, 0)
    assert [pair["prompt"] for pair in found] == ["Human: a", "Human: Be brief.\nb"]
    assert capsys.readouterr().err == "p.csv: columns not used: n\n"
    dialogue = {"format": "dialogue", "columns": {"chosen": "g", "rejected": "b", "system": "s"}}
    with pytest.raises(InputError, match=r"columns.system cannot be used: format dialogue has no prompt"):
        check_prompt(dialogue, "config/pairs/x.yaml")


# --- natural data, and data without answers ---------------------------------------------------------------------------


def test_controls_that_need_an_answer_say_so(tmp_path):
    done, out = natural(
        tmp_path, columns={**CHAT, "input": "input"}, relations=["correct", "wrong_answer", "shuffled", "reference"]
    )
    assert done.returncode == 0, done.stderr
    assert "own, natural: the data have no answers, so there is no 'wrong_answer'" in done.stderr
    table = pl.read_parquet(out)
    assert table.filter(pl.col("relation") == "wrong_answer")["status"].unique().to_list() == ["not_constructible"]
    assert table["label"].null_count() == table.height and table["label_equals_gold"].null_count() == table.height


def test_a_recipe_that_needs_answers_is_refused(tmp_path):
    path = write(tmp_path / "rows.jsonl", ALPACA)
    mapping = {"source": str(path), "columns": {**CHAT, "input": "input"}}
    mapping = checked(mapping, DatasetMapping, "mapping")
    done = call(
        "build_responses", "--dataset", "own", "--sources", path, "--output", tmp_path / "own.parquet",
        *settings(reader="mapped", mapping=mapping, variants=["natural"], relations=["reference"], seed=0,
                  recipe=["pairs", "dot"]),
    )  # fmt: skip
    assert "recipe 'pairs' pairs samples with different answers, but the data have none" in user_error(done)


def test_a_response_with_an_answer_beside_it_has_a_gold(tmp_path):
    rows = [{"q": "1 + 1?", "r": "That is 2.", "a": 2}, {"q": "1 + 2?", "r": "That is 3.", "a": 3}]
    columns = {"instruction": "q", "response": "r", "answer": "a"}
    done, out = natural(tmp_path, rows, columns, ["correct", "wrong_answer"])
    assert done.returncode == 0, done.stderr
    table = {row["relation"]: row for row in pl.read_parquet(out).to_dicts() if row["sample_id"] == "0"}
    assert table["correct"]["gold"] == "2" and table["wrong_answer"]["response"] == "That is 3."


def test_detailed_alone_works(tmp_path):
    rows = [{"q": "1 + 1?", "long": "One and one.\nIt is 2."}, {"q": "1 + 2?", "long": "One and two.\nIt is 3."}]
    done, out = natural(tmp_path, rows, {"instruction": "q", "detailed": "long"})
    assert done.returncode == 0, done.stderr
    table = pl.read_parquet(out)
    assert table["variant"].unique().to_list() == ["detailed"] and table["status"].unique().to_list() == ["ok"]
    assert read_metadata(out)["samples"] == 2


def chosen(root, variants, columns, options="", **config):  # noqa: F811
    sheet = root / "config/datasets.tsv"
    lines = sheet.read_text().split("\n")
    row = f"mine\tMy own\tother\tmapped\t{variants}\tcorrect\t\t{options}\t\t\tuser\t\t\t\t"
    sheet.write_text("\n".join([*(line for line in lines if line and not line.startswith("mine")), row, ""]))
    (root / "rows.jsonl").write_text("{}\n")
    (root / "config/mappings/mine.yaml").write_text(
        yaml.safe_dump({"source": str(root / "rows.jsonl"), "columns": columns})
    )
    return read_study(DEFAULT | {"datasets": ["mine"], "relations": ["correct", "derangement"]} | config, root)


def test_data_without_variants_of_their_own_are_natural(root):  # noqa: F811
    found = chosen(root, "", {"instruction": "q", "response": "r"})
    assert found.variants("mine") == ["natural"] and found.controls("mini", "mine") == []
    assert chosen(root, "natural", {"instruction": "q", "response": "r"}).variants("mine") == ["natural"]
    alone = chosen(root, "detailed", {"instruction": "q", "detailed": "d"}, controls="full")
    assert alone.variants("mine") == ["detailed"]
    assert "detailed:foreign_fluent:all" in alone.controls("mini", "mine")
    assert not any("wrong_answer" in each for each in alone.controls("mini", "mine")), "that needs an answer"
    with pytest.raises(InputError, match=r"makes no variant 'natural': .*none; name its column as columns.response"):
        chosen(root, "", {"instruction": "q", "answer": "a"})
    with pytest.raises(InputError, match=r"columns.rationale is Simplified, which ends with the answer"):
        chosen(root, "simplified", {"instruction": "q", "rationale": "r"})
    with pytest.raises(InputError, match=r"'options' is 'yes_no', and .*mine.yaml names no answer"):
        chosen(root, "", {"instruction": "q", "response": "r"}, options="yes_no")


def test_natural_data_are_evidence_of_no_claim_about_variants(tmp_path):
    """None, Simplified and Detailed are what these claims are about: the evidence names no variant but its own."""
    samples, spectra = gradients(tmp_path, "mini", variants=["natural"])
    done = call(
        "gather_evidence", "--dataset", "d", "--samples", samples, "--spectra", spectra,
        "--claims", ROOT / "config/claims.tsv",
        "--output", tmp_path / "e.parquet", "--accuracy", tmp_path / "a.parquet",
        *settings(models=[{"model": "mini", "kind": "base"}], draws=50, seed=0),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = pl.read_parquet(tmp_path / "e.parquet")
    claims = read_sheet(ROOT / "config/claims.tsv", GradientClaimRow, "claim")
    words = ("None", "Simplified", "Detailed")
    about = {name for name, row in claims.items() if any(word in row["statement"] for word in words)}
    assert len(about) > 20 and not about & set(found["claim"])
    assert set(" ".join(found["variants"]).split()) <= {"natural"}


# --- texts and paths of the sheets ------------------------------------------------------------------------------------


def test_the_home_folder_and_a_byte_order_mark(root, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home/rows.jsonl").write_text("{}\n")
    sheets = [*(root / "config").glob("*.tsv"), *(root / "config").glob("*/*.yaml")]
    mapping = {"source": "~/rows.jsonl", "columns": {"instruction": "q", "response": "r"}}
    chosen(root, "natural", mapping["columns"])
    (root / "config/mappings/mine.yaml").write_text(yaml.safe_dump(mapping))
    for sheet in sheets:
        sheet.write_bytes(b"\xef\xbb\xbf" + sheet.read_bytes().replace(b"\n", b"\r\n"))
    read = read_study(DEFAULT | {"datasets": ["mine"]}, root).datasets["mine"]
    assert read["mapping"]["source"] == str(tmp_path / "home/rows.jsonl") and read["title"] == "My own"
    (root / "config/mappings/mine.yaml").write_text(yaml.safe_dump({**mapping, "source": "a~b/rows.jsonl"}))
    with pytest.raises(InputError, match=r"no file 'a~b/rows.jsonl' here"):
        read_study(DEFAULT | {"datasets": ["mine"]}, root)


ROW = {"model": "tiny", "source": "./tiny"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": [{**ROW, "title": "two\nlines"}]}, "'title'"),
        ({"models": [{**ROW, "title": "a line\n"}]}, "'title'"),
        ({"models": [{**ROW, "title": "--help"}]}, "'title'"),
        ({"models": [{**ROW, "model": "tiny\n"}]}, "'model'"),
        ({"models": [{**ROW, "model": "a|b"}]}, "'model'"),
        ({"models": [{**ROW, "source": "./run {1}"}]}, "'source': './run {1}' has braces"),
        ({"released": {"source": "./{task}"}}, "'released.source': './{task}' has braces"),
        ({"dynamics": {"rephrases": "{x}.jsonl"}}, "'dynamics.rephrases': '{x}.jsonl' has braces"),
        ({"toys": {"images": {"source": "./{x}"}}}, "'toys.images.source': './{x}' has braces"),
    ],
)
def test_what_cannot_be_a_name_a_title_or_an_input_is_one_line(change, message):
    with pytest.raises(InputError) as caught:
        read_study(DEFAULT | change, ROOT)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_title_may_hold_anything_else():
    title = r"""Arithmetic {easy} {model} "q" 'a' $HOME `id` %d & <script> \input{x}; #_^~ | * -x ü 日本"""
    assert read_study(DEFAULT | {"models": [{**ROW, "title": title}]}, ROOT).models["tiny"]["title"] == title
