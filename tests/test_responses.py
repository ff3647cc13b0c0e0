"""Responses: derangement as it must be, labels as they are stated, and the published files as they really are."""

import math
import random
from collections import Counter

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import SHARED, call, needs_shared, published_files, user_error
from gradatlas.data.responses.derangement import derange
from gradatlas.data.responses.labels import boxed, stated_answer
from gradatlas.data.responses.traces import endings, trace
from gradatlas.study.relations import BUILT


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=60), st.integers(0, 99))
def test_derangement(labels, seed):
    """Never oneself, never an equal label, each donor as seldom as possible, whatever the order of the samples."""
    by_id = {str(i): label for i, label in enumerate(labels)}
    donors = derange(by_id, seed)
    assert donors.keys() == by_id.keys()
    assert derange(dict(reversed(by_id.items())), seed) == donors
    commonest = max(Counter(labels).values())
    if commonest == len(labels):
        assert set(donors.values()) == {None}
        return
    for sample_id, donor in donors.items():
        assert donor != sample_id and by_id[donor] != by_id[sample_id]
    rest = len(labels) - commonest
    assert max(Counter(donors.values()).values()) <= max(1, math.ceil(commonest / rest))


def test_derangement_follows_its_seed():
    labels = {str(i): str(i % 3) for i in range(30)}
    assert derange(labels, 0) != derange(labels, 1)


# Labels of 500 samples as the study's datasets have them: open answers, five letters, yes and no, 277 against 223.
KINDS = {
    "open": [str(i % 180) for i in range(500)],
    "letters": list("C" * 124 + "A" * 116 + "B" * 95 + "D" * 86 + "E" * 79),
    "even": list("ab" * 250),
    "uneven": list("a" * 277 + "b" * 223),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_of_one_sample_moves_a_handful_of_donors(kind):
    """Measured: at most 17 of 500 after a label's edit, 12 after an added sample; a shift along a line moved 69."""
    rng = random.Random(kind)
    labels = {f"s{i}": label for i, label in enumerate(rng.sample(KINDS[kind], 500))}
    before = derange(labels, 0)
    for edit in range(12):
        sample_id = rng.choice(list(labels))
        edited = labels | {sample_id: rng.choice([label for label in set(KINDS[kind]) if label != labels[sample_id]])}
        added = labels | {f"new{edit}": rng.choice(KINDS[kind])}
        for after in (derange(edited, 0), derange(added, 0)):
            assert sum(before[i] != after[i] for i in before) <= 25


def test_stated_answer_is_the_last_one():
    twice = "It is.\nThe final answer is yes. But no.\nThe final answer is no"
    assert stated_answer(twice, "simplified") == "no"
    assert stated_answer("(D)", "none") == "(D)"
    assert stated_answer("So it is four.", "detailed") is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so $x=\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"\boxed{1} and then \boxed{2}", "2"),
        (r"\boxed 5 apples", "5"),
        (r"\fbox{7}", "7"),
        ("none here", None),
        (r"\boxed{open", None),
    ],
)
def test_boxed(text, answer):
    assert boxed(text) == answer


PUBLISHED = {"gsm8k": 4, "strategyqa": 250, "sensemaking": 241}
SUFFIXES = {"none": "no_cot", "simplified": "with_cot", "detailed": "with_cot_gpt4o"}


@needs_shared("paper_data")
@pytest.mark.parametrize("dataset", PUBLISHED)
def test_published_files(dataset, tmp_path):
    """Counts found by computing them; the corrected set has none of the published one's right labels."""
    sources = []
    for variant, suffix in SUFFIXES.items():
        for relation, folder in (("correct", "cot_500"), ("published", "cot_500_wrong_answer_shuffle")):
            path = SHARED / "paper_data" / folder / f"{dataset}_train_{suffix}.json"
            sources.append((variant, relation, path))
    out = tmp_path / "r.parquet"
    chosen = {"variants": list(SUFFIXES), "relations": ["correct", "published", "derangement"], "gold": "none"}
    chosen["options"] = "listed" if dataset == "sensemaking" else ""
    done = call("build_responses", "--dataset", dataset, *published_files(sources, **chosen), "--output", out)
    assert done.returncode == 0, done.stderr
    table = pl.read_parquet(out)
    assert table.height == 500 * 9
    right = dict(
        table.filter(pl.col("variant") == "none")
        .group_by("relation")
        .agg(pl.col("label_equals_gold").sum())
        .iter_rows()
    )
    assert right == {"correct": 500, "published": PUBLISHED[dataset], "derangement": 0}
    if dataset == "strategyqa":
        # No Detailed response of it states its answer in the phrase; whose ending was kept tells.
        detailed = table.filter((pl.col("relation") == "published") & (pl.col("variant") == "detailed"))
        judged = detailed["label_equals_gold"]
        assert (judged.sum(), judged.count()) == (245, 490)
    # One map for all variants; every response is the donor's own correct one, wrong here as far as it tells.
    deranged = table.filter((pl.col("relation") == "derangement") & (pl.col("variant") != "none"))
    assert deranged.group_by("sample_id").agg(pl.col("sources").list.first().n_unique())["sources"].max() == 1
    assert deranged["label_equals_gold"].sum() == 0 and (deranged["status"] == "ok").all()
    own = table.filter(pl.col("relation") == "correct").select("sample_id", "variant", "response")
    joined = deranged.with_columns(pl.col("sources").list.first().alias("donor")).join(
        own, left_on=["donor", "variant"], right_on=["sample_id", "variant"], suffix="_own"
    )
    # Of two options the other one is the donor's, so Simplified is the donor's whole response too.
    assert joined.height == 1000 and (joined["response"] == joined["response_own"]).all()


@needs_shared("paper_data")
def test_none_is_what_simplified_ends_with():
    """No row of the published files contradicts it: the variants are cut from one another."""
    from gradatlas.data.published import read_entries

    checked = 0
    for dataset in PUBLISHED:
        none, simplified = (
            read_entries(SHARED / "paper_data/cot_500" / f"{dataset}_train_{SUFFIXES[v]}.json")
            for v in ("none", "simplified")
        )
        for short, long in zip(none, simplified, strict=True):
            assert long.response.rpartition("\nThe final answer is ")[2] == short.response
            checked += 1
    assert checked == 1500


def write(path, rows):
    import json

    path.write_text(json.dumps([{"instruction": i, "input": "", "output": o} for i, o in rows]))
    return path


def build(tmp_path, *sources, gold="", relations=("correct", "derangement")):
    variants = list(dict.fromkeys(variant for variant, _, _ in sources))
    chosen = published_files(sources, variants=variants, relations=relations, gold=gold)
    return call("build_responses", "--dataset", "own", *chosen, "--output", tmp_path / "own.parquet")


def test_files_that_do_not_pair_are_refused(tmp_path):
    one = write(tmp_path / "one.json", [("a", "1"), ("b", "2")])
    short = write(tmp_path / "short.json", [("a", "1")])
    other = write(tmp_path / "other.json", [("a", "1"), ("c", "2")])
    error = user_error(build(tmp_path, ("none", "correct", one), ("simplified", "correct", short)))
    assert "short.json: 1 rows, but" in error
    error = user_error(build(tmp_path, ("none", "correct", one), ("simplified", "correct", other)))
    assert "other.json, row 1: its instruction differs from that of" in error
    assert not (tmp_path / "own.parquet").exists()


def test_where_all_labels_are_equal_nothing_is_constructible(tmp_path):
    path = write(tmp_path / "same.json", [("a", "yes"), ("b", "yes")])
    assert build(tmp_path, ("none", "correct", path), gold="none").returncode == 0
    table = pl.read_parquet(tmp_path / "own.parquet").filter(pl.col("relation") == "derangement")
    assert table["status"].to_list() == ["not_constructible"] * 2 and table["response"].null_count() == 2


def test_unknown_relation_names_the_known(tmp_path):
    path = write(tmp_path / "a.json", [("a", "yes"), ("b", "no")])
    error = user_error(build(tmp_path, ("none", "correct", path), relations=["publshed"]))
    assert "no relation 'publshed'" in error and "correct, derangement" in error


def test_a_right_label_more_is_counted(tmp_path):
    """The count of right labels among irrelevant responses is found in the data, row by row."""
    path = write(tmp_path / "own.json", [("a", "yes"), ("b", "no"), ("c", "no")])
    for outputs, expected in ((["no", "yes", "yes"], 0), (["no", "no", "yes"], 1), (["yes", "no", "no"], 3)):
        other = write(tmp_path / "other.json", list(zip("abc", outputs, strict=True)))
        sources = [("none", "correct", path), ("none", "published", other)]
        assert build(tmp_path, *sources, gold="none", relations=("correct", "published")).returncode == 0
        table = pl.read_parquet(tmp_path / "own.parquet").filter(pl.col("relation") == "published")
        assert table["label_equals_gold"].sum() == expected


def test_a_piece_of_one_sample_alone_gives_it_away():
    originals = {"a": "First of a. Shared words. Last of a", "b": "First of b.\nShared words. It is 3.5", "c": "yes"}
    found = trace(
        ["First of b. Shared words. Last of a", "Shared words", "It is 3.5. First of a", "yes", "new"], originals
    )
    assert found == [["b", "a"], [], ["b", "a"], ["c"], []]


def test_an_ending_of_one_sample_alone_is_its_own():
    originals = {"a": "One. Same end", "b": "Two. Same end", "c": "Well. It is hot. So yes"}
    responses = ["Two. It is hot", "One. So yes", "Well. Same end", "", "new"]
    assert endings(responses, originals) == [None, "c", None, None, None]


@needs_shared("paper_data")
def test_the_published_shuffle_is_traced_to_its_samples(tmp_path):
    """Of GSM8K's Detailed responses nearly all hold a piece of the next sample's, the base the study took."""
    folders = SHARED / "paper_data/cot_500", SHARED / "paper_data/cot_500_wrong_answer_shuffle"
    sources = [
        ("detailed", relation, folder / "gsm8k_train_with_cot_gpt4o.json")
        for relation, folder in zip(("correct", "published"), folders, strict=True)
    ]
    assert build(tmp_path, *sources, relations=("correct", "published")).returncode == 0
    rows = pl.read_parquet(tmp_path / "own.parquet").filter(pl.col("relation") == "published")
    bases = [str((int(i) + 1) % 500) in found for i, found in zip(rows["sample_id"], rows["sources"], strict=True)]
    assert sum(bases) / 500 > 0.97 and rows["sources"].list.len().min() >= 1


ROWS = st.lists(st.tuples(st.text("ab c.", min_size=1), st.sampled_from(["1", "2"])), min_size=1, max_size=8)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS, st.integers(0, 3), st.permutations(["none", "simplified", "detailed"]))
def test_same_seed_same_bytes_whatever_the_order_of_the_files(tmp_path, rows, seed, order):
    """The table's bytes depend on the files' content and the seed alone."""
    texts = {
        "none": [answer for _, answer in rows],
        "simplified": [f"{why}\nThe final answer is {answer}" for why, answer in rows],
        "detailed": [f"{why} Well. So {answer}." for why, answer in rows],
    }
    for variant, outputs in texts.items():
        write(tmp_path / f"{variant}.json", [(f"Q{i}", output) for i, output in enumerate(outputs)])
    made = []
    for variants in (sorted(texts), order):
        sources = [(v, "correct", tmp_path / f"{v}.json") for v in variants]
        chosen = {"variants": list(texts), "relations": ["correct", *BUILT], "gold": "none", "seed": seed}
        chosen = published_files(sources, **chosen)
        done = call("build_responses", "--dataset", "own", *chosen, "--output", tmp_path / "own.parquet")
        assert done.returncode == 0, done.stderr
        made.append((tmp_path / "own.parquet").read_bytes())
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"instruction": "a", "output": "\xff"}]', "line 1: not UTF-8 at byte 33 of the line"),
        (b'{"instruction": "a", "output": "b"}', "holds a JSON dict; give a list of"),
        (b"[]", "holds no entries"),
        (b"", "holds no entries"),
        (b"[1]", "row 0: not an object"),
        (b'[{"instruction": "a"}]', "row 0: 'output' is missing"),
        (b'[{"instruction": "a", "output": ""}]', "row 0: 'output' is not a text, or empty"),
        (b'[{"instruction": 3, "output": "b"}]', "row 0: 'instruction' is not a text"),
        (b'[{"instruction": "a", "output": "b\\ud800"}]', "row 0: 'output' contains half of a character"),
        (b'[{"instruction": "a", "output": "b"', "not JSON at line 1"),
    ],
)
def test_bad_files_name_file_row_and_key(content, message, tmp_path):
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    error = user_error(build(tmp_path, ("none", "correct", path)))
    assert f"{path}" in error and message in error and not (tmp_path / "own.parquet").exists()


def test_a_stated_checksum_of_a_users_own_file_is_checked(tmp_path):
    path = write(tmp_path / "own.json", [("a", "yes"), ("b", "no")])
    files = [{"variant": "none", "relation": "correct", "sha256": "0" * 64}]
    chosen = published_files([("none", "correct", path)], variants=["none"], relations=["correct"], files=files)
    done = call("build_responses", "--dataset", "own", *chosen, "--output", tmp_path / "o.parquet")
    assert "own.json: its sha256 is" in user_error(done) and not (tmp_path / "o.parquet").exists()


def test_a_file_that_the_settings_do_not_name_is_refused(tmp_path):
    path = write(tmp_path / "own.json", [("a", "yes"), ("b", "no")])
    chosen = published_files([("none", "correct", path)], variants=["none"], relations=["correct"], files=[])
    done = call("build_responses", "--dataset", "own", *chosen, "--output", tmp_path / "o.parquet")
    assert "--sources gives 1 files, the settings name 0" in user_error(done)
