"""The table of runs from start to end, against numbers counted by hand; published ones are beside their own."""

import polars as pl
import pytest
import yaml

from conftest import ROOT, call, settings, user_error
from gradatlas.charts.numbers import as_given
from gradatlas.charts.tables import write_table as write_any
from gradatlas.core.sheets import read_sheet
from gradatlas.core.tables import write_table
from gradatlas.figures.run_table import MEASURES, courses, read_runs
from gradatlas.finetuning.probes import TYPES
from gradatlas.statistics.tables import DYNAMICS_CURVES
from gradatlas.study.probe_types import STUDY_FIELDS
from gradatlas.study.sheets import ModelRow, PublishedCurveRow, RunRow

PUBLISHED = list(read_sheet(ROOT / "config/published_curves.tsv", PublishedCurveRow, None).values())
SHEET = read_sheet(ROOT / "config/runs.tsv", RunRow, "run")
RUNS = {name: SHEET[name] for name in ("sft", "dpo")}


def curves(path, levels, *, model="mini", stopped=()):
    """A table of curves: `levels` by (run, split, type, measure), an evaluation every 100 examples."""
    rows = [
        {"model": model, "seed": 0, "run": run, "split": split, "type": kind, "measure": measure, "step": 25 * place}
        | {"examples": 100 * place, "before": 0, "n": 4, "value": value, "low": value - 1, "high": value + 1}
        | {"change": value - values[0], "change_low": value - values[0] - 2, "change_high": value - values[0] + 2}
        for (run, split, kind, measure), values in levels.items()
        for place, value in enumerate(values)
    ]
    write_table(DYNAMICS_CURVES, rows, path, {"draws": 50, "seed": 0, "diverged": list(stopped)})
    return path


LEVELS = {
    # Rises, then falls; the highest comes twice.
    ("sft", "train", "rejected", "log_prob_sum"): [-20.0, -15.5, -15.5, -18.25],
    ("sft", "train", "rejected", "argmax_log_prob"): [-4.0, -5.0, -6.0, -7.0],
    ("sft", "train", "chosen", "log_prob_sum"): [-30.0, -20.0, -10.0, -9.996],
    ("sft", "train", "chosen", "argmax_log_prob"): [-5.0, -4.0, -3.0, -2.0],
    ("sft", "train", "chosen", "entropy"): [1.0, 1.0, 1.0, 1.0],
    ("sft", "held_out", "chosen", "log_prob_sum"): [-30.0, -31.0, -32.0, -33.0],
    ("dpo", "train", "chosen", "log_prob_sum"): [-10.0, -40.0],
    ("dpo", "train", "chosen", "argmax_log_prob"): [-2.0, -1.0],
}


def test_start_peak_and_end(tmp_path):
    rows = courses("mini_qa", curves(tmp_path / "c.parquet", LEVELS, stopped=["dpo"]), RUNS, PUBLISHED)
    # In the order of the sheet: runs, then trained before held out, types, the response before the likeliest.
    assert [tuple(row[key] for key in ("run", "split", "type", "measure")) for row in rows] == [
        ("sft", "train", "chosen", "log_prob_sum"), ("sft", "train", "chosen", "argmax_log_prob"),
        ("sft", "train", "rejected", "log_prob_sum"), ("sft", "train", "rejected", "argmax_log_prob"),
        ("sft", "held_out", "chosen", "log_prob_sum"),
        ("dpo", "train", "chosen", "log_prob_sum"), ("dpo", "train", "chosen", "argmax_log_prob"),
    ]  # fmt: skip
    result = ("start", "peak", "peak_examples", "end", "examples", "change", "low", "high", "n", "status")
    found = {(row["run"], row["split"], row["type"], row["measure"]): tuple(row[key] for key in result) for row in rows}
    assert found["sft", "train", "rejected", "log_prob_sum"] == (
        -20,
        -15.5,
        100,
        -18.25,
        300,
        1.75,
        -0.25,
        3.75,
        4,
        "ok",
    )
    assert found["sft", "train", "rejected", "argmax_log_prob"][:5] == (-4, -4, 0, -7, 300)
    assert found["sft", "train", "chosen", "argmax_log_prob"][:5] == (-5, -2, 300, -2, 300)
    assert found["dpo", "train", "chosen", "log_prob_sum"] == (-10, -10, 0, -40, 100, -30, -32, -28, 4, "diverged")


def test_published_numbers_are_beside_their_run_or_one_like_it(tmp_path):
    rows = courses("mini_qa", curves(tmp_path / "c.parquet", LEVELS), RUNS, PUBLISHED)
    known = {(row["run"], row["split"], row["type"], row["measure"]): row for row in rows if row["published_model"]}
    rejected = known["sft", "train", "rejected", "log_prob_sum"]
    found = {key.removeprefix("published_"): value for key, value in rejected.items() if key.startswith("published_")}
    assert found == {
        **{"start": -97.2, "peak": -87.1, "peak_examples": 10000, "end": -105.2, "change": None},
        **{"model": "qwen1_5_1_8b", "pairs": "hh_helpful"},
    }
    assert known["dpo", "train", "chosen", "argmax_log_prob"]["published_end"] == -15.4
    # Published curves are of trained questions.
    assert {split for _, split, _, _ in known} == {"train"} and len(known) == 5

    # A model's own numbers before those of another.
    own = {"model": "mini", "pairs": "mini_qa", "run": "sft", "like": [], "type": "chosen", "measure": "log_prob_sum"}
    own |= dict.fromkeys(("peak", "peak_examples", "change"), None) | {"start": -1.0, "end": -2.0, "source": "here"}
    rows = courses("mini_qa", tmp_path / "c.parquet", RUNS, [*PUBLISHED, own])
    assert (rows[0]["published_model"], rows[0]["published_end"]) == ("mini", -2)
    assert rows[2]["published_model"] == "qwen1_5_1_8b"


def write(folder, path, *, pairs="mini_qa", runs=RUNS):
    done = call("write_dynamics_table", "--pairs", pairs, "--curves", path, "--published",
                ROOT / "config/published_curves.tsv", "--output", folder / "dynamics",
                *settings(runs=list(runs.values()), titles={"mini": "Miniature"}))  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {suffix: (folder / f"dynamics.{suffix}").read_bytes() for suffix in ("parquet", "csv", "md", "tex")}


def test_the_table_reads_as_it_should_and_is_the_same_bytes_twice(tmp_path):
    path = curves(tmp_path / "c.parquet", LEVELS, stopped=["dpo"])
    files = write(tmp_path, path)
    assert files == write(tmp_path / "again", path)
    text = files["md"].decode()
    assert "## SFT · Miniature · mini\\_qa · seed 0 · 300 examples" in text
    assert (
        "| chosen | −30.0 → −10.0 | 20.0 [18.0, 22.0] | −5.00 → −2.00 | 3.00 [1.00, 5.00] "
        "| −122.8 → −56.4; likeliest −49.5 → −30.8 | 4 |" in text
    )
    assert "| rejected | −20.0 → −15.5 (at 100) → −18.2 | 1.75 [−0.25, 3.75] |" in text
    assert "−97.2 → −87.1 (at 10,000) → −105.2" in text
    assert "Published, of other model and data (qwen1\\_5\\_1\\_8b on hh\\_helpful): an independent re-run" in text
    assert text.count("Stopped early") == 1 and text.index("Stopped early") > text.index("## SFT, then DPO")
    frame = pl.read_parquet(tmp_path / "dynamics.parquet")
    assert frame.equals(read_runs(tmp_path / "dynamics.csv")) and len(frame) == 7
    assert r"\(\to\)" in files["tex"].decode() and "→" not in files["tex"].decode()


def test_of_the_study_s_own_model_the_numbers_are_its_own(tmp_path):
    kinds = ("chosen", "chosen_semantic", "initial")
    levels = {("hh_extend_dpo", "train", kind, measure): [-50.0, -60.0] for kind in kinds for measure in MEASURES}
    path = curves(tmp_path / "c.parquet", levels, model="qwen1_5_1_8b")
    text = write(tmp_path, path, pairs="hh_helpful", runs={"hh_extend_dpo": SHEET["hh_extend_dpo"]})["md"].decode()
    assert "Published, of this model (qwen1\\_5\\_1\\_8b on hh\\_helpful)" in text
    assert "| −87.5 → −127; likeliest −42.2 → −23.4 | 4 |" in text
    # Of some the change alone is known; of others nothing.
    assert "| change −92 | 4 |" in text and "| – | 4 |" in text


def test_a_run_that_nothing_is_known_of_has_no_such_column(tmp_path):
    levels = {("sft_lora", *key[1:]): values for key, values in LEVELS.items() if key[0] == "sft"}
    text = write(tmp_path, curves(tmp_path / "c.parquet", levels), runs={"sft_lora": SHEET["sft_lora"]})["md"].decode()
    assert "| Probe | Start → peak → end | Change | Likeliest | Change | n |" in text and "Published" not in text


def test_the_sheet_of_published_curves_names_runs_models_pairs_and_types():
    models = read_sheet(ROOT / "config/models.tsv", ModelRow, "model")
    seen = set()
    for row in PUBLISHED:
        assert {row["run"], *row["like"]} <= set(SHEET) and row["model"] in models and row["type"] in TYPES
        assert row["measure"] in MEASURES and bool(row["argmax"]) == (row["measure"] == "argmax_log_prob")
        # What the study's code gave every type is that of its last one.
        assert row["argmax"] != "faulty" or row["type"] == list(STUDY_FIELDS)[-1] == "random_nonhum"
        # Our draws of the vocabulary are none of its types.
        assert row["type"] in STUDY_FIELDS
        assert (ROOT / f"config/pairs/{row['pairs']}.yaml").is_file()
        assert row["end"] is not None or row["change"] is not None
        assert row["source"]
        if None not in (row["start"], row["end"], row["change"]):
            assert row["end"] - row["start"] == pytest.approx(row["change"])
        key = tuple(row[name] for name in ("model", "pairs", "run", "type", "measure"))
        assert key not in seen
        seen.add(key)


def test_every_published_curve_is_beside_one_of_the_study_s_own_scale(tmp_path):
    """The table of config/dynamics_paper.yaml, of numbers made up: its runs, models and all types of probes."""
    dynamics = yaml.safe_load((ROOT / "config/dynamics_paper.yaml").read_text())["dynamics"]
    runs = {name: SHEET[name] for name in dynamics["runs"]}
    levels = {(run, "train", kind, measure): [-50.0, -40.0, -60.0] for run in runs for kind in TYPES
              for measure in MEASURES}  # fmt: skip
    found = {}
    for model in dynamics["models"]:
        path = curves(tmp_path / f"{model}.parquet", levels, model=model)
        text = write(tmp_path / model, path, pairs=dynamics["pairs"], runs=runs)["md"].decode()
        frame = read_runs(tmp_path / model / "dynamics.csv")
        assert len(frame) == len(levels)
        for row in frame.filter(pl.col("published_model") == model).to_dicts():
            found[model, *(row[key] for key in ("pairs", "run", "type", "measure"))] = row
            shown = next(row[f"published_{name}"] for name in ("end", "change") if row[f"published_{name}"] is not None)
            assert as_given(shown) in text
    for row in PUBLISHED:
        own = found.pop(tuple(row[key] for key in ("model", "pairs", "run", "type", "measure")))
        assert {name: own[f"published_{name}"] for name in ("start", "peak", "end", "change")} == {
            name: row[name] for name in ("start", "peak", "end", "change")
        }
    assert not found


def test_another_file_is_refused(tmp_path):
    from gradatlas.core.errors import InputError

    write_any(tmp_path / "rd", pl.DataFrame({"model": ["mini"], "dataset": ["gsm8k"]}), "RD", "", [])
    with pytest.raises(InputError, match="not the table of runs, its columns are model, dataset"):
        read_runs(tmp_path / "rd.csv")
    with pytest.raises(InputError, match=r"none\.parquet: no such file; make it with rule write_dynamics_table"):
        read_runs(tmp_path / "none.csv")
    done = call("write_dynamics_table", "--pairs", "mini_qa", "--curves", tmp_path / "none.parquet", "--published",
                ROOT / "config/published_curves.tsv", "--output", tmp_path / "dynamics",
                *settings(runs=list(RUNS.values())))  # fmt: skip
    assert "none.parquet" in user_error(done)
