"""Every claim on made-up cells on which it must hold, fail and stay inconclusive; and the rule of verdicts."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy import stats

from colours import meanings_of
from conftest import ROOT, call, settings, user_error
from gradatlas.charts import theme
from gradatlas.claims.ability import Ability
from gradatlas.claims.controls import matched
from gradatlas.claims.gather import MEASURES, _compared, _rows
from gradatlas.claims.rows import GRADIENTS, read_rows, rows
from gradatlas.claims.sheet import GradientClaim, read_claims
from gradatlas.claims.tables import EVIDENCE, TOY
from gradatlas.claims.verdicts import decide, holm
from gradatlas.claims.views import View, estimates
from gradatlas.core.errors import InputError
from gradatlas.core.sheets import read_sheet
from gradatlas.core.tables import read_metadata, read_table, write_table
from gradatlas.figures.verdicts import (
    SHAPES,
    blocks,
    columns_of,
    draw_verdicts,
    heading,
    matrix_chart,
    models_of,
    write_verdicts,
)
from gradatlas.gradients import tables as gradient_tables
from gradatlas.page.verdicts import verdicts as atlas_verdicts
from gradatlas.statistics.cells import Cell, cut
from gradatlas.statistics.regression import regress
from gradatlas.statistics.tables import PER_SAMPLE
from gradatlas.study.sheets import ModelRow
from test_statistics import tables

SHEET = ROOT / "config/claims.tsv"
CLAIMS = {claim.claim: claim for claim in read_claims(GradientClaim, SHEET)}
LAYERS, PROJECTIONS, SAMPLES = 12, ("q", "k", "v", "o"), 80
JAGGED = 1 + 0.5 * (np.arange(LAYERS) % 2)


def cell(variant, relation="correct", tokens="all", *, scale=1.0, curve=JAGGED, noise=0.1, n=SAMPLES, seed=0, **given):
    """A cell whose samples are a curve times a scale, with noise of their own; `given`: loss and response_tokens."""
    random = np.random.default_rng([seed, *f"{variant} {relation} {tokens}".encode()])
    spread = np.exp(noise * random.normal(size=(n, 1, 1)))
    values = np.asarray(scale).reshape(-1, 1, 1) * spread * np.broadcast_to(curve, (n, len(PROJECTIONS), len(curve)))
    values = values * np.exp(0.01 * random.normal(size=values.shape))
    given = {"loss": np.exp(0.3 * random.normal(size=n)), "response_tokens": np.full(n, 10.0)} | given
    ids = tuple(map(str, range(n)))
    return Cell("m", variant, relation, tokens, "study", ids, PROJECTIONS, **given, values={"nuclear_norm": values})


def view(*cells, **given):
    keyed = {(each.variant, each.relation, each.loss_tokens): each for each in cells}
    given = {"dataset": "d", "model": "m", "kind": "base", "task": "knowledge"} | given
    return View(cells=keyed, draws=200, seed=0, **given)


# What is loud enough to drown any effect, and still within one sample of the bound on average.
LOUD = 3.0


def ratio(of, to, holds, fails, doubtful):
    """Three views of two variants whose sizes are so many times one another."""
    return [view(cell(of, scale=s), cell(to)) for s in (holds, fails)] + [
        view(cell(of, scale=doubtful, noise=LOUD), cell(to, noise=LOUD))
    ]


def mad(of, to, bound):
    """The same for the jumps of mean curves; in doubt where they are the bound itself, with noise."""
    return ratio(of, to, 3 * bound, bound / 3, bound)


def rd(variant, relation, doubtful=LOUD):
    wrong = [cell(variant, relation, scale=s) for s in (2.0, 0.5)] + [cell(variant, relation, noise=doubtful)]
    return [view(cell(variant), each) for each in wrong]


def equal(*variants):
    """No difference, a large one, and one that noise hides."""
    wrong = [(1.0, 0.01), (1.5, 0.01), (1.0, LOUD)]
    return [
        view(
            *(cell(v, noise=noise) for v in variants), *(cell(v, "derangement", scale=s, noise=noise) for v in variants)
        )
        for s, noise in wrong
    ]


def early(*factors):
    """Curves whose first layers are so many times the others."""
    return [np.where(np.arange(LAYERS) < LAYERS // 4, factor, 1.0) for factor in factors]


def jumps(layers=2):
    """Wrong responses that differ more in the first layers, less, and by as much."""
    cases = []
    for factor, noise in ((3.0, 0.1), (0.3, 0.1), (1.0, 0.1)):
        curve = np.where(np.arange(LAYERS) < layers, factor, 1.0) * JAGGED * 2
        cases.append(view(cell("detailed"), cell("detailed", "derangement", curve=curve, noise=noise)))
    return cases


def instructed(doubt, *cases):
    """An instructed model's cells beside its base model's."""
    made = []
    for own, base in (*cases, doubt):
        made.append(view(*own, kind="instruct", base=view(*base, model="b")))
    return made


def wrong(scale, noise=0.1):
    return [cell("detailed", noise=noise), cell("detailed", "derangement", scale=scale, noise=noise, seed=1)]


def fast(scale, noise=0.1, seed=0):
    return [cell("none", scale=scale, noise=noise, seed=seed), cell("detailed", noise=noise, seed=seed)]


def lengths(doubtful):
    straight = np.linspace(1, 2, LAYERS)
    bent = [straight * 3, straight[::-1].copy()]
    made = [view(cell("length_short", curve=straight), cell("length_long", curve=curve)) for curve in bent]
    return [*made, doubtful]


def rough(variant, curve, seed):
    """A cell in which each sample has a curve of its own, so that the mean curve is uncertain."""
    one = cell(variant, curve=curve, noise=0.0, seed=seed)
    values = one.values["nuclear_norm"] * np.exp(np.random.default_rng(seed).normal(size=(SAMPLES, 1, LAYERS)))
    return Cell(**{**one.__dict__, "values": {"nuclear_norm": values}})


def tilted(variant):
    """As many samples whose early layers are the larger as samples whose early layers are the smaller."""
    one = cell(variant, curve=np.ones(LAYERS), noise=0.0)
    tilt = np.where(np.arange(LAYERS) < LAYERS // 4, 0.5, -0.5) * np.where(np.arange(SAMPLES) % 2, 1, -1)[:, None]
    return Cell(**{**one.__dict__, "values": {"nuclear_norm": one.values["nuclear_norm"] * np.exp(tilt)[:, None]}})


def datasets(pair, doubt=LOUD, within=False):
    (name, variant), (other, other_variant) = (part.split(":") for part in pair.split("/"))
    sizes = [(1.0, 0.05), (2.0, 0.05), (1.0, doubt)] if within else [(2.0, 0.1), (0.5, 0.1), (1.0, doubt)]
    return [
        view(
            cell(variant, scale=s, noise=noise),
            dataset=name,
            others={other: view(cell(other_variant, noise=noise, seed=3), dataset=other)},
        )
        for s, noise in sizes
    ]


def humps(count):
    layers = np.arange(LAYERS)
    centres = [(i + 0.5) * LAYERS / count for i in range(count)]
    return 1.0 + sum(10 * np.exp(-((layers - centre) ** 2) / 1.5) for centre in centres) if count else np.ones(LAYERS)


def peaks(count, other):
    """As many peaks as claimed, other ones, and half of the draws each way."""
    high = max(count, other)
    edge = rough("detailed", np.where(humps(high) > 3, 1.3, 1.0), 5)
    return [view(cell("detailed", curve=humps(count))), view(cell("detailed", curve=humps(other))), view(edge)]


def by_loss_and_length(noise, left, seed=8, lengths=(2.0, 20.0, 100.0)):
    """Sizes that loss and length explain (to a share), and None's share beyond that."""
    random = np.random.default_rng(seed)
    made = []
    variants, levels = ("none", "simplified", "detailed"), (left, 1.0, 1.0)
    for variant, tokens, extra in zip(variants, lengths, levels, strict=True):
        loss = np.exp(random.normal(size=SAMPLES))
        length = tokens * np.exp(0.5 * random.normal(size=SAMPLES))
        size = extra * loss**0.7 * length**-0.3 * np.exp(noise * random.normal(size=SAMPLES))
        made.append(cell(variant, scale=size, noise=0.0, loss=loss, response_tokens=length))
    return view(*made)


def left_over(case):
    """None's own size beyond loss and length, where the variants' lengths overlap."""
    noise, left = {"holds": (0.3, 3.0), "fails": (0.3, 1 / 3), "inconclusive": (3.0, 1.0)}[case]
    return by_loss_and_length(noise, left, lengths=(15.0, 20.0, 30.0))


def believed(follows, mistaken=0.5):
    """Right and wrong answers; in a share of `follows` the one of larger loss has the larger gradient."""
    random = np.random.default_rng(11)
    right, wrong = np.full(SAMPLES, 2.0), np.where(random.random(SAMPLES) < mistaken, 1.0, 3.0)
    agrees = np.arange(SAMPLES) % 20 < round(20 * follows)
    size = np.where((wrong > right) == agrees, 2.0, 0.5)
    return view(cell("none", noise=0.0, loss=right), cell("none", "wrong_answer", scale=size, noise=0.0, loss=wrong))


def concentrated(exponent, noise=0.05):
    random = np.random.default_rng(13)
    evenness, loss = np.exp(-random.random(SAMPLES)), np.exp(random.normal(size=SAMPLES))
    size = loss**0.5 * evenness**exponent
    return view(
        cell("detailed", scale=size, noise=noise, loss=loss, response_tokens=np.exp(random.normal(size=SAMPLES)) * 50),
        concentration={("detailed", "correct", "all"): evenness},
    )


def few(scale, whole=1.0, noise=0.1):
    drawn = [cell("detailed", tokens=f"random:matched:{i}", scale=scale, noise=noise) for i in range(2)]
    return view(cell("none", noise=noise), cell("detailed", scale=whole, noise=noise), *drawn)


def alike(by):
    """Wrong responses of similar lengths (or losses), each to another question, and twice, half, about as large."""
    values = np.exp(np.random.default_rng(17).normal(size=SAMPLES))
    own, given = {by: values}, {by: np.roll(values, 1)}
    cells = [cell("detailed", "derangement", scale=s, **given) for s in (2.0, 0.5)]
    cells.append(cell("detailed", "derangement", noise=LOUD, **given))
    return [view(cell("detailed", **own), each) for each in cells]


CASES = {
    "mad_none_detailed": mad("none", "detailed", 10),
    "mad_none_simplified": mad("none", "simplified", 1),
    "mad_simplified_detailed": mad("simplified", "detailed", 1),
    "size_none_detailed": ratio("none", "detailed", 2, 0.5, 1),
    "size_none_simplified": ratio("none", "simplified", 2, 0.5, 1),
    "size_simplified_detailed": ratio("simplified", "detailed", 2, 0.5, 1),
    "early_none": [view(cell("none", curve=curve)) for curve in early(2.0, 0.5)] + [view(tilted("none"))],
    "separable_detailed": rd("detailed", "derangement"),
    "inseparable_none": equal("none"),
    "wiki_indistinct": equal("length_short", "length_long"),
    "early_rd": jumps(),
    "instruct_no_better": instructed(
        (wrong(1.6, LOUD), wrong(1.5, LOUD)), (wrong(1.5), wrong(2.0)), (wrong(2.0), wrong(1.2))
    ),
    "instruct_simplified": instructed(
        ([cell("simplified", noise=LOUD)], [cell("simplified", noise=LOUD, seed=1)]),
        ([cell("simplified", scale=2.0)], [cell("simplified")]),
        ([cell("simplified", scale=0.5)], [cell("simplified")]),
    ),
    "instruct_instability": instructed(
        (fast(2.0, LOUD), fast(2.0, LOUD, seed=1)), (fast(8.0), fast(2.0)), (fast(2.0), fast(8.0))
    ),
    "length_shape": lengths(
        view(rough("length_short", np.linspace(1, 4, LAYERS), 1), rough("length_long", np.linspace(1, 4, LAYERS), 2))
    ),
    "unpopular_larger": datasets("mini_unpopular:natural/mini_popular:length_short"),
    "unseen_larger": datasets("mini_unseen:natural/mini_popular:length_short"),
    "unseen_as_unpopular": datasets("mini_unseen:natural/mini_unpopular:natural", within=True),
    "two_peaks_gemma2": peaks(2, 1),
    "one_peak_qwen2": peaks(1, 2),
    "no_peak_llama3": peaks(0, 1),
    "untrained_ratio": mad("none", "detailed", 1),
    "learnt_ratio": [
        view(*fast(own, noise), untrained=view(*fast(base, noise, seed), model="r"))
        for own, base, noise, seed in ((8.0, 2.0, 0.1, 0), (2.0, 8.0, 0.1, 0), (2.0, 2.0, LOUD, 1))
    ],
    "averaging": [few(3.0), few(0.3), few(1.0, noise=LOUD)],
    "surprise": [few(0.3), few(3.0), few(1.0, noise=LOUD)],
    "fluent_foreign": rd("detailed", "foreign_fluent"),
    "wrong_answer_alone": rd("detailed", "wrong_answer"),
    "disorder_alone": rd("detailed", "shuffled"),
    "length_matched": alike("response_tokens"),
    "loss_matched": alike("loss"),
    "loss_and_length": [by_loss_and_length(share, 1.0) for share in (0.1, 3.0, 0.41)],
    "left_over": [left_over(case) for case in ("holds", "fails", "inconclusive")],
    "belief": [believed(share) for share in (1.0, 0.0, 0.5)],
    "belief_mistaken": [believed(share) for share in (1.0, 0.0, 0.5)],
    "concentrated_loss": [concentrated(-1.0), concentrated(1.0), concentrated(0.0, LOUD)],
}


def measured(one, claim):
    """All numbers of a claim on a view."""
    return list(estimates(one, claim, MEASURES[claim.measure]))


def evidence(path, views, claims, seed=None):
    rows = [
        found.row(
            claim=claim.claim, model=each.model, kind=each.kind, seed=seed, dataset=each.dataset,
            untrained_model=each.untrained.model if each.untrained else "",
        )
        for claim in claims for each in views for found in measured(each, claim)
    ]  # fmt: skip
    write_table(EVIDENCE, rows, path, {})
    return path


def verdicts(folder, views, claims, abilities=None, **model):
    path = evidence(folder / "evidence.parquet", views, claims, **model)
    return decide([path], list(CLAIMS.values()), abilities or {}, folder / "claims")


def knows(detailed, chance=0.1, **others):
    """What a model answers right: by variant, mastered from a half on."""
    shares = others | {"detailed": detailed}
    return Ability("answer", {name: (share, share - 0.05, share + 0.05) for name, share in shares.items()}, chance)


def test_every_claim_has_its_cases_and_its_function():
    assert set(CASES) == set(CLAIMS) and {claim.measure for claim in CLAIMS.values()} == set(MEASURES)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("case", "verdict"), list(enumerate(["holds", "fails", "inconclusive"])))
def test_verdict(name, case, verdict, tmp_path):
    table = verdicts(tmp_path, [CASES[name][case]], [CLAIMS[name]])
    overall = table.filter(pl.col("projection") == "all")
    assert overall["verdict"].to_list() == [verdict], overall.select("value", "low", "high", "p_adjusted", "reason")
    stated = overall["statement"][0]
    assert "claimed: " in stated and "{" not in stated
    if verdict == "inconclusive":
        assert overall["reason"][0]


def constant_lengths(lengths=(1.0, 11.0, 29.0)):
    """Variants of one length each, as in the miniature: None's own and the length's part cannot be told apart."""
    made = []
    for variant, tokens in zip(("none", "simplified", "detailed"), lengths, strict=True):
        loss = np.exp(np.random.default_rng([3, int(tokens)]).normal(size=SAMPLES))
        made.append(cell(variant, scale=loss * tokens**-0.3, loss=loss, response_tokens=np.full(SAMPLES, tokens)))
    return view(*made)


def test_no_verdict_at_equal_length_where_lengths_do_not_overlap(tmp_path):
    table = verdicts(tmp_path, [constant_lengths()], [CLAIMS["left_over"]])
    assert set(table["verdict"]) == {"inconclusive"} and table["p_adjusted"].null_count() == 5
    assert set(table["reason"]) == {
        "0% of None's lengths lie inside the other variants' range; half are needed to compare at equal loss and length"
    }
    # And no number made by drawing the line on: the residual stays near what was measured.
    assert table["value"].is_between(0.5, 2).all()


def test_loss_and_length_are_the_regression_tables(tmp_path):
    one, dropped = by_loss_and_length(0.3, 3.0, lengths=(15.0, 20.0, 30.0)), 7
    # A variant without some of the samples: the table keeps the others' rows of those.
    cells = [cut(each, each.sample_ids[dropped * i :]) for i, each in enumerate(one.cells.values())]
    rows = [
        {"model": "m", "dataset": "d", "variant": each.variant, "relation": "correct", "loss_tokens": "all"}
        | {"sample_id": name, "projection": projection, "loss": each.loss[i], "purpose": "study"}
        | {"response_tokens": int(each.response_tokens[i]), "statistic": "nuclear_norm"}
        | {"nuclear_norm": each.values["nuclear_norm"][i, p].mean()}
        for each in cells for i, name in enumerate(each.sample_ids) for p, projection in enumerate(PROJECTIONS)
    ]  # fmt: skip
    names = PER_SAMPLE.names
    write_table(PER_SAMPLE, [{key: row.get(key) for key in names} for row in rows], tmp_path / "per_sample.parquet", {})
    regress([tmp_path], tmp_path / "regression.parquet", tmp_path / "regression.csv", draws=100, seed=0)
    table = pl.read_parquet(tmp_path / "regression.parquet").filter(pl.col("dataset") == "d")
    # The table's lengths are whole numbers.
    cells = [replace(each, response_tokens=np.floor(each.response_tokens)) for each in cells]
    found = verdicts(tmp_path, [view(*cells)], [CLAIMS["loss_and_length"], CLAIMS["left_over"]])
    for projection in ("all", *PROJECTIONS):
        by_term = {
            (row["term"], row["variant"]): row["value"]
            for row in table.filter(pl.col("projection") == projection).to_dicts()
        }
        mine = dict(found.filter(pl.col("projection") == projection).select("claim", "value").iter_rows())
        assert mine["loss_and_length"] == pytest.approx(by_term["r2", None], rel=1e-9)
        ratio = np.exp(by_term["residual", "none"] - by_term["residual", "detailed"])
        assert mine["left_over"] == pytest.approx(ratio, rel=1e-9)


def test_the_gate_asks_for_the_slowest_variant_that_a_claim_uses(tmp_path):
    cells = [cell("none", scale=20.0), cell("simplified", scale=4.0), cell("detailed")]
    known = {("m", "d"): knows(0.9, none=0.1, simplified=0.1)}
    claims = [CLAIMS[name] for name in ("size_none_detailed", "size_none_simplified", "inseparable_none")]
    wrong_none = [cell("none", "derangement", scale=20.0, noise=0.01), cell("none", scale=20.0, noise=0.01)]
    table = verdicts(tmp_path, [view(*cells, *wrong_none)], claims, known).filter(pl.col("projection") == "all")
    found = {row["claim"]: row for row in table.to_dicts()}
    assert found["size_none_detailed"]["verdict"] == "holds"
    assert found["size_none_detailed"]["accuracies"] == "None 0.10, Detailed 0.90"
    assert found["size_none_simplified"]["reason"] == "m cannot do this task with Simplified (0.10, chance 0.10)"
    # A claim on what None's gradients show asks for a model that can do the task at all, and says that it guesses here.
    assert found["inseparable_none"]["verdict"] == "holds" and found["inseparable_none"]["mastered"]
    assert found["inseparable_none"]["reason"] == "answers no better than chance: None 0.10 (chance 0.10)"


def test_an_untrained_network_is_a_control(tmp_path):
    claim = CLAIMS["size_none_detailed"]
    untrained = view(*CASES["size_none_detailed"][1].cells.values(), model="r", kind="random")
    trained = view(*CASES["size_none_detailed"][0].cells.values(), untrained=untrained)
    known = {("m", "d"): knows(0.9), ("r", "d"): knows(0.0)}
    table = verdicts(tmp_path, [trained, untrained], [claim], known)
    of = {model: table.filter(pl.col("model") == model) for model in "mr"}
    assert set(of["r"]["status"]) == {"control"} and set(of["r"]["verdict"]) == {"fails"}
    assert set(of["m"]["status"]) == {"stands"} and of["m"]["untrained"].to_list() == of["r"]["value"].to_list()
    # Each family is corrected for its own five tests.
    for family in of.values():
        assert family["p_adjusted"].to_list() == pytest.approx(holm(family["p_value"].to_list()))
    assert table["tokens"].to_list() == table["reference_tokens"].to_list() == [10.0] * 10


def test_datasets_are_compared_at_like_length(tmp_path):
    mine = cell("natural", scale=2.0, response_tokens=np.full(SAMPLES, 29.0))
    theirs = [
        cell(f"length_{name}", scale=scale, response_tokens=np.full(SAMPLES, tokens))
        for name, scale, tokens in (("short", 1.0, 11.0), ("medium", 4.0, 29.0), ("long", 1.0, 90.0))
    ]
    one = view(mine, dataset="mini_unpopular", others={"mini_popular": view(*theirs, dataset="mini_popular")})
    table = verdicts(tmp_path, [one], [CLAIMS["unpopular_larger"]])
    assert set(table["variants"]) == {"natural length_medium"} and set(table["verdict"]) == {"fails"}
    assert table.select("tokens", "reference_tokens").row(0) == (29.0, 29.0)


def test_what_is_matched_already_or_never_is_reported(tmp_path):
    equal_lengths = view(cell("detailed"), cell("detailed", "derangement", scale=2.0))
    table = verdicts(tmp_path, [equal_lengths], [CLAIMS["length_matched"]])
    assert set(table["reason"]) == {"lengths equal already: separable_detailed is this comparison"}
    far = view(cell("detailed"), cell("detailed", "derangement", loss=np.full(SAMPLES, 1e6)))
    table = verdicts(tmp_path, [far], [CLAIMS["loss_matched"]])
    assert table.select("n", "verdict", "value").rows() == [(0, "inconclusive", None)]
    assert table["reason"][0] == "no wrong response has a loss similar to a correct one"
    some = np.where(np.arange(SAMPLES) < 19, 1.0, 1e6)
    few_alike = view(cell("detailed", loss=np.ones(SAMPLES)), cell("detailed", "derangement", loss=some))
    assert set(verdicts(tmp_path, [few_alike], [CLAIMS["loss_matched"]])["reason"]) == {
        "only 19 samples; 20 are needed"
    }


def test_holm_by_hand():
    # Sorted .01 .02 .03 .5: times 4, 3, 2, 1, never falling.
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.4, 0.9, 0.6]) == pytest.approx([1.0, 1.0, 1.0])
    assert holm([]) == []
    for p_values in np.random.default_rng(0).random((20, 7)) ** 3:
        order = np.argsort(p_values)
        plain = [max(min(1, (7 - j) * p_values[order[j]]) for j in range(i + 1)) for i in range(7)]
        assert np.array(holm(p_values))[order] == pytest.approx(plain)


def test_a_claim_is_corrected_for_its_own_tests_of_the_whole_run(tmp_path):
    claim = CLAIMS["separable_detailed"]
    weak = view(cell("detailed"), cell("detailed", "derangement", scale=1.08), model="weak")
    alone = verdicts(tmp_path, [weak], [claim])
    among = verdicts(tmp_path, [weak, *CASES["separable_detailed"] * 4], [claim, CLAIMS["disorder_alone"]])
    assert among.height == 13 * alone.height
    for table in (alone, among):
        assert table["p_adjusted"].to_list() == pytest.approx(holm(table["p_value"].to_list()))
    mine = among.filter(pl.col("model") == "weak")
    assert mine["p_value"].equals(alone["p_value"]) and (mine["p_adjusted"] >= alone["p_adjusted"]).all()
    assert mine["p_adjusted"].sum() > alone["p_adjusted"].sum()


def test_no_verdict_on_what_a_model_cannot_do_and_no_correction_for_it(tmp_path):
    claim = CLAIMS["size_none_detailed"]
    one = CASES["size_none_detailed"][0]
    views = [one, view(*one.cells.values(), model="unable")]
    able = {("m", "d"): knows(0.9), ("unable", "d"): knows(0.1)}
    table = verdicts(tmp_path, views, [claim], able)
    unable = table.filter(pl.col("model") == "unable")
    assert set(unable["verdict"]) == {"inconclusive"} and set(unable["reason"]) == {
        "unable cannot do this task with Detailed (0.10, chance 0.10)"
    }
    assert unable["p_adjusted"].null_count() == 5 and unable["accuracy"].to_list() == [0.1] * 5
    mine = table.filter(pl.col("model") == "m")
    assert set(mine["verdict"]) == {"holds"} and set(mine["reason"]) == {""} and mine["mastered"].all()
    assert mine["p_adjusted"].min() == pytest.approx(5 * mine["p_value"].min())
    # A control that asks for no ability has its verdict.
    untrained = view(*CASES["untrained_ratio"][0].cells.values(), model="unable", kind="random")
    assert set(verdicts(tmp_path, [untrained], [CLAIMS["untrained_ratio"]], able)["verdict"]) == {"holds"}


def test_both_models_of_a_comparison_must_know_the_task(tmp_path):
    for able, verdict in ((True, "holds"), (False, "inconclusive")):
        known = {("m", "d"): knows(0.9, simplified=0.9), ("b", "d"): knows(0.9, simplified=0.9 if able else 0.1)}
        views = [CASES["instruct_simplified"][0]]
        assert set(verdicts(tmp_path, views, [CLAIMS["instruct_simplified"]], known)["verdict"]) == {verdict}


def test_a_handful_of_samples_gives_no_verdict(tmp_path):
    views = [view(cell("none", scale=5.0, n=19), cell("detailed", n=19))]
    table = verdicts(tmp_path, views, [CLAIMS["size_none_detailed"]])
    assert set(table["reason"]) == {"only 19 samples; 20 are needed"} and table["value"].min() > 4


def test_what_cannot_be_computed_is_reported(tmp_path):
    views = [view(cell("none", curve=np.ones(1)), cell("detailed", curve=np.ones(1)))]
    table = verdicts(tmp_path, views, [CLAIMS["mad_none_detailed"], CLAIMS["size_none_detailed"]])
    single = table.filter(pl.col("claim") == "mad_none_detailed")
    assert set(single["reason"]) == {"cannot be computed on these curves"} and single["value"].null_count() == 5
    assert "times" in single["statement"][0]
    # Other claims of one layer stand.
    assert table.filter(pl.col("claim") == "size_none_detailed")["value"].null_count() == 0


def test_a_claim_over_seeds(tmp_path):
    claim = CLAIMS["size_none_detailed"]
    views = [
        view(cell("none", scale=s, seed=i), cell("detailed", seed=i), model=f"m{i}") for i, s in enumerate((2, 3, 4))
    ]
    rows = []
    for i, each in enumerate(views):
        path = evidence(tmp_path / f"{i}.parquet", [each], [claim], seed=i)
        rows.append(pl.read_parquet(path)["value"][0])
        paths = [tmp_path / f"{place}.parquet" for place in range(i + 1)]
        table = decide(paths, list(CLAIMS.values()), {}, tmp_path / "claims")
        over = table.filter(pl.col("model") == "base, over seeds")
        assert over.height == (i > 0)
        if i == 1:
            assert over["reason"][0] == "2 usable seeds of 2; 3 are needed" and over["low"][0] is None
    logs = np.log(rows)
    reach = stats.t.ppf(0.975, 2) * logs.std(ddof=1) / np.sqrt(3)
    assert over.select("value", "low", "high").row(0) == pytest.approx(
        np.exp([logs.mean(), logs.mean() - reach, logs.mean() + reach])
    )
    assert over["n"][0] == 3 and over["verdict"][0] == "holds" and over["projection"][0] == "all"


def test_tables_are_the_same_in_any_order(tmp_path):
    claims = [CLAIMS[name] for name in ("size_none_detailed", "early_none")]
    a = evidence(tmp_path / "a.parquet", CASES["size_none_detailed"][:1], claims)
    b = evidence(tmp_path / "b.parquet", [view(cell("none"), dataset="e")], claims)
    files = []
    for order in ([a, b], [b, a]):
        decide(order, list(CLAIMS.values()), {}, tmp_path / "claims")
        files.append([(tmp_path / f"claims.{kind}").read_bytes() for kind in ("parquet", "csv", "json")])
    assert files[0] == files[1]
    found = json.loads(files[0][2])
    assert len(found) == 15 and {row["verdict"] for row in found} <= {"holds", "fails", "inconclusive"}


def test_published_numbers_are_beside_ours(tmp_path):
    views = [view(*CASES["mad_none_detailed"][0].cells.values(), model="qwen2_1_5b", dataset="aqua")]
    table = verdicts(tmp_path, views, [CLAIMS["mad_none_detailed"]])
    assert table["published"].to_list() == [21.7, None, None, None, None]
    assert table["statement"][0].endswith("claimed: above 10; published: 21.7")


def test_likes_are_matched_once_each():
    one, other = np.array([100.0, 5.0, 50.0, 51.0]), np.array([52.0, 101.0, 1.0, np.nan])
    at, other_at = matched(one, other)
    assert list(zip(one[at], other[other_at], strict=True)) == [(50.0, 52.0), (100.0, 101.0)]
    assert [len(side) for side in matched(one, other * 1000)] == [0, 0]


SPOILED = {
    "direction": ("\tabove\t10\t", "\tover\t10\t", r"claims.tsv, line 2: 'direction': 'over' is not known"),
    "threshold": ("\tabove\t10\t", "\tabove\tten\t", r"line 2: 'threshold' is 'ten'; write a number"),
    "no margin": ("\twithin\t0\t0.05\t", "\twithin\t0\t\t", r"line 10: 'margin' has no value; write a number"),
    "margin of no use": ("\tabove\t10\t\t", "\tabove\t10\t1\t", r"line 2: 'margin' is 1.0; leave it empty"),
    "column": ("\tthreshold\t", "\tbound\t", r"line 1: column 'threshold' is missing"),
    "no number": ("jump {} times", "jump often", r"line 2: 'statement'"),
    "relation": ("published reference", "publshed reference", r"'publshed' is not known: did you mean 'published'"),
    "pair": ("wiki_unpopular:natural/", "wiki_unpopular/", r"'between.0'"),
    "ability": ("\tfree\t", "\tno\t", r"'ability': 'no' is not known"),
    "twice": ("mad_none_simplified\t", "mad_none_detailed\t", r"line 3: 'mad_none_detailed' is in an earlier line"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_bad_row_is_one_line(name, tmp_path):
    old, new, message = SPOILED[name]
    text = SHEET.read_text()
    assert old in text
    (tmp_path / "claims.tsv").write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message) as caught:
        read_claims(GradientClaim, tmp_path / "claims.tsv")
    assert "\n" not in str(caught.value)


def test_figure_and_table_say_what_the_verdicts_are(tmp_path):
    cases = [CASES["mad_none_detailed"][0], CASES["mad_none_detailed"][1]]
    views = [view(*each.cells.values(), model=f"m_{i}") for i, each in enumerate(cases)]
    verdicts(tmp_path, views, [CLAIMS["mad_none_detailed"], CLAIMS["untrained_ratio"]])
    path = tmp_path / "claims.parquet"
    files = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        draw_verdicts(path, folder / "verdicts", folder / "dynamics", folder / "quality", ["vl.json", "svg"], {})
        files.append([(folder / f"verdicts.{kind}").read_bytes() for kind in ("vl.json", "svg")])
    assert files[0] == files[1]
    found = read_rows(path, {"m_0": "First", "d": "Data"})
    assert heading(found, GRADIENTS).title == "Claims of the study: 1 hold, 1 fail, 0 inconclusive"
    assert heading(found, GRADIENTS).subtitle == ("Controls: 2 hold, 0 fail, 0 inconclusive",)
    assert columns_of(found) == {"d": ["First", "m_1"]} and models_of(found) == {"First": 1, "m_1": 2}
    shown = matrix_chart(found).to_dict(validate=True)
    assert meanings_of(shown) == theme.COLOURS["verdict"]
    assert shown["title"]["subtitle"] == ["1 First, 2 m_1 · Controls: 2 hold, 0 fail, 0 inconclusive"]
    write_verdicts(path, tmp_path / "claims.md")
    text = (tmp_path / "claims.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| m\\_")]
    header = next(line for line in text.splitlines() if line.startswith("| Model"))
    assert len(lines) == found.height == 4 and {line.count(" | ") for line in lines} == {header.count(" | ")}
    # The p-value of the test itself, beside the corrected one.
    assert "| p | p (Holm) |" in header and "likelier" not in text
    assert "claimed: above 10." in text and text.count("✓ holds") == 3 and text.count("✗ fails") == 1


def test_a_wide_matrix_is_in_blocks_below_one_another(tmp_path):
    """Ten models on eleven datasets: 110 columns."""
    verdicts(tmp_path, [CASES["mad_none_detailed"][0]], [CLAIMS["mad_none_detailed"]])
    one = pl.read_parquet(tmp_path / "claims.parquet").filter(pl.col("projection") == "all")
    table = pl.concat(
        one.with_columns(pl.lit(f"m{i}").alias("model"), pl.lit(f"d{j:02}").alias("dataset"))
        for j in range(11)
        for i in range(10)
    )
    found = rows(table, {})
    # A dataset's models stay together.
    assert blocks(found) == [
        [f"d{j:02}" for j in pair if j < 11] for pair in zip(range(0, 12, 2), range(1, 12, 2), strict=True)
    ]
    shown = matrix_chart(found).to_dict(validate=True)["vconcat"]
    assert [panel["width"] for block in shown for panel in block["vconcat"]] == [336] * 5 + [168]


def named(name, value):
    return pl.lit(value).alias(name)


def test_datasets_of_different_claims_are_in_blocks_of_their_own(tmp_path):
    """No column of a block is empty; a claim of several kinds of responses is a line above theirs."""
    verdicts(tmp_path, [CASES["mad_none_detailed"][0]], [CLAIMS["mad_none_detailed"]])
    one = pl.read_parquet(tmp_path / "claims.parquet").filter(pl.col("projection") == "all")
    keys = [("a", "x", ""), ("b", "y", "derangement"), ("c", "x", ""), ("c", "z", ""), ("b", "y", "wrong_chain")]
    names = ("dataset", "claim", "relation")
    found = rows(pl.concat(one.with_columns(*map(named, names, key)) for key in keys), {})
    assert blocks(found) == [["b"], ["a", "c"]]
    first, second = (block["vconcat"] for block in matrix_chart(found).to_dict(validate=True)["vconcat"])
    (lines,) = (panel["layer"][0]["encoding"]["y"]["scale"]["domain"] for panel in first)
    title = one["title"][0]
    assert [line.partition("\u2502")[2] for line in lines] == [f"{title}:", "another question’s answer", "wrong chain"]
    for panel in (*first, *second):
        for x in (layer["encoding"]["x"] for layer in panel["layer"]):
            assert x["axis"] is None and x["scale"]["domain"] == [0, panel["width"]]
        assert "labelAngle" not in json.dumps(panel)


def test_what_is_withdrawn_and_what_is_untrained_is_counted_apart(tmp_path):
    claim, gone = CLAIMS["size_none_detailed"], CLAIMS["instruct_instability"]
    untrained = view(*CASES["size_none_detailed"][1].cells.values(), model="r", kind="random")
    verdicts(tmp_path, [CASES["size_none_detailed"][0], untrained, CASES["instruct_instability"][0]], [claim, gone])
    text = heading(read_rows(tmp_path / "claims.parquet"), GRADIENTS)
    assert text.title == "Claims of the study: 2 hold, 0 fail, 0 inconclusive"
    assert text.subtitle == (
        "Withdrawn by its authors: 1 hold, 0 fail, 0 inconclusive",
        "On untrained networks (controls): 0 hold, 1 fail, 0 inconclusive",
    )
    found = atlas_verdicts(tmp_path / "claims.parquet", {})
    assert [(title, [count for *_, count in counts]) for title, counts in found["studies"][0]["counts"]] == [
        ("Claims of the study", [2, 0, 0]), ("Withdrawn by its authors", [1, 0, 0]),
        ("On untrained networks (controls)", [0, 1, 0]),
    ]  # fmt: skip


def test_toys_and_formulas_are_counted_apart(tmp_path):
    verdicts(tmp_path, [CASES["size_none_detailed"][0]], [CLAIMS["size_none_detailed"]])
    one = pl.read_parquet(tmp_path / "claims.parquet").filter(pl.col("projection") == "all")
    text = heading(rows(pl.concat([one, one.with_columns(named("kind", TOY))]), {}), GRADIENTS)
    assert text.title == "Claims of the study: 1 hold, 0 fail, 0 inconclusive"
    assert text.subtitle == ("Toys and formulas of the study: 1 hold, 0 fail, 0 inconclusive",)


def test_nothing_tested_is_reported(tmp_path):
    write_table(EVIDENCE, [], tmp_path / "evidence.parquet", {})
    assert decide([tmp_path / "evidence.parquet"], list(CLAIMS.values()), {}, tmp_path / "claims").is_empty()
    draw_verdicts(
        tmp_path / "claims.parquet", tmp_path / "verdicts", tmp_path / "dynamics", tmp_path / "quality", ["svg"], {}
    )
    for name, study in (("verdicts", "layer gradients"), ("dynamics", "learning dynamics")):
        assert f"No claim on {study} was tested" in (tmp_path / f"{name}.svg").read_text()
    write_verdicts(tmp_path / "claims.parquet", tmp_path / "claims.md")
    assert "No claim was tested" in (tmp_path / "claims.md").read_text()


def test_verdicts_stay_apart_without_colour():
    def luminance(colour):
        r, g, b = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        return 0.2126 * r**2.2 + 0.7152 * g**2.2 + 0.0722 * b**2.2

    assert len(set(SHAPES.values())) == len(theme.COLOURS["verdict"]) == 3
    found = sorted(map(luminance, theme.COLOURS["verdict"].values()))
    assert found[-1] / found[0] > 2


def run(folder, *models, purpose="study", sheet=SHEET):
    """Evidence and verdicts by their commands, of synthetic models on dataset `d`."""
    paths = [tables(folder, name, scale)[0] for name, scale in models]
    for samples, _ in paths:
        facts = read_metadata(samples) | {"purpose": purpose}
        del facts["table"]
        write_table(gradient_tables.SAMPLES, read_table(gradient_tables.SAMPLES, samples), samples, facts)
    rows = [{"model": name, "kind": "base", "partner": "", "seed": i} for i, (name, _) in enumerate(models)]
    sheets = ("--claims", sheet)
    done = call(
        "gather_evidence", "--dataset", "d", "--samples", *(path for path, _ in paths), "--spectra",
        *(path for _, path in paths), *settings(models=rows, draws=200, seed=0), *sheets,
        "--output", folder / "evidence.parquet",
    )  # fmt: skip
    if done.returncode == 0:
        done = call("test_claims", "--evidence", folder / "evidence.parquet", *sheets, "--output", folder / "claims")
    return done


def test_data_without_variants_of_their_own_take_part_in_no_claim():
    """A user's chats: one variant, natural, and another sample's response beside it; no descriptions of anything."""
    chats = view(*(cell("natural", relation) for relation in ("correct", "derangement")), task="other")
    found = {name: measured(chats, claim) for name, claim in CLAIMS.items()}
    assert {name for name, estimates in found.items() if estimates} == set()
    # The study's descriptions of what is known do, in those about knowledge.
    known = replace(chats, task="knowledge")
    found = {name: measured(known, claim) for name, claim in CLAIMS.items()}
    assert {name for name, estimates in found.items() if estimates} == {"wiki_indistinct"}


def test_claims_about_instructed_models_are_about_instruct_against_base():
    """Two checkpoints of one kind are no such pair, whatever their partner and prompts."""
    models = {
        "base": {"kind": "base", "partner": "", "seed": None},
        "tuned": {"kind": "instruct", "partner": "base", "seed": None},
        "later": {"kind": "base", "partner": "base", "seed": None},
        "again": {"kind": "instruct", "partner": "tuned", "seed": None},
    }
    views = {(name, "d"): view(cell("simplified"), model=name, kind=row["kind"]) for name, row in models.items()}
    compared = {each.model: each.base and each.base.model for each in _compared(views, "d", models)}
    assert compared == {"base": None, "tuned": "base", "later": None, "again": None}
    assert measured(view(cell("simplified")), CLAIMS["instruct_simplified"]) == []


def test_a_verdict_between_prompts_of_different_forms_says_so(tmp_path):
    cells = [cell("simplified", scale=2.0)]
    mine = view(*cells, model="tuned", kind="instruct", base=view(cell("simplified"), model="base"))
    claim = CLAIMS["instruct_simplified"]
    evidence(tmp_path / "evidence.parquet", [mine], [claim])
    for forms, stated in (
        ({"tuned": "chat", "base": "plain"}, True),
        ({"tuned": "chat", "base": "chat"}, False),
        ({}, False),
    ):
        table = decide([tmp_path / "evidence.parquet"], [claim], {}, tmp_path / "claims", forms)
        assert table["statement"].str.ends_with("; prompts: chat against plain").unique().to_list() == [stated]


def test_a_claim_about_models_is_about_those_alone(tmp_path):
    """Qwen2.5 is not Qwen2, nor is a user's model whose name begins alike."""
    named = {"qwen2_1_5b": True, "qwen2_5_7b": False, "qwen2_mine": False, "gemma2_2b_it": True, "gemma27b": False,
             "llama3_8b": True, "llama3_2_1b": False, "my_mini_set": False}  # fmt: skip
    about = {model for claim in CLAIMS.values() for model in claim.models}
    assert {name: name in about for name in named} == named
    rows = read_sheet(ROOT / "config/models.tsv", ModelRow, "model")
    assert about <= set(rows)
    models = {name: {"kind": "base", "partner": "", "seed": None} for name in ("qwen2_1_5b", "qwen2_5_7b")}
    for name in models:
        found = list(_rows(view(cell("detailed"), model=name), list(CLAIMS.values()), models[name]))
        assert ("one_peak_qwen2" in {row["claim"] for row in found}) == named[name]


def test_the_commands_from_tables_to_verdicts(tmp_path):
    done = run(tmp_path, ("one", 2.0), ("two", 1.0))
    assert done.returncode == 0, done.stderr
    claims = pl.read_parquet(tmp_path / "claims.parquet")
    found = claims.filter((pl.col("projection") == "all") & (pl.col("claim") == "inseparable_none"))
    rows = {row["model"]: row for row in found.to_dicts()}
    assert rows["one"]["verdict"] == "fails" and rows["one"]["n"] == 20 and rows["one"]["relation"] == "derangement"
    assert rows["one"]["value"] == pytest.approx(1.0, abs=0.15)
    assert rows["two"]["verdict"] == "inconclusive" and rows["base, over seeds"]["reason"].startswith("2 usable seeds")
    assert set(claims["claim"]) == {"early_none", "inseparable_none"}
    # Another model leaves a model's numbers as they are; only the correction for the number of tests grows.
    (tmp_path / "alone").mkdir()
    assert run(tmp_path / "alone", ("one", 2.0)).returncode == 0
    keys = ["claim", "relation", "projection", "value", "low", "high", "p_value"]
    alone = pl.read_parquet(tmp_path / "alone/claims.parquet")
    assert alone.select(keys).equals(claims.filter(pl.col("model") == "one").select(keys))


def test_a_pipeline_check_takes_no_part(tmp_path):
    done = run(tmp_path, ("one", 2.0), purpose="pipeline check")
    assert done.returncode == 0 and pl.read_parquet(tmp_path / "claims.parquet").is_empty()


def test_a_claim_that_nothing_measures_is_one_line(tmp_path):
    sheet = tmp_path / "claims.tsv"
    sheet.write_text(SHEET.read_text().replace("early_size\t", "early_sizes\t"))
    error = user_error(run(tmp_path, ("one", 2.0), sheet=sheet))
    assert "claims.tsv, 'early_none': column 'measure': did you mean 'early_size'?" in error
