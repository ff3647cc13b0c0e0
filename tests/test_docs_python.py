"""What docs/ shows of Python: the examples of python.md run, and the notebook shows what it would show today."""

import os
import re
import shutil

import nbformat
import polars as pl
import pytest

import notebook
from conftest import ROOT, call

NUMBER = re.compile(r"-?\d+\.\d+")


def test_the_examples_run_in_order(tmp_path, monkeypatch):
    text = (ROOT / "docs/python.md").read_text()
    (tmp_path / "my_model").symlink_to(ROOT / "resources/miniature/instruct")
    shutil.copy(ROOT / "docs/my_data.jsonl", tmp_path)
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, "docs/python.md", "exec"), names)
    assert names["worst"].height == 20 and (tmp_path / "scores/scores.html").exists()
    assert names["spectra"].height == 2 * 6 * 4 and names["products"].shape == (2, 2)
    assert pl.read_parquet("run/gradatlas/spectra.parquet")["step"].unique().to_list() == [0, 2, 4]
    # The table of the text names all that is logged.
    logged = {name.removeprefix("gradatlas/") for row in names["trainer"].state.log_history for name in row
              if name.startswith("gradatlas/")}  # fmt: skip
    shown = set(re.findall(r"`(\w+)`", text)) | {"frobenius_norm", "sigma_ratio", "log_prob_chosen_semantic"}
    assert {"spectra_share", "log_prob_likeliest"} <= logged <= shown
    assert call("watch", "run", "--formats", "svg").returncode == 0


def test_the_notebook_shows_what_it_would_show_today():
    path = ROOT / "docs/score_my_data.ipynb"
    committed, made = nbformat.read(path, as_version=4), notebook.run(path)
    assert sum(line.strip() != "" for line in committed.cells[1].source.splitlines()) <= 5
    for before, after in zip(committed.cells, made.cells, strict=True):
        if before.cell_type != "code":
            continue
        (one,), (other,) = before.outputs, after.outputs
        assert set(one.data) == set(other.data), f"run python {os.path.relpath(notebook.__file__, ROOT)} {path}"
        texts = [output.data.get("text/plain", "") for output in (one, other)]
        assert NUMBER.sub("", texts[0]) == NUMBER.sub("", texts[1])
        numbers = [[float(number) for number in NUMBER.findall(text)] for text in texts]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-3, abs=0.011)
    assert sum("image/png" in output.data for cell in committed.cells if cell.cell_type == "code"
               for output in cell.outputs) == 2  # fmt: skip
