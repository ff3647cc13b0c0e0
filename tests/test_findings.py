"""What a run found, in plain words: synthetic claims tables, and their opposites, on which sentences must differ."""

import json
import re

import altair as alt
import polars as pl
import pyarrow as pa
import pytest

from conftest import ROOT, call, user_error
from gradatlas.claims.rows import GRADIENTS
from gradatlas.claims.sentences import NOTE, SYMBOLS, sentences, without_findings
from gradatlas.claims.sheet import DynamicsClaim, GradientClaim, QualityClaim, read_claims
from gradatlas.claims.summary import MOST, ONE_TRAINING, UNTESTED, read_findings
from gradatlas.claims.tables import CLAIMS
from gradatlas.core.tables import write_table
from gradatlas.figures.findings import chart
from gradatlas.page.findings import findings as on_page
from gradatlas.page.glossary import read_glossary

SHEETS = {"claims": GradientClaim, "claims_dynamics": DynamicsClaim, "claims_quality": QualityClaim}
OF_SHEETS = {
    claim.claim: claim for name, kind in SHEETS.items() for claim in read_claims(kind, ROOT / f"config/{name}.tsv")
}
CONTRACT = [
    "study",
    "key",
    "statement",
    "as_claimed",
    "one_training",
    "effect",
    "low",
    "high",
    "unit",
    "models",
    "data",
    "verdict",
    "untrained",
    "untrained_tests",
    "claims",
    "more",
    "bounds",
    "tests",
]
# By verdict, a number and its interval, in units of the bound's own distance.
NUMBERS = {"holds": (2.0, 1.5, 2.5), "fails": (0.5, 0.4, 0.6), "inconclusive": (1.1, 0.9, 1.3)}


def row(claim="size", verdict="holds", model="mini", kind="base", **other):
    """A row of the claims table; `size` is above 1, in ratios."""
    value, low, high = NUMBERS[verdict]
    return dict.fromkeys(CLAIMS.names) | {
        "claim": claim, "statement": "", "study": GRADIENTS, "model": model, "dataset": "sums", "verdict": verdict,
        "value": value, "low": low, "high": high, "n": 80, "relation": "correct", "projection": "all", "reason": "",
        "status": "stands" if kind != "random" else "control", "claim_status": "stands", "source": "", "title": claim,
        "finding": f"gradients of {claim} are {{larger|smaller}}", "kind": kind, "reference_model": "",
        "reference_dataset": "", "statistic": "size ratio", "direction": "above", "threshold": 1.0, "test": "Wilcoxon",
        "p_value": 0.01, "p_adjusted": 0.01, "accuracies": "", "ability_test": "",
    } | other  # fmt: skip


def untrained(claim="size", verdict="holds", **other):
    return row(claim, verdict, model="blank", kind="random", **other)


def table(*rows):
    return pl.from_arrow(pa.Table.from_pylist(list(rows), schema=CLAIMS.schema))


def found(*rows):
    return read_findings(table(*rows), {"mini": "The miniature", "sums": "Sums"})[0]


def test_a_finding_states_what_the_tests_say_and_the_opposite_where_they_do():
    (holds,) = found(row(), row(model="other", value=3.0), untrained(verdict="fails"))
    assert holds.statement == "Gradients of size are larger" and (holds.verdict, holds.untrained) == ("holds", "not")
    assert holds.models == ["The miniature", "other"] and holds.data == ["Sums"] and holds.claims == ["size"]
    assert holds.more == "Holds in 2 of 2 tests. Effects: 2.00 to 3.00. In untrained networks: 0.500."
    (fails,) = found(row(verdict="fails"), row(verdict="fails", model="other"), untrained(verdict="fails"))
    assert fails.statement == "Gradients of size are smaller" and (fails.verdict, fails.untrained) == ("fails", "also")


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["holds", "holds", "inconclusive"], "holds"),
        (["holds", "inconclusive"], "unclear"),
        (["holds", "holds", "holds", "fails"], "unclear"),
        (["fails", "fails", "inconclusive"], "fails"),
        (["inconclusive"], "unclear"),
    ],
)
def test_tests_are_put_together_by_one_rule(verdicts, expected):
    rows = [row(verdict=verdict, model=f"m{i}") for i, verdict in enumerate(verdicts)]
    (finding,) = found(*rows, *(untrained(verdict=verdict, dataset=f"d{i}") for i, verdict in enumerate(verdicts)))
    assert finding.verdict == expected
    # Untrained networks by the same rule.
    assert finding.untrained == ("also" if expected != "unclear" else "open")
    begins = {"holds": "Gradients", "fails": "Gradients", "unclear": "It is unclear whether gradients"}
    begin = "It depends on model and data whether" if {"holds", "fails"} <= {*verdicts} else begins[expected]
    assert finding.statement.startswith(begin)


def test_the_effect_is_the_weakest_of_the_tests_with_the_verdict():
    (finding,) = found(
        row(value=61.0, low=50.0, high=70.0), row(model="b", value=3.0, low=2.0, high=4.0), row("size", "inconclusive"),
        row(model="c", value=9.0, low=8.0, high=10.0),
    )  # fmt: skip
    assert (finding.effect, finding.low, finding.high) == (3.0, 2.0, 4.0) and len(finding.tests) == 4
    within = {"direction": "within", "threshold": 0.0, "margin": 0.05, "finding": "they are {the same|different}"}
    (same,) = found(row(value=0.01, low=0.0, high=0.02, **within), row(model="b", value=-0.03, **within))
    assert same.effect == -0.03 and same.bounds == [-0.05, 0.05] and same.statement == "They are the same"


def test_what_was_not_judged_is_no_test_and_its_reason_is_given():
    unable = {"verdict": "inconclusive", "reason": "mini cannot do this", "p_adjusted": None}
    (finding,) = found(row(model="able"), row(**unable))
    assert finding.verdict == "holds" and finding.models == ["able"]
    assert finding.more == "Holds in 1 of 1 test. 1 more not tested (The miniature cannot do this)."
    (alone,) = found(row(**unable))
    assert alone.verdict == "unclear" and alone.more == "1 not tested (The miniature cannot do this)."
    assert alone.models == ["The miniature"] and [test.verdict for test in alone.tests] == [UNTESTED]
    # A number that could not be computed, and an exact one without p-value.
    (empty,) = found(row(**unable | {"value": None, "low": None, "high": None}))
    assert empty.effect is None
    (exact,) = found(row(test="exact", p_value=None, p_adjusted=None, low=None, high=None))
    assert exact.verdict == "holds" and exact.untrained == "unmeasured"


def test_one_training_is_stated_as_one_and_decides_no_claim():
    def seed(alone, **other):
        return row(verdict="inconclusive", p_adjusted=None, probes_alone=alone, **other)

    (holds,) = found(seed("holds"))
    assert holds.statement == "In one training (one seed) gradients of size are larger" and holds.verdict == "unclear"
    assert holds.as_claimed == f"The study claims the same. {ONE_TRAINING}" and "not over trainings" in NOTE
    assert holds.more == "One seed. Over its probes alone: holds in 1 of 1 number."
    numbers = [("holds", 2.0), ("holds", 2.0), ("inconclusive", 1.0)]
    several = found(*(seed(alone, value=value, model=alone) for alone, value in numbers))[0]
    assert several.effect == 2.0 and several.more == (
        "One seed. Over its probes alone: holds in 2, inconclusive in 1 of 3 numbers. Effects: 1.00 to 2.00."
    )
    (fails,) = found(seed("fails"))
    assert fails.statement == "In one training (one seed) gradients of size are smaller"
    assert fails.as_claimed.startswith("The study claims the opposite: gradients of size are larger.")
    unusable = seed("", model="b") | {"reason": "1 usable seed"}
    (beside,) = found(seed("holds"), unusable)
    assert beside.one_training and beside.more.endswith("1 of 1 number. 1 more not tested (1 usable seed).")
    (neither,) = found(seed("holds"), seed("fails", model="b"))
    assert neither.statement.startswith("It is unclear whether") and ONE_TRAINING in neither.as_claimed
    # A verdict over seeds beside them counts alone.
    (decided,) = found(seed("holds"), row(model="base, over seeds"))
    assert decided.statement == "Gradients of size are larger" and not decided.one_training
    assert (
        "1 of the unclear ones is of one training (one seed) alone, which cannot decide a claim."
        in sentences([holds])[0]
    )


@pytest.mark.parametrize("verdict", ["holds", "fails"])
def test_symbol_and_sentences_of_a_row_agree(verdict):
    """The symbol is before what the study claims, never before what was found."""
    (finding,) = found(row(verdict=verdict))
    opposite = verdict == "fails"
    assert SYMBOLS[finding.verdict] == ("✗" if opposite else "✓")
    assert ("opposite" in finding.as_claimed, "smaller" in finding.statement) == (opposite, opposite)


def test_one_of_several_seeds_and_what_is_not_requested_are_no_findings():
    several = [row(model=f"m{seed}", status="seed", verdict="fails") for seed in range(3)]
    (finding,) = found(*several, row(model="base, over seeds"))
    assert finding.verdict == "holds" and finding.models == ["base, over seeds"]
    frame = table(row(status="not_asked", verdict="inconclusive", reason="needs run dpo"), row("plain", finding=""))
    assert read_findings(frame, {}) == ([], ["gradients of size are larger: needs run dpo"])


def test_at_most_six_of_a_study_tested_ones_first_and_the_others_named():
    rows = [row(f"c{i}", p_adjusted=None, verdict="inconclusive", reason="1 seed") for i in range(4)]
    rows += [row(f"d{i}") for i in range(4)] + [row(f"e{i}", study="data_quality") for i in range(2)]
    shown, left_out = read_findings(table(*rows), {})
    assert [each.key for each in shown] == ["d0", "d1", "d2", "d3", "c0", "c1", "e0", "e1"] and MOST == 6
    assert left_out == [
        f"It is unclear whether gradients of c{i} are larger: the study has 6 other findings" for i in (2, 3)
    ]


def test_sentences_say_what_the_numbers_say():
    first, second, third = sentences(
        found(
            row("size"), untrained("size"), row("wrong"), untrained("wrong", "inconclusive"),
            row("DPO", finding="DPO is {good|bad}", verdict="fails"), row("odd", "inconclusive"),
        )
    )  # fmt: skip
    assert first == "Of 4 findings, 2 hold as claimed, 1 is the opposite of a claim, and 1 is unclear."
    assert second == (
        "2 of the decided findings were tested on an untrained network too. It shows 1, so training is not needed for "
        "them: that gradients of size are larger. It does not show 1, such as that gradients of wrong are larger."
    )
    assert third == "Found, against a claim: DPO is bad."


def test_on_the_opposite_table_sentences_say_the_opposite():
    names = ("size", "wrong", "length")
    holds = sentences(found(*(each(name, "holds") for name in names for each in (row, untrained))))
    fails = sentences(found(*(each(name, "fails") for name in names for each in (row, untrained))))
    assert holds[0] == "Of 3 findings, 3 hold as claimed, 0 are the opposite of a claim, and 0 are unclear."
    assert fails[0] == "Of 3 findings, 0 hold as claimed, 3 are the opposite of a claim, and 0 are unclear."
    assert holds[1] == fails[1] and holds[1].startswith("An untrained network shows all 3 decided findings")
    assert holds[2].startswith("No claim turned out the opposite; in most tests it holds that gradients of size are l")
    assert "gradients of size are smaller; gradients of wrong are smaller, and 1 more" in fails[2]
    # The same effects, of which the untrained network shows none.
    learnt = sentences(found(*(row(name) for name in names), *(untrained(name, "fails") for name in names)))
    assert "untrained network too. It does not show 3" in learnt[1] and "gradients of size are larger" in learnt[1]
    unmeasured = sentences(found(*map(row, names)))
    assert unmeasured[1].startswith("No untrained network was measured")
    nothing = sentences(found(row("size", "inconclusive"), untrained("size")))
    assert nothing[1].startswith("Nothing was decided") and "Inconclusive in 1 of 1 test" in nothing[2]
    assert all(len(each) == 3 for each in (holds, fails, learnt, unmeasured, nothing, without_findings([])))


def test_the_commands_write_page_and_figure(tmp_path):
    nasty = "A|B*\n"
    write_table(CLAIMS, [row(), untrained(), row("small", "fails")], tmp_path / "claims.parquet", {})
    words = {"titles": {"mini": nasty}, "measured": [["mini", "sums"], ["mini", "own"]]}
    given = ("--claims", tmp_path / "claims.parquet", "--settings", json.dumps(words))
    done = call("write-findings", *given, "--figure", tmp_path / "drawn/f", "--output", tmp_path / "findings")
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "findings.json").read_text())
    assert set(facts) == {"sentences", "findings", "left_out", "no_claim"} and len(facts["sentences"]) == 3
    assert [list(each) for each in facts["findings"]] == [CONTRACT] * 2 and facts["no_claim"] == [f"{nasty} on own"]
    text = (tmp_path / "findings.md").read_text()
    assert (
        "![Layer gradients: effects with their intervals](drawn/f_gradients.svg)" in text
        and facts["sentences"][0] in text
    )
    against = (
        "Gradients of small are smaller | ✗ The study claims the opposite: gradients of small are larger. | 0.500 "
    )
    assert against in text and "[glossary](more.html#terms)" in text
    assert "A\\|B\\* " in text and "no claim is about it: A\\|B\\*  on own" in text
    figure = ("--findings", tmp_path / "findings.json", "--formats", "svg", "--figure", tmp_path / "drawn/f")
    (tmp_path / "drawn").mkdir()
    assert call("draw-findings", *figure).returncode == 0
    drawn = (tmp_path / "drawn/f_gradients.svg").read_text()
    assert all(each in drawn for each in ("Gradients of size are larger", "Size ratio", "untrained network"))
    (tmp_path / "findings.json").write_text("[]")
    assert "make it again with write-findings" in user_error(call("draw-findings", *figure))


def test_own_data_have_no_claims_and_what_stands_is_stated(tmp_path):
    words = json.dumps({"titles": {"mini": "The miniature"}, "measured": [["mini", f"d{i}"] for i in range(5)]})
    done = call("write-findings", "--settings", words, "--figure", "f", "--output", tmp_path / "findings")
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "findings.json").read_text())
    assert facts["findings"] == [] and "No claim" in facts["sentences"][0]
    measured = "The miniature on d0; The miniature on d1; The miniature on d2; 2 more"
    assert facts["sentences"][1] == f"Measured: {measured}."
    text = (tmp_path / "findings.md").read_text()
    assert "without a verdict" in text and "svg" not in text and "| " not in text


def test_every_finding_of_the_sheets_reads_either_way():
    marked = [claim for claim in OF_SHEETS.values() if claim.finding]
    for study in {claim.study for claim in OF_SHEETS.values()}:
        assert any(claim.study == study for claim in marked)
    for claim in marked:
        assert claim.finding[0].islower() or claim.finding[1].isupper(), claim.claim
        assert not re.search(r"[.;:]|None|Detailed|MAD|\bRD\b", claim.finding), (
            f"{claim.claim}: plain words, one sentence"
        )
        ours = {"finding": claim.finding, "claim": claim.claim, "study": claim.study}
        (holds,), (fails,) = found(row(**ours)), found(row(**ours, verdict="fails"))
        assert holds.statement != fails.statement and "{" not in holds.statement + fails.statement


def test_the_figure_has_an_axis_a_unit_and_a_mark_a_test():
    share = {"statistic": "signed RD", "threshold": 0.0, "value": -40.0, "low": None, "high": None}
    rows = [row(untrained=0.9), row(model="b"), row("wrong", **share), row("far", value=400.0, high=500.0)]
    facts = json.loads(json.dumps([vars(each) | {"tests": list(map(vars, each.tests))} for each in found(*rows)]))
    drawn = chart(facts, GRADIENTS).to_dict(validate=True)
    titles = [panel["layer"][0]["encoding"]["x"]["axis"]["title"] for panel in drawn["vconcat"]]
    assert titles == ["Size ratio, log axis", "Signed RD"]
    marks = [each for data in drawn["datasets"].values() for each in data]
    kinds = [each["kind"] for each in marks if "kind" in each]
    assert kinds.count("holds") == 4 and kinds.count("untrained network") == 1
    assert isinstance(chart([], GRADIENTS), alt.Chart)


def test_a_row_of_the_page_has_round_numbers_on_its_axis(tmp_path):
    """On a log axis where ratios span a decade; each where an effect of that size would be."""
    share = {"statistic": "signed RD", "threshold": 0.0, "low": None, "high": None}
    rows = [row("far", value=40.0, low=4.0, high=400.0), row("near", value=3.0, low=2.0, high=4.0)]
    rows += [row("wrong", value=-40.0, **share), row("same", value=0.0, **share)]
    facts = [vars(each) | {"tests": list(map(vars, each.tests))} for each in found(*rows)]
    (tmp_path / "f.json").write_text(json.dumps({"findings": facts, "sentences": [], "left_out": []}))
    ((_, shown),) = on_page(tmp_path / "f.json")["studies"]
    ticks = {each["claims"][0]: dict(map(reversed, each["ticks"])) for each in shown}
    assert {claim: " ".join(numbers) for claim, numbers in ticks.items()} == {
        "far": "1 10 100", "near": "1 2 3 4", "wrong": "−40 −30 −20 −10 0", "same": "",
    }  # fmt: skip
    places = {each["claims"][0]: each["dots"][0][0] for each in shown}
    assert places["near"] == ticks["near"]["3"] and places["wrong"] == ticks["wrong"]["−40"] == 3
    assert ticks["far"]["10"] < places["far"] < ticks["far"]["100"]


def test_the_claims_table_opens_with_what_a_reader_needs():
    opening = ["claim", "statement", "study", "model", "dataset", "verdict", "value", "low", "high", "n", "untrained"]
    assert CLAIMS.names[: len(opening)] == opening


def test_every_unit_of_a_finding_is_in_the_glossary():
    meanings = read_glossary(ROOT / "docs/glossary.md").meanings
    units = {claim.statistic for claim in OF_SHEETS.values() if claim.finding}
    assert len(units) > 8 and units <= set(meanings)
