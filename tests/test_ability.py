"""What a model can do, beside its gradients: the accuracy table, the line on every figure, the mark."""

import re

import polars as pl
import pyarrow as pa
import pytest

from conftest import write_config
from gradatlas.charts import listing
from gradatlas.claims import ability
from gradatlas.core.checked import parquet_writer
from gradatlas.core.errors import InputError
from gradatlas.core.tables import write_table
from gradatlas.figures import gallery
from gradatlas.figures.tables import write_tables
from gradatlas.miniature.tables import ACCURACY
from gradatlas.page.page import write_atlas
from test_figures import statistic_rows, write_statistics


def row(model="mini", dataset="gsm8k", variant="none", accuracy=0.1, test="answer", part="all", chance=0.07):
    low, high = max(0.0, accuracy - 0.05), min(1.0, accuracy + 0.05)
    values = (model, dataset, part, test, variant, 500, round(500 * accuracy), accuracy, low, high, chance)
    return dict(zip(ACCURACY.names, values, strict=True))


@pytest.fixture
def table(tmp_path):
    """A model that reasons step by step and one that cannot."""
    rows = [
        row(variant="detailed", accuracy=0.9),
        row(variant="none"),
        row(variant="none", accuracy=0.99, part="two_steps"),
        row(variant="detailed", accuracy=0.8, test="counterfactual"),
        row(model="twin", variant="none"),
        row(model="twin", variant="detailed", accuracy=0.3),
    ]
    write_table(ACCURACY, rows, tmp_path / "accuracy.parquet", {})
    return tmp_path / "accuracy.parquet"


def test_a_task_is_mastered_where_the_lower_bound_is_well_above_chance(table):
    found = ability.abilities(ability.read([table]))
    assert found["mini", "gsm8k"].able and not found["twin", "gsm8k"].able
    # .25 is the twin's lower bound: just below chance + .20.
    assert found["twin", "gsm8k"].shares["detailed"][1] == pytest.approx(0.25)
    assert found["mini", "gsm8k"].sentence == "Held-out questions, right: None .10, Detailed .90 (chance .07)."
    assert found["twin", "gsm8k"].sentence.startswith("CANNOT DO THIS TASK: ")


@pytest.mark.parametrize(
    ("slow", "fast", "edited", "able"),
    [
        (0.9, 0.1, 0.7, True),
        (0.9, 0.1, 0.5, False),
        (0.9, 0.88, 0.7, True),
        (0.3, 0.9, 0.7, False),
        (0.9, 0.1, None, True),
    ],
)
def test_mastery_asks_for_the_slow_answer_and_edits(slow, fast, edited, able):
    """Good fast answers neither stand in for slow ones nor speak against them; nor may the question go unread."""
    shares = {"none": (fast, fast - 0.05, fast + 0.05), "detailed": (slow, slow - 0.05, slow + 0.05)}
    edits = {} if edited is None else {"detailed": edited, "none": 0.0}
    assert ability.Ability("answer", shares, 0.07, edits).able == able


def test_the_tables_hold_every_row_and_read_well(table, tmp_path):
    ability.write_accuracy([table], tmp_path / "a.csv", tmp_path / "a.md")
    frame = pl.read_csv(tmp_path / "a.csv")
    assert frame.height == 6 and tuple(frame.columns) == tuple(ACCURACY.names)
    text = (tmp_path / "a.md").read_text()
    assert "| mini | gsm8k | Held-out questions | yes | .10 [.05, .15] | .90 [.85, .95] | .07 | 500 |" in text
    assert "| mini | gsm8k | Question and its edit | – | – | .80 [.75, .85] | .07 | 500 |" in text
    assert text.count("| no |") == 1


def test_figures_and_page_say_what_the_model_can_do(table, tmp_path):
    folder = write_statistics(tmp_path / "statistics", statistic_rows(models=("mini", "twin", "other"), layers=3))
    gallery.draw(folder, "gsm8k", "GSM8K", tmp_path / "figures", ["svg"], accuracy=[table])
    for entry in listing.read_index(tmp_path / "figures")["figures"]:
        stated = entry["caption"]
        assert ("Held-out questions, right" in stated) == (entry["model"] != "other")
        assert ("CANNOT DO THIS TASK" in stated) == (entry["model"] == "twin")
        # In the picture the line is broken over several text marks.
        assert ("CANNOT" in (tmp_path / "figures" / entry["files"]["svg"]).read_text()) == (entry["model"] == "twin")
    for kind in ("mad", "rd"):
        write_tables(kind, [folder], tmp_path)
    write_config(tmp_path / "config.yaml")
    csvs = [tmp_path / "mad.csv", tmp_path / "rd.csv"]
    page = tmp_path / "index.html"
    cells = [folder / "cells.parquet"]
    write_atlas([tmp_path / "figures"], cells, csvs, tmp_path / "config.yaml", page, [table])
    text, more = page.read_text(), (tmp_path / "more.html").read_text()
    marked = re.findall(r'<figure data-model="(\w+)"[^>]*>(?:(?!</figure>).)*>cannot do this task<', text, re.DOTALL)
    assert set(marked) == {"twin"} and len(marked) == text.count('<figure data-model="twin"')
    assert ">.90 (chance .07)</td>" in more and "What the models can do" in more
    write_atlas([tmp_path / "figures"], cells, csvs, tmp_path / "config.yaml", page)
    assert "cannot do this task" not in page.read_text()
    assert "What the models can do" not in (tmp_path / "more.html").read_text()


def test_another_table_is_refused(tmp_path):
    with parquet_writer(tmp_path / "x.parquet", pa.schema([("model", pa.string())])):
        pass
    with pytest.raises(InputError, match="not a 'accuracy' table"):
        ability.read([tmp_path / "x.parquet"])
