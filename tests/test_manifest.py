"""The manifest gathers what was measured with what, and refuses tables that do not belong together."""

import hashlib
import json

import pytest
from conftest import call, user_error

from workflow.lib.tables import SCHEMAS, write_table

FACTS = {
    **{"model": "m", "model_digest": "d", "revision": "r", "dtype": "float32", "tf32": False, "attention": "sdpa"},
    **{"chat": False, "mapping": "", "engine": "e", "compat": "none", "max_length": 9, "truncation": "flag"},
    **{"loss_norm": "mean", "metrics": ["nuclear_norm"], "projections": ["q"], "torch": "2.1", "transformers": "5.1"},
    **{"device": "cpu", "window": 9, "limit": 5, "limit_seed": 3, "seed": 0, "loss_tokens": ["all"]},
    **{"controls": ["none:correct:last:1"], "purpose": "study", "rows": 5},
}


def samples(folder, name, **other):
    write_table("samples", SCHEMAS["samples"].empty_table(), folder / f"{name}.parquet", FACTS | other)
    return folder / f"{name}.parquet"


def cells(folder, **other):
    facts = {name: FACTS[name] for name in ("model_digest", "revision", "dtype")} | other
    metadata = {"draws": 1000, "seed": 7, "models": {"m": facts}}
    write_table("cells", SCHEMAS["cells"].empty_table(), folder / "cells.parquet", metadata)
    return folder / "cells.parquet"


def manifest(folder, tables, *more):
    write_table("responses", SCHEMAS["responses"].empty_table(), folder / "responses.parquet", {"seed": 3})
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


def test_models_may_differ_in_what_is_theirs(tmp_path):
    tables = [samples(tmp_path, "one"), samples(tmp_path, "two", model="n", revision="s", dtype="bfloat16", chat=True)]
    assert manifest(tmp_path, tables).returncode == 0


def test_statistics_of_other_measurements_are_an_error(tmp_path):
    old = cells(tmp_path, model_digest="older")
    message = user_error(manifest(tmp_path, [samples(tmp_path, "one")], "--statistics", old))
    assert "cells.parquet: of m with model_digest older, but it was measured with d" in message
