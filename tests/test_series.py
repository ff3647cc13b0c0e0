"""A training series: one row of the sheet, a model at each revision, through the rules that a user would run."""

import json
import re
import shutil

import polars as pl
import pytest

from conftest import ROOT, script, settings
from gradatlas.core.errors import InputError
from gradatlas.study.series import check_mirror, expand_series
from test_workflow import make, snakemake

EARLY, LATE = "a" * 40, "b" * 40


def row(**cells):
    return {
        "model": "pythia",
        "title": "",
        "source": "org/pythia",
        "revision": "",
        "released": "",
        "partner": "",
        **cells,
    }


def test_each_revision_is_a_model():
    rows = {
        "pythia": row(revision=f"step1={EARLY} {LATE}", title="Pythia", released="folder"),
        "one": row(model="one", revision=EARLY),
        "labelled": row(model="labelled", revision=f"last={LATE}"),
    }
    models, series = expand_series(rows)
    assert series == {"pythia": ["pythia_step1", "pythia_bbbbbbb"], "labelled": ["labelled_last"]}
    assert list(models) == ["pythia_step1", "pythia_bbbbbbb", "one", "labelled_last"]
    assert models["one"] is rows["one"]
    assert models["pythia_step1"] == row(model="pythia_step1", title="Pythia (step1)", revision=EARLY)
    assert models["labelled_last"]["title"] == "labelled (last)"


def test_a_series_that_is_its_own_partner_is_held_against_its_first_checkpoint():
    models, _ = expand_series({"pythia": row(revision=f"a={EARLY} b={LATE} c={'c' * 40}", partner="pythia")})
    assert {name: each["partner"] for name, each in models.items()} == {
        "pythia_a": "", "pythia_b": "pythia_a", "pythia_c": "pythia_a"
    }  # fmt: skip


def test_what_is_no_series_is_one_line():
    with pytest.raises(InputError, match=r"'pythia': source './steps' is no hub model.*a row of its own"):
        expand_series({"pythia": row(source="./steps", revision=f"{EARLY} {LATE}")})
    for revision in (f"x={EARLY} x={LATE}", f"{EARLY} {EARLY}"):
        with pytest.raises(
            InputError, match=r"'pythia': another model is named 'pythia_(x|aaaaaaa)'; give other labels"
        ):
            expand_series({"pythia": row(revision=revision)})
    with pytest.raises(InputError, match="another model is named 'pythia_x'"):
        expand_series({"pythia_x": row(model="pythia_x"), "pythia": row(revision=f"x={EARLY}")})


def test_a_mirror_has_a_folder_for_each(tmp_path):
    models, _ = expand_series({"pythia": row(revision=f"{EARLY} {LATE}")})
    place = tmp_path / "models/org/pythia"
    (place / EARLY).mkdir(parents=True)
    with pytest.raises(InputError, match=f"no folder {place / LATE}, and 'pythia_bbbbbbb' is one of several"):
        check_mirror(str(tmp_path), models)
    check_mirror(str(tmp_path), {"pythia_aaaaaaa": models["pythia_aaaaaaa"]})
    (place / LATE).mkdir()
    check_mirror(str(tmp_path), models)


@pytest.fixture
def mirror(tmp_path, miniature):
    """Two checkpoints of one model: untrained ones of two seeds."""
    place = tmp_path / "mirror/models/org/pythia"
    shutil.copytree(miniature, place / EARLY)
    done = script("train_miniature", *settings(kind="random", seed=1, steps=0), "--output", place / LATE)
    assert done.returncode == 0, done.stderr
    return tmp_path / "mirror"


START = ("-s", ROOT / "Snakefile", "--cores", 1, "--configfile", ROOT / "config/smoke.yaml")


def test_layer_curves_over_training(mirror, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    entry = {"model": "pythia", "source": "org/pythia", "revision": f"step1={EARLY} step2={LATE}", "device": "cpu"}
    config = (
        "--config",
        f"models=[{json.dumps(entry)}]",
        "datasets=[mini_arithmetic]",
        f"mirror={mirror}",
        "samples=2",
    )
    make(work, *START, *config, "--", "statistics")
    curves = pl.read_parquet(work / "results/statistics/mini_arithmetic/curves.parquet")
    assert curves["model"].unique(maintain_order=True).to_list() == ["pythia_step1", "pythia_step2"]
    means = [curves.filter(pl.col("model") == name)["value"] for name in ("pythia_step1", "pythia_step2")]
    assert len(means[0]) == len(means[1]) > 0 and not means[0].equals(means[1])
    cards = {
        name: json.loads((work / f"resources/models/pythia_{name}.json").read_text()) for name in ("step1", "step2")
    }
    assert [card["revision"] for card in cards.values()] == [EARLY, LATE]
    assert len({card["digest"] for card in cards.values()}) == 2
    # The mirror without one of them is no mirror of it.
    shutil.rmtree(mirror / "models/org/pythia" / LATE)
    done = snakemake(work, "-n", *START, *config, "--", "statistics")
    assert done.returncode and re.search("error: config key 'mirror': no folder .* 'pythia_step2'", done.output)
