"""The error of a 16-bit pass: measured beside float32, in the tables' metadata, and in notes."""

import json

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from conftest import call
from gradatlas.core import machine
from gradatlas.gradients import rounding
from gradatlas.statistics.rounding import rounding_note

ROWS = [{"instruction": f"{n} + 2 =", "input": "", "output": f"{n} + 2 = {n + 2}" * (n % 3 + 1)} for n in range(6)]


def measured(model, folder, *options):
    (folder / "rows.json").write_text(json.dumps(ROWS))
    out = [part for name in ("samples", "spectra") for part in (f"--{name}", folder / f"{name}.parquet")]
    done = call("measure_gradients", "--model", model, "--responses", folder / "rows.json", *out, *options)
    assert done.returncode == 0, done.stderr
    spectra = pq.read_table(folder / "spectra.parquet")
    return json.loads(spectra.schema.metadata[b"gradatlas"]), pl.from_arrow(spectra)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_error_is_that_between_two_jobs(miniature, tmp_path, dtype):
    facts, lower = measured(miniature, tmp_path, "--dtype", dtype, "--compared", "2", "--batch-tokens", "1")
    exact_facts, exact = measured(miniature, tmp_path, "--batch-tokens", "1")
    assert "rounding" not in exact_facts
    # Of rows with like texts, the two shortest samples.
    lengths = pl.from_arrow(pq.read_table(tmp_path / "samples.parquet"))
    total = lengths["prompt_tokens"] + lengths["response_tokens"]
    few = lengths.with_columns(total=total).sort("total", maintain_order=True)["sample_id"].to_list()[:2]
    norms = [table.filter(pl.col("sample_id").is_in(few))["nuclear_norm"].to_numpy() for table in (lower, exact)]
    error = np.abs(norms[0] - norms[1]) / norms[1]
    found = facts["rounding"]
    assert found["samples"] == 2
    assert found["median"] == pytest.approx(np.quantile(error, 0.5), rel=0.02)
    assert found["largest"] == pytest.approx(error.max(), rel=0.02) and 0 < found["largest"] < 0.3
    assert rounding_note(facts) == [
        f"A {dtype} pass: nuclear norms within {100 * found['median']:.2g} % (median), "
        f"{100 * found['largest']:.2g} % at most, of those in float32 (2 samples)."
    ]


def test_where_float32_does_not_fit_the_reason_is_there(miniature, tmp_path, monkeypatch):
    assert 1e6 < machine.free_memory() < 1e15
    # Less memory cannot be had here without a kill.
    monkeypatch.setattr(rounding, "free_memory", lambda: 1e6)
    facts, _ = measured(miniature, tmp_path, "--dtype", "bfloat16")
    assert "GB are free" in facts["rounding"]["not_measured"]
    assert "whose error was not measured: float32 needs" in rounding_note(facts)[0]
    facts, _ = measured(miniature, tmp_path, "--dtype", "bfloat16", "--compared", "0")
    assert "rounding" not in facts and rounding_note(facts) == []
