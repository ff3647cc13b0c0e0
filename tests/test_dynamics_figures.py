"""Figures of finetuning runs: which are drawn of which runs, what their titles say, and that they are sound charts."""

import json

import altair as alt
import numpy as np
import polars as pl
import pytest
import yaml

from colours import meanings_of
from conftest import MINIATURE, ROOT, call, settings, user_error
from gradatlas.core.tables import write_table
from gradatlas.figures import runs as choose
from gradatlas.figures.influence import heat_map, table_of
from gradatlas.figures.one_step import step_figure
from gradatlas.figures.run_curves import PANELS
from gradatlas.figures.run_curves import TYPES as NAMED
from gradatlas.finetuning.evaluate import MEASURES
from gradatlas.finetuning.probes import TYPES
from gradatlas.finetuning.tables import DYNAMICS, TRAINING
from gradatlas.study.runs import read_plan

SHEET = yaml.safe_load((ROOT / "config/dynamics.yaml").read_text())["dynamics"]["runs"]
DEFAULT = MINIATURE["dynamics"]
PROBES = 4


def rows_of(*names):
    """The watched runs of a config that asks for these, or for all of the sheet's."""
    asked = read_plan(DEFAULT | {"runs": list(names) or SHEET}, ROOT)
    return {name: asked.runs[name] for name in asked.watched}


def write_runs(folder, runs, *, seed=0, stop=()):
    """Tables of all runs: SFT raises its target by 2 nats an evaluation and all else by .5; preferences lower all.

    What DPO lowers depends on the SFT before it: by its length at equal examples, and not at an equal margin.
    """
    ends = {}
    for name, row in runs.items():
        steps = list(range(0, row["steps"] + 1, row["evaluate_every"]))[: 2 if name in stop else None]
        start = ends.get(row["init"], dict.fromkeys(TYPES, -30.0))
        speed = 1 + (runs[row["init"]]["steps"] / 100 if row["init"] in runs else 0)
        rows, levels = [], start
        for place, step in enumerate(steps):
            levels = {kind: level + place * _slope(row, kind, speed) for kind, level in start.items()}
            for kind, level in levels.items():
                for p in range(PROBES):
                    value = level - p + 0.1 * p * (level - start[kind])
                    rows.append(
                        {"run": name, "seed": seed, "step": step, "examples": step * row["batch_size"], "tokens": 5}
                        | {"probe_id": f"q{p}/{kind}", "split": "train", "type": kind, "status": "ok"}
                        | dict(zip(MEASURES, (value, value / 5, -5 + 0.1 * place * speed, -3, 1, 9, 0.5), strict=True))
                    )
        ends[name] = levels
        status = "diverged" if name in stop else "ok"
        (folder / name).mkdir(parents=True)
        write_table(DYNAMICS, rows, folder / name / "dynamics.parquet", {"status": status})
        training = [{"run": name, "seed": seed, "step": step, "examples": step * row["batch_size"]} | {"loss": 1.0}
                    | {"learning_rate": 1.0, "pull": 1.0, "push": -1.0 * (row["loss"] != "sft"), "grad_norm": 1.0}
                    for step in range(1, row["steps"] + 1)]  # fmt: skip
        write_table(TRAINING, training, folder / name / "training.parquet", {})
    return folder


def _slope(row, kind, speed):
    if row["loss"] == "sft":
        return 2 if kind == row["target"] else 0.5
    return -speed * {"chosen": 1, "rejected": 5}.get(kind, 2)


def summarised(folder, runs, seed=0):
    starts = {name: row["init"] for name, row in runs.items() if row["init"]}
    done = call("summarise_dynamics", "--model", "mini", *settings(runs=list(runs), starts=starts, draws=50, seed=0),
                "--dynamics", *(folder / name / "dynamics.parquet" for name in runs), "--output",
                folder / "curves.parquet")  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "curves.parquet"


def drawn(folder, runs, output, *more, formats=("vl.json",)):
    done = call("draw_dynamics", "--curves", folder / "curves.parquet", "--tables", folder,
                *settings(runs=list(runs.values())), "--title", "mini, seed 0", "--formats", *formats,
                "--output", output, *more)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {each["kind"]: each for each in json.loads((output / "index.json").read_text())["figures"]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Every run of the sheet, drawn."""
    folder = tmp_path_factory.mktemp("whole")
    runs = rows_of()
    summarised(write_runs(folder / "tables", runs), runs)
    return folder, drawn(folder / "tables", runs, folder / "figures")


# --- Which runs answer which question ---


def test_every_type_is_drawn_and_named():
    assert {kind for _, kinds, _ in PANELS for kind in kinds} == set(TYPES) == set(NAMED)


def test_the_whole_sheet_has_every_comparison():
    runs = rows_of()
    assert [(chain.last, chain.exposure) for chain in choose.lengths(runs)] == [
        ("base_dpo", 0), ("sft1_dpo", 200), ("sft4_dpo", 800), ("dpo", 1600), ("sft10_dpo", 2000)
    ]  # fmt: skip
    assert [chain.runs[0] for chain in choose.extended(runs)] == ["sft", "sft4", "extend"]
    assert [chain.last for chain in choose.negatives(runs)] == ["dpo", "dpo_on_policy", "dpo_self_play"]
    assert [runs[chain.last]["loss"] for chain in choose.losses(runs)] == ["dpo", "ipo", "slic", "sppo", "kto", "simpo"]
    learnt = choose.learnt(runs)
    assert learnt["probed_unrelated"] == ("unrelated", "") and learnt["probed_dpo"] == ("chosen", "rejected")
    assert "probed_ipo" not in learnt and len(learnt) == 7
    assert all(not runs[name]["probed"] for chain in choose.chains_of(runs) for name in chain.runs)


def test_a_config_without_the_runs_has_no_comparison_of_them():
    runs = rows_of("dpo")
    assert choose.lengths(runs) == choose.extended(runs) == choose.losses(runs) == choose.negatives(runs) == []
    assert choose.learnt(runs) == {}
    assert [chain.runs[0] for chain in choose.extended(rows_of("dpo", "extend_dpo"))] == ["sft", "extend"]
    # On-policy DPO from another start is no comparison.
    other = rows_of("dpo", "dpo_on_policy")
    other["dpo_on_policy"] = other["dpo_on_policy"] | {"init": "base"}
    assert choose.negatives(other) == []


def test_rates_are_runs_that_differ_in_nothing_else(tmp_path):
    """One run a rate, the smallest first; over updates and against the margin, in the order of updates."""
    runs = rows_of("dpo_1e5", "dpo_1e6", "dpo_2e6", "base_dpo")
    (group,) = choose.rates(runs)
    assert [runs[chain.last]["learning_rate"] for chain in group] == [1e-6, 2e-6, 1e-5]
    assert choose.rates(rows_of("dpo_1e6", "extend_dpo")) == []
    short = {name: row | {"steps": 40} for name, row in runs.items()}
    summarised(write_runs(tmp_path / "runs", short), short)
    drawn(tmp_path / "runs", short, tmp_path / "figures")
    spec = json.loads((tmp_path / "figures" / "rates.vl.json").read_text())
    assert spec["title"]["text"] == ["DPO at learning rates 1e-6 to 1e-5"]
    over, against = spec["concat"][:2]
    rows = spec["datasets"][against["data"]["name"]]
    # Of `write_runs`: SFT gives the chosen 1.5 nats an evaluation more; DPO lowers the rejected by 4 x 1.4 nats more,
    # and probe p by p tenths more than that.
    margins = [row["aim"] for row in rows if row["rate"] == "1e-6"]
    assert margins == pytest.approx(4 * 1.5 + np.arange(5) * 4 * 1.4 * 1.15)
    assert against["layer"][0]["encoding"]["order"]["field"] == "step" and over["layer"][0]["mark"]["type"] == "line"


def test_chains_lead_to_runs_that_nothing_starts_from():
    assert [chain.runs for chain in choose.chains_of(rows_of("dpo", "dpo_on_policy", "sft1"))] == [
        ("sft", "dpo"), ("sft", "dpo_on_policy"), ("sft1",)
    ]  # fmt: skip


# --- What is drawn ---


def test_the_whole_sheet_has_every_figure(whole):
    _, figures = whole
    kinds = [kind for kind in figures if not kind.endswith(".curves")]
    assert kinds == ["extend", "chains", "chains.2", "norms", "norms.2", "norms.3", "length", "losses",
                     "negatives", "influence", "influence_time"]  # fmt: skip


def test_titles_state_what_the_runs_do(whole):
    _, figures = whole
    # The fall at an equal margin is the same for all lengths by construction.
    assert "at the same margin: chosen falls: no clear difference" in figures["length"]["title"]
    assert figures["length"]["title"].startswith("SFT, 10 epochs, then DPO, against SFT, 1 epoch, then DPO,")
    assert figures["influence"]["title"] == ("The type learnt rises most in 6 of 6 runs")
    assert figures["losses"]["title"].count(" · ") == 5 and ": chosen down" in figures["losses"]["title"]
    assert "sees the chosen responses as often" in figures["extend"]["caption"]
    assert "only off-policy DPO is shown" in figures["negatives"]["caption"]


def test_charts_are_sound(whole):
    folder, figures = whole
    # One of each make: to check all of them takes a minute.
    for each in figures.values():
        meanings_of(json.loads((folder / "figures" / each["files"]["vl.json"]).read_text()))
    for each in (figures[kind] for kind in ("length", "influence", "influence_time")):
        alt.Chart.from_dict(json.loads((folder / "figures" / each["files"]["vl.json"]).read_text()))


def test_the_table_of_influences_is_the_end_less_the_start(whole):
    folder, _ = whole
    tables = {name: pl.read_parquet(folder / "tables" / name / "dynamics.parquet") for name in choose.learnt(rows_of())}
    found = table_of(tables, choose.learnt(rows_of()), 50, 0)
    row = found.filter((pl.col("run") == "probed_chosen") & (pl.col("type") == "chosen")).row(0, named=True)
    # Thirty evaluations of 2 nats in 5 tokens, by 1 to 1.3 for the four probes.
    assert row["value"] == pytest.approx(30 * 2 * 1.15 / 5) and row["n"] == PROBES
    column = found.filter(pl.col("run") == "probed_chosen")["share"]
    assert max(column) - min(column) == pytest.approx(1)


def test_the_title_counts_where_the_type_learnt_rises_most():
    found = [("chosen", "rejected", 0.5, -0.8), ("rejected", "chosen", 0.4, 0.6)]
    table = pl.DataFrame([
        {"run": f"probed_{own}", "column": own, "own": own, "type": kind, "share": value, "n": 3}
        | {"value": value, "low": value, "high": value}
        for own, other, up, down in found
        for kind, value in ((own, up), (other, down))
    ])  # fmt: skip
    heading, _ = heat_map(table)
    assert heading.title == "The type learnt rises most in 1 of 2 runs"


def test_the_argmax_panel_has_the_studys_own_curve(whole):
    folder, figures = whole
    drawn = json.loads((folder / "figures" / figures["dpo.curves"]["files"]["vl.json"]).read_text())
    (panel,) = (each for each in drawn["concat"] if each["title"]["text"].startswith("Likeliest"))
    names = {row["series"] for row in drawn["datasets"][panel["data"]["name"]]}
    assert "other question, shuffled" in names
    assert "“other question, shuffled” are, by an error of its code, what the study" in figures["dpo.curves"]["caption"]


def test_a_run_that_diverged_is_named_and_not_matched(tmp_path):
    runs = rows_of("sft", "dpo", "sft1_dpo", "base_dpo")
    summarised(write_runs(tmp_path / "tables", runs, stop=["base_dpo"]), runs)
    figures = drawn(tmp_path / "tables", runs, tmp_path / "figures")
    for kind in ("base_dpo.curves", "chains"):
        line = figures[kind]["caption"].rpartition("STOPPED EARLY")[2]
        assert figures[kind]["subtitle"][0].startswith("STOPPED EARLY · ") and "DPO at once" in line
        shown = json.loads((tmp_path / "figures" / figures[kind]["files"]["vl.json"]).read_text())
        assert shown["title"]["subtitle"][0].startswith("STOPPED EARLY") and line in shown["description"]
    assert "STOPPED EARLY" not in figures["sft.curves"]["caption"] + figures["length"]["caption"]
    assert "DPO at once" not in figures["length"]["title"]


def test_the_default_runs_are_drawn_and_the_same_bytes_twice(tmp_path):
    runs = rows_of(*DEFAULT["runs"])
    summarised(write_runs(tmp_path / "tables", runs), runs)
    figures = drawn(tmp_path / "tables", runs, tmp_path / "figures", formats=("vl.json", "svg"))
    assert set(figures) == {*(f"{name}.curves" for name in runs), "extend", "norms"}
    assert figures["sft.curves"]["title"] == "SFT: chosen up, likeliest tokens up"
    assert figures["extend"]["title"] == "SFT, then DPO · Extend, then DPO: chosen down, likeliest tokens up"
    assert all(each["width"] > 300 and each["height"] > 300 for each in figures.values())
    again = drawn(tmp_path / "tables", runs, tmp_path / "again", formats=("vl.json", "svg"))
    for file in (file for each in again.values() for file in each["files"].values()):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "figures" / file).read_bytes()
    assert "No run here sees the chosen responses as often" in figures["extend"]["caption"]


def test_a_missing_table_is_named(tmp_path):
    runs = {name: rows_of()[name] for name in ("probed_chosen", "probed_rejected")}
    summarised(write_runs(tmp_path / "tables", runs), runs)
    (tmp_path / "tables/probed_chosen/training.parquet").unlink()
    done = call("draw_dynamics", "--curves", tmp_path / "tables/curves.parquet", "--tables", tmp_path / "tables",
                *settings(runs=list(runs.values())), "--title", "x", "--formats", "vl.json", "--output",
                tmp_path)  # fmt: skip
    assert "training.parquet: no such file" in user_error(done)


def test_seeds_are_drawn_with_their_range(tmp_path):
    runs = rows_of("dpo")
    curves = [summarised(write_runs(tmp_path / str(seed), runs, seed=seed, stop=["dpo"] * (seed == 1)), runs, seed)
              for seed in (0, 1)]  # fmt: skip
    done = call("draw_seeds", "--curves", *curves, *settings(runs=list(runs.values())), "--title",
                "mini, over seeds", "--formats", "vl.json", "--output", tmp_path / "figures")  # fmt: skip
    assert done.returncode == 0, done.stderr
    figure = json.loads((tmp_path / "figures/index.json").read_text())["figures"][0]
    assert figure["title"] == "Log-probability over 2 seeds"
    assert "Means over 2 seeds" in figure["caption"] and "STOPPED EARLY" in figure["subtitle"][0]


def test_the_step_figure_states_slope_and_order(tmp_path):
    predicted = np.random.default_rng(0).normal(size=30).tolist()
    rows = [
        {"seed": 0, "loss": loss, "pair_id": "p", "trained": trained, "halving": halving, "learning_rate": 1.0}
        | {"probe_id": f"q{i}", "type": "chosen", "predicted": x / 2**halving, "captured": 0.5 * x / 2**halving}
        | {"measured": x / 2**halving + 0.01 * x * x / 4**halving}
        for loss in ("sft", "dpo")
        for trained in ("captured", "all")
        for halving in range(4)
        for i, x in enumerate(predicted)
    ]
    heading, chart = step_figure(rows)
    assert "falls 4.00 times" in heading.caption[0] and heading.title.endswith("do not carry 50% of it")
    chart.to_dict()
