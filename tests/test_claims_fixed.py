"""Which conclusions survive the fixed data: made-up evidence of every outcome; figure, table and page."""

import json

import polars as pl
import pytest

from conftest import call, settings
from gradatlas.claims.fixed import OUTCOMES, compare, headline
from gradatlas.core.tables import write_table
from gradatlas.figures.fixed import chart, cuts, markdown
from gradatlas.page.fixed import fixed
from gradatlas.page.titles import Titles
from gradatlas.statistics.tables import CELLS
from test_claims import CLAIMS, LOUD, cell, verdicts, view

# The wrong responses' size on either side, with noise; what becomes of "Detailed separates wrong from correct".
CASES = {
    "survives": ((2.0, 0.1), (3.0, 0.1)),
    "does not survive": ((2.0, 0.1), (0.5, 0.1)),
    "fails on both": ((0.5, 0.1), (0.4, 0.1)),
    "only on the corrected": ((0.5, 0.1), (2.0, 0.1)),
    "cannot say": ((2.0, 0.1), (1.0, LOUD)),
}


def models(study="reference", cases=CASES):
    return [
        view(
            cell("detailed"),
            cell("detailed", study, scale=ours[0], noise=ours[1]),
            cell("detailed", "derangement", scale=theirs[0], noise=theirs[1]),
            model=name.replace(" ", "_"),
        )
        for name, (ours, theirs) in cases.items()
    ]


def cells(path, relation="reference"):
    """What the samples were: a quarter of the study's responses state the right answer."""
    rows = [
        {name: None for name in CELLS.names}
        | {"model": name.replace(" ", "_"), "dataset": "d", "variant": "detailed", "loss_tokens": "all"}
        | {"relation": each, "n": 80, "n_ok": 80, "n_labelled": labelled, "n_label_equals_gold": right}
        | {"purpose": "study"}
        for name in CASES
        for each, labelled, right in ((relation, 80, 20), ("derangement", 80, 0))
    ]
    write_table(CELLS, rows, path, {})
    return path


@pytest.mark.parametrize("study", ["reference", "published"])
def test_every_outcome(study, tmp_path):
    claims = verdicts(tmp_path, models(study), [CLAIMS["separable_detailed"]])
    table = compare(claims, pl.read_parquet(cells(tmp_path / "cells.parquet", study)))
    found = {row["model"]: row for row in table.to_dicts()}
    assert set(CASES) == set(OUTCOMES) and len(found) == table.height == len(CASES)
    for name in CASES:
        row = found[name.replace(" ", "_")]
        assert row["outcome"] == name and (row["right_labels"], row["labelled"]) == (20, 80)
        assert bool(row["why"]) == (name == "cannot say")
        assert row["study_relation"] == study
        # The numbers are those of the verdicts, side by side.
        mine = claims.filter((pl.col("model") == row["model"]) & (pl.col("projection") == "all"))
        for side, relation in (("study", study), ("fixed", "derangement")):
            [one] = mine.filter(pl.col("relation") == relation).to_dicts()
            assert all(row[f"{side}_{key}"] == one[key] for key in ("value", "low", "high", "n", "verdict"))
    assert found["cannot_say"]["why"].startswith("derangement: ")
    assert headline(table) == (
        "Of the study’s claims that hold on its own irrelevant responses, 1 of 3 survive the corrected ones, 1 does "
        "not, and of 1 the corrected ones cannot say; of the others 1 fail on both, 1 hold on the corrected alone."
    )


def test_what_was_not_measured_on_one_side_is_reported(tmp_path):
    both = models(cases={"survives": CASES["survives"]})
    only_fixed = view(cell("detailed"), cell("detailed", "derangement", scale=2.0), model="fixed")
    only_study = view(cell("detailed"), cell("detailed", "reference", scale=2.0), model="study")
    claims = verdicts(tmp_path, [*both, only_fixed, only_study], [CLAIMS["separable_detailed"], CLAIMS["early_none"]])
    found = {row["model"]: row for row in compare(claims).to_dicts()}
    assert found["fixed"]["outcome"] == found["study"]["outcome"] == "cannot say"
    assert found["fixed"]["why"] == "reference: not measured" and found["fixed"]["study_value"] is None
    assert found["study"]["why"] == "derangement: not measured" and found["study"]["fixed_value"] is None
    assert headline(compare(claims)) == (
        "Of the study’s claims that hold on its own irrelevant responses, 1 of 1 survive the corrected ones, 0 do not; "
        "of the others 2 were measured on one side alone."
    )
    # Claims about correct responses alone have no place here; without the study's responses there is no comparison.
    assert set(compare(claims)["claim"]) == {"separable_detailed"}
    without = compare(verdicts(tmp_path, [only_fixed], [CLAIMS["separable_detailed"]]))
    assert without.is_empty() and "was measured on its own" in headline(without)
    assert fixed(tmp_path / "claims.parquet", pl.read_parquet(cells(tmp_path / "cells.parquet")), Titles({})) is None


def test_controls_and_untrained_networks_are_not_counted(tmp_path):
    one = models(cases={"survives": CASES["survives"]})[0]
    untrained = view(*one.cells.values(), model="r", kind="random")
    verdicts(tmp_path, [one, untrained], [CLAIMS["separable_detailed"], CLAIMS["length_matched"]])
    table = compare(pl.read_parquet(tmp_path / "claims.parquet"))
    assert table.height == 4 and headline(table).startswith(
        "Of the study’s claims that hold on its own irrelevant resp"
    )
    assert "1 of 1 survive the corrected ones, 0 do not." in headline(table)
    shown = fixed(
        tmp_path / "claims.parquet", pl.read_parquet(cells(tmp_path / "cells.parquet")), Titles({"d": "The set"})
    )
    [(title, [[about, outcome, *sides, right]])] = shown["claims"]
    assert title == "Detailed separates wrong from correct" and shown["left_out"] == 3
    assert (about["where"], outcome, right) == ("survives · The set", "survives", "20 of 80")
    assert [verdict for _, verdict, _ in sides] == ["holds", "holds"]
    assert "untrained: a control" in markdown(table)


def test_the_command_draws_and_writes(tmp_path):
    verdicts(tmp_path, models(), [CLAIMS["separable_detailed"], CLAIMS["early_rd"]])
    given = ("--claims", tmp_path / "claims.parquet", "--cells", cells(tmp_path / "cells.parquet"))
    titles = {"survives": "The one that survives", "d": "A dataset"}
    files = []
    for folder in ("one", "two"):
        done = call(
            "compare_fixed", *given, "--formats", "vl.json", "svg", *settings(titles=titles),
            "--figure", tmp_path / folder / "fixed", "--tables", tmp_path / folder / "table",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        files.append([path.read_bytes() for path in sorted((tmp_path / folder).iterdir())])
    assert files[0] == files[1] and len(files[0]) == 5
    table = pl.read_csv(tmp_path / "one/table.csv")
    assert table.height == 10 and set(table["outcome"]) <= set(OUTCOMES)
    svg = (tmp_path / "one/fixed.svg").read_text()
    for text in ("does not survive", "The one that survives · A dataset", "Corrected (derangement)"):
        assert text in svg
    assert "| 20 of 80 |" in (tmp_path / "one/table.md").read_text()
    chart(compare(pl.read_parquet(tmp_path / "claims.parquet")), titles).to_dict(validate=True)
    chart(compare(pl.DataFrame(schema=pl.read_parquet(tmp_path / "claims.parquet").schema)), {}).to_dict(validate=True)


def test_a_panel_of_the_whole_study_is_cut_between_datasets(tmp_path):
    """Ten models on eleven datasets: no row stands far from its axis, and all pieces have one scale."""
    verdicts(tmp_path, models(), [CLAIMS["separable_detailed"]])
    one = compare(pl.read_parquet(tmp_path / "claims.parquet"))
    names = [(f"m{i}", f"d{j:02}") for j in range(11) for i in range(10)]
    rows = pl.concat(
        one[at % one.height].with_columns(pl.lit(model).alias("model"), pl.lit(dataset).alias("dataset"))
        for at, (model, dataset) in enumerate(names)
    )
    pieces = cuts(rows)
    assert [each.height for each in pieces] == [40, 40, 30] and pl.concat(pieces).equals(rows)
    # Of one dataset alone with more rows than fit, none is lost.
    assert [each.height for each in cuts(rows.with_columns(pl.lit("d").alias("dataset")))] == [40, 40, 30]
    assert [each.height for each in cuts(rows.head(20))] == [20]
    drawn = chart(rows, {}).to_dict()["vconcat"]
    assert [each["height"] for each in drawn] == [600, 600, 450]
    scales = [json.dumps(layer["encoding"]["x"]["scale"]) for each in drawn for layer in each["layer"][1:2]]
    assert len(scales) == 3 and len(set(scales)) == 1
    assert [each["title"]["text"].endswith(", continued") for each in drawn] == [False, True, True]
