"""Claims without a usable sample have a row; what a model can do, by which of two responses it finds likelier."""

import json

import numpy as np
import polars as pl
import pytest
from scipy import stats

from conftest import call, settings
from gradatlas.claims.ability import Ability, abilities, read
from gradatlas.claims.rows import GRADIENTS, STAND_IN, rows
from gradatlas.claims.two_alternative import two_alternative
from gradatlas.claims.views import LOST
from gradatlas.core.tables import write_table
from gradatlas.figures.verdicts import heading, matrix_chart, write_verdicts
from gradatlas.miniature.tables import ACCURACY
from gradatlas.page.titles import Titles
from gradatlas.page.verdicts import verdicts as atlas_verdicts
from test_atlas import read as read_piece
from test_claims import CASES, CLAIMS, SAMPLES, SHEET, cell, measured, verdicts, view
from test_partial import gradients


def without_samples(one):
    """The same view with all its cells lost, and those of what it is compared with."""
    if one is None:
        return None
    others = {name: without_samples(other) for name, other in one.others.items()}
    lost = {"lost": frozenset(one.cells), "cells": {}, "others": others}
    return one.__class__(
        **one.__dict__ | lost | {name: without_samples(getattr(one, name)) for name in ("base", "untrained")}
    )


@pytest.mark.parametrize("name", CASES)
def test_a_claim_without_a_usable_sample_has_its_row(name):
    one = CASES[name][0]
    found = [each for each in measured(one, CLAIMS[name]) if each.projection == "all"]
    assert found and not any(each.reason == LOST for each in found)
    lost = measured(without_samples(one), CLAIMS[name])
    keys = ("relation", "projection", "reference_model", "reference_dataset", "scale")
    assert [[getattr(each, key) for key in keys] for each in lost] == [
        [getattr(each, key) for key in keys] for each in found
    ]
    assert all(each.reason == LOST and each.n == 0 and np.isnan(each.value) for each in lost)


def test_only_what_lacks_a_sample_is_reported_as_lacking_one(tmp_path):
    # Detailed's wrong responses are lost; None's are not, and no controls were measured at all.
    one = view(*[cell(v, relation) for v in ("none", "detailed") for relation in ("correct", "derangement")])
    key = ("detailed", "derangement", "all")
    cells = {name: each for name, each in one.cells.items() if name != key}
    one = one.__class__(**one.__dict__ | {"cells": cells, "lost": frozenset([key])})
    stated = {name for name, claim in CLAIMS.items() if any(each.reason == LOST for each in measured(one, claim))}
    assert stated == {"separable_detailed", "early_rd", "length_matched", "loss_matched"}


def test_the_commands_say_it(tmp_path):
    """By the commands: a model whose samples are all too long beside one that was measured, and its ability."""
    names = ("good", "empty")
    paths = [gradients(tmp_path, "good"), gradients(tmp_path, "empty", status="no_response_tokens")]
    rows = [{"model": name, "kind": "base"} for name in names]
    sheets = ("--claims", SHEET)
    done = call(
        "gather_evidence", "--dataset", "d", "--samples", *(one for one, _ in paths), "--spectra",
        *(other for _, other in paths), *settings(models=rows, draws=50, seed=0), *sheets,
        "--output", tmp_path / "evidence.parquet", "--accuracy", tmp_path / "of_two.parquet",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    given = ("--evidence", tmp_path / "evidence.parquet", "--accuracy", tmp_path / "of_two.parquet")
    done = call("test_claims", *given, *sheets, "--output", tmp_path / "claims")
    assert done.returncode == 0, done.stderr
    claims = pl.read_parquet(tmp_path / "claims.parquet").filter(pl.col("projection") == "all")
    good, empty = (claims.filter(pl.col("model") == name) for name in names)
    # Loss and length are constants in these tables: what cannot be told apart has no row for the good one.
    assert set(empty["claim"]) - set(good["claim"]) == {"loss_and_length", "left_over"} and good.height > 5
    assert set(empty["reason"]) == {LOST} and set(empty["verdict"]) == {"inconclusive"} and set(empty["n"]) == {0}
    assert LOST not in set(good["reason"])
    able = abilities(read([tmp_path / "of_two.parquet"]))
    assert {model for model, _ in able} == {"good"} and set(good["chance"].drop_nulls()) == {0.5}


def pairs(right, n=SAMPLES, **lengths):
    """A share of `right` of the questions whose correct answer has the higher log-probability."""
    worse = np.where(np.arange(n) < round(right * n), 2.0, 0.5)
    return view(
        cell("none", n=n, loss=np.ones(n), response_tokens=np.full(n, 4.0)),
        cell("none", "derangement", n=n, loss=worse, response_tokens=np.full(n, lengths.get("wrong", 4.0))),
    )


def test_which_of_two_is_counted_by_hand():
    [row] = two_alternative(pairs(0.7))
    low, high = stats.binomtest(56, 80).proportion_ci(method="wilson")
    assert (row["correct"], row["n"], row["accuracy"], row["chance"]) == (56, 80, 0.7, 0.5)
    assert (row["low"], row["high"]) == pytest.approx((low, high)) and row["test"] == "two_alternative"
    # Summed over tokens: a wrong response of one token in place of four is the likelier one.
    [row] = two_alternative(pairs(0.7, wrong=1.0))
    assert row["correct"] == 0
    # A loss that is a sum already is not multiplied again.
    one = pairs(0.7, wrong=1.0)
    [row] = two_alternative(one.__class__(**one.__dict__ | {"loss_norm": "sum"}))
    assert row["correct"] == 56
    # A tie is no preference, and what is not known counts nowhere.
    tied = view(cell("none", loss=np.ones(SAMPLES)), cell("none", "derangement", loss=np.ones(SAMPLES)))
    assert [row["correct"] for row in two_alternative(tied)] == [0]
    unknown = view(cell("none", loss=np.full(SAMPLES, np.nan)), cell("none", "derangement"))
    assert list(two_alternative(unknown)) == []
    assert list(two_alternative(view(cell("none")))) == []


def test_derangement_before_a_wrong_answer_and_each_variant():
    names = [("none", "wrong_answer"), ("detailed", "wrong_answer"), ("detailed", "derangement")]
    worse = {"derangement": 2.0, "wrong_answer": 0.5}
    cells = [cell(v, loss=np.ones(SAMPLES)) for v in ("none", "detailed")]
    cells += [cell(v, relation, loss=np.full(SAMPLES, worse[relation])) for v, relation in names]
    assert {row["variant"]: row["accuracy"] for row in two_alternative(view(*cells))} == {"none": 0.0, "detailed": 1.0}


# The lower bound must lie above .6: 61 of 80 have .66, 57 of 80 have .605, 56 of 80 have .592.
@pytest.mark.parametrize(("right", "verdict"), [(61 / 80, "holds"), (57 / 80, "holds"), (56 / 80, "inconclusive")])
def test_no_verdict_where_right_and_wrong_are_not_distinguished(right, verdict, tmp_path):
    write_table(ACCURACY, list(two_alternative(pairs(right))), tmp_path / "of_two.parquet", {})
    known = abilities(read([tmp_path / "of_two.parquet"]))
    views = [CASES["size_none_detailed"][0]]
    table = verdicts(tmp_path, views, [CLAIMS["size_none_detailed"]], known)
    assert set(table["verdict"]) == {verdict}
    stated = f"None {right:.2f} of two"
    assert set(table["accuracies"]) == {stated}
    if verdict == "inconclusive":
        assert set(table["reason"]) == {"m does not separate right from wrong with None (0.70 of two, chance 0.50)"}


def test_figure_table_and_page_say_where_the_likelier_of_two_is_used(tmp_path):
    """Model `m` has answers of its own, `hub` has not."""
    found = {}
    for test, name in (("answer", "m"), ("two_alternative", "hub")):
        found[name, "d"] = Ability(test, {"none": (0.9, 0.8, 1.0), "detailed": (1.0, 0.9, 1.0)}, 0.5)
    claim = CLAIMS["size_none_detailed"]
    cells = CASES["size_none_detailed"][0].cells.values()
    both = [view(*cells), view(*cells, model="hub")]
    for models, used in ((both, True), (both[:1], False)):
        table = verdicts(tmp_path, models, [claim], found)
        tests = dict(table.select("model", "ability_test").iter_rows())
        assert tests == ({"m": "answer", "hub": "two_alternative"} if used else {"m": "answer"})
        shown = rows(table, {})
        text = json.dumps(matrix_chart(shown).to_dict())
        assert ('"text": "1*"' in text) == used and ('"text": "1"' in text) == (not used)
        assert (f"* Here {STAND_IN}" in heading(shown, GRADIENTS).paragraphs) == used
        write_verdicts(tmp_path / "claims.parquet", tmp_path / "claims.md")
        text = (tmp_path / "claims.md").read_text()
        assert (STAND_IN in text) == used and "asks little of long responses" in STAND_IN
        header, *lines = (line.split(" | ") for line in text.splitlines() if line.startswith(("| Mod", "| m", "| h")))
        at = [name.removesuffix(" |") for name in header].index("Ability by")
        by = {line[0]: line[at].removesuffix(" |") for line in lines}
        assert by == {"| m": "own answers"} | ({"| hub": "likelier of two responses"} if used else {})
        page = atlas_verdicts(tmp_path / "claims.parquet", Titles({}))
        assert (STAND_IN in page["note"]) == used
        numbers = read_piece(page["piece"])
        at, of = (numbers["header"].index(name) for name in ("Ability by", "Model"))
        result = {row[of]: row[at] for own in numbers["rows"].values() for row in own}
        assert result == {"m": "own answers"} | ({"hub": "likelier of two responses"} if used else {})


def test_answers_of_its_own_come_first(tmp_path):
    rows = list(two_alternative(pairs(0.9)))
    own = rows[0] | {"test": "answer", "accuracy": 0.1, "low": 0.05, "high": 0.2, "chance": 0.1, "variant": "detailed"}
    for name, table in (("both", [*rows, own]), ("other", [*rows, own | {"model": "else"}])):
        write_table(ACCURACY, table, tmp_path / f"{name}.parquet", {})
    assert abilities(read([tmp_path / "both.parquet"]))["m", "d"].test == "answer"
    found = abilities(read([tmp_path / "other.parquet"]))
    assert found["m", "d"].test == "two_alternative" and found["else", "d"].test == "answer"
