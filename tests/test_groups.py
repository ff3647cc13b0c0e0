"""Two groups of scored samples: effect sizes against their definitions, and what matching removes and leaves."""

import numpy as np
import polars as pl
import pytest

from conftest import script
from gradatlas.core.errors import InputError
from gradatlas.figures.jobs import compare_groups
from gradatlas.statistics.effects import CALIPER, compare, dominance, hedges_g, matched_pairs
from gradatlas.statistics.jobs import BootstrapSettings
from made_scores import write_scores

FEW = BootstrapSettings(draws=200, seed=1)


def two_groups(folder, effect, n=120, seed=0):
    """Group `long` has e times as many tokens; the nuclear norm depends on them, and on the group by `effect`."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(["long", "short"], n)
    logs = rng.normal(5, 0.8, 2 * n) + np.where(groups == "long", 1.0, 0.0)
    loss = np.exp(rng.normal(0, 0.3, 2 * n))
    noise = rng.normal(0, 0.15, 2 * n)
    norm = np.exp(-0.5 * logs + noise + np.where(groups == "long", effect, 0))
    rank = np.exp(0.7 * logs + rng.normal(0, 0.1, 2 * n))
    return write_scores(folder, np.exp(logs).round(), loss, norm, rank, groups.tolist())


def row(output, samples, number="nuclear_norm"):
    frame = pl.read_parquet(output / "comparison.parquet")
    return frame.filter(samples=samples, number=number).row(0, named=True)


def test_effect_sizes_are_those_of_their_definitions():
    rng = np.random.default_rng(3)
    a, b = rng.integers(0, 9, 23).astype(float), rng.integers(2, 12, 31).astype(float)
    delta, low, high = dominance(a, b, paired=False)
    assert delta == pytest.approx(np.mean([np.sign(x - y) for x in a for y in b]))
    assert low < delta < high
    pooled = np.sqrt((22 * a.var(ddof=1) + 30 * b.var(ddof=1)) / 52)
    assert hedges_g(a, b) == pytest.approx((a.mean() - b.mean()) / pooled * (1 - 3 / (4 * 54 - 9)))
    c = b[:23]
    assert dominance(a, c, paired=True)[0] == pytest.approx(np.mean(np.sign(a - c)))


@pytest.mark.parametrize("paired", [False, True])
def test_intervals_of_cliffs_delta_cover(paired):
    # a - b is normal: the true delta is 2 Phi(shift / sd) - 1.
    rng, inside = np.random.default_rng(5), 0
    for _ in range(300):
        a, b = rng.normal(0.5, 1, 40), rng.normal(0, 1, 40)
        _, low, high = dominance(a, b, paired)
        inside += low <= 0.2763 <= high
    assert 0.92 <= inside / 300 <= 0.98


def test_separated_groups_have_an_interval_below_one():
    assert dominance(np.arange(30.0) + 100, np.arange(30.0), False) == pytest.approx(
        (1, (30 - 3.8415) / 33.8415, 1), 1e-3
    )


def test_means_medians_and_tests():
    rng = np.random.default_rng(7)
    a, b = rng.lognormal(1, 0.5, 60), rng.lognormal(0.5, 0.5, 80)
    found = compare(a, b, False, 500, 0, "x")
    assert found["ratio"] == pytest.approx(a.mean() / b.mean())
    assert found["ratio_low"] < found["ratio"] < found["ratio_high"]
    assert found["median_a_low"] <= np.median(a) <= found["median_a_high"]
    # The order statistics' ranks that hold the median with 95 %, by counting.
    from scipy.stats import binom

    below = [k for k in range(61) if binom.cdf(k - 1, 60, 0.5) <= 0.025]
    assert found["median_a_low"] == pytest.approx(np.sort(a)[max(below) - 1])
    assert found["p_value"] < 0.01 and found["test"] == "Mann-Whitney"
    assert compare(a, b - 10, False, 100, 0, "x").get("ratio") is None


def test_pairs_are_within_the_caliper_as_many_as_there_can_be():
    rng = np.random.default_rng(11)
    a, b = rng.normal(0, 1, (30, 2)), rng.normal(0.5, 1, (40, 2))
    one, other = matched_pairs(a, b, 0)
    spread = np.sqrt((a.var(0, ddof=1) + b.var(0, ddof=1)) / 2)
    assert (np.abs(a[one] - b[other]) / spread <= CALIPER).all()
    assert len(set(one)) == len(one) == len(set(other))
    import networkx as nx

    graph = nx.Graph()
    graph.add_nodes_from(range(30))
    graph.add_edges_from(
        (i, 30 + j) for i in range(30) for j in range(40) if (np.abs(a[i] - b[j]) / spread <= CALIPER).all()
    )
    assert len(one) == len(nx.bipartite.maximum_matching(graph, top_nodes=range(30))) // 2


def test_an_effect_of_length_alone_vanishes_with_matching(tmp_path):
    compare_groups(scores=two_groups(tmp_path / "in", 0), output=tmp_path / "out", formats=["png"], settings=FEW)
    raw, matched = row(tmp_path / "out", "all"), row(tmp_path / "out", "matched")
    assert raw["cliffs_delta_high"] < -0.3 and raw["p_adjusted"] < 1e-6
    assert abs(raw["smd_log_tokens"]) > 0.8 > 0.1 > abs(matched["smd_log_tokens"])
    assert 20 <= matched["samples_a"] == matched["samples_b"] < 120
    assert matched["cliffs_delta_low"] < 0 < matched["cliffs_delta_high"] and matched["p_adjusted"] > 0.05
    assert (tmp_path / "out" / "layers.png").stat().st_size > 10_000


def test_a_real_effect_stays(tmp_path):
    compare_groups(scores=two_groups(tmp_path / "in", 0.4), output=tmp_path / "out", formats=["svg"], settings=FEW)
    matched = row(tmp_path / "out", "matched")
    assert matched["cliffs_delta_low"] > 0.3 and matched["ratio_low"] > 1.2 and matched["p_adjusted"] < 1e-3
    assert matched["test"] == "Wilcoxon signed-rank"
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert "matched samples" in text and "nuclear norm, early layers" in text


def test_two_checkpoints_on_one_file_pair_by_row(tmp_path, capsys):
    rng = np.random.default_rng(2)
    tokens, loss, norm = rng.integers(5, 50, 30), rng.uniform(1, 2, 30), rng.lognormal(0, 1, 30)
    statuses = ["ok"] * 29 + ["no_response"]
    one = write_scores(tmp_path / "before", tokens, loss, norm, norm + 1)
    other = write_scores(tmp_path / "after", tokens, loss * 0.9, norm * 0.95, norm + 1, statuses=statuses)
    compare_groups(scores=one, other=other, paired=True, output=tmp_path / "out", formats=["svg"], settings=FEW)
    assert (
        "before and after are paired by row, 29 pairs; rows left out, with status ok on one side alone: 1\n"
        in capsys.readouterr().err
    )
    found = row(tmp_path / "out", "all")
    assert found["paired"] and (found["group_a"], found["group_b"]) == ("before", "after")
    assert found["samples_a"] == found["samples_b"] == 29
    # Every pair differs in one direction, by less than the samples differ from one another.
    assert found["cliffs_delta"] == 1 and found["ratio_low"] == pytest.approx(1 / 0.95) and found["p_value"] < 1e-6
    equal = row(tmp_path / "out", "all", "effective_rank")
    assert equal["cliffs_delta"] == 0 and equal["p_value"] == 1
    # Every loss differs by more than the caliper.
    assert row(tmp_path / "out", "matched")["status"] == "too few: 0 matched pairs; 20 are needed"


def test_of_pairs_those_of_like_length_and_loss_match(tmp_path):
    rng = np.random.default_rng(4)
    tokens, loss, norm = rng.integers(5, 50, 60), rng.uniform(1, 2, 60), rng.lognormal(0, 1, 60)
    paths = [
        write_scores(tmp_path / "before", tokens, loss, norm, norm),
        write_scores(tmp_path / "after", tokens, loss * np.repeat([0.99, 0.5], 30), norm * 0.9, norm),
    ]
    compare_groups(scores=paths[0], other=paths[1], paired=True, output=tmp_path / "out", formats=["svg"], settings=FEW)
    found = row(tmp_path / "out", "matched")
    assert found["samples_a"] == found["samples_b"] == 30 and found["status"] == "ok"
    assert found["mean_a"] == pytest.approx(norm[:30].mean()) and found["ratio"] == pytest.approx(1 / 0.9)


def test_two_responses_of_the_same_rows_pair(tmp_path, capsys):
    rng = np.random.default_rng(6)
    tokens, loss, norm = rng.integers(5, 50, 60), rng.uniform(1, 2, 60), np.repeat(rng.lognormal(0, 1, 30), 2)
    norm[1::2] *= 0.95
    statuses = ["ok"] * 60
    statuses[3] = statuses[6] = "no_response"
    scores = write_scores(
        tmp_path / "in", tokens, loss, norm, norm, statuses=statuses, responses=["chosen", "rejected"]
    )
    compare_groups(scores=scores, output=tmp_path / "out", formats=["svg"], settings=FEW)
    found = row(tmp_path / "out", "all")
    assert found["paired"] and found["test"] == "Wilcoxon signed-rank" and found["cliffs_delta"] == 1
    assert found["samples_a"] == found["samples_b"] == 28
    assert "28 pairs; rows left out, with status ok on one side alone: 2\n" in capsys.readouterr().err
    assert "Pairs of the same rows: 28 chosen, 28 rejected" in (tmp_path / "out" / "comparison.md").read_text()
    # Groups of different rows do not.
    with pytest.raises(InputError, match="long and short do not pair, no row is in both"):
        compare_groups(scores=two_groups(tmp_path / "two", 0, 9), paired=True, output=tmp_path / "none")


def test_two_files_with_the_same_row_numbers_are_no_pairs_unless_asked(tmp_path):
    rng = np.random.default_rng(2)
    paths = [
        write_scores(
            tmp_path / name, rng.integers(5, 50, 30), rng.uniform(1, 2, 30), rng.lognormal(0, 1, 30), np.ones(30)
        )
        for name in ("high", "low")
    ]
    compare_groups(
        scores=paths[0], other=paths[1], name_a="good", name_b="bad", output=tmp_path / "out", formats=["svg"],
        settings=FEW,
    )  # fmt: skip
    found = row(tmp_path / "out", "all")
    assert found["test"] == "Mann-Whitney" and (found["group_a"], found["group_b"]) == ("good", "bad")


def test_few_samples_are_a_status(tmp_path):
    scores = write_scores(tmp_path / "in", [9] * 11, [1.0] * 11, [1.0] * 11, [2.0] * 11, ["a"] * 10 + ["b"])
    compare_groups(scores=scores, output=tmp_path / "out", formats=["svg"], settings=FEW)
    found = row(tmp_path / "out", "all")
    assert found["status"] == "too few: 1 sample in b; 5 are needed" and found["difference"] is None
    assert row(tmp_path / "out", "matched")["status"].startswith("too few: 0 matched pairs")


def test_three_groups_are_compared_with_the_first(tmp_path):
    groups = ["c"] * 8 + ["a"] * 8 + ["b"] * 8 + [None] * 4
    scores = write_scores(tmp_path / "in", range(5, 33), [1.0] * 28, np.arange(1.0, 29), np.arange(2.0, 30), groups)
    compare_groups(scores=scores, output=tmp_path / "out", formats=["svg"], settings=FEW)
    pairs = pl.read_parquet(tmp_path / "out" / "comparison.parquet").select("group_a", "group_b").unique().rows()
    assert sorted(pairs) == [("c", "a"), ("c", "b")]
    assert {path.name for path in (tmp_path / "out").glob("*.svg")} == {
        f"{name}{place}.svg" for name in ("study_form", "layers", "effects") for place in ("", ".2")
    }


def test_the_command_and_its_errors(tmp_path):
    scores = write_scores(tmp_path / "in", [9] * 6, [1.0] * 6, [1.0] * 6, [2.0] * 6, ["only"] * 6)
    done = script("compare_groups", "--scores", scores, "--output", tmp_path / "out", "--draws", "100")
    assert done.returncode == 2 and "1 group among its samples with status ok" in done.stderr
    with pytest.raises(InputError, match=r"no sample with status ok is in group 'lnog'; .*long"):
        compare_groups(scores=two_groups(tmp_path / "two", 0), group_a=["lnog"], output=tmp_path / "out")
    for given in ({"group_a": ["short"], "group_b": ["long", "short"]}, {"name_a": "x", "name_b": "x"}):
        with pytest.raises(InputError, match=r"'short' is on both sides|two sides are called 'x'"):
            compare_groups(scores=tmp_path / "two/scores.parquet", output=tmp_path / "out", **given)
    with pytest.raises(InputError, match="two sides are called"):
        compare_groups(
            scores=tmp_path / "two/scores.parquet", other=tmp_path / "two/scores.parquet", output=tmp_path / "out"
        )
    other = write_scores(tmp_path / "other", [9], [1.0], [1.0], [2.0], statuses=["no_response"])
    with pytest.raises(InputError, match="no sample with status ok; give"):
        compare_groups(scores=scores, other=other, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
