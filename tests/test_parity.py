"""Equality with the reference code's own output on a tiny Llama (arXiv 2410.23743's code, float32, window 1024)."""

import json

import polars as pl
import pytest

from conftest import SHARED, call, needs_shared

REFERENCE = SHARED / "reference_stats"
FILES = sorted((REFERENCE / "grads_exp").rglob("*.jsonl"))

pytestmark = needs_shared("reference_stats")


def data_file(reference):
    """The published file that a file of reference statistics was measured on, and whether through the template."""
    name = reference.stem.removeprefix("grads_")
    chat = name.endswith("_it")
    return SHARED / "paper_data" / reference.parts[-3] / f"{name.removesuffix('_it')}.json", chat


def test_all_eight_files_are_compared():
    assert len(FILES) == 8


@pytest.mark.parametrize("reference", FILES, ids=lambda path: "/".join(path.parts[-3::2]))
def test_equals_the_reference(reference, tmp_path):
    data, chat = data_file(reference)
    samples, spectra = tmp_path / "samples.parquet", tmp_path / "spectra.parquet"
    lines = [json.loads(line) for line in reference.read_text(encoding="utf-8").splitlines()]
    options = ["--chat"] if chat else []
    done = call(
        "measure_gradients", "--model", REFERENCE / "model", "--responses", data, "--samples", samples,
        "--spectra", spectra, "--limit", len(lines), "--compat", "reference", "--device", "cpu",
        "--threads", 1, *options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ours = pl.read_parquet(samples)
    assert ours["status"].to_list() == ["ok"] * len(lines)
    assert ours["loss"].to_list() == pytest.approx([line["loss"] for line in lines], rel=1e-5)
    rows = []
    for sample_id, line in enumerate(lines):
        for name, values in line.items():
            if isinstance(values, dict):
                _, _, layer, _, projection, _ = name.split(".")
                rows.append({"sample_id": str(sample_id), "layer": int(layer), "projection": projection[0], **values})
    expected = pl.DataFrame(rows).with_columns(pl.col("layer").cast(pl.Int16))
    both = pl.read_parquet(spectra).join(expected, on=["sample_id", "layer", "projection"], validate="1:1")
    assert both.height == expected.height == len(lines) * 5 * 4

    def worst(ours, theirs, scale):
        return both.select(((pl.col(ours) - pl.col(theirs)).abs() / scale).max()).item()

    for ours_name, theirs in {
        "nuclear_norm": "S_sum",
        "sigma_max": "S_max",
        "frobenius_norm": "frobenius_norm",
        "max": "M_max",
        "min": "M_min",
    }.items():
        assert worst(ours_name, theirs, pl.col(theirs).abs()) <= 1e-3, ours_name
    # Smaller differences are rounding noise in the reference.
    assert worst("mean", "M_mean", pl.max_horizontal(pl.col("M_max"), -pl.col("M_min"))) <= 1e-5
    assert worst("sigma_min", "S_min", pl.col("S_max")) <= 1e-5
