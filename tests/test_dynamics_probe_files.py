"""Probes from the study's own files: its types under our names, which pairs are probed, bad files, the real ones."""

import json
from collections import Counter

import pytest
from transformers import AutoTokenizer

from conftest import ROOT, SHARED, call, needs_shared, settings, user_error
from gradatlas.core.files import sha256_of
from gradatlas.core.sheets import read_sheet
from gradatlas.core.tables import read_table, write_table
from gradatlas.data.pairs import write_pairs
from gradatlas.data.tables import PAIRS
from gradatlas.finetuning.tables import DYNAMICS, PROBES
from gradatlas.study.mappings import read_pairs
from gradatlas.study.probe_types import STUDY_FIELDS, TYPES
from gradatlas.study.sheets import RunRow

SPLITS = ("train", "held_out")
LD = SHARED / "ld_data"


def line(split, number, **changes):
    """A row of the study's form: each field names itself, with a space where the study's file has one."""
    own = ("chosen", "rejected", "irr_train", "irr_test")
    fields = {field: " " * (field in own) + f"{field} {split} {number}" for field in STUDY_FIELDS.values()}
    return {"prompt": f"\n\nHuman: {split} {number}?\n\nAssistant:"} | fields | changes


@pytest.fixture
def files(tmp_path):
    """Two prompts of each split, among three pairs of each: a function of changed rows, which gives the arguments."""

    def made(rows=None, sums=None, counts=(2, 2), **more):
        lines = {split: [line(split, number) for number in range(3)] for split in SPLITS}
        pairs = [
            {"pair_id": f"{split}-{number}", "split": split, **{key: row[key] for key in ("prompt", "chosen")}}
            | {"rejected": row["rejected"] if number < 2 else ""}
            for split in SPLITS for number, row in enumerate(lines[split])
        ]  # fmt: skip
        write_pairs(pairs, tmp_path / "pairs.parquet", {})
        given = {split: lines[split][:2] for split in SPLITS} | (rows or {})
        paths = [tmp_path / f"{split}.jsonl" for split in SPLITS]
        for path, split in zip(paths, SPLITS, strict=True):
            text = given[split] if isinstance(given[split], str) else "".join(map(_dumped, given[split]))
            path.write_text(text)
        chosen = {"train": counts[0], "held_out": counts[1], "seed": 0, "rephrases": False, **more}
        chosen["file_sums"] = sums or [sha256_of(path) for path in paths]
        return ("--pairs", tmp_path / "pairs.parquet", "--files", *paths, "--output", tmp_path / "probes.parquet",
                *settings(**chosen))  # fmt: skip

    return made


def _dumped(row):
    return json.dumps(row) + "\n"


def built(arguments, model):
    done = call("build_probes", "--model", model, *arguments)
    assert done.returncode == 0, done.stderr
    return read_table(PROBES, arguments[arguments.index("--output") + 1]).to_pylist()


def test_the_texts_are_the_files_under_our_names(files, miniature):
    rows = built(files(leading_spaces="file"), miniature)
    assert len(rows) == 4 * len(TYPES) and {row["status"] for row in rows} == {"ok"}
    assert list(STUDY_FIELDS) == [name for name in TYPES if name != "random_tokens"]
    found = {row["probe_id"]: row for row in rows}
    for split in SPLITS:
        for number in range(2):
            given = line(split, number)
            for name, field in STUDY_FIELDS.items():
                row = found[f"{split}-{number}/{name}"]
                assert (row["response"], row["prompt"], row["split"]) == (given[field], given["prompt"], split)
    # What the files do not have is drawn, as for probes that are made here.
    tokenizer = AutoTokenizer.from_pretrained(miniature)
    lengths = {name: len(tokenizer(found[f"train-0/{name}"]["response"])["input_ids"]) for name in
               ("chosen", "random_tokens")}  # fmt: skip
    assert lengths["chosen"] == lengths["random_tokens"]


def test_leading_spaces_are_corrected_to_one_or_left(files, miniature):
    texts = {"chosen_initial": "  two", "irr_hum": "\nline", "random_permute": "none", "random_nonhum": " one"}
    rows = {"train": [line("train", 0, **texts), line("train", 1)]}
    for how, expected in (("one", [" two", " line", " none", " one"]), ("file", list(texts.values()))):
        found = {row["probe_id"]: row["response"] for row in built(files(rows, leading_spaces=how), miniature)}
        names = ("initial", "unrelated", "permuted", "random_nonhum")
        assert [found[f"train-0/{name}"] for name in names] == expected


def test_an_empty_text_and_an_unusable_pair_are_statuses(files, miniature):
    rows = {"train": [line("train", 0, chosen_selfr=" "), line("train", 2)]}
    found = built(files(rows), miniature)
    empty = [row["probe_id"] for row in found if row["status"] == "empty"]
    assert empty == ["train-0/self_rephrase"]
    unusable = [row for row in found if row["status"] == "empty_rejected"]
    assert len(unusable) == len(TYPES) and {row["sources"][0] for row in unusable} == {"train-2"}
    assert {row["response"] for row in unusable} == {None}


GOOD = [line("train", 0), line("train", 1)]
LESS = {key: value for key, value in GOOD[1].items() if key != "irr_hum"}


@pytest.mark.parametrize(
    ("rows", "more", "message"),
    [
        ([GOOD[0], LESS], {}, r"train.jsonl, row 1: no field 'irr_hum'; give all of the study's fields"),
        ([GOOD[0], GOOD[1] | {"prompt": None}], {}, "row 1: field 'prompt' is not a text"),
        (GOOD, {"counts": (3, 2)}, "train.jsonl: has 2 prompts, not 3; set config key dynamics.probes"),
        (GOOD, {"counts": (2, 1)}, "held_out.jsonl: has 2 prompts, not 1; set config key dynamics.held_out_probes"),
        (GOOD, {"sums": ["0" * 64] * 2}, "train.jsonl: sha256 is "),
        ('{"prompt": "x"\n', {}, "train.jsonl, row 0: not JSON at line 1"),
        ([GOOD[0], GOOD[0]], {}, "train.jsonl, row 1: the prompt of row 0 again"),
        ([GOOD[0], line("train", 7)], {}, "row 1: its prompt is not in split 'train'"),
        ([GOOD[0], line("held_out", 0)], {}, "row 1: its prompt is not in split 'train'"),
        ([GOOD[0], line("train", 1, chosen=" other")], {}, "row 1: its chosen response is not in split 'train'"),
        (GOOD, {"sums": ["0" * 64]}, "--files gives 2 files, settings.file_sums has 1"),
    ],
)
def test_a_bad_file_is_one_line(files, miniature, rows, more, message):
    assert message in user_error(call("build_probes", "--model", miniature, *files({"train": rows}, **more)))


def test_pairs_in_the_order_of_the_file_are_the_first_ones(tmp_path):
    from gradatlas.data.pairs import mapped_pairs

    rows = [{"p": f"Q{i}:", "c": " a", "r": " b"} for i in range(40)]
    mapping = {"format": "plain", "columns": {"prompt": "p", "chosen": "c", "rejected": "r"}, "template": "{prompt}"}
    numbers = {
        order: [pair["pair_id"] for pair in mapped_pairs(rows, mapping | {"order": order}, "x", "train", 5, 0)]
        for order in ("file", "drawn")
    }
    assert numbers["file"] == [f"train-{i}" for i in range(5)]
    assert len(numbers["drawn"]) == 5 and numbers["drawn"] != numbers["file"]


# --- The study's own files ---


def study_rows(split):
    name = {"train": "train", "held_out": "test"}[split]
    return [json.loads(row) for row in (LD / f"helpful-base/formal_prob_{name}.jsonl").read_text().splitlines()]


@pytest.mark.shared
@needs_shared("ld_data")
def test_the_fields_are_what_our_names_say():
    for split in SPLITS:
        rows = study_rows(split)
        assert len(rows) == 500 and {tuple(row) for row in rows} == {("prompt", *STUDY_FIELDS.values())}
        for row in rows:
            assert sorted(row["random_permute"].split()) == sorted(row["chosen"].split())
            assert sorted(row["random_nonhum"].split()) == sorted(row["irr_test"].split())
            assert row["irr_train"] != row["chosen"] and row["prompt"].endswith("\n\nAssistant:")
        # Answers to another prompt of the same file, and to none of its prompts, but for common ones.
        chosen = {row["chosen"] for row in rows}
        assert sum(row["irr_train"] in chosen for row in rows) >= 499
        assert sum(row["irr_test"] in chosen for row in rows) <= 11


@pytest.mark.shared
@needs_shared("ld_data")
def test_the_shipped_mapping_names_the_study_s_files():
    probes = read_pairs(ROOT, "hh_helpful")["probes"]
    sums = {path: value for value, path in (row.split() for row in (LD / "SHA256SUMS").read_text().splitlines())}
    for split in SPLITS:
        path = probes[split].partition("/src/data/")[2]
        assert probes[f"{split}_sha256"] == sums[path] == sha256_of(LD / path)


@pytest.mark.shared
@needs_shared("ld_data")
def test_the_study_s_own_probes_through_a_tiny_model(miniature, tmp_path):
    """A pipeline check: dialogues to pairs, all texts of both files to probes, and a short run watched by all types."""
    probes = read_pairs(ROOT, "hh_helpful")["probes"]
    for split in SPLITS:
        rows = [{part: row["prompt"] + row[part] for part in ("chosen", "rejected")} for row in study_rows(split)]
        (tmp_path / f"{split}.jsonl").write_text("".join(map(_dumped, rows)))
    mapping = {"source": str(tmp_path / "train.jsonl"), "held_out": str(tmp_path / "held_out.jsonl"), "order": "file",
               "format": "dialogue", "columns": {"chosen": "chosen", "rejected": "rejected"}}  # fmt: skip
    done = call("build_pairs", "--name", "hh", "--train-rows", mapping["source"], "--held-out-rows",
                mapping["held_out"], "--output", tmp_path / "pairs.parquet",
                *settings(train=5000, held_out=2000, mapping=mapping))  # fmt: skip
    assert done.returncode == 0, done.stderr
    cut = {"max_length": 128, "max_new_tokens": 8, "truncation": "study"}
    given = {"train": 500, "held_out": 500, "rephrases": False, "leading_spaces": "file", **cut}
    given["file_sums"] = [probes[f"{split}_sha256"] for split in SPLITS]
    names = [f"helpful-base/formal_prob_{name}.jsonl" for name in ("train", "test")]
    rows = built(("--pairs", tmp_path / "pairs.parquet", "--files", *(LD / name for name in names), "--output",
                  tmp_path / "probes.parquet", *settings(**given)), miniature)  # fmt: skip
    assert len(rows) == 1000 * len(TYPES) and {row["type"] for row in rows} == set(TYPES)
    counted = Counter((row["type"], row["status"]) for row in rows if row["status"] != "ok")
    # One rejected response of each file is empty: that pair is not trained on. It has the 50th empty initial response.
    assert counted["initial", "empty"] == 49 and counted["chosen", "empty_rejected"] == 2
    kept = [row for row in rows if int(row["sources"][0].rpartition("-")[2]) % 100 == 0]
    write_table(PROBES, kept, tmp_path / "few.parquet", {})
    training = read_sheet(ROOT / "config/runs.tsv", RunRow, "run")["hh_probed_dpo"] | {"steps": 2, "evaluate_every": 2}
    training = {key: training[key] for key in ("loss", "probed", "learning_rate", "steps", "evaluate_every")}
    done = call("finetune", "--init", miniature, "--pairs", tmp_path / "pairs.parquet", "--probes",
                tmp_path / "few.parquet", "--output", tmp_path / "run", "--journal", tmp_path / "journal",
                *settings(name="hh_probed_dpo", prompts=2, **training, **cut))  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = read_table(DYNAMICS, tmp_path / "run/dynamics.parquet").to_pylist()
    usable = {row["type"] for row in found if row["step"] == 2 and row["status"] == "ok"}
    # Nothing is too long: texts are cut.
    assert usable == set(TYPES) and {row["status"] for row in found} <= {"ok", "empty", "empty_rejected"}
    assert max(row["tokens"] for row in found if row["tokens"]) > 64
    assert read_table(PAIRS, tmp_path / "pairs.parquet").num_rows == 1000
