"""The data-quality study: its sheet, its claims on known numbers, and its files through a tiny model."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import yaml

from conftest import ROOT, SHARED, call, needs_shared, settings, user_error
from gradatlas.claims.estimates import GradientEstimate
from gradatlas.claims.quality import measures, wider
from gradatlas.claims.quality.gather import gather_quality
from gradatlas.claims.sheet import QualityClaim, read_claims
from gradatlas.claims.verdicts import decide
from gradatlas.core.errors import InputError
from gradatlas.core.tables import read_table
from gradatlas.gradients.tables import COSINES
from gradatlas.scores.tables import SCORES
from gradatlas.statistics.groups import read_group
from gradatlas.study.config import fetched_files, read_study
from made_scores import write_scores

CLAIMS = {each.claim: each for each in read_claims(QualityClaim, ROOT / "config/claims_quality.tsv")}
DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())
STUDY = DEFAULT | yaml.safe_load((ROOT / "config/data_quality.yaml").read_text())
MODELS = {"m": {"kind": "base", "seed": None, "untrained": ""}}


# --- The study as rows of sheets ---


def test_the_study_is_32_files_in_16_pairs_on_its_models():
    study = read_study(STUDY, ROOT)
    pairs = study.quality_pairs()
    assert len(study.scored) == 32 and len(pairs) == 16 and len(study.models) == 10
    assert all(pair["models"] == [*study.models] for pair in pairs.values())
    assert pairs["wiz_reward"]["high"] == ["wiz_reward_high", ["*"]] and pairs["wiz_reward"]["quality"] == "reward"
    assert {row["max_length"] for row in study.scored.values()} == {4096}
    assert {row["prompt"] for row in study.scored.values()} == {"plain"}
    # Nobody here has seen these commits.
    assert not any(study.models[name]["revision"] for name in study.models)


@needs_shared("quality_data")
def test_its_files_have_the_checksums_of_the_list():
    lines = (SHARED / "quality_data/SHA256SUMS").read_text().splitlines()
    listed = {path: digest for digest, path in (line.split() for line in lines)}
    fetched = fetched_files(read_study(STUDY, ROOT), [])
    found = {path: file["sha256"] for path, file in fetched.items() if "Gradient_Unified/f86e985b" in file["url"]}
    assert found == listed


def test_graded_data_are_scored_on_a_trained_and_an_untrained_miniature():
    study = read_study(DEFAULT, ROOT)
    assert study.quality_pairs()["mini_graded"]["models"] == ["mini", "mini_random"]


def entry(**values):
    return DEFAULT | {"datasets": [{"dataset": "mine", "source": str(ROOT / "README.md")} | values]}


def test_a_users_own_data_can_be_a_pair():
    config = entry(pair="own", high=["good"], low=["bad"], quality="stars")
    assert read_study(config, ROOT).quality_pairs()["own"] | {"models": []} == {
        "quality": "stars", "high": ["mine", ["good"]], "low": ["mine", ["bad"]], "models": [],
    }  # fmt: skip
    # One side alone is no pair.
    assert not read_study(entry(pair="own", high=["good"]), ROOT).quality_pairs()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"url": "https://example.org"}, "a url needs the file's sha256"),
        ({"hihg": ["good"]}, "hihg"),
        ({"pair": "a b"}, "pair"),
    ],
)
def test_mistakes_in_an_entry_are_named(values, message):
    with pytest.raises(InputError, match=message):
        read_study(entry(**values), ROOT)


# --- The numbers of the claims ---


def test_a_partial_rank_correlation_is_that_of_the_recursion():
    from scipy import stats

    rng = np.random.default_rng(4)
    z = rng.normal(size=(300, 2))
    data = np.column_stack([z @ [1, 2] + rng.normal(size=300), z @ [2, -1] + rng.normal(size=300), z])
    r = np.corrcoef(stats.rankdata(data, axis=0).T)

    def partial(a, b, given):
        if not given:
            return r[a, b]
        *rest, c = given
        ab, ac, bc = partial(a, b, rest), partial(a, c, rest), partial(b, c, rest)
        return (ab - ac * bc) / np.sqrt((1 - ac**2) * (1 - bc**2))

    assert measures.partial_rank_correlation(data) == pytest.approx(partial(0, 1, [2, 3]), rel=1e-10)


def made_pair(folder, effect, n=150, seed=0):
    """High quality is e times as long; the rank follows length, and quality beyond it by `effect`."""
    rng = np.random.default_rng(seed)
    paths = {}
    for side, shift in (("high", 1.0), ("low", 0.0)):
        logs = rng.normal(5 + shift, 0.8, n)
        loss = np.exp(rng.normal(0, 0.3, n))
        rank = np.exp(0.7 * logs + rng.normal(0, 0.1, n) + effect * shift)
        own = {"stars": (shift + rng.uniform(0, 0.5, n)).tolist()}
        norm = np.exp(rng.normal(0, 0.5, n))
        paths[side] = write_scores(folder / side, np.exp(logs).round(), loss, norm, rank, own=own)
    return paths


EVERY = tuple(CLAIMS.values())


def verdicts(folder, paths, claims=EVERY):
    """The verdicts of the claims on one pair of one model."""
    scores = {("m", side): path for side, path in paths.items()}
    pair = {"high": ["high", ["*"]], "low": ["low", ["*"]], "quality": "stars"}
    gather_quality(scores, {"own": pair}, [], [], MODELS, claims, folder / "e.parquet", 300, 0)
    table = decide([folder / "e.parquet"], claims, {}, folder / "claims")
    return {row["claim"]: row for row in table.to_dicts()}


def test_a_difference_of_length_alone_holds_raw_and_not_matched(tmp_path):
    found = verdicts(tmp_path, made_pair(tmp_path, 0))
    assert found["quality_rank"]["verdict"] == "holds" and found["quality_rank"]["n"] == 150
    assert found["quality_rank_loss"]["verdict"] == "holds"
    for name in ("quality_rank_tokens", "quality_rank_tokens_loss", "quality_rank_partial"):
        assert found[name]["verdict"] == "inconclusive" and found[name]["status"] == "control"
    matched = found["quality_rank_tokens"]
    assert 20 <= matched["n"] < 150 and matched["tokens"] == pytest.approx(matched["reference_tokens"], rel=0.05)
    assert found["rank_separates"]["verdict"] == "holds"
    # What this config does not make is stated, and is no test.
    for name in ("reasoning_rank", "family_likeness", "cosines_zero", "correct_rank"):
        assert found[name]["status"] == "not_asked" and "not tested: needs" in found[name]["reason"]


def test_an_effect_beyond_length_stays(tmp_path):
    found = verdicts(tmp_path, made_pair(tmp_path, 0.4))
    for name in ("quality_rank", "quality_rank_tokens", "quality_rank_tokens_loss", "quality_rank_partial"):
        assert found[name]["verdict"] == "holds", found[name]
    assert found["quality_rank_tokens"]["value"] == pytest.approx(np.exp(0.4), rel=0.1)
    assert found["quality_norm"]["verdict"] == "inconclusive"


def test_too_few_matched_pairs_give_no_verdict(tmp_path):
    numbers = np.arange(1.0, 31)
    paths = {
        "high": write_scores(tmp_path / "high", [500] * 30, numbers, numbers, numbers, own={"stars": [1.0] * 30}),
        "low": write_scores(tmp_path / "low", [5] * 30, numbers, numbers, numbers, own={"stars": [0.0] * 30}),
    }
    row = verdicts(tmp_path, paths)["quality_rank_tokens"]
    assert row["verdict"] == "inconclusive" and row["reason"] == "only 0 matched pairs; 20 are needed"


def test_the_largest_rank_is_that_over_the_set_that_comes_nearest(tmp_path):
    rng = np.random.default_rng(0)
    groups = {}
    for name, factor in (("s1", 3.0), ("gsm8k", 1.0), ("high", 2.5), ("low", 0.5)):
        rank = factor * np.exp(rng.normal(0, 0.1, 40))
        groups[name] = read_group(write_scores(tmp_path / name, [9] * 40, [1.0] * 40, rank, rank), name)
    nothing = np.full(40, np.nan)
    pairs = {
        "reasoning": measures.Pair("reasoning", groups["s1"], groups["gsm8k"], nothing, nothing, 200, 0),
        "own": measures.Pair("own", groups["high"], groups["low"], nothing, nothing, 200, 0),
    }
    (found,) = measures.largest_rank(pairs, CLAIMS["reasoning_rank"])
    assert found.reference_dataset == "high" and found.value == pytest.approx(1.2, rel=0.08)


def test_families_that_are_alike_are_found_and_others_are_not():
    rng = np.random.default_rng(0)
    claim = replace(CLAIMS["family_likeness"], families=tuple(f"m{i}={'abc'[i // 2]}" for i in range(6)))
    depths = np.linspace(0, 1, 12)[:, None, None]

    def curves(families):
        shapes = [np.exp(np.sin(rng.uniform(2, 9) * depths + rng.uniform(0, 6))) for _ in range(3)]
        noise = lambda: np.exp(rng.normal(0, 0.1, (12, 2, 4)))  # noqa: E731
        return {f"m{i}": {f"d{d}": shapes[i // 2 if families else rng.integers(3)] * noise() for d in range(8)}
                for i in range(6)}  # fmt: skip

    (found,) = wider.family_likeness(curves(True), claim, 200, 0)
    # Of 15 ways to pair six models, one is the planted one.
    assert found.low > 0.3 and found.p_value == pytest.approx(2 / 15) and found.test == "permutation of families"
    (none,) = wider.family_likeness(curves(False), claim, 200, 0)
    assert none.p_value > 0.2


def test_cosines_and_correct_responses(tmp_path):
    rows = [
        {
            "kind": kind,
            "variant": "none",
            "relation": "correct",
            "sample_id": str(i),
            "loss_tokens": "all",
            "cosine": value * (-1) ** i,
        }
        for kind, value in (("same_layer", 0.02), ("adjacent_layers", 0.3))
        for i in range(30)
        for _ in range(2)
    ]
    found = [*wider.cosine(pl.DataFrame(rows), CLAIMS["cosines_zero"], 100, 0)]
    assert [(each.relation, round(each.value, 6)) for each in found] == [("same_layer", 0.02), ("adjacent_layers", 0.3)]
    rng = np.random.default_rng(0)
    samples = [
        {"variant": "detailed", "relation": relation, "sample_id": str(i), "loss_tokens": "all", "response_tokens": 9,
         "effective_rank": base * np.exp(rng.normal(0, 0.01)), "projection": name}
        for relation, base in (("correct", 4.0), ("published", 5.0), ("shuffled", 1.0))
        for i in range(30)
        for name in "qk"
    ]  # fmt: skip
    (ratio,) = wider.correct_ratio(pl.DataFrame(samples), CLAIMS["correct_rank"], 100, 0)
    assert ratio.relation == "detailed/published" and ratio.n == 30
    assert ratio.value == pytest.approx(0.8, rel=0.02) and ratio.test == "Wilcoxon"
    assert isinstance(ratio, GradientEstimate) and COSINES.names


def test_an_unknown_measure_is_named(tmp_path):
    claim = replace(CLAIMS["quality_norm"], measure="ratoi")
    with pytest.raises(InputError, match=r"claims_quality.tsv, 'quality_norm': column 'measure'.*ratio"):
        verdicts(tmp_path, {}, [claim])


# --- The study's files through a tiny model: a pipeline check ---


@needs_shared("quality_data")
def test_two_files_of_the_study_through_a_tiny_model(tmp_path, miniature):
    paths = []
    for side in ("highest", "lowest"):
        rows = json.loads((SHARED / f"quality_data/ifd_gpt2/wiz_10k_{side}_200.json").read_text())[:30]
        data = tmp_path / f"{side}.json"
        data.write_text(json.dumps(rows))
        output = tmp_path / side
        done = call("score", "--model", miniature, "--data", data, "--output", output, "--prompt", "plain",
                    "--max-length", "96", "--threads", "1")  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "shape instruction" in done.stderr
        paths.append(output / "scores.parquet")
    scores = pl.from_arrow(read_table(SCORES, paths[0]))
    assert scores.height == 30 and scores["ifd_gpt2"].min() > scores["ifd_gpt2"].max() - 0.1
    done = call("compare_groups", "--scores", paths[0], "--other", paths[1], "--output", tmp_path / "out",
                "--formats", "svg", "--draws", "100")  # fmt: skip
    assert done.returncode == 0, done.stderr
    frame = pl.read_parquet(tmp_path / "out/comparison.parquet")
    tokens = frame.filter(samples="all", number="response_tokens").row(0, named=True)
    # Eleven-fold in characters, before the window cuts.
    assert tokens["ratio_low"] > 1 and tokens["group_a"] == "highest"
    pairs = {"wiz": {"high": ["high", ["*"]], "low": ["low", ["*"]], "quality": "ifd_gpt2"}}
    arguments = ("--scores", *paths, "--claims", ROOT / "config/claims_quality.tsv", "--output", tmp_path / "e.parquet")
    done = call("gather_quality_evidence", *arguments,
                *settings(models=MODELS, scored=["m/high", "m/low"], pairs=pairs, draws=50, seed=0))  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = pl.read_parquet(tmp_path / "e.parquet")
    assert set(found["claim"]) == set(CLAIMS)
    assert found.filter(pl.col("claim") == "quality_rank")["n"].item() in range(20, 31)
    pairs["wiz"]["quality"] = "stars"
    done = call("gather_quality_evidence", *arguments,
                *settings(models=MODELS, scored=["m/high", "m/low"], pairs=pairs, draws=50, seed=0))  # fmt: skip
    assert "dataset 'high' has no column 'stars'" in user_error(done)
