"""Every claim of the second study on made-up runs on which it must hold, fail and stay inconclusive; and seeds."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy import stats

from conftest import ROOT, call, settings, user_error
from gradatlas.claims.dynamics.bridge import ON_BRIDGE
from gradatlas.claims.dynamics.bridge import TABLES as OF_BRIDGE
from gradatlas.claims.dynamics.exact import EXACT
from gradatlas.claims.dynamics.gather import ON_RUNS, TOYS, check, on_runs
from gradatlas.claims.dynamics.influence import ROWS, successive_taus
from gradatlas.claims.dynamics.runs import OnRuns, Run, RunGroup, exactly
from gradatlas.claims.dynamics.training import at_margin, split_peaks
from gradatlas.claims.rows import DYNAMICS as STUDY
from gradatlas.claims.rows import read_rows
from gradatlas.claims.sheet import DynamicsClaim, read_claims
from gradatlas.claims.tables import EVIDENCE
from gradatlas.claims.verdicts import decide
from gradatlas.core.errors import InputError
from gradatlas.core.sheets import read_sheet
from gradatlas.core.tables import read_table, write_table
from gradatlas.figures.verdicts import draw_verdicts, heading, list_chart, write_verdicts
from gradatlas.finetuning.probes import TYPES
from gradatlas.finetuning.tables import DYNAMICS
from gradatlas.page.verdicts import verdicts as atlas_verdicts
from gradatlas.study.shares import wilson
from gradatlas.study.sheets import RunRow
from gradatlas.toys.tables import TABLES, TOY_PREDICTIONS
from test_atlas import read

SHEET = ROOT / "config/claims_dynamics.tsv"
CLAIMS = {claim.claim: claim for claim in read_claims(DynamicsClaim, SHEET)}
RUNS = read_sheet(ROOT / "config/runs.tsv", RunRow, "run")
PROMPTS, TOKENS, EVALUATIONS = 30, 10, 5
MEASURED = ("log_prob_sum", "log_prob_mean", "argmax_log_prob", "rest_log_mass", "a_norm")


def rows_of(name, curves, seed, examples=None, types=TYPES):
    """A run's ``dynamics`` rows: by (type, measure) a curve of all prompts, or one a prompt; nothing else changes.

    Every prompt has a level of its own and a little noise.
    """
    random = np.random.default_rng([seed, *name.encode()])
    examples = list(range(0, 100 * EVALUATIONS, 100)) if examples is None else examples
    rows = []
    for kind in types:
        values = {}
        for measure in MEASURED:
            curve = np.asarray(curves.get((kind, measure), np.zeros(len(examples))), dtype=float)
            base = 50.0 if measure == "a_norm" else -20.0
            # All runs of a seed share their prompts.
            shared = np.random.default_rng([seed, *f"{kind} {measure}".encode()]).normal(size=(PROMPTS, 1))
            levels = base + (curve.ndim == 1) * shared
            values[measure] = levels + curve + 0.02 * random.normal(size=(PROMPTS, len(examples)))
        for i in range(PROMPTS):
            for step, at in enumerate(examples):
                one = {measure: float(values[measure][i, step]) for measure in MEASURED}
                rows.append(
                    {"run": name, "seed": seed, "step": step, "examples": at, "probe_id": f"p{i}/{kind}"}
                    | {"split": "train", "type": kind, "tokens": TOKENS, "entropy": 1.0, "g_norm": 1.0, "status": "ok"}
                    | one
                )
    return rows


def group(runs, seed=0, **tables):
    frames = {
        name: curves
        if isinstance(curves, Run)
        else Run(pl.DataFrame(rows_of(name, curves, seed)), target=RUNS[name]["target"])
        for name, curves in runs.items()
    }
    return RunGroup("mini_qa", "mini", seed, frames, 200, 0, **tables)


def straight(end):
    return np.linspace(0, end, EVALUATIONS)


def change(run, kind, measure="log_prob_sum", scale=1.0):
    """The run changes this by x; `scale` where the claim divides by it."""
    return lambda x, seed: group({run: {(kind, measure): straight(x * scale)}}, seed)


def against(run, other, kind, measure="log_prob_sum", scale=1.0):
    """The first run does, and the second does not."""
    return lambda x, seed: group({run: {(kind, measure): straight(x * scale)}, other: {}}, seed)


def turn(run, kind):
    return lambda x, seed: group({run: {(kind, "log_prob_sum"): [0, x, x, x, 0]}}, seed)


def correlated(x, seed):
    """Prompts whose rejected responses are rarer rise more (x < 0), less, or by chance."""
    random = np.random.default_rng(seed)
    rare = random.normal(size=PROMPTS)
    rise = x * rare + (3 - abs(x)) * random.normal(size=PROMPTS)
    curves = {
        ("rejected", "log_prob_mean"): np.repeat(rare[:, None], EVALUATIONS, 1),
        ("chosen", "argmax_log_prob"): 10 * rise[:, None] * np.linspace(0, 1, EVALUATIONS),
    }
    return group({"dpo": curves}, seed)


def ranked(x, seed):
    """Windows that rank the types alike, or each the other way round than the last."""
    sizes = np.arange(1.0, len(ROWS) + 1)
    steps = [sizes if x > 0 or window % 2 else sizes[::-1] for window in range(EVALUATIONS - 1)]
    if 0 < x < 2:
        steps[-1] = sizes[::-1]
    curves = {
        (kind, "log_prob_mean"): np.concatenate([[0], np.cumsum([step[place] for step in steps])])
        for place, kind in enumerate(ROWS)
    }
    return group({"probed_chosen": curves}, seed)


def scored(run, column, other=""):
    """Held-out answers with so much more of a column at the end (against the other run's); 0 to 1."""

    def made(x, seed):
        hits = np.arange(20) < round(abs(x) * 20)
        rows = [
            {"run": name, "seed": seed, "step": step, "examples": step, "pair_id": f"h{i}", "split": "held_out"}
            | {"draw": 0, "tokens": 9, "finished": True, "repetition": 0.0, "borrowed": False, "correct": None}
            | {column: (float if column == "repetition" else bool)(hits[i] and raised)}
            for name in filter(None, (run, other)) for step in (0, 300) for i in range(20)
            for raised in [(x > 0) == (name == run and step == 300) and (step == 300 or not other)]
        ]  # fmt: skip
        schema = {"repetition": pl.Float64, "borrowed": pl.Boolean, "correct": pl.Boolean}
        return group({name: {} for name in filter(None, (run, other))}, seed, generation_scores=pl.DataFrame(
            rows, schema_overrides=schema))  # fmt: skip

    return made


def judged(run, baseline):
    """So many of 20 held-out prompts are won, the others lost, after a step that the other way round decided."""

    def made(x, seed):
        rows = [
            {"run": run, "baseline": baseline, "seed": seed, "step": step, "baseline_step": step, "examples": step}
            | {"pair_id": f"h{i}", "draw": 0, "judge": "oracle", "forward": won, "backward": won, "verdict": won}
            for step in (0, 300) for i in range(20)
            for won in ["run" if (i < round(x * 20)) == (step == 300) else "baseline"]
        ]  # fmt: skip
        return group({run: {}, baseline: {}}, seed, judgements=pl.DataFrame(rows))

    return made


def entangled(shifted=0):
    """Of chosen responses that rise and fall by turns, those with the larger E fall (x > 0), or rise, or either.

    `shifted`: E is that of so many prompts before.
    """

    def made(x, seed):
        falls = np.arange(PROMPTS) % 2 == 0
        # Each two prompts have the same noise.
        e = x * (np.roll(falls, -shifted) - 0.5) + np.linspace(-2, 2, PROMPTS // 2).repeat(2)
        curve = np.where(falls, -1.0, 1.0)[:, None] * np.linspace(0, 5, EVALUATIONS)
        rows = [
            {"run": "dpo", "seed": seed, "step": step, "prompt": f"p{i}", "layer": layer, "block": "q", "cross": 0.0,
             "chosen": 1.0, "rejected": 1.0, "entanglement": e[i] / 2}
            for step in (0, 2, 4) for i in range(PROMPTS) for layer in (0, 1)
        ]  # fmt: skip
        return group({"dpo": {("chosen", "log_prob_sum"): curve}}, seed, entanglement=pl.DataFrame(rows))

    return made


def grown(margin=0.0):
    """The norm of the rejected responses' gradient grows by exp(x); the margin by `margin` nats."""

    def made(x, seed):
        random = np.random.default_rng(seed)
        noise = 0.02 * random.normal(size=PROMPTS)
        rows = [
            {"run": "dpo", "seed": seed, "step": step, "prompt": f"p{i}", "layer": 0, "block": "q", "cross": 0.0,
             "chosen": 1.0, "rejected": np.exp(step / 4 * 2 * (x + noise[i])), "entanglement": 0.0}
            for step in (0, 4) for i in range(PROMPTS)
        ]  # fmt: skip
        found = group({"dpo": {("rejected", "log_prob_sum"): straight(-margin)}}, seed, entanglement=pl.DataFrame(rows))
        return replace(found, runs={"dpo": replace(found.runs["dpo"], loss="dpo")})

    return made


def lasting(*runs):
    """The ranking by the kernel of the first run stays (x > 0) or is reversed; that of a second one is by chance."""

    def made(x, seed):
        random = np.random.default_rng(0)
        rows = []
        for run in runs:
            start = random.normal(size=(PROMPTS, PROMPTS))
            start, noise = start + start.T, random.normal(size=(PROMPTS, PROMPTS))
            end = (x if run == runs[0] else 0) * start + (3 - abs(x) if run == runs[0] else 1) * (noise + noise.T)
            for step, matrix in ((0, start), (4, end)):
                rows += [
                    {"run": run, "seed": seed, "step": step, "o": f"p{i}/chosen", "u": f"p{j}/chosen", "block": "all",
                     "value": matrix[i, j], "cosine": 0.0}
                    for i in range(PROMPTS) for j in range(i, PROMPTS)
                ]  # fmt: skip
        return group({run: {} for run in runs}, seed, kernels=pl.DataFrame(rows))

    return made


PLUS, MINUS, MIXED = (3.0, 3.1, 2.9), (-3.0, -3.1, -2.9), (3.0, -3.0, 0.5)
UP, DOWN = (PLUS, MINUS, MIXED), (MINUS, PLUS, MIXED)
RATES = ((0.9, 0.95, 0.85), (0.1, 0.15, 0.05), (0.9, 0.1, 0.5))
SHARES, SHARES_DOWN = (
    ((0.5, 0.55, 0.45), (-0.5, -0.55, -0.45), (0.5, -0.5, 0.1)),
    ((-0.5, -0.55, -0.45), (0.5, 0.55, 0.45), (0.5, -0.5, 0.1)),
)
# By claim: how its number is made to be x, and x of three seeds where it holds, fails, and stays open.
TRAINED = {
    "sft_chosen_rises": (change("sft", "chosen"), UP),
    "sft_rejected_turns": (turn("sft", "rejected"), UP),
    "sft_rephrases_turn": (turn("sft", "chosen_semantic"), UP),
    "sft_pairing_rises": (change("sft", "irrelevant_train"), UP),
    "sft_pairing_beyond": (change("sft", "irrelevant_train"), UP),
    "sft_disorder_falls": (change("sft", "permuted"), DOWN),
    "dpo_chosen_falls": (change("dpo", "chosen"), DOWN),
    "dpo_rejected_falls": (change("dpo", "rejected"), DOWN),
    "dpo_others_fall": (change("dpo", "unrelated"), DOWN),
    "dpo_margin_widens": (change("dpo", "rejected", scale=-1), UP),
    "dpo_argmax_rises": (change("dpo", "chosen", "argmax_log_prob"), UP),
    "dpo_argmax_rises_shuffled": (change("dpo", "random_nonhum", "argmax_log_prob"), UP),
    "length_argmax": (against("sft10_dpo", "sft1_dpo", "chosen", "argmax_log_prob", TOKENS), UP),
    "length_chosen": (against("sft10_dpo", "sft1_dpo", "chosen", scale=-1), UP),
    "extend_rejected_higher": (against("extend", "sft", "rejected"), UP),
    "extend_chosen_slower": (against("extend_dpo", "sft4_dpo", "chosen"), UP),
    "extend_others_slower": (against("extend_dpo", "dpo", "chosen_format"), UP),
    "extend_argmax_lower": (against("extend_dpo", "dpo", "chosen", "argmax_log_prob"), DOWN),
    "extend_argmax_slower": (against("extend_dpo", "dpo", "chosen", "argmax_log_prob"), DOWN),
    "win_after_sft": (judged("extend", "sft"), ((0.5, 0.5, 0.5), (0.9, 0.95, 0.85), (0.3, 0.7, 0.5))),
    "win_after_dpo": (judged("extend_dpo", "dpo"), RATES),
    "dpo_repeats": (scored("dpo", "repetition"), SHARES),
    "extend_repeats_less": (scored("extend_dpo", "repetition", "dpo"), SHARES_DOWN),
    "sft_borrows": (scored("sft", "borrowed"), SHARES),
    "dpo_borrows": (scored("dpo", "borrowed"), SHARES),
    "heat_diagonal": (change("probed_unrelated", "unrelated", "log_prob_mean"), UP),
    "heat_rephrases": (change("probed_chosen_semantic", "rejected_semantic", "log_prob_mean"), UP),
    "heat_pairing": (change("probed_chosen", "irrelevant_train", "log_prob_mean"), UP),
    "heat_dpo_falls": (change("probed_dpo", "permuted", "log_prob_mean"), DOWN),
    "heat_dpo_chosen": (change("probed_dpo", "chosen", "log_prob_mean"), UP),
    "ranks_stable": (ranked, ((3, 3, 3), (-1, -1, -1), (3, -1, 1))),
    "a_norm_grows": (change("sft", "chosen", "a_norm"), UP),
    "argmax_grows": (change("sft", "chosen", "argmax_log_prob"), UP),
    "rest_falls": (change("dpo", "chosen", "rest_log_mass"), DOWN),
    "dpo_a_norm_faster": (against("dpo", "sft", "chosen", "a_norm"), UP),
    "dpo_rest_faster": (against("dpo", "sft", "chosen", "rest_log_mass"), DOWN),
    "off_policy_argmax": (against("dpo", "dpo_on_policy", "chosen", "argmax_log_prob", TOKENS), UP),
    "off_policy_chosen": (against("dpo", "dpo_on_policy", "chosen", scale=-1), UP),
    "entanglement_predicts_fall": (entangled(), ((2.7, 2.8, 2.6), (-2.7, -2.8, -2.6), (2.0, -2.0, 0.2))),
    "entanglement_shuffled": (entangled(1), ((0, 0, 0), (2.7, 2.8, 2.6), (2.0, -2.0, 0.2))),
    "kernel_ranks_last": (lasting("sft"), ((2.5, 2.4, 2.3), (-2.5, -2.4, -2.3), (2.5, -2.5, 0.5))),
    "kernel_ranks_last_less_in_dpo": (lasting("dpo", "sft"), ((-3, -2.9, -2.8), (3, 2.9, 2.8), (3, -3, 0.5))),
    "negative_gradient_grows": (grown(), UP),
    "negative_push_falls": (grown(), DOWN),
    "rarer_squeezes_more": (correlated, ((-2.9, -2.8, -2.7), (2.9, 2.8, 2.7), (2.9, -2.9, 0.0))),
}
# Whose number is not x itself.
NOT_X = {"ranks_stable", "rarer_squeezes_more", "entanglement_predicts_fall", "entanglement_shuffled",
         "kernel_ranks_last", "kernel_ranks_last_less_in_dpo"}  # fmt: skip
# Of which one seed's prompts are too few for a verdict.
FEW = {"win_after_sft", "entanglement_predicts_fall", "entanglement_shuffled"}
# A run and type that a case is about, where the claim is tested on several.
ABOUT = {
    "sft_rejected_turns": "sft/rejected", "sft_rephrases_turn": "sft/chosen_semantic",
    "sft_disorder_falls": "sft/permuted@end", "dpo_others_fall": "dpo/unrelated@end",
    "extend_others_slower": "extend_dpo:dpo/chosen_format@equal_examples", "heat_dpo_falls": "probed_dpo/permuted@end",
}  # fmt: skip


def table_of(folder, found):
    """The claims table of (claim, training seed, estimate)."""
    rows = [
        estimate.row(claim=claim.claim, model="mini", kind="base", seed=seed, dataset="mini_qa")
        for claim, seed, estimate in found
    ]
    write_table(EVIDENCE, rows, folder / "evidence.parquet", {})
    return decide([folder / "evidence.parquet"], list(CLAIMS.values()), {}, folder / "claims")


def of_groups(folder, claim, groups):
    return table_of(folder, [(claim, each.seed, estimate) for each in groups for estimate in on_runs(each, claim)])


def test_every_claim_has_its_cases_and_its_function():
    on_runs = {name for name, claim in CLAIMS.items() if claim.table not in (*TOYS, *OF_BRIDGE, "one_step")}
    assert on_runs == set(ON_RUNS) == set(TRAINED) | set(BUDGETS)
    assert set(CLAIMS) - on_runs == set(EXACT) | set(ON_BRIDGE)
    assert all(CLAIMS[name].rests == ("exact" if name in BUDGETS else "seeds") for name in on_runs)


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize(("case", "verdict"), list(enumerate(["holds", "fails", "inconclusive"])))
def test_verdict_over_seeds(name, case, verdict, tmp_path):
    make, cases = TRAINED[name]
    table = of_groups(tmp_path, CLAIMS[name], [make(x, seed) for seed, x in enumerate(cases[case])])
    at = CLAIMS[name].at[0]
    if name in ABOUT:
        table = table.filter(pl.col("relation") == ABOUT[name])
    elif len(CLAIMS[name].at) > 1:
        table = table.filter(pl.col("relation").str.ends_with(f"@{at}"))
    over = table.filter(pl.col("model") == "mini, over seeds")
    assert over["verdict"].to_list() == [verdict], table.select("model", "value", "low", "high", "reason")
    assert over["status"][0] == CLAIMS[name].status and over["study"][0] == "learning_dynamics" and over["n"][0] == 3
    single = table.filter(pl.col("seed").is_not_null()).sort("seed")
    assert set(single["verdict"]) == {"inconclusive"} and set(single["status"]) == {"seed"}
    assert all(reason.startswith("1 seed of 3; over its probes alone: ") for reason in single["reason"])
    if name not in NOT_X:
        assert single["value"].to_list() == pytest.approx(cases[case], abs=0.07)
    if verdict != "inconclusive" and name not in FEW:
        assert {reason.rpartition(": ")[2] for reason in single["reason"]} == {verdict}


def test_one_seed_gives_no_verdict_and_says_what_its_probes_would(tmp_path):
    make, cases = TRAINED["dpo_others_fall"]
    table = of_groups(tmp_path, CLAIMS["dpo_others_fall"], [make(cases[0][0], 0)])
    assert set(table["verdict"]) == {"inconclusive"} and set(table["status"]) == {"stands"}
    found = dict(table.filter(pl.col("relation").str.ends_with("@end")).select("relation", "reason").iter_rows())
    assert found.pop("dpo/unrelated@end") == "1 seed; over its probes alone: holds"
    assert set(found.values()) == {"1 seed; over its probes alone: inconclusive"} and len(found) == 8
    row = table.filter(pl.col("relation") == "dpo/unrelated@end").row(0, named=True)
    assert row["low"] < row["value"] < row["high"] < 0 and row["n"] == PROMPTS and row["p_adjusted"] is None


def test_two_seeds_give_none_either(tmp_path):
    make, _ = TRAINED["dpo_chosen_falls"]
    table = of_groups(tmp_path, CLAIMS["dpo_chosen_falls"], [make(-3.0, seed) for seed in (0, 1)])
    over = table.filter(pl.col("seed").is_null(), pl.col("relation") == "dpo@end").row(0, named=True)
    assert over["reason"] == "2 usable seeds of 2; 3 are needed" and over["low"] is None
    assert over["value"] == pytest.approx(-3, abs=0.05)


def test_over_probes_alone_is_corrected_too(tmp_path):
    claim = CLAIMS["dpo_others_fall"]
    one = OnRuns(group({}), claim, "dpo").mean(np.array([-1.0, -0.8] * 8 + [0.9, 0.7] * 3))
    assert one.high < 0 and 0.005 < one.p_value < 0.05
    one = replace(one, of="dpo/unrelated")
    assert table_of(tmp_path, [(claim, 0, one)])["reason"][0].endswith("alone: holds")
    ten = [(claim, 0, replace(one, of=f"dpo/{i}")) for i in range(10)]
    assert set(table_of(tmp_path, ten)["reason"]) == {"1 seed; over its probes alone: inconclusive"}


def test_seeds_are_corrected_for_the_number_of_tests(tmp_path):
    """The p-values over seeds are Holm's over all types and places that have a number; those of single seeds none."""
    make, cases = TRAINED["dpo_others_fall"]
    table = of_groups(tmp_path, CLAIMS["dpo_others_fall"], [make(x, seed) for seed, x in enumerate(cases[0])])
    over = table.filter(pl.col("model") == "mini, over seeds").sort("p_value")
    over = over.filter(pl.col("p_value").is_not_null())
    assert over.height == 9 and over["p_adjusted"][0] == pytest.approx(9 * over["p_value"][0])
    assert table.filter(pl.col("seed").is_not_null())["p_adjusted"].null_count() == 3 * 9 * 4


def test_what_was_not_asked_is_no_test(tmp_path):
    groups = [group({"sft": {}})]
    for name in ("dpo_chosen_falls", "win_after_dpo", "length_argmax"):
        table = of_groups(tmp_path, CLAIMS[name], groups)
        assert table["status"].to_list() == ["not_asked"] and table["value"].to_list() == [None]
        assert table["reason"][0].startswith("not tested: needs ")
    table = of_groups(tmp_path, CLAIMS["win_after_dpo"], [group({"extend_dpo": {}, "dpo": {}})])
    assert table["reason"][0] == "not tested: no table of judgements was made"


def test_a_run_that_diverged_is_reported(tmp_path):
    stopped = Run(pl.DataFrame(rows_of("dpo", {}, 0)), stopped=True)
    table = of_groups(tmp_path, CLAIMS["off_policy_chosen"], [group({"dpo": stopped, "dpo_on_policy": {}})])
    assert set(table["reason"]) == {"run dpo diverged"} and set(table["status"]) == {"stands"} and table.height == 4


def test_a_type_without_probes_is_reported(tmp_path):
    run = Run(pl.DataFrame(rows_of("sft", {}, 0, types=("chosen", "rejected"))))
    table = of_groups(tmp_path, CLAIMS["sft_disorder_falls"], [group({"sft": run})])
    kinds = ("permuted", "random_nonhum")
    assert table["reason"].to_list() == [f"no usable probe of type {kind}" for kind in kinds for _ in ("end", "peak")]


def test_runs_are_compared_at_as_many_examples(tmp_path):
    """The longer run's last evaluations take no part; where none is shared, there is no number."""
    claim = CLAIMS["dpo_a_norm_faster"]
    short = {("chosen", "a_norm"): [0, 1, 2]}
    long = {("chosen", "a_norm"): [0, 0.5, 1, 50]}
    runs = {
        name: Run(pl.DataFrame(rows_of(name, curves, 0, examples)))
        for name, curves, examples in (("dpo", short, [0, 100, 200]), ("sft", long, [0, 100, 200, 300]))
    }
    assert of_groups(tmp_path, claim, [group(runs)])["value"][0] == pytest.approx(1, abs=0.05)
    runs["sft"] = Run(pl.DataFrame(rows_of("sft", short, 0, [0, 70, 150])))
    assert "never evaluated after the same number of examples" in of_groups(tmp_path, claim, [group(runs)])["reason"][0]


def test_a_peak_is_not_found_on_its_own_probes():
    """Noise alone has a peak between start and end on the probes themselves, but none on others."""
    claim, run = CLAIMS["sft_rejected_turns"], CLAIMS["sft_rejected_turns"].runs[0]
    values, own = [], []
    for seed in range(40):
        random = np.random.default_rng(seed)
        noise = random.normal(size=(PROMPTS, 12))
        made = Run(pl.DataFrame(rows_of(run, {("rejected", "log_prob_sum"): noise}, seed, list(range(0, 1200, 100)))))
        found = {each.of: each for each in on_runs(group({run: made}), claim)}
        values.append(found["sft/rejected"].value)
        means = noise.mean(0)
        own.append(means[1:-1].max() - max(means[0], means[-1]))
    assert np.mean(own) > 0.1 and np.mean(values) < 0.05


def test_at_a_margin_by_hand():
    """The last resample never grows by 5: it counts where its margin is largest."""
    growths, values = np.array([[0.0, 4, 8], [0, 10, 2], [0, 3, 1]]), np.array([[0.0, 1, 5], [0, 4, 9], [0, 7, 8]])
    assert at_margin(growths, values, 5).tolist() == [2, 2, 7]


def test_peaks_of_halves_by_hand():
    path = np.array([[0.0, 5, 1], [9, 0, 0], [0, 5, 1], [9, 0, 0]])
    assert split_peaks(path).tolist() == [0, 1, 0, 1]


def of_claim(name, runs, seeds=(0,), **more):
    """By relation, the estimates of a claim on one group a seed; `runs`: made of a seed."""
    return [{each.of: each for each in on_runs(group(runs(seed), seed, **more), CLAIMS[name])} for seed in seeds]


def risen(pulled, pushed, argmax):
    """A run of DPO, at every evaluation: chosen, rejected and likeliest tokens."""
    return {("chosen", "log_prob_sum"): pulled, ("rejected", "log_prob_sum"): pushed,
            ("chosen", "argmax_log_prob"): argmax}  # fmt: skip


def test_a_rise_that_is_over_at_the_end_is_found_at_the_margins_and_the_peak():
    """The likeliest tokens rise by 4 while the margin grows to 12, then fall below their start."""
    dpo = risen([0, 0, 0, -20, -40], [0, -6, -12, -48, -120], [0, 2, 4, -1, -6])
    (found,) = of_claim("dpo_argmax_rises", lambda seed: {"dpo": dpo})
    values = {name.partition("@")[2]: each.value for name, each in found.items()}
    expected = {"end": -6, "margin_5": 2 * 5 / 6, "margin_10": 2 + 2 * 4 / 6, "margin_20": 4 - 5 * 8 / 16, "peak": 4}
    assert list(values) == list(expected)
    assert list(values.values()) == pytest.approx(list(expected.values()), abs=0.05)
    # The run with the larger margin at the end does not squeeze more for that alone.
    fast = risen(straight(0), straight(-28), straight(4))
    slow = risen(straight(0), straight(-21), straight(3))
    (found,) = of_claim("off_policy_argmax", lambda seed: {"dpo": fast, "dpo_on_policy": slow})
    values = [each.value * TOKENS for each in found.values()]
    assert values == pytest.approx([1, 0, 0, 0], abs=0.05)


def test_intervals_at_a_margin_hold_the_truth_as_often_as_they_should():
    """Margin and tokens differ between prompts: in 95 % of the runs the interval holds the value without noise."""
    hits = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        slopes = random.normal(1, 0.4, size=(PROMPTS, 2)) * [-20, 4]
        rejected, argmax = slopes[:, :1] * np.linspace(0, 1, 5), slopes[:, 1:] * np.linspace(0, 1, 5)
        (found,) = of_claim("dpo_argmax_rises", lambda seed, a=rejected, b=argmax: {"dpo": risen(straight(0), a, b)},
                            (seed,))  # fmt: skip
        each = found["dpo@margin_10"]
        hits += each.low < 2 < each.high
    assert 88 <= hits <= 100


def test_a_margin_that_is_not_reached_gives_no_number(tmp_path):
    dpo = risen(straight(0), straight(-12), straight(3))
    groups = [group({"dpo": dpo}, seed) for seed in range(3)]
    table = of_groups(tmp_path, CLAIMS["dpo_argmax_rises"], groups)
    over = {row["relation"]: row for row in table.filter(pl.col("seed").is_null()).to_dicts()}
    assert over["dpo@margin_10"]["verdict"] == "holds" and over["dpo@margin_20"]["verdict"] == "inconclusive"
    assert over["dpo@margin_20"]["value"] is None
    reason = over["dpo@margin_20"]["reason"]
    assert reason.startswith("0 usable seeds of 3; 3 are needed (no number: the margin of dpo grows by 12")
    assert "nats at most, not by 20" in reason
    assert "where the margin has grown by 10 nats" in over["dpo@margin_10"]["statement"]


def test_a_margin_that_is_jumped_over_gives_no_number():
    """From 0 to 29 nats in one evaluation: what happens at 5 or 10 nats is unknown."""
    dpo = risen([0, 0, 0, 0, 0], [0, -29, -40, -60, -80], straight(-3))
    (found,) = of_claim("dpo_argmax_rises", lambda seed: {"dpo": dpo})
    reasons = {name.partition("@")[2]: each.reason for name, each in found.items()}
    jumped = "no number: the margin of dpo grows from 0 to 29 nats between two evaluations, too far from"
    assert reasons["margin_5"] == f"{jumped} 5" and reasons["margin_10"] == f"{jumped} 10"
    assert not reasons["margin_20"] and not reasons["end"]


def test_headroom_is_what_is_left_above_the_start():
    dpo = {("chosen", "argmax_log_prob"): straight(1.0), ("chosen", "a_norm"): straight(1.0)}
    run = Run(pl.DataFrame(rows_of("dpo", dpo, 0)), vocabulary=5001)
    (found,) = of_claim("dpo_argmax_rises", lambda seed: {"dpo": run})
    rows = run.rows.filter(pl.col("type") == "chosen", pl.col("step") == 0)
    assert found["dpo@end"].headroom == pytest.approx(-rows["argmax_log_prob"].mean())
    (found,) = of_claim("a_norm_grows", lambda seed: {"dpo": run})
    assert found["dpo@end"].headroom == pytest.approx(100 - rows["a_norm"].mean())
    # A logarithm that falls has no limit; without the vocabulary nothing is known.
    assert of_claim("rest_falls", lambda seed: {"dpo": run})[0]["dpo@end"].headroom is None
    assert of_claim("a_norm_grows", lambda seed: {"dpo": dpo})[0]["dpo@end"].headroom is None
    # Of two runs, that of the one that is claimed to rise more.
    other = {("chosen", "argmax_log_prob"): np.full(EVALUATIONS, 15.0)}
    (found,) = of_claim("extend_argmax_slower", lambda seed: {"extend_dpo": other, "dpo": dpo})
    assert found["extend_dpo:dpo@equal_examples"].headroom == pytest.approx(20, abs=0.5)
    (found,) = of_claim("off_policy_argmax", lambda seed: {"dpo": other, "dpo_on_policy": dpo})
    assert found["dpo:dpo_on_policy@equal_examples"].headroom == pytest.approx(0.5, abs=0.05)


def test_an_effect_that_could_not_show_was_not_tested(tmp_path):
    """The same falls, from a start with room to rise and from one without: fails, and inconclusive."""
    verdicts = {}
    for name, start in (("room", 0.0), ("none", 19.98)):
        runs = [{"dpo": {("chosen", "argmax_log_prob"): start + straight(x)}} for x in (-3.0, -3.1, -2.9)]
        groups = [group(each, seed) for seed, each in enumerate(runs)]
        table = of_groups(tmp_path, CLAIMS["dpo_argmax_rises"], groups)
        over = table.filter(pl.col("seed").is_null(), pl.col("relation") == "dpo@end").row(0, named=True)
        verdicts[name] = over["verdict"], over["reason"]
        assert over["headroom"] == pytest.approx(20 - start, abs=0.3)
        alone = table.filter(pl.col("seed") == 0, pl.col("relation") == "dpo@end")["reason"][0]
        assert alone == f"1 seed of 3; over its probes alone: {'fails' if name == 'room' else 'inconclusive'}"
    assert verdicts["room"] == ("fails", "")
    assert verdicts["none"][0] == "inconclusive" and verdicts["none"][1].startswith("no headroom: ")


def test_a_seed_that_diverged_is_left_out_and_named(tmp_path):
    fine = [group({"dpo": {("chosen", "log_prob_sum"): straight(x)}}, seed) for seed, x in enumerate(MINUS)]
    gone = Run(pl.DataFrame(rows_of("dpo", {}, 3)), stopped=True)
    table = of_groups(tmp_path, CLAIMS["dpo_chosen_falls"], [*fine, group({"dpo": gone}, 3)])
    over = table.filter(pl.col("seed").is_null(), pl.col("relation") == "dpo@end").row(0, named=True)
    assert (over["verdict"], over["n"]) == ("holds", 3)
    assert over["reason"] == "1 of 4 seeds left out: run dpo diverged"


@pytest.mark.parametrize(("share", "known", "verdict"), [
    (0.9, True, "holds"), (0.1, True, "inconclusive"), (0.9, False, "holds"),
])  # fmt: skip
def test_who_wins_is_no_question_between_models_that_cannot_answer(share, known, verdict, tmp_path):
    groups = []
    for seed, rate in enumerate((0.9, 0.95, 0.85)):
        made = judged("extend_dpo", "dpo")(rate, seed)
        scores = scored("extend_dpo", "correct", "dpo")(-1, seed).generation_scores
        right = (pl.col("pair_id").str.strip_prefix("h").cast(pl.Int32) < 20 * share) if known else pl.lit(None)
        first = pl.when(pl.col("step") == 0).then(right).otherwise(False).cast(pl.Boolean)
        groups.append(replace(made, generation_scores=scores.with_columns(first.alias("correct")),
                              chance=0.1 if known else None))  # fmt: skip
    table = of_groups(tmp_path, CLAIMS["win_after_dpo"], groups)
    over = table.filter(pl.col("seed").is_null()).row(0, named=True)
    assert over["verdict"] == verdict and over["mastered"] == ((share > 0.5) if known else None)
    if not known:
        assert over["reason"] == "no measure of ability: nothing tells right answers from wrong"
    elif share < 0.5:
        low, high = wilson(2, 20)
        unable = f"the start of extend_dpo cannot do this task (0.10 [{low:.2f}, {high:.2f}], chance 0.10)"
        assert over["reason"] == f"0 usable seeds of 3; 3 are needed ({unable})"
    else:
        assert over["reason"] == "" and over["accuracies"].startswith("start of extend_dpo 0.90 [")
        assert over["accuracies"].endswith("] of 20") and over["chance"] == 0.1


def test_successive_taus_are_kendalls():
    values = np.random.default_rng(0).normal(size=(3, 8, 5))
    plain = [
        np.mean([stats.kendalltau(draw[:, i], draw[:, i + 1]).statistic for i in range(4)]) for draw in values
    ]  # fmt: skip
    assert successive_taus(values) == pytest.approx(plain)


# The exact ones: tables on which they hold, and on which they fail.


def cases_table(**changed):
    from gradatlas.toys.squeeze import case_row, cases

    rows = [case_row(case) for case in cases()]
    for name, value in changed.items():
        for row in rows:
            if row["case"] == ("control" if name == "ratio_spread" else "A"):
                row[name] = value
    return {"squeeze_cases": pl.DataFrame(rows, infer_schema_length=None)}


def sweep(name, slope):
    """The share that falls, over 40 draws: with the level, against it, or either by turns."""
    return {"squeeze_sweeps": pl.DataFrame([
        {"sweep": name, "draw": draw, "level": float(level), "falling": (slope or (-1) ** draw) * level / 10 + 0.5}
        for draw in range(40) for level in range(4)
    ])}  # fmt: skip


def pushed(gain):
    return {"clip": pl.DataFrame([
        {"case": case, "objective": objective, "step": step, "log_prob": 0.0, "median_log_prob": 0.0, "entropy": 0.0,
         "coefficient": 1.0, "winner_prob": 0.2 + step * (gain if objective == "clipped" else 0.1)}
        for case in "BCD" for objective in ("dpo", "clipped") for step in (0, 1)
    ])}  # fmt: skip


def stepped(slope, order):
    """One seed's table: what is left falls by `order` when the step is halved; the slope of measured on predicted."""
    predicted = np.array([1.0, -2.0, 0.5])
    aside = np.array([2.0, 1.0, 0.0])  # orthogonal to it
    return {"one_step": pl.DataFrame([
        {"seed": 0, "loss": "sft", "pair_id": "a", "trained": "all", "halving": halving, "learning_rate": 1.0,
         "probe_id": f"p{i}", "type": "chosen", "predicted": predicted[i], "captured": predicted[i],
         "measured": slope * predicted[i] + 0.1 * aside[i] / order**halving}
        for halving in range(3) for i in range(3)
    ])}  # fmt: skip


EXACT_CASES = {
    "squeeze_published": (cases_table(), cases_table(before=0.08)),
    "squeeze_control": (cases_table(), cases_table(ratio_spread=0.1)),
    "squeeze_peaky": (sweep("peakiness", 1), sweep("peakiness", -1), sweep("peakiness", 0)),
    "squeeze_valley": (sweep("probability", -1), sweep("probability", 1), sweep("probability", 0)),
    "squeeze_step": (sweep("size", 1), sweep("size", -1), sweep("size", 0)),
    "clipped_squeezes_less": (pushed(0.05), pushed(0.15)),
    "one_step_slope": (stepped(1.0, 4), stepped(1.1, 4)),
    "one_step_order": (stepped(1.0, 4), stepped(1.0, 2)),
}


def budgeted(missing=0.0, wrong=0):
    """Parts of two blocks that miss a share of the change of the second interval; `wrong` probes have another sign."""
    rows = [
        {"run": "sft", "seed": 0, "since": since, "step": since + 2, "probe_id": f"p{i}/chosen", "type": "chosen",
         "layer": layer, "block": "q", "first_order": 0.0, "measured": 2.0,
         "predicted": (1 - missing * (since > 0)) * (-1 if i < wrong else 1)}
        for since in (0, 2) for i in range(10) for layer in (0, 1)
    ]  # fmt: skip
    return group({"sft": {}}, budget=pl.DataFrame(rows))


BUDGETS = {
    "budget_signs": ((budgeted(), 1.0), (budgeted(wrong=1), 0.9)),
    "budget_closes": ((budgeted(0.04), 0.04), (budgeted(0.06), 0.06)),
}


@pytest.mark.parametrize("name", BUDGETS)
def test_budgets_close_or_not(name, tmp_path):
    for (made, value), verdict in zip(BUDGETS[name], ("holds", "fails"), strict=True):
        table = of_groups(tmp_path, CLAIMS[name], [made])
        assert table["verdict"].to_list() == [verdict] and table["value"].to_list() == pytest.approx([value])
        assert table["status"].to_list() == ["control"]


def test_the_push_is_the_norm_times_the_losses_own_coefficient():
    """|c-| = beta sigma(-beta (h+ - h-)) of DPO."""
    name = "negative_push_falls"
    (found,) = on_runs(grown(margin=20.0)(1.0, 0), CLAIMS[name])
    push = np.log(1 / (1 + np.exp(0.1 * 20))) - np.log(0.5)
    assert found.value == pytest.approx(1.0 + push, abs=0.05)


def test_kernels_that_were_not_measured_are_reported():
    runs = {"dpo": {}, "sft": {}}
    (row,) = on_runs(group(runs), CLAIMS["entanglement_predicts_fall"])
    assert row.reason == "not tested: no table of entanglement was made"
    rows = lasting("sft")(3, 0).kernels
    reasons = [row.reason for row in on_runs(group(runs, kernels=rows), CLAIMS["kernel_ranks_last"])]
    assert reasons == ["", "dpo is not among dynamics.kernels.runs, or diverged at once"]
    always = entangled()(3.0, 0)
    falling = group({"dpo": {("chosen", "log_prob_sum"): straight(-9.0)}}, entanglement=always.entanglement)
    (row,) = on_runs(falling, CLAIMS["entanglement_predicts_fall"])
    assert row.reason == "no number: within each interval of dpo all chosen responses fall, or none does"


@pytest.mark.parametrize("name", EXACT_CASES)
def test_exact_verdicts(name, tmp_path):
    claim = CLAIMS[name]
    for tables, verdict in zip(EXACT_CASES[name], ("holds", "fails", "inconclusive"), strict=False):
        table = table_of(tmp_path, [(claim, None, estimate) for estimate in EXACT[name](tables, claim)])
        assert set(table["verdict"]) == {verdict}, table.select("value", "low", "high", "reason")
        assert (table["low"].null_count() == table.height) == (claim.rests == "exact")


def test_the_guarantees_hold_and_one_case_against_them_fails(tmp_path):
    for name in ("squeeze_own", "squeeze_winner", "squeeze_monotone", "squeeze_threshold"):
        (found,) = EXACT[name]({}, CLAIMS[name])
        assert found.value == 0 and found.n == 5000
        rows = [table_of(tmp_path, [(CLAIMS[name], None, each)])["verdict"][0] for each in (found, exactly(1.0, 5000))]
        assert rows == ["holds", "fails"]


def test_the_papers_formulas_hold_but_for_ipos_and_sppos(tmp_path):
    names = ("formula_paper", "formula_ours", "sppo_no_squeeze")
    table = table_of(tmp_path, [(CLAIMS[n], None, each) for n in names for each in EXACT[n]({}, CLAIMS[n])])
    found = {(row["claim"], row["relation"]): row["verdict"] for row in table.to_dicts()}
    wrong = {("formula_paper", "ipo"), ("formula_paper", "sppo"), ("sppo_no_squeeze", "sppo")}
    assert {key for key, verdict in found.items() if verdict == "fails"} == wrong
    assert {key for key, verdict in found.items() if verdict == "holds"} == set(found) - wrong and len(found) == 13
    assert set(table.filter(pl.col("claim") == "formula_ours")["status"]) == {"control"}


def images(follows, near="9", seed=0):
    """Ten classes: predictions, and kernels that follow them or not; steps that are as predicted, and asymmetric."""
    random = np.random.default_rng(seed)
    names = [str(c) for c in range(10)]
    means = random.uniform(0, 0.01, size=(10, 10))
    means = means + means.T
    means[4, int(near)] = means[int(near), 4] = 0.2
    np.fill_diagonal(means, 0.8)
    pairs = [(u, o) for u in range(10) for o in range(10)]
    return {
        "predictions": pl.DataFrame([
            {"epoch": 100, "observed": names[o], "label": names[u], "value": means[o, u], "n": 50, "accuracy": 0.9}
            for u, o in pairs
        ]),
        "kernels": pl.DataFrame([
            {"epoch": epoch, "learned": names[u], "observed": names[o], "n": 20,
             "norm": 5 + (follows * (1 if follows > 0 or epoch != 50 else -1)) * means[o, u] + 1e-6 * random.normal()}
            for epoch in (0, 30, 50, 100) for u, o in pairs
        ]),
        "steps": pl.DataFrame([
            {"epoch": epoch, "rate": 0.001, "learned": names[u], "observed": names[o], "learned_image": u,
             "observed_image": o, "measured": 1.0 + (u > o) * follows / 3, "predicted": 1.0,
             "cosine": 0.5 + follows / 6, "measured_norm": 1.0, "predicted_norm": 1.0, "residual_norm": 0.0}
            for epoch in (1, 100) for u, o in pairs
        ]),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "holds", "fails"),
    [
        ("confused_4_9", images(3), images(3, near="2")),
        ("kernel_follows_confusion", images(3), images(-3)),
        ("classifier_first_order", images(3), images(1)),
        ("kernel_ranks_stable", images(3), images(-3)),
        ("influence_asymmetric", images(3), images(0.1)),
    ],
)
def test_classifiers(name, holds, fails, tmp_path):
    claim = CLAIMS[name]
    seeds = (None,) if claim.rests == "exact" else (0, 1, 2)
    for tables, verdict in ((holds, "holds"), (fails, "fails")):
        found = [(claim, seed, each) for seed in seeds for each in EXACT[name](tables, claim)]
        table = table_of(tmp_path, found).filter(pl.col("seed").is_null())
        assert table["verdict"].to_list() == [verdict], table.select("value", "low", "high", "reason")
    alone = table_of(tmp_path, found[:1])
    if claim.rests == "seeds":
        assert alone["verdict"][0] == "inconclusive" and alone["reason"][0].startswith("1 seed")


# From tables to verdicts, as the workflow does.


def study(folder, runs, seeds=(0,), status="ok", sheet=RUNS, **more):
    """Runs on disk; returns their arguments, and `more` settings."""
    paths = []
    for seed in seeds:
        for name, curves in runs.items():
            path = folder / f"seed_{seed}.{name}.parquet"
            rows = [{"pair_id": None, **row} for row in rows_of(name, curves, seed)]
            rows = [{key: row[key] for key in DYNAMICS.names if key in row} for row in rows]
            filled = [dict.fromkeys(DYNAMICS.names) | row for row in rows]
            write_table(DYNAMICS, filled, path, {"status": status})
            paths.append(path)
    return "--runs", *paths, *settings(seeds=list(seeds), runs=[sheet[name] | {"run": name} for name in runs], **more)


SHEETS = ("--claims", SHEET)
FIRST = ("--claims", ROOT / "config/claims.tsv")


def commands(folder, runs, seeds=(0,), **given):
    folder.mkdir(exist_ok=True)
    done = call(
        "gather_dynamics_evidence", "--pairs", "mini_qa", "--model", "mini",
        *study(folder, runs, seeds, draws=100, **given), *SHEETS, "--output", folder / "evidence.parquet",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = call(
        "test_claims", "--evidence", folder / "evidence.parquet", *FIRST, "--dynamics-claims", SHEET,
        "--output", folder / "claims",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return pl.read_parquet(folder / "claims.parquet")


SFT = {("chosen", "log_prob_sum"): straight(5.0)}
DPO = {("chosen", "log_prob_sum"): straight(-4.0), ("rejected", "log_prob_sum"): straight(-9.0)}


@pytest.mark.parametrize("name", ["hh_probed_{}", "my_own_{}_run", "{}"])
def test_what_a_run_learns_is_in_its_row_and_not_in_its_name(name, tmp_path):
    """Runs of a user's own sheet, and claims about them; one run learns pairs, and one a type without a probe."""
    up = {("unrelated", "log_prob_mean"): straight(3.0), ("rejected_semantic", "log_prob_mean"): straight(2.0)}
    learns = {"unrelated": "unrelated", "rephrases": "chosen_semantic", "pairs": "chosen", "both": "extend"}
    runs = {name.format(key): up for key in learns}
    losses = {name.format(key): "dpo" if key == "pairs" else "sft" for key in learns}
    sheet = {key: {"target": learn, "loss": losses[key]} for key, learn in zip(runs, learns.values(), strict=True)}
    text = SHEET.read_text().splitlines()
    header = text[0].split("\t")
    for place, line in enumerate(text):
        cells = line.split("\t")
        if cells[0] in ("heat_diagonal", "heat_rephrases"):
            cells[header.index("runs")] = " ".join(runs)
            text[place] = "\t".join(cells)
    (tmp_path / "claims.tsv").write_text("\n".join(text) + "\n")
    done = call(
        "gather_dynamics_evidence", "--pairs", "p", "--model", "m", *study(tmp_path, runs, sheet=sheet, draws=50),
        "--claims", tmp_path / "claims.tsv", "--output", tmp_path / "evidence.parquet",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = pl.read_parquet(tmp_path / "evidence.parquet").filter(pl.col("relation").is_in(list(runs)))
    rows = {(row["claim"], row["relation"]): row for row in found.to_dicts()}
    unrelated, rephrases, pairs, both = runs
    assert rows["heat_diagonal", unrelated]["value"] == pytest.approx(1.0, abs=0.05)
    assert rows["heat_diagonal", rephrases]["value"] == pytest.approx(-3.0, abs=0.05)
    assert rows["heat_rephrases", rephrases]["value"] == pytest.approx(2.0, abs=0.05)
    assert rows["heat_rephrases", unrelated]["reason"] == f"{unrelated} learns no rephrases"
    for run in (pairs, both):
        assert rows["heat_diagonal", run]["reason"] == f"{run} learns no type of probe that was followed"


@pytest.mark.parametrize("run", ["probed_chosen_semantic", "hh_probed_chosen_semantic"])
def test_the_studys_own_probed_runs_have_their_heat_map(run):
    curves = {
        ("chosen_semantic", "log_prob_mean"): straight(3.0),
        ("rejected_semantic", "log_prob_mean"): straight(1.0),
    }
    found = {
        name: {each.of: each for each in on_runs(group({run: curves}), CLAIMS[name])}
        for name in ("heat_diagonal", "heat_rephrases")
    }
    assert found["heat_diagonal"][run].value == pytest.approx(2.0, abs=0.05)
    assert found["heat_rephrases"][run].value == pytest.approx(1.0, abs=0.05)


def test_the_commands_from_runs_to_verdicts(tmp_path):
    table = commands(tmp_path / "one", {"sft": SFT, "dpo": DPO})
    found = table.filter(pl.col("claim") == "dpo_chosen_falls").row(0, named=True)
    assert found["reason"] == "1 seed; over its probes alone: holds" and found["value"] == pytest.approx(-4, abs=0.05)
    assert found["published"] == -58.9 and "published (at the study's scale, on HH): -58.9" in found["statement"]
    # One row per claim that is not asked, and none twice.
    idle = table.filter(pl.col("status") == "not_asked")
    assert idle["claim"].is_unique().all() and {"length_argmax", "win_after_dpo", "one_step_slope"} <= set(
        idle["claim"]
    )
    three = commands(tmp_path / "three", {"sft": SFT, "dpo": DPO}, (0, 1, 2))
    over = three.filter(pl.col("model") == "mini, over seeds")
    over = over.filter(pl.col("relation") == "dpo@end")
    assert dict(over.select("claim", "verdict").iter_rows())["dpo_chosen_falls"] == "holds"
    assert three.filter(pl.col("status") == "not_asked").height == idle.height
    # Another seed changes no seed's number.
    keys = ["claim", "relation", "value", "low", "high"]
    assert three.filter(pl.col("seed") == 0).select(keys).equals(table.filter(pl.col("seed") == 0).select(keys))
    again = commands(tmp_path / "again", {"dpo": DPO, "sft": SFT})
    assert again.equals(table)


def test_a_diverged_run_from_disk(tmp_path):
    table = commands(tmp_path, {"sft": SFT}, status="diverged")
    rows = table.filter(pl.col("claim").str.starts_with("sft_chosen"))
    assert rows["reason"].to_list() == ["run sft diverged"] * 2


def test_an_exact_number_is_shown_without_interval(tmp_path):
    claim = CLAIMS["one_step_slope"]
    table = table_of(tmp_path, [(claim, None, exactly(1.001, 5, "all/sft"))])
    row = table.row(0, named=True)
    assert row["verdict"] == "holds" and row["low"] is None and row["p_value"] is None
    assert "[" not in row["statement"] and "1 times the predicted ones" in row["statement"]


def test_toys_of_other_images_are_not_asked_about_4_and_9(tmp_path):
    from gradatlas.claims.dynamics.gather import gather_toys

    for name in ("predictions", "kernels", "steps"):
        rows = [dict.fromkeys(TABLES[f"toy_{name}"].names) | row for row in images(3)[name].to_dicts()]
        write_table(TABLES[f"toy_{name}"], rows, tmp_path / f"toy_{name}.parquet", {"images": "digits", "seed": 0})
    found = {}
    # Whatever a user's own file is called.
    for source in ("digits", "data/fashion_mnist.parquet", "data/not-mnist.parquet", "ylecun/mnist"):
        table = pl.from_arrow(read_table(TOY_PREDICTIONS, tmp_path / "toy_predictions.parquet"))
        write_table(TOY_PREDICTIONS, table.to_dicts(), tmp_path / "toy_predictions.parquet",
                    {"images": source, "seed": 0})  # fmt: skip
        gather_toys(tmp_path, [CLAIMS["confused_4_9"]], tmp_path / "evidence.parquet", source)
        row = pl.read_parquet(tmp_path / "evidence.parquet").row(0, named=True)
        found[source] = (row["reason"], row["value"])
    assert found.pop("ylecun/mnist") == ("", 2.0)
    assert {reason for reason, _ in found.values()} == {"not tested: about ylecun/mnist"} and len(found) == 3


def test_figure_table_and_page_say_what_the_verdicts_are(tmp_path):
    commands(tmp_path, {"sft": SFT, "dpo": DPO}, (0, 1, 2))
    path = tmp_path / "claims.parquet"
    found = read_rows(path, {"mini": "Miniature"})
    drawn = found.filter(pl.col("group") != "")
    assert set(drawn["model_title"]) == {"Miniature, over seeds"} and set(drawn["dataset"]) == {"mini_qa"}
    counts = {verdict: (drawn["verdict"] == verdict).sum() for verdict in ("holds", "fails", "inconclusive")}
    assert heading(found, STUDY).title == (
        f"Claims of the study: {counts['holds']} hold, {counts['fails']} fail, {counts['inconclusive']} inconclusive"
    )
    assert "DPO: all other responses fall · chosen semantic, margin 5" in drawn["row"].to_list()
    assert "The norm of A grows · dpo, end" in drawn["row"].to_list()
    shown = list_chart(found).to_dict(validate=True)
    listed = {name for panel in shown["vconcat"] for name in panel["layer"][0]["encoding"]["y"]["scale"]["domain"]}
    # What has neither a verdict nor a test of its own is counted in the caption alone.
    lost = drawn.filter((pl.col("verdict") == "inconclusive") & (pl.col("p_adjusted") == ""))
    assert len(listed) == drawn.height - lost.height > 0 and lost.height > 0
    assert f"Left out: {lost.height} rows that cannot conclude" in shown["description"]
    files = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        draw_verdicts(path, folder / "verdicts", folder / "dynamics", folder / "quality", ["vl.json", "svg"], {})
        files.append([(folder / f"dynamics.{kind}").read_bytes() for kind in ("vl.json", "svg")])
    assert files[0] == files[1]
    assert "No claim on layer gradients was tested" in (folder / "verdicts.svg").read_text()
    write_verdicts(path, tmp_path / "claims.md")
    text = (tmp_path / "claims.md").read_text()
    assert text.count("# Learning dynamics\n") == 1 and "# Not tested" in text
    assert text.index("# Learning dynamics") < text.index("## SFT: chosen responses rise") < text.index("# Not tested")
    header = (
        "Model | Dataset | Responses | Seed | Verdict | Number, 95 % interval | Headroom | Published | n | p | "
        "p (Holm) | Remarks"
    )
    assert f"| {header} |" in text
    page = atlas_verdicts(path, {})
    (study,) = page["studies"]
    assert sum(count for _, _, count in study["counts"][0][1]) == drawn.height
    assert "4 and 9" not in " ".join(study["not_made"]) and any("Longer SFT" in each for each in study["not_made"])
    numbers = read(page["piece"])
    responses, model = (numbers["header"].index(name) for name in ("Responses", "Model"))
    shown = {(row[model], row[responses]) for own in numbers["rows"].values() for row in own}
    assert ("mini, over seeds", "dpo, margin 5") in shown and {"mini"} < {name for name, _ in shown}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds\tdynamics", "luck\tdynamics", "rests"),
        ("sft_chosen_rises\t", "dpo_chosen_falls\t", "is in an earlier line"),
        ("\tsft hh_sft\t", "\tSFT-run\t", "runs"),
        ("\tend peak\t", "\tend middle\t", "at"),
    ],
)
def test_a_bad_row_is_one_line(old, new, message, tmp_path):
    (tmp_path / "sheet.tsv").write_text(SHEET.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=message) as caught:
        read_claims(DynamicsClaim, tmp_path / "sheet.tsv")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "at"),
    [("length_chosen", "peak"), ("sft_chosen_rises", "equal_examples"), ("sft_rejected_turns", "margin_5")],
)
def test_a_place_where_a_claim_cannot_be_measured_is_one_line(name, at):
    with pytest.raises(InputError, match=f"'{name}', column 'at': it cannot be measured at {at}; ") as caught:
        check([replace(CLAIMS[name], at=("end", at))])
    assert "\n" not in str(caught.value)


def test_a_claim_that_nothing_measures_is_one_line(tmp_path):
    sheet = tmp_path / "sheet.tsv"
    sheet.write_text(SHEET.read_text().replace("sft_borrows\t", "sft_lends\t"))
    done = call(
        "gather_dynamics_evidence", "--pairs", "p", "--model", "m", *study(tmp_path, {"sft": SFT}), "--claims", sheet,
        "--output", tmp_path / "evidence.parquet",
    )  # fmt: skip
    assert "'sft_lends': nothing measures it on generation_scores" in user_error(done)
    given = ("--pairs", "p", "--model", "m", *SHEETS, "--output", tmp_path / "evidence.parquet")
    done = call("gather_dynamics_evidence", *given, "--runs", *settings(seeds=[0], runs=[]))
    assert "give one of each, and one at least" in user_error(done)
    done = call("gather_dynamics_evidence", *given, "--runs", sheet, sheet, *settings(seeds=[0], runs=[{"run": "sft"}]))
    assert "--runs names 2 tables, the settings 1 seeds of 1 runs" in user_error(done)
    wrong = ("--judgements", sheet, sheet, *settings(seeds=[0], runs=[{"run": "sft"}]))
    done = call("gather_dynamics_evidence", *given, "--runs", sheet, *wrong)
    assert "--judgements names 2 tables, settings.seeds 1" in user_error(done)


def test_published_numbers_are_of_runs_and_types_that_are_tested():
    for claim in CLAIMS.values():
        tested = {"/".join(filter(None, (run, kind))) for run in claim.runs for kind in claim.types or ("",)}
        assert {entry.partition("=")[0] for entry in claim.published} <= tested, claim.claim


def test_json_holds_no_nan(tmp_path):
    commands(tmp_path, {"sft": SFT})
    found = json.loads((tmp_path / "claims.json").read_text())
    assert {row["study"] for row in found} == {"learning_dynamics"}
