"""The manifest lists what every table was made with, and refuses tables that do not belong together."""

import hashlib
import json

import pytest

from conftest import call, user_error
from gradatlas.core.checked import write_json
from gradatlas.core.tables import write_table
from gradatlas.data.tables import PAIRS, RESPONSES
from gradatlas.finetuning.tables import DYNAMICS, PROBES, TRAINING
from gradatlas.gradients.tables import SAMPLES
from gradatlas.statistics.tables import CELLS
from gradatlas.toys.tables import TOY_CLIP

FACTS = {
    **{"model": "m", "model_digest": "d", "revision": "r", "dtype": "float32", "tf32": False, "attention": "sdpa"},
    **{"chat": False, "mapping": "", "engine": "e", "compat": "none", "max_length": 9, "truncation": "flag"},
    **{"loss_norm": "mean", "metrics": ["nuclear_norm"], "projections": ["q"], "torch": "2.1", "transformers": "5.1"},
    **{"device": "cpu", "window": 9, "limit": 5, "limit_seed": 3, "seed": 0, "loss_tokens": ["all"]},
    **{"controls": ["none:correct:last:1"], "purpose": "study", "rows": 5},
}


def samples(folder, name, **other):
    write_table(SAMPLES, SAMPLES.empty(), folder / f"{name}.parquet", FACTS | other)
    return folder / f"{name}.parquet"


def cells(folder, **other):
    facts = {name: FACTS[name] for name in ("model_digest", "revision", "dtype")} | other
    metadata = {"draws": 1000, "seed": 7, "models": {"m": facts}}
    write_table(CELLS, CELLS.empty(), folder / "cells.parquet", metadata)
    return folder / "cells.parquet"


def manifest(folder, tables, *more):
    write_table(RESPONSES, RESPONSES.empty(), folder / "responses.parquet", {"seed": 3})
    return call(
        "write_manifest", "--samples", *tables, "--responses", folder / "responses.parquet", *more,
        "--output", folder / "manifest.json",
    )  # fmt: skip


def test_the_manifest_lists_devices_seeds_versions_and_checksums(tmp_path):
    tables = [samples(tmp_path, "one"), samples(tmp_path, "two", device="cuda")]
    (tmp_path / "raw.json").write_text("[]")
    done = manifest(tmp_path, tables, "--sources", tmp_path / "raw.json", "--statistics", cells(tmp_path))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "manifest.json").read_text())
    listed = found["models"]["m"]["tables"]
    assert [listed[str(path)]["device"] for path in tables] == ["cpu", "cuda"]
    assert listed[str(tables[0])]["limit_seed"] == 3
    assert listed[str(tables[0])]["controls"] == ["none:correct:last:1"]
    assert found["models"]["m"]["revision"] == "r" and found["engine"]["torch"] == "2.1"
    assert found["sources"] == {str(tmp_path / "raw.json"): hashlib.sha256(b"[]").hexdigest()}
    path = tmp_path / "responses.parquet"
    assert found["responses"][str(path)]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found["statistics"] == {str(tmp_path / "cells.parquet"): {"draws": 1000, "seed": 7}}
    assert {"python", "polars", "numpy"} <= set(found["versions"])


@pytest.mark.parametrize(
    ("fact", "value"),
    [("revision", "s"), ("model_digest", "other tokenizer"), ("engine", "f"), ("dtype", "bfloat16"), ("tf32", True)],
)
def test_tables_of_one_model_that_disagree_are_an_error(tmp_path, fact, value):
    tables = [samples(tmp_path, "one"), samples(tmp_path, "two", **{fact: value})]
    message = user_error(manifest(tmp_path, tables))
    assert f"two.parquet: measured with {fact} {value}, but" in message and "one.parquet" in message
    assert not (tmp_path / "manifest.json").exists()


def test_models_may_differ_from_one_another(tmp_path):
    tables = [samples(tmp_path, "one"), samples(tmp_path, "two", model="n", revision="s", dtype="bfloat16", chat=True)]
    assert manifest(tmp_path, tables).returncode == 0


def test_statistics_of_other_measurements_are_an_error(tmp_path):
    old = cells(tmp_path, model_digest="older")
    message = user_error(manifest(tmp_path, [samples(tmp_path, "one")], "--statistics", old))
    assert "cells.parquet: made from m with model_digest older, but it was measured with d" in message


DIGEST = hashlib.sha256(b"card").hexdigest()
TRAINED = hashlib.sha256(b"trained").hexdigest()


def run_files(folder, name, sha256, *, start=DIGEST, **other):
    """One seed's tables as the second study's jobs write them: probes, and a run with its status and machine."""
    facts = {"dtype": "float32", "window": 512, "code": "c", "torch": "2.1", "transformers": "5.1", "pairs": sha256}
    place = folder / name
    place.mkdir()
    write_table(PROBES, PROBES.empty(), place / "probes.parquet", facts | {"model": start})
    probes = hashlib.sha256((place / "probes.parquet").read_bytes()).hexdigest()
    facts_of_run = {**facts, "init": start, "reference": start, "probes": probes, "seed": 0, "device": "cpu", **other}
    write_table(DYNAMICS, DYNAMICS.empty(), place / "dynamics.parquet", facts_of_run)
    write_json(place / "status.json", {"status": "ok", "model_digest": TRAINED})
    write_json(place / "machine.json", {"device": "cuda", "name": "a card", "driver": "550.1"})
    return [place / each for each in ("probes.parquet", "dynamics.parquet", "status.json")]


@pytest.fixture
def pairs(tmp_path):
    """A pairs table, a card and a samples table: (path, its SHA-256, arguments)."""
    path, card = tmp_path / "pairs.parquet", tmp_path / "card.json"
    write_table(PAIRS, PAIRS.empty(), path, {"seed": 0})
    facts = {"model": "m", "source": "m", "path": ".", "digest": DIGEST, "revision": "r", "tokenizer_digest": "t"}
    write_json(card, {**facts, "files": {}})
    tables = [samples(tmp_path, "one.samples")]
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return path, sha256, lambda *files: manifest(tmp_path, tables, "--pairs", path, "--cards", card, "--learnt", *files)


def test_the_second_study_is_listed_with_its_card_machines_and_checksums(tmp_path, pairs):
    path, sha256, write = pairs
    write_json(tmp_path / "one.run.json", {"machine": {"device": "cpu", "name": "a processor"}})
    toy = tmp_path / "toy_clip.parquet"
    write_table(TOY_CLIP, TOY_CLIP.empty(), toy, {"beta": 0.1})
    first, second = run_files(tmp_path, "seed_0", sha256), run_files(tmp_path, "seed_1", sha256, start=TRAINED)
    done = write(*first, *second, "--toys", toy)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "manifest.json").read_text())
    learner = found["dynamics"]["m"]
    assert (learner["revision"], learner["digest"], learner["tokenizer_digest"]) == ("r", DIGEST, "t")
    listed = learner["tables"][str(first[1])]
    assert listed["window"] == 512 and listed["machines"][0]["driver"] == "550.1"
    assert listed["sha256"] == hashlib.sha256(first[1].read_bytes()).hexdigest()
    assert learner["runs"][str(first[2])]["status"] == "ok"
    assert [machine["name"] for machine in found["machines"]] == ["a processor", "a card"]
    measured = found["models"]["m"]["tables"][str(tmp_path / "one.samples.parquet")]
    assert [machine["name"] for machine in measured["machines"]] == ["a processor"]
    assert found["pairs"][str(path)] == {"sha256": sha256, "seed": 0, "table": "pairs"}
    assert found["toys"][str(toy)]["beta"] == 0.1
    assert {"torch", "transformers", "scikit-learn"} <= set(found["versions"])


@pytest.mark.parametrize(
    ("fact", "value"), [("dtype", "bfloat16"), ("code", "d"), ("torch", "2.2"), ("transformers", "5.2"), ("window", 9)]
)
def test_runs_of_one_model_that_disagree_are_an_error(tmp_path, pairs, fact, value):
    _, sha256, write = pairs
    other = run_files(tmp_path, "seed_1", sha256, **{fact: value})
    message = user_error(write(*run_files(tmp_path, "seed_0", sha256), *other))
    assert f"seed_1/dynamics.parquet: measured with {fact} {value}, but" in message and "seed_0" in message
    assert not (tmp_path / "manifest.json").exists()


def test_a_table_that_does_not_state_a_fact_agrees_with_all(tmp_path, pairs):
    _, sha256, write = pairs
    tables = run_files(tmp_path, "seed_0", sha256), run_files(tmp_path, "seed_1", sha256)
    write_table(TRAINING, TRAINING.empty(), tmp_path / "training.parquet", {"seed": 1})
    assert write(*tables[0], *tables[1], tmp_path / "training.parquet").returncode == 0


@pytest.mark.parametrize("fact", ["init", "reference", "pairs", "probes"])
def test_a_run_from_an_older_model_or_table_is_an_error(tmp_path, pairs, fact):
    _, sha256, write = pairs
    older = hashlib.sha256(b"older").hexdigest()
    message = user_error(write(*run_files(tmp_path, "seed_0", sha256, **{fact: older})))
    assert f"dynamics.parquet: made with {fact} {older}, which is not of this study" in message
