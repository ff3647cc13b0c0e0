"""Graded training data, and the recall of its planted faults."""

import json
from collections import Counter

import numpy as np
import polars as pl
import pytest

from gradatlas.core.errors import InputError
from gradatlas.data.jobs import GradedSettings, make_graded
from gradatlas.data.made_up.graded import CLEAN, GRADES, graded_rows
from gradatlas.data.made_up.miniature import held_out
from gradatlas.data.responses.sentences import split_text
from gradatlas.data.samples import FINAL, label_of
from gradatlas.figures.jobs import RecallSettings, recall_faults
from gradatlas.statistics.recall import found_among, recall
from made_scores import write_scores

ROWS = graded_rows(40, 10, 0)
BY_GROUP = {name: [row for row in ROWS if row["group"] == name] for name in GRADES}
CLEAN_ONES = {row["instruction"]: row["output"] for row in BY_GROUP[CLEAN]}


# By question, the right response of the grammar. 90 questions of the rows are of these 94.
GOOD = {
    sample.instructions["detailed"]: sample.responses["detailed", "correct"]
    for name in ("mini_arithmetic", "mini_taxonomy")
    for sample in held_out(name, 47, 0)
}


def right(row):
    return GOOD[row["instruction"]]


def test_there_are_as_many_of_each_as_asked_for_and_the_file_is_the_same_every_time(tmp_path):
    assert Counter(row["group"] for row in ROWS) == {CLEAN: 40} | {name: 10 for name in GRADES if name != CLEAN}
    assert all(row["grade"] == GRADES[row["group"]] for row in ROWS)
    assert len({row["id"] for row in ROWS}) == len(ROWS)
    for name in ("one", "two"):
        make_graded(output=tmp_path / name, settings=GradedSettings(40, 10, 0))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert [json.loads(line) for line in (tmp_path / "one").read_text().splitlines()] == ROWS
    assert graded_rows(40, 10, 1) != ROWS
    # In no order that tells the fault.
    assert [row["group"] for row in ROWS[:20]].count(CLEAN) < 15


def test_each_fault_is_what_its_name_says():
    assert len(CLEAN_ONES) == 40
    assert all(CLEAN_ONES[row["instruction"]] == row["output"] for row in BY_GROUP["duplicated"])
    for row in BY_GROUP["shuffled"]:
        # The same sentences in another order, the same answer at the end.
        good = right(row)
        parts = [split_text(text.rsplit(FINAL, 1)[0]).sentences for text in (row["output"], good)]
        assert sorted(parts[0]) == sorted(parts[1]) and parts[0] != parts[1]
        assert label_of(row["output"]) == label_of(good)
    for row in BY_GROUP["contradictory"]:
        good = right(row)
        assert row["output"].rsplit(FINAL, 1)[0] == good.rsplit(FINAL, 1)[0]
        assert label_of(row["output"]) != label_of(good)
    for row in BY_GROUP["noisy"]:
        good, words = right(row).split(), row["output"].split()
        changed = sum(one != other for one, other in zip(good, words, strict=True))
        assert 2 <= changed <= 0.25 * len(words) and label_of(row["output"]) == label_of(right(row))
    for row in BY_GROUP["mismatched"]:
        assert row["output"] != right(row) and FINAL in row["output"]
    for row in BY_GROUP["word_salad"]:
        assert len(row["output"].split()) == len(right(row).split())
    lengths = {name: np.mean([len(row["output"].split()) for row in rows]) for name, rows in BY_GROUP.items()}
    assert lengths["too_easy"] < 0.8 * lengths[CLEAN]
    assert all(0.75 < lengths[name] / lengths[CLEAN] < 1.3 for name, grade in GRADES.items() if not grade)


def test_no_question_was_trained_on():
    asked = [row["instruction"] for row in ROWS if row["group"] not in ("too_easy", "duplicated")]
    assert len(set(asked)) == len(asked) and set(asked) <= set(GOOD)


def test_recall_and_its_curve_against_counting():
    rng = np.random.default_rng(1)
    planted, others = rng.integers(0, 6, 7).astype(float), rng.integers(0, 5, 20).astype(float)
    # Ties in random order: the mean over many orders.
    found = np.zeros(27)
    for _ in range(4000):
        keys = np.concatenate([planted, others]) + rng.uniform(0, 0.5, 27)
        found += np.cumsum(np.argsort(-keys) < 7)
    assert found_among(planted, others) == pytest.approx(found / 4000, abs=0.08)
    assert recall(planted[None], others[None])[0] == pytest.approx(found_among(planted, others)[6] / 7)
    assert recall(np.array([[3.0, 2.0]]), np.array([[1.0, -np.inf]]))[0] == 1


def test_a_planted_fault_is_found_and_copies_are_not(tmp_path):
    rng = np.random.default_rng(0)
    groups = [CLEAN] * 60 + ["noisy"] * 20 + ["duplicated"] * 20
    loss = np.concatenate([rng.uniform(1, 2, 60), rng.uniform(1.8, 3, 20)])
    loss = np.concatenate([loss, loss[:20]])
    tokens = rng.integers(20, 60, 100)
    norm = rng.lognormal(0, 1, 80)
    norm = np.concatenate([norm, norm[:20]])
    scores = write_scores(tmp_path / "in", tokens, loss, norm, norm + 1, groups)
    settings = RecallSettings(draws=200, models={"made": "Made"})
    recall_faults(scores=[scores], output=tmp_path / "out", formats=["svg", "png"], settings=settings)
    frame = pl.read_parquet(tmp_path / "out" / "recall.parquet")

    def of(fault, number, end="high"):
        return frame.filter(fault=fault, number=number, end=end).row(0, named=True)

    assert of("noisy", "loss")["low"] > 0.7 > of("noisy", "loss")["chance_high"]
    assert of("noisy", "nuclear_norm")["low"] < of("noisy", "nuclear_norm")["chance"] == 0.25
    copies = of("duplicated", "loss")
    assert copies["low"] < copies["chance"] < copies["high"]
    assert of("wrong", "loss")["samples"] == 100 and of("wrong", "loss")["planted"] == 20
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *(f"recall.{end}" for end in ("parquet", "csv", "md", "tex", "svg", "png", "caption.md")),
        *(f"curves.{end}" for end in ("parquet", "svg", "png", "caption.md")),
    }
    assert "no score of single samples can find it" in (tmp_path / "out" / "recall.md").read_text()
    plain = write_scores(tmp_path / "plain", [5] * 5, [1.0] * 5, [1.0] * 5, [1.0] * 5, ["a"] * 5)
    with pytest.raises(InputError, match="no row is in a group of a known fault"):
        recall_faults(scores=[plain], output=tmp_path / "no", formats=["svg"], settings=settings)
