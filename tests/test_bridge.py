"""The bridge: SFT on variants of the first study's responses; gradients and kernels along it, claims and figures."""

import json

import numpy as np
import polars as pl
import pytest

from conftest import ROOT, call, settings, user_error
from gradatlas.claims.dynamics.bridge import ON_BRIDGE, OnBridge, gather_bridge
from gradatlas.claims.dynamics.runs import NothingMeasured
from gradatlas.claims.sheet import DynamicsClaim, read_claims
from gradatlas.core.errors import InputError
from gradatlas.core.tables import write_table
from gradatlas.data.tables import RESPONSES
from gradatlas.finetuning.bridge import places_of, read_places
from gradatlas.finetuning.examples import order_of
from gradatlas.finetuning.finetune import stages
from gradatlas.kernels.tables import BRIDGE, KERNELS
from gradatlas.statistics.bridge import Measured
from gradatlas.study.config import read_study

SHEET = ROOT / "config/claims_dynamics.tsv"
CLAIMS = {claim.claim: claim for claim in read_claims(DynamicsClaim, SHEET) if claim.table.startswith("bridge")}
KINDS = ("none:correct", "detailed:correct", "detailed:wrong_chain")


@pytest.fixture(scope="module")
def responses(tmp_path_factory):
    """12 questions with None, Simplified and Detailed responses of 1, 3 and 9 words, and wrong Detailed ones."""
    texts = {"none": "7", "simplified": "2 + 5 = 7", "detailed": "First there are 2 stones. Then 5 more come. So 7"}
    rows = [
        dict.fromkeys(RESPONSES.names) | {
            "dataset": "made", "sample_id": f"s{i}", "variant": variant, "relation": relation, "status": "ok",
            "instruction": f"How many stones are {i} and 5 stones? ({variant})",
            "response": text.replace("2", str(i)) + (" or 9" if relation == "wrong_chain" else ""),
        }
        for i in range(12) for variant, text in texts.items() for relation in ("correct", "wrong_chain")
        if relation == "correct" or variant == "detailed"
    ]  # fmt: skip
    path = tmp_path_factory.mktemp("responses") / "made.parquet"
    write_table(RESPONSES, rows, path, {})
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory, miniature, responses):
    """(folder, start): runs on None and Detailed, with their bridge and kernels tables."""
    folder = tmp_path_factory.mktemp("bridge")
    for variant in ("none", "detailed"):
        out = folder / variant
        chosen = {"variant": variant, "variants": ["none", "simplified", "detailed"], "train": 6, "held_out": 4,
                  "updates": 2, "stages": 2, "batch_size": 2, "learning_rate": 1e-4, "device": "cpu"}  # fmt: skip
        for arguments in (
            ("train_on_variant", "--model", miniature, "--responses", responses, "--output", out, "--journal",
             folder / "journal", *settings(**chosen)),
            ("measure_bridge", "--init", miniature, "--folder", out, "--responses", responses, "--kinds", *KINDS,
             "--journal", folder / "gradients", "--output", out / "bridge.parquet",
             *settings(device="cpu", metrics=["nuclear_norm"])),
            ("measure_kernels", "--init", miniature, "--folder", out, "--probes", out / "probes.parquet", "--kernels",
             out / "kernels.parquet", "--means", out / "kernel_means.parquet", "--entanglement",
             out / "entanglement.parquet", "--journal", folder / "kernels",
             *settings(run=f"sft_{variant}", prompts=3, pairs=0, device="cpu")),
        ):  # fmt: skip
            done = call(*arguments)
            assert done.returncode == 0, done.stderr
    return folder, miniature


def test_snapshots_are_at_equal_updates_and_at_equal_tokens():
    random = np.random.default_rng(0)
    lengths = {"none": [2] * 30, "detailed": [int(n) for n in random.integers(40, 90, 30)]}
    places = {each: places_of(lengths, each, 12, 3, 4, seed=1) for each in lengths}
    assert places["detailed"] == {"updates": [4, 8, 12], "tokens": [4, 8, 12]}
    assert places["none"]["updates"] == [4, 8, 12]

    def seen(variant, step):
        return sum(lengths[variant][place] for place in order_of(30, 0, 4 * step, 1))

    for ours, theirs in zip(places["none"]["tokens"], places["detailed"]["tokens"], strict=True):
        assert seen("none", ours - 1) < seen("detailed", theirs) <= seen("none", ours)


def test_runs_end_at_the_last_place_and_see_their_variant(trained):
    folder, start = trained
    for variant in ("none", "detailed"):
        places = read_places(folder / variant)
        steps = sorted({0, *places["updates"], *places["tokens"]})
        assert [step for step, _ in stages(str(start), folder / variant)] == steps and places["variant"] == variant
        pairs = pl.read_parquet(folder / variant / "pairs.parquet")
        assert all(f"({variant})" in prompt for prompt in pairs["prompt"])
        assert dict(pairs.group_by("split").len().iter_rows()) == {"train": 6, "held_out": 4}
    none, detailed = (pl.read_parquet(folder / each / "dynamics.parquet") for each in ("none", "detailed"))
    assert set(none["type"]) == {"none", "simplified", "detailed"} and none["step"].max() > detailed["step"].max() == 2
    means = none.filter(type="none", split="train").group_by("step").agg(pl.col("log_prob_sum").mean()).sort("step")
    assert means["log_prob_sum"][-1] > means["log_prob_sum"][0]


def test_gradients_along_the_run_are_those_of_its_models(trained, responses, tmp_path):
    folder, start = trained
    table = pl.read_parquet(folder / "detailed/bridge.parquet")
    held_out = set(pl.read_parquet(folder / "detailed/pairs.parquet").filter(split="held_out")["pair_id"])
    assert set(table["sample_id"]) == held_out and set(table["step"]) == {0, 1, 2}
    card = dict(stages(str(start), folder / "detailed"))[1]
    done = call("measure_gradients", "--model", card, "--responses", responses, "--samples", tmp_path / "s.parquet",
                "--spectra", tmp_path / "p.parquet", *settings(device="cpu", metrics=["nuclear_norm"]))  # fmt: skip
    assert done.returncode == 0, done.stderr
    keys = ["sample_id", "variant", "relation", "layer", "projection"]
    alone = pl.read_parquet(tmp_path / "p.parquet").select(*keys, pl.col("nuclear_norm").alias("own"))
    both = table.filter(step=1).join(alone, on=keys)
    assert both.height == 4 * 3 * table["layer"].n_unique() * 4
    assert both["nuclear_norm"].to_numpy() == pytest.approx(both["own"].to_numpy(), rel=1e-6)


def test_the_commands_from_tables_to_evidence_and_figures(trained, tmp_path):
    folder, _ = trained
    runs = [folder / each for each in ("none", "detailed")]
    done = call("gather_bridge_evidence", "--dataset", "made", "--model", "mini", "--bridge",
                *(run / "bridge.parquet" for run in runs), "--kernels", *(run / "kernels.parquet" for run in runs),
                "--claims", SHEET, "--output", tmp_path / "evidence.parquet", *settings(draws=50))  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = {row["claim"]: row for row in pl.read_parquet(tmp_path / "evidence.parquet").to_dicts()}
    assert set(rows) == set(CLAIMS) == set(ON_BRIDGE) and rows["slow_answers_alike"]["n"] == 3
    assert rows["sft_detailed_mad_falls"]["value"] > 0 and rows["sft_detailed_mad_falls"]["relation"] == "sft_detailed"
    assert "pairs of samples of equal loss and length; " in rows["sft_detailed_mad_falls_matched"]["reason"]
    done = call("draw_bridge", "--bridge", *(run / "bridge.parquet" for run in runs), "--means",
                *(run / "kernel_means.parquet" for run in runs), "--title", "Mini", "--formats", "vl.json", "--output",
                tmp_path / "figures", *settings(draws=50))  # fmt: skip
    assert done.returncode == 0, done.stderr
    listed = json.loads((tmp_path / "figures/index.json").read_text())["figures"]
    assert [each["kind"] for each in listed] == ["mad", "cosines"]


def test_a_response_that_was_not_built_is_named(trained, responses, tmp_path):
    folder, start = trained
    kinds = ("--kinds", "none:shuffled", "--journal", tmp_path, "--output", tmp_path / "b.parquet")
    done = call("measure_bridge", "--init", start, "--folder", folder / "none", "--responses", responses, *kinds)
    assert "no response none:shuffled to a held-out question; change config key bridge.measured" in user_error(done)
    done = call("train_on_variant", "--model", start, "--responses", responses, "--output", tmp_path / "o", "--journal",
                tmp_path / "j", *settings(variant="none", variants=["none", "detailed"], device="cpu"))  # fmt: skip
    assert "12 questions have responses of the variants none, detailed; lower bridge.train" in user_error(done)


# Made-up tables on which the claims hold, and on which they do not.


def made(slope, loss=lambda step, i: 1.0 + 0.1 * i, cosine=0.3):
    """30 samples of 5 layers: norms grow by layer, at the end by a share `slope` of that at the start."""
    random = np.random.default_rng(0)
    noise = random.normal(size=30)
    bridge = [
        {"run": "sft_detailed", "seed": 0, "step": step, "sample_id": f"s{i:02}", "variant": "detailed",
         "relation": "correct", "loss": loss(step, i), "response_tokens": 50 + i, "layer": layer, "projection": name,
         "nuclear_norm": 9.0 + (slope if step else 1.0) * layer * (1 + 0.02 * noise[i])}
        for step in (0, 4) for i in range(30) for layer in range(5) for name in "qk"
    ]  # fmt: skip
    kernels = [
        {"run": "sft_detailed", "seed": 0, "step": 0, "o": f"s{i}/{one}", "u": f"s{i}/{other}", "block": "all",
         "value": 1.0, "cosine": (cosine if {one, other} == {"detailed", "simplified"} else 0.1) + 0.01 * noise[i]}
        for i in range(30) for one, other in (("none", "simplified"), ("none", "detailed"), ("simplified", "detailed"))
    ]  # fmt: skip
    return pl.DataFrame(bridge, schema_overrides=dict(layer=pl.Int16)), pl.DataFrame(kernels)


def number(name, tables):
    return ON_BRIDGE[name](OnBridge(CLAIMS[name], *tables, 200, 0))


@pytest.mark.parametrize("name", ["sft_detailed_mad_falls", "sft_detailed_mad_falls_matched"])
def test_a_mad_that_falls_and_one_that_rises(name):
    for slope in (0.5, 2.0):
        found = number(name, made(slope))
        assert found.value == pytest.approx(slope, rel=0.01) and found.n == 30
        assert (found.high < 1) == (slope < 1) and (found.low > 1) == (slope > 1) and found.p_value < 0.01


def test_losses_that_differ_leave_no_matched_pair():
    with pytest.raises(NothingMeasured, match="only 0 pairs of samples of equal loss and length; 5 are needed"):
        number("sft_detailed_mad_falls_matched", made(0.5, loss=lambda step, i: (9.0 if step else 1.0) + 0.01 * i))


def test_cosines_of_slow_answers():
    assert number("slow_answers_alike", made(1.0)).value == pytest.approx(0.2, abs=1e-6)
    assert number("slow_answers_alike", made(1.0, cosine=-0.1)).high < 0


def test_mad_is_the_geometric_mean_over_projections():
    table, _ = made(2.0)
    found = Measured.of(table, "detailed:correct", 4)
    assert found.norms.shape == (30, 2, 5)
    curves = found.norms.mean(0)
    plain = np.exp(np.log(np.abs(np.diff(curves)).mean(-1)).mean())
    assert found.mads(20, 0)[0] == pytest.approx(plain)
    assert len(Measured.of(table, "none:correct", 4).norms) == 0


def test_evidence_of_seeds_is_a_row_each(tmp_path):
    groups = {}
    for seed in (0, 1):
        for kind, table in zip((BRIDGE, KERNELS), made(0.5), strict=True):
            path = tmp_path / f"{kind.name}.{seed}.parquet"
            write_table(kind, table.with_columns(pl.lit(seed).alias("seed")).to_arrow().cast(kind.schema), path, {})
            groups.setdefault(seed, {})[kind.name] = [path]
    gather_bridge("made", "mini", "base", groups, list(CLAIMS.values()), tmp_path / "e.parquet", 50, 0)
    rows = pl.read_parquet(tmp_path / "e.parquet")
    assert rows.height == 2 * len(CLAIMS) and set(rows["seed"]) == {0, 1} and rows["value"].null_count() == 0


@pytest.mark.parametrize(("bridge", "message"), [
    ({"dataset": "mini_popular"}, "has no variant detailed, none, simplified; a bridge needs"),
    ({"dataset": "gsm8k"}, "'bridge.dataset': unknown name 'gsm8k'"),
    ({"dataset": "mini_arithmetic", "models": ["mini_instruct"]}, "'bridge.models': 'mini_instruct' reads chats"),
    ({"dataset": "mini_arithmetic", "measured": ["none:wrong"]}, "'bridge.measured': 'none:wrong': write VARIANT"),
])  # fmt: skip
def test_a_bridge_that_cannot_stand_is_refused(bridge, message):
    config = {"models": ["mini", "mini_instruct", "mini_random"], "datasets": ["mini_arithmetic", "mini_popular"]}
    with pytest.raises(InputError) as error:
        read_study({**config, "relations": ["correct", "wrong_chain"], "bridge": bridge}, ROOT)
    assert message in str(error.value)
