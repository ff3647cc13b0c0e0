"""Untrained twins of hub models: what is fetched, what is drawn, and the claims beside the trained model's."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from conftest import ROOT, SHARED, needs_shared, settings
from gradatlas.core.errors import InputError
from gradatlas.models import snapshots
from gradatlas.models.loading import load
from gradatlas.study.config import read_study
from loopback import FakeHub
from test_fetch import closed_port, download_model, environment, one_line, script
from test_study import PAPER
from test_workflow import make

TRAINED = ROOT / "resources/miniature/base"


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with FakeHub() as running:
        yield running


def write(hub, tmp_path, name, commit, seed=0):
    done = download_model(hub, tmp_path, "org/tiny", commit, "--no-weights", name="twin")
    if done.returncode:
        return done
    given = ("--model", "twin", "--source", "org/tiny", "--revision", commit, *settings(seed=seed))
    where = ("--downloaded", tmp_path / "found.json", "--output", tmp_path / name)
    return script("write_untrained", *given, *where, **environment(closed_port(), tmp_path))


def test_a_twin_has_all_but_the_weights(hub, tmp_path):
    commit = hub.add("org/tiny", TRAINED)
    done = write(hub, tmp_path, "one", commit)
    assert done.returncode == 0, done.stderr
    assert not [path for _, path, _ in hub.seen if path.endswith(".safetensors")], "weights were asked for"
    kept = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    assert all((tmp_path / "one" / name).read_bytes() == (TRAINED / name).read_bytes() for name in kept)
    trained, drawn = (load_file(path / "model.safetensors") for path in (load_trained(tmp_path), tmp_path / "one"))
    assert {name: array.shape for name, array in trained.items()} == {
        name: array.shape for name, array in drawn.items()
    }
    spread = json.loads((TRAINED / "config.json").read_text())["initializer_range"]
    for name, array in drawn.items():
        if array.ndim == 2:
            assert array.std() == pytest.approx(spread, rel=0.05) and not np.allclose(array, trained[name])
        else:
            assert (array == 1).all(), name
    # The same seed gives the same bytes, from what was fetched already and without a network; another one others.
    for name, seed, same in (("two", 0, True), ("three", 1, False)):
        assert write(closed_port(), tmp_path, name, commit, seed=seed).returncode == 0
        files = [(tmp_path / folder / "model.safetensors").read_bytes() for folder in ("one", name)]
        assert (files[0] == files[1]) == same
    facts = json.loads((tmp_path / "one/untrained.json").read_text())
    assert (facts["source"], facts["revision"], facts["seed"]) == ("org/tiny", commit, 0)
    # It is a model like any other, with the trained one's tokenizer.
    cards = [snapshots.card_of("m", str(path), "", path) for path in (TRAINED, tmp_path / "one")]
    assert cards[0]["tokenizer_digest"] == cards[1]["tokenizer_digest"] and cards[0]["digest"] != cards[1]["digest"]
    model, _ = load(str(tmp_path / "one"), dtype="float32", device="cpu")
    assert sum(weight.numel() for weight in model.parameters()) == cards[1]["parameters"]


def load_trained(tmp_path):
    """The committed weights in float32, as NumPy reads them."""
    model, _ = load(str(TRAINED), dtype="float32", device="cpu")
    model.save_pretrained(tmp_path / "trained")
    return tmp_path / "trained"


def test_what_cannot_be_made_is_one_line(hub, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(TRAINED, folder)
    (folder / "config.json").write_text('{"model_type": "no_such_model"}')
    commit = hub.add("org/tiny", folder)
    assert "no causal language model can be built from" in one_line(write(hub, tmp_path, "out", commit))
    assert "org/tiny has no revision" in one_line(write(hub, tmp_path, "out", ""))
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize("wrong", [{"partner": "gemma2_2b"}, {"partner": ""}, {"revision": "0" * 40}])
def test_a_twin_of_another_model_is_refused(wrong):
    rows = [row for row in PAPER["models"] if row != "qwen2_1_5b_random"]
    row = {"model": "twin", "source": "Qwen/Qwen2-1.5B", "kind": "random", "partner": "qwen2_1_5b"}
    read_study(PAPER | {"models": [*rows, row]}, ROOT)
    with pytest.raises(InputError, match=r"'twin': an untrained twin of 'Qwen/Qwen2-1\.5B' needs a partner"):
        read_study(PAPER | {"models": [*rows, row | wrong]}, ROOT)


@pytest.mark.slow
@needs_shared("paper_data")
@needs_shared("reference_stats")
def test_the_studys_own_data_against_corrected_data_on_a_model_and_its_twin(tmp_path):
    """Published and corrected responses, from a mirror of data and models, to claims and what survives."""
    mirror = tmp_path / "mirror"
    shutil.copytree(SHARED / "reference_stats/model", mirror / "models/org/tiny")
    for folder in (SHARED / "paper_data").iterdir():
        (mirror / folder.name).symlink_to(folder)
    model = "{model: tiny, source: org/tiny, kind: base, device: cpu, threads: 1}"
    twin = "{model: twin, source: org/tiny, kind: random, partner: tiny, seed: 0, device: cpu, threads: 1}"
    make(
        tmp_path, "-s", ROOT / "Snakefile", "--cores", 2, "--configfile", ROOT / "config/paper.yaml", "--config",
        f"mirror={mirror}", "samples=4", "bootstrap=50", "formats=[svg]", f"models=[{model},{twin}]",
        "controls_models=[]", "controls=none", "datasets=[strategyqa]", "--", "claims",
    )  # fmt: skip
    claims = pl.read_parquet(tmp_path / "results/claims.parquet").filter(pl.col("projection") == "all")
    ratio = claims.filter(pl.col("claim") == "mad_none_detailed")
    values = dict(ratio.select("model", "value").iter_rows())
    assert dict(ratio.select("model", "untrained").iter_rows()) == {"tiny": values["twin"], "twin": None}
    assert claims.filter(pl.col("claim") == "learnt_ratio")["reference_model"].to_list() == ["twin"]
    # Of few samples nothing can be stated, but the numbers are beside each other.
    table = pl.read_csv(tmp_path / "results/tables/fixed_data.csv")
    mine = table.filter((pl.col("model") == "tiny") & (pl.col("claim") == "separable_detailed")).to_dicts()[0]
    assert mine["study_relation"] == "published" and mine["fixed_relation"] == "derangement"
    assert mine["study_value"] != mine["fixed_value"] and mine["outcome"] == "cannot say"
    assert "only 4 samples" in mine["why"] and mine["labelled"] == 4
    able = pl.read_parquet(tmp_path / "results/evidence/strategyqa.two_alternative.parquet")
    assert set(able["variant"]) == {"none", "simplified", "detailed"} and set(able["n"]) == {4}
    assert set(claims.filter(pl.col("model") == "tiny")["chance"].drop_nulls()) == {0.5}
    assert (tmp_path / "results/figures/claims/fixed_data.svg").stat().st_size > 1000
