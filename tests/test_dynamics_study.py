"""The second study as asked for, and summarised: plan, curves."""

import json
import re
import shutil

import polars as pl
import pytest
import yaml

from conftest import MINIATURE, ROOT, call, settings, user_error
from gradatlas.core.errors import InputError
from gradatlas.core.schemas import checked, picked, schema_of
from gradatlas.core.sheets import read_sheet
from gradatlas.core.tables import read_table, write_table
from gradatlas.data.tables import PAIRS
from gradatlas.finetuning.evaluate import MEASURES
from gradatlas.finetuning.losses import LOSSES
from gradatlas.finetuning.probes import TYPES
from gradatlas.finetuning.recipe import Recipe
from gradatlas.finetuning.tables import DYNAMICS
from gradatlas.study.config import read_study
from gradatlas.study.runs import read_plan
from gradatlas.study.sheets import PairsMapping, RunRow, Training

DEFAULT = MINIATURE


def plan(root=ROOT, writer="gpt-4o", **changes):
    unfollowed = {"kernels": DEFAULT["dynamics"]["kernels"] | {"runs": []}}
    return read_plan(DEFAULT["dynamics"] | unfollowed | changes, root, writer)


@pytest.fixture
def root(tmp_path):
    """A copy of the sheets, to spoil."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    return tmp_path


# --- What is asked for ---


def test_runs_bring_those_that_they_start_from_in_order():
    asked = plan(runs=["extend_dpo", "dpo"])
    assert list(asked.runs) == ["base", "extend", "extend_dpo", "sft", "dpo"]
    assert asked.watched == ["extend", "extend_dpo", "sft", "dpo"] and asked.start == "base"
    assert plan(runs=["hh_dpo"]).start == ""
    assert plan(runs=[]).runs == {}


def test_every_row_of_the_sheet_is_a_recipe_and_the_sheet_knows_all_losses():
    assert schema_of(RunRow)["properties"]["loss"]["enum"] == list(LOSSES)
    for name, row in read_sheet(ROOT / "config/runs.tsv", RunRow, "run").items():
        Recipe(name=name, **picked(row, Training))


def test_extend_sees_chosen_as_often_as_its_control():
    runs = plan(runs=["sft", "extend", "sft4"]).runs
    per_epoch = DEFAULT["dynamics"]["train"] / 4
    assert (runs["sft"]["steps"], runs["extend"]["steps"]) == (8 * per_epoch, 4 * 2 * per_epoch)
    assert runs["sft4"]["steps"] == 4 * per_epoch


def test_the_studys_own_scale_is_what_its_sheet_says():
    """Epochs of 5,000 pairs and of 500 probed ones in batches of 4; every run that a claim names is asked for."""
    dynamics = yaml.safe_load((ROOT / "config/dynamics_paper.yaml").read_text())["dynamics"]
    runs = plan(**dynamics).runs
    assert list(runs) == dynamics["runs"] and all(row["warm_up"] == 150 for row in runs.values())
    epochs = {name: row["steps"] * 4 / (dynamics["probes" if row["probed"] else "train"]) for name, row in runs.items()}
    assert all(epochs[name] == 10 for name, row in runs.items() if row["probed"])
    assert all(epochs[name] == 6 for name, row in runs.items() if row["loss"] != "sft" and not row["probed"])
    assert [epochs[f"hh_sft{name}"] for name in ("1", "2", "4", "", "10")] == [1, 2, 4, 8, 10]
    # Both responses of a pair are an example each: 4 epochs.
    assert epochs["hh_extend"] == 8 and runs["hh_extend"]["baseline"] == ["hh_sft", "hh_sft4"]
    claimed = (ROOT / "config/claims_dynamics.tsv").read_text()
    named = set(re.findall(r"\bhh_\w+", claimed))
    assert named <= set(runs) and "hh_probed_dpo" in named


@pytest.mark.parametrize(
    "changes",
    [
        {"models": ["pythia_1b", "pythia_1_4b", "pythia_2_8b", "qwen1_5_0_5b"]},
        {"pairs": "ultrafeedback"},
    ],
)
def test_the_studys_other_models_and_data_can_be_asked_for(changes):
    asked = yaml.safe_load((ROOT / "config/dynamics_paper.yaml").read_text())
    wanted = DEFAULT | {
        "dynamics": DEFAULT["dynamics"] | asked["dynamics"] | changes,
        "generate": DEFAULT["generate"] | asked["generate"],
    }
    assert list(read_study(wanted, ROOT).learners) == wanted["dynamics"]["models"]
    assert plan(**wanted["dynamics"]).watched


def test_runs_of_dpo_write_after_two_four_and_six_epochs():
    for sheet, pairs in (
        (plan(runs=["sft2_dpo", "extend2_dpo"]), DEFAULT["dynamics"]["train"]),
        (plan(runs=["hh_dpo"]), 5000),
    ):
        rows = [row for row in sheet.runs.values() if row["loss"] == "dpo"]
        assert [row["generate_every"] * row["batch_size"] / pairs for row in rows] == [2] * len(rows)
        assert [row["steps"] / row["generate_every"] for row in rows] == [3] * len(rows)


@pytest.mark.parametrize("name", ["hh_helpful", "ultrafeedback"])
def test_shipped_mappings_of_pairs_are_valid(name):
    assert plan(pairs=name).mapping["columns"]["chosen"] == "chosen"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runs": ["dop"]}, "config key 'dynamics.runs': unknown run 'dop': did you mean 'dpo'"),
        ({"runs": ["base"]}, "no run among them is watched"),
        ({"runs": ["sft", "hh_sft"]}, "runs start from base and the model itself"),
        ({"runs": ["dpo_on_policy"], "judge": ""}, "'dynamics.judge' is '', but run 'dpo_on_policy' needs a judge"),
        (
            {"runs": ["hh_dpo_on_policy"], "pairs": "hh_helpful"},
            "is 'oracle', but run 'hh_dpo_on_policy' needs a judge",
        ),
        ({"pairs": "hh_helpfull"}, "no config/pairs/hh_helpfull.yaml: did you mean 'hh_helpful'"),
    ],
)
def test_mistakes_in_the_config_are_one_line(changes, message):
    with pytest.raises(InputError, match=message):
        plan(**changes)


def test_an_unknown_model_to_finetune_is_named():
    with pytest.raises(InputError, match=r"dynamics\.models': unknown name 'minni': did you mean 'mini'"):
        read_study(DEFAULT | {"dynamics": DEFAULT["dynamics"] | {"models": ["minni"]}}, ROOT)


def own_pairs(root, more="held_out_split: train[24:]"):
    """Pairs of a user's own, named `own`: plain texts of one file, cut in two."""
    (root / "own.jsonl").write_text("{}\n")
    text = (
        f"source: {root}/own.jsonl\ntrain_split: train[:24]\n{more}\ncolumns: {{prompt: p, chosen: c, rejected: r}}\n"
    )
    (root / "config/pairs/own.yaml").write_text(text)


def test_own_pairs_run_from_the_model_itself_with_no_row_edited(root):
    own_pairs(root)
    asked = plan(root, pairs="own", runs=["sft", "dpo", "extend_dpo", "hh_sft"])
    assert list(asked.runs) == asked.watched == ["sft", "dpo", "extend", "extend_dpo", "hh_sft"]
    assert {name: row["init"] for name, row in asked.runs.items()} == {
        "sft": "", "dpo": "sft", "extend": "", "extend_dpo": "extend", "hh_sft": ""
    }  # fmt: skip
    assert asked.start == "" and asked.mapping["held_out"] == asked.mapping["source"]
    assert asked.notes == (
        "pairs 'own' have no documents for a warm start (base): sft, extend start from the model itself",
    )
    # Nothing else is changed, and the miniature's own pairs have their warm start.
    assert plan(root, runs=["sft"]).start == "base" and plan(root, runs=["sft"]).notes == ()
    assert {key: asked.runs["sft"][key] for key in ("steps", "loss")} == {"steps": 400, "loss": "sft"}
    with pytest.raises(
        InputError, match=r"run 'base' learns the miniature's documents .*'own' do not have; leave it out"
    ):
        plan(root, pairs="own", runs=["base", "sft"])


def test_rephrases_are_optional(root):
    own_pairs(root)
    rephrases = root / "rephrases.jsonl"
    for changes, found in (({"writer": "gpt"}, "written"), ({"rephrases": str(rephrases), "writer": ""}, "file"),
                          ({"writer": ""}, "")):  # fmt: skip
        asked = plan(root, pairs="own", runs=["hh_sft"], **changes)
        assert asked.rephrases == found and len(asked.notes) == (not found)
    assert "probes of the types chosen_semantic, " in asked.notes[0] and "are left out" in asked.notes[0]
    assert plan(root, writer="").rephrases == "grammar"
    with pytest.raises(InputError, match=r"run 'hh_probed_unrelated' learns unrelated, and nobody writes rephrases"):
        plan(root, pairs="own", runs=["hh_probed_unrelated"], writer="")
    # Who writes them is loaded where a model is named; nobody, where none is.
    changed = DEFAULT["dynamics"] | {"pairs": "hh_helpful", "runs": ["hh_sft"], "judge": ""}
    assert read_study(DEFAULT | {"dynamics": changed}, ROOT).writers == {}
    wanted = DEFAULT | {"dynamics": changed, "generate": DEFAULT["generate"] | {"model": "mini"}}
    assert list(read_study(wanted, ROOT).writers) == ["mini"]


def test_files_of_probes_have_the_rephrases():
    asked = plan(pairs="hh_helpful", runs=["hh_probed_unrelated"], writer="gpt")
    assert asked.rephrases == "probes" and asked.notes == ()
    assert [file["path"] for file in asked.probe_files] == [
        "helpful-base/formal_prob_train.jsonl",
        "helpful-base/formal_prob_test.jsonl",
    ]
    assert all(file["url"].endswith(f"/src/data/{file['path']}") for file in asked.probe_files)
    assert plan(pairs="ultrafeedback", runs=["hh_sft"]).probe_files == plan().probe_files == []
    with pytest.raises(InputError, match=r"'dynamics.rephrases': config/pairs/hh_helpful.yaml names files of probes"):
        plan(pairs="hh_helpful", runs=["hh_sft"], rephrases="mine.jsonl")


def test_one_file_of_pairs_is_cut_in_two_or_says_how(root):
    own_pairs(root, "held_out_split: train[24:]\nheld_out: ''")
    assert plan(root, pairs="own", runs=["sft"]).is_file
    own_pairs(root, "held_out_split: train[:24]")
    with pytest.raises(InputError, match=r"own.yaml: 'held_out' is empty; .*held_out_split: train\[80%:\]"):
        plan(root, pairs="own", runs=["sft"])


def test_runs_that_start_in_a_circle(root):
    sheet = root / "config/runs.tsv"
    sheet.write_text(sheet.read_text().replace("sft\tSFT\tbase", "sft\tSFT\tdpo"))
    with pytest.raises(InputError, match=r"run 'dpo' starts from itself \(dpo from sft from dpo\)"):
        plan(root, runs=["dpo"])


def test_a_number_that_is_none(root):
    sheet = root / "config/runs.tsv"
    sheet.write_text(sheet.read_text().replace("5e-6", "fast"))
    with pytest.raises(InputError, match="'learning_rate' is 'fast'; write a number"):
        plan(root)


PROBED = "source: a/b\ncolumns: {prompt: p, chosen: c, rejected: r}\nprobes: {"
SUMS = f"train_sha256: {'a' * 64}, held_out_sha256: {'b' * 64}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source: a/b\ncolumns: {chosen: c, rejected: r}\n", "columns.prompt is needed"),
        ("source: nowhere.jsonl\ncolumns: {prompt: p, chosen: c, rejected: r}\n", "'source': no file 'nowhere.jsonl'"),
        ("source: a/b\ncolumns: {prompt: p, chosen: c, reject: r}\n", "unknown key 'columns.reject'"),
        ("source: a/b\ntemplate: x\ncolumns: {prompt: p, chosen: c, rejected: r}\n", "'template'"),
        (f"{PROBED}train: x, held_out: y, {SUMS}}}\n", r"'probes.train': no file 'x' here; put it there"),
        (f"{PROBED}train: 'https://a/x', held_out: y, {SUMS}}}\n", "'probes.held_out': no file 'y' here"),
        (f"{PROBED}train: x, held_out: y}}\n", "'probes.train_sha256' is missing"),
        (f"{PROBED}train: x, held_out: y, {SUMS}, leading_spaces: two}}\n", "'two' is not known"),
    ],
)
def test_mistakes_in_a_mapping_of_pairs(text, message, root):
    (root / "config/pairs/own.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        plan(root, pairs="own")


def test_pairs_of_files_by_a_mapping(tmp_path):
    rows = [{"p": f"Q{i}:", "c": f"yes {i}", "r": "no" if i else f" yes {i} "} for i in range(5)]
    for name, part in (("train", rows), ("held", [{"p": "H:", "c": "a", "r": "b"}])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    value = {"source": str(tmp_path / "train.jsonl"), "held_out": str(tmp_path / "held.jsonl"), "train_split":
             "train[:4]", "columns": {"prompt": "p", "chosen": "c", "rejected": "r"}}  # fmt: skip
    mapping = checked(value, PairsMapping, "own")
    done = call("build_pairs", "--name", "own", *settings(train=9, held_out=9, seed=0, mapping=mapping),
                "--train-rows", value["source"], "--held-out-rows", value["held_out"], "--output",
                tmp_path / "pairs.parquet")  # fmt: skip
    assert done.returncode == 0 and "train equal: 1, train ok: 3" in done.stderr, done.stderr
    assert read_table(PAIRS, tmp_path / "pairs.parquet").to_pylist()[1]["chosen"] == " yes 1"


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"columns": {"prompt": "p", "chosen": "c", "rejected": "r"}}, "settings.mapping: 'source' is missing"),
        (
            {"source": "x.jsonl", "columns": {"chosen": "c", "rejected": "r"}},
            "settings.mapping: columns.prompt is needed",
        ),
        (
            {"source": "x.jsonl", "columns": {"prompt": "p", "chosen": "c"}},
            "settings.mapping: 'columns.rejected' is missing",
        ),
        ({"source": "x.jsonl", "columns": {"prompt": "p", "chosen": "c", "rejected": "r"}}, None),
    ],
)
def test_a_mapping_given_to_the_script_is_completed_and_checked(mapping, message, tmp_path):
    for name, prompt in (("x", "A"), ("h", "B")):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"p": prompt, "c": "a", "r": "b"}) + "\n")
    done = call("build_pairs", "--name", "own", *settings(train=9, held_out=9, seed=0, mapping=mapping),
                "--train-rows", tmp_path / "x.jsonl", "--held-out-rows", tmp_path / "h.jsonl", "--output",
                tmp_path / "pairs.parquet")  # fmt: skip
    if message:
        assert message in user_error(done)
    else:
        # Without `held_out` and the splits' names: the schema has them.
        assert done.returncode == 0, done.stderr


# --- Curves ---


def table(path, run, steps, slope, probes=5, bad=False):
    """A dynamics table in which every measure of probe p at a step is p + slope * step."""
    rows = [
        {"run": run, "seed": 0, "step": step, "examples": 4 * step, "probe_id": f"q{p}/{kind}", "split": split}
        | {"type": kind, "tokens": 3, "status": "ok"}
        | {name: -100.0 + p + slope * step for name in MEASURES}
        for step in steps
        for kind in TYPES
        for split in ("train", "held_out")
        for p in range(probes)
    ]
    if bad:
        rows += [{**row, "probe_id": f"x/{row['type']}", "status": "too_long", **dict.fromkeys(MEASURES)}
                 for row in rows if row["probe_id"].startswith("q0")]  # fmt: skip
    write_table(DYNAMICS, rows, path, {"status": "diverged" if run == "other" else "ok"})
    return path


@pytest.fixture(scope="module")
def curves(tmp_path_factory):
    folder = tmp_path_factory.mktemp("curves")
    table(folder / "sft.parquet", "sft", (0, 5, 10), 0.5, bad=True)
    table(folder / "dpo.parquet", "dpo", (0, 5), -2.0)
    table(folder / "other.parquet", "other", (0, 5), 0.0)
    runs, starts = ["sft", "dpo", "other"], {"sft": "base", "dpo": "sft"}
    done = call("summarise_dynamics", "--model", "mini", *settings(runs=runs, starts=starts, draws=50, seed=0),
                "--dynamics", *(folder / f"{name}.parquet" for name in runs), "--output",
                folder / "c.parquet")  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "c.parquet"


def test_curves_are_means_over_probes_and_changes_are_paired(curves):
    frame = pl.read_parquet(curves).filter((pl.col("type") == "chosen") & (pl.col("measure") == "entropy"))
    row = frame.filter((pl.col("run") == "sft") & (pl.col("split") == "train") & (pl.col("step") == 10)).row(
        0, named=True
    )
    assert row["value"] == pytest.approx(-93) and row["low"] < -93 < row["high"] and row["n"] == 5
    # Every probe moves alike: what varies between them takes no part in the change.
    assert [row[key] for key in ("change", "change_low", "change_high")] == pytest.approx([5] * 3)
    before = dict(frame.select("run", "before").unique().iter_rows())
    assert before == {"sft": 0, "dpo": 40, "other": 0}


def test_a_table_of_another_run_is_refused(curves, tmp_path):
    done = call("summarise_dynamics", "--model", "m", *settings(runs=["sft"], draws=50, seed=0), "--output",
                tmp_path / "c.parquet", "--dynamics", curves.parent / "dpo.parquet")  # fmt: skip
    assert "holds run dpo, not 'sft'" in user_error(done)
