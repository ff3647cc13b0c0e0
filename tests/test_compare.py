"""`compare`: two results folders against each other."""

import csv

import polars as pl
import pytest

from conftest import call, user_error
from gradatlas.core.compare import compare, verdict_changes

SPECTRA = {
    "sample_id": ["a", "a", "b", "b"],
    "layer": [0, 1, 0, 1],
    "nuclear_norm": [1.0, 2.0, 4.0, None],
    "rank": [3, 3, 3, 3],
    "status": ["ok", "ok", "ok", "nonfinite"],
    "shape": [[1, 2], [1, 2], [1, 2], [1, 2]],
}
CLAIMS = {"claim": ["x", "y"], "status": ["open", "open"], "model": ["m", "m"], "verdict": ["holds", "fails"]}


@pytest.fixture
def folders(tmp_path):
    """Two results folders with the same tables."""
    for folder in ("a", "b"):
        (tmp_path / folder / "gradients").mkdir(parents=True)
        pl.DataFrame(SPECTRA).write_parquet(tmp_path / folder / "gradients" / "m.parquet")
        pl.DataFrame(CLAIMS).write_parquet(tmp_path / folder / "claims.parquet")
        pl.DataFrame(CLAIMS).write_csv(tmp_path / folder / "claims.csv")
        pl.DataFrame({"n": ["007"], "x": ["1.50"]}).write_csv(tmp_path / folder / "scope.csv")
    return tmp_path / "a", tmp_path / "b"


def edited(folder, **columns):
    pl.DataFrame(SPECTRA | columns).write_parquet(folder / "gradients" / "m.parquet")


def test_equal_folders_have_no_difference(folders):
    assert compare(*folders) == [] and verdict_changes(*folders) == []
    assert call("compare", *folders).returncode == 0


def test_rows_are_matched_by_name_whatever_their_order(folders):
    pl.DataFrame(SPECTRA)[::-1].write_parquet(folders[1] / "gradients" / "m.parquet")
    assert compare(*folders) == []


def test_a_number_says_how_far_it_moved_and_where(folders):
    edited(folders[1], nuclear_norm=[1.0, 2.5, 4.0, None])
    [change] = compare(*folders)
    assert (change.table, change.column, change.rows, change.changed) == ("gradients/m.parquet", "nuclear_norm", 4, 1)
    assert (change.largest, change.relative) == (0.5, 0.25)
    assert change.example == "sample_id a, layer 1: 2.0 -> 2.5"
    assert call("compare", *folders).returncode == 1


def test_tolerance_is_relative_and_never_hides_a_missing_number(folders):
    edited(folders[1], nuclear_norm=[1.0, 2.001, 4.0, None])
    assert compare(*folders, tolerance=1e-3) == [] and len(compare(*folders, tolerance=1e-4)) == 1
    for other in (None, float("nan")):
        edited(folders[1], nuclear_norm=[1.0, other, 4.0, None])
        [change] = compare(*folders, tolerance=1.0)
        assert change.changed == 1


def test_counts_and_texts_are_compared_too(folders):
    edited(folders[1], rank=[3, 3, 3, 2], status=["ok", "ok", "ok", "ok"])
    assert [(c.column, c.changed) for c in compare(*folders)] == [("rank", 1), ("status", 1)]


def test_rows_columns_and_tables_of_one_folder_alone(folders):
    frame = pl.DataFrame(SPECTRA)
    frame[:3].with_columns(extra=pl.lit(1)).drop("rank").write_parquet(folders[1] / "gradients" / "m.parquet")
    (folders[1] / "scope.csv").rename(folders[1] / "mad.csv")
    found = [(change.table, change.column, change.example) for change in compare(*folders)]
    assert found == [
        ("gradients/m.parquet", "rank", "column only in the first"),
        ("gradients/m.parquet", "extra", "column only in the second"),
        ("gradients/m.parquet", "", "only in the first, such as sample_id b, layer 1"),
        ("mad.csv", "", "only in the second"),
        ("scope.csv", "", "only in the first"),
    ]


def test_verdicts_are_listed_by_name(folders, tmp_path):
    pl.DataFrame(CLAIMS | {"verdict": ["holds", "holds"]}).write_parquet(folders[1] / "claims.parquet")
    assert verdict_changes(*folders) == ["y, m: fails -> holds"]
    assert call("compare", *folders, "--output", tmp_path / "changes.csv").returncode == 1
    [row] = csv.DictReader((tmp_path / "changes.csv").open())
    assert (row["table"], row["column"], row["example"]) == (
        "claims.parquet",
        "verdict",
        "claim y: fails -> holds",
    )


def test_a_csv_is_compared_as_text(folders):
    (folders[1] / "scope.csv").write_text("n,x\n7,1.5\n")
    assert [change.example for change in compare(*folders)] == [
        "only in the first, such as n 007",
        "only in the second, such as n 7",
    ]


def test_the_report_is_one_line_a_difference(folders, capsys):
    edited(folders[1], nuclear_norm=[1.0, 2.5, 4.0, None], status=["ok", "ok", "ok", "two\nlines " * 20])
    pl.DataFrame(CLAIMS | {"verdict": ["holds", "holds"]}).write_parquet(folders[1] / "claims.parquet")
    (folders[1] / "scope.csv").unlink()
    assert call("compare", *folders).returncode == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "claims.parquet",
        "    verdict: 1 of 2 rows differ, such as claim y: fails -> holds",
        "gradients/m.parquet",
        "    nuclear_norm: 1 of 4 rows differ by up to 0.5 (relative 0.25), such as sample_id a, layer 1: 2.0 -> 2.5",
        "    status: 1 of 4 rows differ, such as sample_id b, layer 1: nonfinite -> " + ("two lines " * 20)[:59] + "…",
        "scope.csv",
        "    only in the first",
        "verdicts",
        "    y, m: fails -> holds",
        "tables that differ: 3; verdicts that differ: 1",
    ]


def test_wrong_folders_are_named(folders, tmp_path):
    assert "no such folder" in user_error(call("compare", folders[0], tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    assert "no tables" in user_error(call("compare", folders[0], tmp_path / "empty"))
    (folders[1] / "claims.parquet").write_bytes(b"PAR1 not a table")
    assert "claims.parquet: cannot be read" in user_error(call("compare", *folders))


def test_a_claim_with_another_title_is_the_same_claim(tmp_path):
    of = {"claim": "a", "study": "s", "model": "m", "reference_model": "", "dataset": "d", "reference_dataset": "",
          "relation": "correct", "projection": "all", "seed": 0, "value": 1.0}  # fmt: skip
    for title in ("Old", "New"):
        (tmp_path / title).mkdir()
        frame = pl.DataFrame([{**of, "title": title}]).select("claim", "title", *list(of)[1:])
        frame.write_parquet(tmp_path / title / "claims.parquet")
    changes = compare(tmp_path / "Old", tmp_path / "New")
    assert [(change.column, change.changed) for change in changes] == [("title", 1)]


def test_verdicts_are_read_from_the_csv_where_it_is_alone(tmp_path):
    for folder, verdict in (("a", "holds"), ("b", "fails")):
        (tmp_path / folder).mkdir()
        pl.DataFrame({"claim": ["x"], "model": ["m"], "verdict": [verdict]}).write_csv(tmp_path / folder / "claims.csv")
    assert verdict_changes(tmp_path / "a", tmp_path / "b") == ["x, m: holds -> fails"]
