"""Statements of the page and the figures against their tables; of an empty table nothing is stated."""

import re

import polars as pl
import pytest

from conftest import write_config
from gradatlas.charts import listing
from gradatlas.claims.fixed import SCHEMA, headline
from gradatlas.claims.rows import GRADIENTS, UNTESTED, counted, read_rows, rows
from gradatlas.claims.tables import CLAIMS
from gradatlas.core.checked import write_json
from gradatlas.core.tables import write_table
from gradatlas.figures import audit, compared, gallery, heatmaps, relations, samples, tables, verdicts
from gradatlas.figures.data import Data
from gradatlas.figures.jobs import Dataset, OverviewSettings
from gradatlas.page.page import write_atlas
from gradatlas.page.titles import Titles
from gradatlas.page.verdicts import verdicts as atlas_verdicts
from synthetic import frames, statistic_rows, write_statistics

EVERY = "All datasets"
LOST = {"n_no_response_tokens": 0, "n_out_of_memory": 202}


def lost(rows, model):
    """The rows with no usable sample of one model."""
    rows = {name: [row for row in table if name == "cells" or row["model"] != model] for name, table in rows.items()}
    rows["cells"] = [row | {"n_ok": 0} | LOST if row["model"] == model else row for row in rows["cells"]]
    return rows


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two datasets and three models: `checked` is a pipeline check on the second, `lost` has a sample on neither."""
    base = tmp_path_factory.mktemp("statements")
    models = ("good", "checked", "lost")
    folders, cells = [], []
    for dataset in ("one", "two"):
        rows = lost(statistic_rows(models, dataset, layers=3, n=30, projections=("q",)), "lost")
        for table in rows.values():
            for row in table:
                row["purpose"] = "pipeline check" if (row["model"], dataset) == ("checked", "two") else "study"
        # A control: the loss over a part of the same responses.
        part = [row | {"loss_tokens": "random:matched:0"} for row in rows["cells"] if row["variant"] == "detailed"]
        rows["cells"] += part
        cells += rows["cells"]
        folders.append(write_statistics(base / dataset, rows))
        gallery.draw(folders[-1], dataset, dataset, base / "figures" / dataset, ["vl.json"])
    datasets = [Dataset("one", "One"), Dataset("two", "Two")]
    gallery.draw_overview(folders, OverviewSettings(datasets), base / "figures/all", ["vl.json"])
    for kind in ("mad", "rd"):
        tables.write_tables(kind, folders, base)
    write_config(base / "config.yaml")
    write_atlas(
        [base / "figures" / name for name in ("one", "two", "all")],
        [folder / "cells.parquet" for folder in folders],
        [base / "mad.csv", base / "rd.csv"],
        base / "config.yaml",
        base / "index.html",
    )
    return (base / "index.html").read_text(), (base / "more.html").read_text(), pl.DataFrame(cells)


def badges(page):
    """By title of the dataset and model, the badges of its figures, which all have the same."""
    found = {}
    parts = r"<details data-group[^>]*>\s*<summary><b>([^<]+)</b>(.*?)</details>"
    for group, figures in re.findall(parts, page, re.DOTALL):
        for model, figure in re.findall(r'<figure data-model="([^"]+)"(.*?)</figure>', figures, re.DOTALL):
            own = re.findall(r'<span class="badge">([^<]+)</span>', figure)
            assert found.setdefault((group, model), own) == own
    return found


def test_every_badge_says_what_its_tables_hold(study):
    page, _, cells = study
    found = badges(page)
    # No figure of all datasets together is of a model without any usable sample.
    assert set(found) == {(d, m) for d in ("one", "two") for m in ("good", "checked", "lost")} | {
        (EVERY, "good"), (EVERY, "checked")
    }  # fmt: skip
    for (dataset, model), shown in found.items():
        rows = cells.filter(model=model) if dataset == EVERY else cells.filter(dataset=dataset, model=model)
        checks = rows["purpose"] == "pipeline check"
        wanted = ["pipeline check" if checks.all() else "pipeline check in part"] if checks.any() else []
        wanted += [] if rows["n_ok"].sum() else ["no usable sample"]
        assert shown == wanted, (dataset, model)
    assert found["one", "lost"] == ["no usable sample"] and found[EVERY, "good"] == []
    assert found["two", "checked"] == ["pipeline check"]
    assert found[EVERY, "checked"] == ["pipeline check in part"]


def summary(page):
    """Name and number of each count in the header."""
    counts = re.search(r'<p class="summary">(.*?)</p>', page)[1].split(" · ")
    return [(name, number) for number, _, name in (count.partition(" ") for count in counts)]


def test_every_count_is_of_whole_responses(study):
    page, more, cells = study
    measured = cells.filter(loss_tokens="all")
    counts = {name: int(number.replace(",", "")) for name, number in summary(page)}
    assert counts == {
        "models": 3,
        "datasets": 2,
        "variants": 3,
        "kinds of response": 2,
        "responses measured": measured["n_ok"].sum(),
        "samples left out": measured["n"].sum() - measured["n_ok"].sum(),
    }
    counted = re.search(r"<caption>Responses measured.*?</table>", more, re.DOTALL)[0]
    rows = re.findall(r"<tr>(.*?)</tr>", counted, re.DOTALL)
    models, *body = [re.findall(r"<t[hd][^>]*>([^<]*)", row) for row in rows]
    for dataset, *numbers in body:
        for model, number in zip(models[1:], numbers, strict=True):
            part = measured.filter(dataset=dataset, model=model)
            assert number == f"{part['n_ok'].sum():,} of {part['n'].sum():,}"


def test_a_dataset_without_a_usable_sample_was_measured():
    tables_ = {key: table for key, table in frames(models=("m",), dataset="one", layers=3, n=30).items()}
    spoilt = tables_["cells"].with_columns(
        pl.lit("two").alias("dataset"),
        *(pl.lit(count, pl.Int32).alias(name) for name, count in {"n_ok": 0, **LOST}.items()),
    )
    tables_["cells"] = pl.concat([tables_["cells"], spoilt.cast(dict(tables_["cells"].schema))])
    datasets = [Dataset(key, key) for key in ("one", "two", "three")]
    for relation, kind, heading, _ in gallery.figures_over(Data(tables_, datasets=tuple(datasets))):
        subtitle = " ".join(heading.paragraphs)
        assert "Not measured: three." in subtitle and "No usable sample: Two" in subtitle, (relation, kind)


def test_no_pairs_and_no_intervals_are_no_equality():
    tables_ = frames(layers=3, n=30)
    other = pl.when(pl.col("relation") == "published").then(pl.lit("x")).otherwise(pl.lit(""))
    apart = tables_["per_sample"].with_columns((pl.col("sample_id") + other).alias("sample_id"))
    title = samples.heading(Data(tables_ | {"per_sample": apart}, "GSM8K", "published")).title
    assert title == "Gradients sample by sample"
    unknown = tables_["rd"].with_columns(pl.lit(None, pl.Float64).alias(name) for name in ("low", "high"))
    data = Data(tables_ | {"rd": unknown}, "GSM8K", "published")
    assert compared.heading(data).title == "The paper’s wrong answers against correct responses, by layer"
    assert "no clear difference" not in relations.heading(data).title


def test_labels_that_nobody_judged_are_not_called_right():
    columns = {name: [] for name in ("dataset", "variant", "relation", "question")}
    none = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))
    none = none.with_columns(pl.lit(True).alias("marked"), pl.lit(0.0).alias("share"))
    assert "No response set has more than" not in audit.heading(none).title


def test_no_claims_is_not_no_measurement():
    empty = rows(pl.from_arrow(CLAIMS.empty()), {})
    for study, text in UNTESTED.items():
        assert verdicts.heading(empty, study).caption == (text,) and "trained" not in text


def test_conclusions_without_corrected_responses_are_counted_as_they_hold():
    row = dict.fromkeys(SCHEMA) | {"status": "stands", "model": "m", "outcome": "cannot say"}
    table = pl.DataFrame([row | {"study_verdict": "holds"}, row | {"study_verdict": "fails"}], schema=SCHEMA)
    text = headline(table)
    assert text.startswith(
        "Of the study’s claims, 1 hold on its own irrelevant responses, and none of these was measured"
    )
    none = headline(table.with_columns(pl.lit("fails").alias("study_verdict")))
    assert none.startswith("None of the study’s claims holds")


def test_a_dataset_that_was_asked_for_is_not_missing():
    tables_ = frames(models=("m",), dataset="one", layers=3)
    cells = tables_["cells"]
    tables_["cells"] = pl.concat([cells, cells.with_columns(pl.lit("two").alias("dataset"))])
    datasets = tuple(Dataset(key, key.capitalize()) for key in ("one", "two", "three"))
    data = Data(tables_, relation="correct", datasets=datasets)
    assert "Not measured: Three." in " ".join(heatmaps.MAD.heading(data).caption)


# Data without variants of their own ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chats(tmp_path_factory):
    """A page of a user's chats, `natural`, with another sample's response beside each; no claim is about them."""
    base = tmp_path_factory.mktemp("chats")
    rows = statistic_rows(
        ("mine",), "chats", ("natural",), ("correct", "derangement"), layers=6, n=40, projections=("q",)
    )
    folder = write_statistics(base / "chats", rows)
    gallery.draw(folder, "chats", "My chats", base / "figures/chats", ["vl.json"])
    gallery.draw_overview([folder], OverviewSettings([Dataset("chats", "My chats")]), base / "figures/all", ["vl.json"])
    for kind in ("mad", "rd"):
        tables.write_tables(kind, [folder], base)
    write_config(base / "config.yaml")
    write_table(CLAIMS, [], base / "claims.parquet", {})
    verdicts.write_verdicts(base / "claims.parquet", base / "claims.md")
    write_atlas(
        [base / "figures/chats", base / "figures/all"],
        [folder / "cells.parquet"],
        [base / "mad.csv", base / "rd.csv"],
        base / "config.yaml",
        base / "index.html",
        claims=base / "claims.parquet",
        prompts={"mine": "chat"},
    )
    return base


OF_THOUGHT = re.compile(r"\b(None|Simplified|Detailed|chain.of.thought|CoT|fast|slow)\b")
UNSEEN = re.compile(r"<(script|style|footer).*?</\1>", re.DOTALL)


def test_figures_and_page_of_natural_data_speak_of_no_chain_of_thought(chats):
    for folder in ("chats", "all"):
        for figure in listing.read_index(chats / "figures" / folder)["figures"]:
            text = " ".join([figure["title"], figure["caption"]])
            assert not re.search(r"\bNone\b|\bSimplified\b|\bDetailed\b", text), text
            assert "atural" in text or folder == "all", text
    pages = [(chats / f"{name}.html").read_text() for name in ("index", "more")]
    assert OF_THOUGHT.findall(" ".join(re.sub(r"<[^>]+>", " ", UNSEEN.sub("", page)) for page in pages)) == []
    sections = re.findall(r'<section id="(\w+)"', "".join(pages))
    assert "Natural" in pages[1] and not {"findings", "claims"} & set(sections)


def test_the_verdicts_of_natural_data_are_none(chats):
    found = read_rows(chats / "claims.parquet")
    assert verdicts.heading(found, GRADIENTS).title == "No claim on layer gradients was tested"
    assert counted(found) == [] and verdicts.matrix_chart(found).to_dict() and verdicts.list_chart(found).to_dict()
    assert "No claim was tested" in (chats / "claims.md").read_text()
    assert atlas_verdicts(chats / "claims.parquet", Titles({})) is None
    assert (
        headline(pl.DataFrame(schema=SCHEMA)) == "No claim of the study was measured on its own irrelevant responses."
    )


def test_the_second_study_alone_has_a_page(tmp_path):
    status = tmp_path / "status.json"
    write_json(status, {"run": "sft", "status": "ok", "step": 4})
    row = {"title": "SFT", "init": "", "loss": "sft", "target": "chosen", "split": "train", "probed": False, "steps": 4}
    row |= {"negatives": "off_policy", "parameters": "full", "batch_size": 4}
    write_config(tmp_path / "config.yaml")
    statuses = [("mine", seed, status) for seed in ("0", "1")]
    write_atlas([], [], [], tmp_path / "config.yaml", tmp_path / "index.html", runs={"sft": row}, statuses=statuses)
    page, more = ((tmp_path / f"{name}.html").read_text() for name in ("index", "more"))
    assert re.findall(r'<section id="(\w+)"', page + more) == ["dynamics", "config"]
    assert summary(page) == [("model", "1"), ("seeds", "2"), ("finetuning runs", "2")]
    assert "ok: mine 0, mine 1" in more
