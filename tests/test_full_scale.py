"""The statistics side of the second study on made-up tables with the names of its full scale (dynamics_paper.yaml).

All its runs, two models, three seeds and all types of probes, with few evaluations a run. FULL_SCALE_PROBES is the
number of probed prompts: 500 in the study, 100 in .ci/run, fewer by default.
"""

import json
import os

import numpy as np
import polars as pl
import pytest
import yaml

from conftest import ROOT
from gradatlas.claims.dynamics.gather import gather_runs
from gradatlas.claims.sheet import DynamicsClaim, read_claims
from gradatlas.claims.verdicts import decide
from gradatlas.core.sheets import read_sheet
from gradatlas.core.tables import write_table
from gradatlas.figures.run_gallery import RUNS, draw_dynamics, draw_generations, draw_seeds
from gradatlas.figures.run_table import write_dynamics_table
from gradatlas.figures.verdicts import draw_verdicts, write_verdicts
from gradatlas.finetuning.evaluate import MEASURES
from gradatlas.finetuning.tables import DYNAMICS, GENERATION_SCORES, JUDGEMENTS, TRAINING
from gradatlas.page.dynamics import changes_of
from gradatlas.page.titles import Titles
from gradatlas.page.verdicts import verdicts as page_verdicts
from gradatlas.statistics.dynamics import summarise_runs
from gradatlas.statistics.generations import summarise_generations
from gradatlas.study.probe_types import TYPES
from gradatlas.study.runs import read_plan
from gradatlas.study.sheets import PublishedCurveRow, PublishedRateRow

DYNAMICS_CONFIG = (
    yaml.safe_load((ROOT / "config/config.yaml").read_text())["dynamics"]
    | (yaml.safe_load((ROOT / "config/dynamics_paper.yaml").read_text())["dynamics"])
)
PLAN = read_plan(DYNAMICS_CONFIG, ROOT, "gpt-4o")
ROWS = {name: PLAN.runs[name] for name in PLAN.watched}
STARTS = {name: row["init"] for name, row in ROWS.items() if row["init"]}
MODELS, SEEDS, PAIRS = DYNAMICS_CONFIG["models"], DYNAMICS_CONFIG["seeds"], DYNAMICS_CONFIG["pairs"]
PROBES, PROMPTS, DRAWS = int(os.environ.get("FULL_SCALE_PROBES", 24)), 40, 50
CLAIMS = read_claims(DynamicsClaim, ROOT / "config/claims_dynamics.tsv")
PUBLISHED = list(read_sheet(ROOT / "config/published_curves.tsv", PublishedCurveRow, None).values())
RATES = list(read_sheet(ROOT / "config/published_dynamics.tsv", PublishedRateRow, None).values())


def dynamics(run, row, seed, random):
    """Five evaluations: SFT raises its target and turns the others, preferences lower the rejected responses most."""
    steps = np.linspace(0, row["steps"], 5).round().astype(int)
    parts = []
    for kind in TYPES:
        for split, count in (("train", PROBES), ("held_out", PROBES // 4)):
            slope = 6 if kind in (row["target"], "chosen") else 1
            if row["loss"] != "sft":
                slope = {"chosen": -2.0, "rejected": -7.5}.get(kind, -4.0)
            path = slope * np.arange(5) * random.normal(1, 0.2, size=(count, 1)) - 100 + random.normal(size=(count, 5))
            values = {
                "log_prob_sum": path,
                "log_prob_mean": path / 20,
                "argmax_log_prob": path / 2,
                "rest_log_mass": path / 50,
                "entropy": 1 - path / 200,
                "a_norm": 300 + path / 10,
                "g_norm": 1 - path / 200,
            }
            parts.append(pl.DataFrame({
                "run": run, "seed": seed, "step": np.tile(steps, count),
                "examples": np.tile(steps * row["batch_size"], count),
                "probe_id": [f"{split}-{i}/{kind}" for i in range(count) for _ in steps],
                "split": split, "type": kind, "tokens": 20, "status": "ok",
                **{name: values[name].ravel() for name in MEASURES},
            }))  # fmt: skip
    return pl.concat(parts).select(DYNAMICS.names).to_arrow()


def training(run, row, seed):
    steps = np.arange(1, row["steps"] + 1)
    table = {"run": run, "seed": seed, "step": steps, "examples": steps * row["batch_size"], "learning_rate": 5e-7,
             "loss": 1.0, "pull": 1.0, "push": -1.0 * (row["loss"] != "sft"), "grad_norm": 1.0,
             "ranked": row["batch_size"]}  # fmt: skip
    return pl.DataFrame(table).select(TRAINING.names).to_arrow()


def scores(seed, random):
    return [
        {"run": run, "seed": seed, "step": step, "examples": step * row["batch_size"], "pair_id": f"p{i}"}
        | {"split": split, "draw": 0, "tokens": 50, "finished": True, "repetition": float(random.uniform())}
        | {"borrowed": bool(random.integers(2)), "correct": None}
        for run, row in ROWS.items() for step in (0, row["steps"]) for i in range(PROMPTS)
        for split in ("train", "held_out")
    ]  # fmt: skip


def judgements(seed, random):
    return [
        {"run": run, "baseline": baseline, "seed": seed, "step": step, "baseline_step": step, "examples": step}
        | {"pair_id": f"p{i}", "draw": 0, "judge": "gpt-4o", "forward": won, "backward": won, "verdict": won}
        for run, row in ROWS.items() for baseline in row["baseline"] for step in (0, row["steps"])
        for i in range(PROMPTS) for won in [("run", "baseline")[random.integers(2)]]
    ]  # fmt: skip


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The folder of all results; below it, by model and seed, the tables of the runs."""
    root = tmp_path_factory.mktemp("full")
    random, curves, evidence = np.random.default_rng(0), [], []
    for model in MODELS:
        groups = {}
        for seed in SEEDS:
            folder = root / model / str(seed)
            for run, row in ROWS.items():
                (folder / run).mkdir(parents=True)
                # One training diverged, as a rate that is too large does.
                status = "diverged" if (run, seed) == ("hh_probed_simpo", 2) else "ok"
                facts = {"status": status, "vocabulary": 50_000}
                write_table(DYNAMICS, dynamics(run, row, seed, random), folder / run / "dynamics.parquet", facts)
                write_table(TRAINING, training(run, row, seed), folder / run / "training.parquet", {})
            facts = {"left_out": {}, "oracle": False, "chance": None}
            write_table(GENERATION_SCORES, scores(seed, random), folder / "scores.parquet", facts)
            write_table(JUDGEMENTS, judgements(seed, random), folder / "judged.parquet", {"judge": {"model": "gpt-4o"}})
            tables = {run: str(folder / run / "dynamics.parquet") for run in ROWS}
            groups[seed] = {"runs": tables, "generation_scores": folder / "scores.parquet"}
            groups[seed]["judgements"] = folder / "judged.parquet"
            summarise_runs(model, tables, STARTS, folder / "curves.parquet", DRAWS, 0)
            curves.append((PAIRS, folder / "curves.parquet"))
            judged = folder / "judged.parquet"
            generated = folder / "generated.parquet"
            summarise_generations(model, folder / "scores.parquet", judged, STARTS, generated, DRAWS, 0)
        evidence.append(root / f"{model}.parquet")
        gather_runs(PAIRS, model, "base", groups, PLAN.runs, CLAIMS, evidence[-1], DRAWS, 0)
    decide(evidence, CLAIMS, {}, root / "claims")
    write_dynamics_table(curves, ROWS, {}, PUBLISHED, root / "dynamics")
    return root


def test_every_claim_on_runs_has_a_number_for_every_run_it_names(full):
    table = pl.read_parquet(full / "claims.parquet")
    # Those on kernels and the bridge: tests/test_claims_dynamics.py, test_bridge.py.
    on_runs = [claim for claim in CLAIMS if claim.table in ("dynamics", "generation_scores", "judgements")]
    others = {claim.claim for claim in CLAIMS if claim.table in ("one_step", "budget", "kernels", "entanglement")}
    assert others | {claim.claim for claim in on_runs} == set(table["claim"])
    for claim in on_runs:
        entries = [entry for entry in claim.runs if entry.startswith("hh_")]
        wanted = len(entries) * max(1, len(claim.types)) * len(claim.at)
        for model in MODELS:
            over = table.filter(claim=claim.claim, model=f"{model}, over seeds")
            assert over.height == wanted > 0, claim.claim
            assert over["value"].null_count() == 0, (claim.claim, over.select("relation", "reason"))
    # What needs a model that can answer states that HH has no measure of it.
    remarks = table.filter(pl.col("claim") == "win_after_dpo", pl.col("n") == len(SEEDS))["reason"]
    assert all("no measure of ability" in each for each in remarks)


def test_every_published_number_is_beside_one_of_ours(full):
    table = pl.read_parquet(full / "claims.parquet")
    for claim in CLAIMS:
        for entry in claim.published:
            name, _, value = entry.partition("=")
            if name.startswith("hh_"):
                beside = table.filter(pl.col("claim") == claim.claim, pl.col("published") == float(value))
                places = beside.filter(pl.col("relation").str.replace("@.*", "") == name)
                assert places["value"].count() == places.height >= len(MODELS), (claim.claim, entry)
    ours = pl.read_parquet(full / "dynamics.parquet").filter(split="train")
    for row in PUBLISHED:
        if row["run"] in ROWS:
            same = ours.filter(model=row["model"], run=row["run"], type=row["type"], measure=row["measure"])
            assert same.height == len(SEEDS) and set(same["published_model"]) == {row["model"]}, row


def test_a_run_that_diverged_is_in_every_table(full):
    ours = pl.read_parquet(full / "dynamics.parquet")
    assert set(ours.filter(status="diverged").select("run", "seed").iter_rows()) == {("hh_probed_simpo", 2)}


def test_every_figure_table_and_the_page_are_made(full):
    draw_verdicts(full / "claims.parquet", full / "matrix", full / "listed", full / "quality", ["vl.json"], {})
    write_verdicts(full / "claims.parquet", full / "claims.md")
    assert "hh dpo, permuted, margin 10" in (full / "claims.md").read_text()
    titles = Titles({})
    assert page_verdicts(full / "claims.parquet", titles) and changes_of(full / "dynamics.csv", ROWS, titles)
    for model in MODELS:
        folders = [full / model / str(seed) for seed in SEEDS]
        draw_seeds([each / "curves.parquet" for each in folders], ROWS, model, full / model / "seeds", ["vl.json"])
        out = full / model / "drawn"
        draw_dynamics(folders[2] / "curves.parquet", folders[2], None, ROWS, model, out, ["vl.json"])
        figures = {each["kind"]: each for each in json.loads((out / "index.json").read_text())["figures"]}
        assert {f"{run}.curves" for run in ROWS} < set(figures)
        # The study has one learning rate.
        assert {kind.name for kind in RUNS} - {"curves", "one_step", "rates", "budget", "kernels"} <= set(figures)
        assert "STOPPED EARLY" in figures["losses"]["caption"]
        out = full / model / "generated"
        draw_generations(folders[0] / "generated.parquet", ROWS, RATES, model, out, ["vl.json"])
        figures = {each["kind"]: each for each in json.loads((out / "index.json").read_text())["figures"]}
        assert {"win_rate", "repetition", "borrowed"} <= set(figures)
        assert "No measure of ability" in figures["win_rate"]["caption"]
