"""The benchmark of a GPU runs on a CPU at toy shapes: every section, and what is written."""

import sys

import polars as pl
import pytest

from benchmarks import gpu


@pytest.mark.slow
def test_all_sections_and_files(tmp_path, monkeypatch):
    options = "--device cpu --shapes toy --tokens 8 16 --batch-tokens 16 --repeats 1 --routes torch pool"
    monkeypatch.setattr(sys, "argv", ["gpu", *options.split(), "--output", str(tmp_path)])
    monkeypatch.setattr(gpu, "HALVED", 2)
    gpu.main()
    frame = pl.read_csv(tmp_path / "gpu.csv")
    assert set(frame["section"]) == {"solver", "engine", "error", "halving"}
    engine = frame.filter(pl.col("section") == "engine")
    assert set(engine["precision"]) == {"float32", "tf32", "bfloat16"} and set(engine["tokens"]) == {8, 16}
    assert set(engine["route"]) == {"fastest", "torch", "pool"}
    assert (engine.filter(pl.col("what") != "measured_again")["value"] > 0).all()
    errors = frame.filter(pl.col("what") == "error_median")
    by = dict(zip(errors["precision"], errors["value"], strict=True))
    assert by["float32"] < 1e-5 < by["float16"] < by["bfloat16"]
    assert pl.read_parquet(tmp_path / "gpu.parquet").shape == frame.shape
    assert (tmp_path / "gpu.md").read_text().startswith("| GPU, version |")
    assert "<svg" in (tmp_path / "gpu.svg").read_text()
