"""What the atlas carries for its explorer and its verdicts, read back without a browser."""

import base64
import gzip
import json
import math

import numpy as np
import polars as pl
import pytest

from conftest import call, settings, user_error
from gradatlas.claims.tables import CLAIMS
from gradatlas.core.checked import write_json
from gradatlas.core.tables import write_table
from gradatlas.data.tables import RESPONSES
from gradatlas.figures import gallery, tables
from gradatlas.figures.dynamics.table import write_dynamics_table
from gradatlas.page.explorer import CHARACTERS, SAMPLES, TEXTS, explorer
from gradatlas.page.pieces import pack
from gradatlas.page.verdicts import verdicts
from gradatlas.statistics.tables import CURVES, PER_SAMPLE_LAYERS
from synthetic import statistic_rows, write_statistics
from test_dynamics_table import curves

HOSTILE = """<script>alert("1")</script> & 'x' </script> 🦜 שלום"""


# Synthetic tables ----------------------------------------------------------------------------------------------------


def second_study(base):
    """Arguments of a page with three finetuning runs, two folders of their figures, and a toy."""
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="300" height="200"><rect width="300" height="200"/></svg>'
    size = {"width": 300, "height": 200, "subtitle": ["A line."]}
    folders = {
        "seed_0": ("dynamics", "mini, seed 0", [("kind", "length", HOSTILE), ("kind", "a.curves", "A"),
                                                ("kind", "b.curves", "B")]),
        "generations": ("dynamics", HOSTILE, [("kind", "win_rate", "Wins")]),
        "toys": ("toys", "Toys", [("toy", "squeeze", "Squeezed")]),
    }  # fmt: skip
    for folder, (study, title, figures) in folders.items():
        (base / "second" / folder).mkdir(parents=True)
        listed = []
        for key, kind, words in figures:
            (base / "second" / folder / f"{kind}.svg").write_text(svg)
            listed.append({key: kind, "title": words, "files": {"svg": f"{kind}.svg"}} | size)
        index = {"dataset": study, "dataset_title": title, "figures": listed}
        (base / "second" / folder / "index.json").write_text(json.dumps(index))
    row = {"init": "base", "loss": "sft", "target": "chosen", "split": "train", "probed": False, "steps": 1000}
    row |= {"negatives": "off_policy", "parameters": "full", "batch_size": 4}
    runs = {
        "base": row | {"title": "Warm start", "init": "", "split": "base"},
        "extend": row | {"title": HOSTILE, "target": "extend"},
        "dpo": row | {"title": "DPO at once", "loss": "dpo"},
    }
    statuses = []
    for name in runs:
        for seed in (0, 1):
            path = base / "second" / f"{name}.{seed}.json"
            status = "diverged" if (name, seed) == ("dpo", 1) else "ok"
            write_json(path, {"run": name, "status": status, "step": 7})
            statuses.append(("mini", str(seed), path))
    second = [base / "second" / folder for folder in folders]
    moved = {
        (run, "train", kind, measure): [-30.0, -20.0 - len(measure)]
        for run, kind in (("extend", "chosen"), ("extend", "rejected"), ("dpo", "chosen"))
        for measure in ("log_prob_sum", "argmax_log_prob")
    }
    write_dynamics_table(
        [("mini_qa", curves(base / "second/curves.parquet", moved))], runs, {}, [], base / "second/dynamics"
    )
    return {"second": second, "runs": runs, "statuses": statuses, "run_table": base / "second/dynamics.csv"}


def sample_rows(rows, samples=30, seed=0):
    """Samples of the models and sets of `statistic_rows`, layer by layer: a row a cell, projection and sample."""
    draw = np.random.default_rng(seed)
    layers = {model: 1 + max(r["layer"] for r in rows["curves"] if r["model"] == model) for model in models_of(rows)}
    cells = dict.fromkeys((*(row[k] for k in ("model", "dataset", "variant", "relation")),) for row in rows["cells"])
    found = []
    for model, dataset, variant, relation in cells:
        for i in range(samples):
            of_sample = {"loss": draw.lognormal(0, 0.5), "response_tokens": int(draw.integers(1, 900))}
            for projection in "qkvo":
                depth = layers[model]
                values = draw.lognormal(1, 1.5, depth), draw.beta(2, 5, depth), draw.gamma(4, 6, depth)
                values = [[float(np.float32(one)) for one in value] for value in values]
                metrics = dict(zip(("nuclear_norm", "sigma_ratio", "effective_rank"), values, strict=True))
                cell = {"model": model, "dataset": dataset, "variant": variant, "relation": relation}
                cell |= {"loss_tokens": "all", "purpose": "study", "sample_id": f"{dataset}/{i}"}
                found.append({**cell, "projection": projection, **of_sample, **metrics})
    return found


def models_of(rows):
    return dict.fromkeys(row["model"] for row in rows["cells"])


def response_rows(rows, text="Answer"):
    """A response to each sample; every third one tries to be markup."""
    found = []
    for key in dict.fromkeys((r["dataset"], r["sample_id"], r["variant"], r["relation"]) for r in rows):
        hostile = HOSTILE if int(key[1].split("/")[1]) % 3 == 0 else "plain"
        row = (*key, f"Question {key[1]}: {hostile}", f"{text} {hostile} {key[2]} {key[3]}", "7", "7", True, "ok", [])
        found.append(dict(zip(RESPONSES.names, row, strict=True)))
    return found


def claim_rows(models=("mini", "twin"), dataset="gsm8k", claims=("mad_none_detailed", "separable_detailed")):
    """Every verdict once for each claim and model."""
    found = []
    for claim in claims:
        for i, (model, relation) in enumerate((m, r) for m in models for r in ("correct", "published")):
            verdict = ("holds", "fails", "inconclusive")[i % 3]
            row = {
                "claim": claim,
                "study": "layer_gradients",
                "status": "stands",
                "claim_status": "stands",
                "source": "arXiv 2410.23743, section 4",
                "title": claim.replace("mad", "MAD").replace("separable", "Separable").replace("_", " "),
                "projection": "all",
                "statement": "It is {} times as large",
                "direction": "above",
                "model": model,
            }
            row |= {"dataset": dataset, "relation": relation, "statistic": "MAD ratio", "value": 12.34, "low": 10.1}
            row |= {"high": 14.8, "n": 200, "threshold": 10.0, "p_value": 0.0123, "p_adjusted": 0.0456}
            row |= {"verdict": verdict, "reason": "the interval reaches over 10" if verdict == "inconclusive" else ""}
            found.append({name: row.get(name) for name in CLAIMS.names})
    return found


def read(piece):
    """A piece's header and columns."""
    header = json.loads(gzip.decompress(base64.b64decode(piece)))
    return header, header["columns"]


# Numbers -------------------------------------------------------------------------------------------------------------


def test_a_column_holds_each_number_rounded_once():
    draw = np.random.default_rng(1)
    values = np.concatenate([draw.lognormal(0, 9, 4000), 10.0 ** np.arange(-12, 0), 1 - 10.0 ** -np.arange(1, 9)])
    values = np.concatenate([values, -values[:100], [math.nan, math.inf, 999.96, 99950.3, 0.00099949]])
    _, columns = read(pack({}, {"a": values}))
    for value, found in zip(values, columns["a"], strict=True):
        wanted = None if not math.isfinite(value) else value if value % 1 == 0 else float(f"{value:.3e}")
        assert found == wanted, value


def test_counts_are_exact_and_nothing_is_nothing():
    values = {"n": np.array([[0, 7], [math.nan, 70_001]]), "none": np.array([])}
    header, columns = read(pack({"a": "é🦜"}, values))
    assert header["a"] == "é🦜" and columns == {"n": [0, 7, None, 70_001], "none": []}


def test_the_same_numbers_are_the_same_text():
    assert pack({"a": 1}, {"v": np.arange(9) / 7}) == pack({"a": 1}, {"v": np.arange(9) / 7})


# What the explorer gets ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Tables of a dataset with more samples than the page shows."""
    folder = tmp_path_factory.mktemp("study")
    rows = statistic_rows(layers=11, variants=("none", "detailed"))
    samples = sample_rows(rows, samples=SAMPLES + 20)
    # One sample could not be used in one cell.
    samples = [r for r in samples if (r["sample_id"], r["variant"]) != ("gsm8k/5", "none")]
    rows["per_sample_layers"] = samples
    write_statistics(folder, rows)
    responses = response_rows(samples, text="a" * CHARACTERS)
    write_table(RESPONSES, responses, folder / "responses.parquet", {})
    return folder


def pieces_of(folder, **options):
    given = {"curves": [folder / "curves.parquet"], "sample_layers": [folder / "per_sample_layers.parquet"]}
    given |= {"responses": [folder / "responses.parquet"], "titles": {"gsm8k": "GSM8K"}, **options}
    return explorer(**given)


def test_at_most_so_many_samples_and_texts(study):
    found = pieces_of(study)
    texts, _ = read(found["pieces"]["texts-0"])
    assert len(texts["ids"]) == len(set(texts["ids"])) == SAMPLES and texts["total"] == SAMPLES + 20
    assert len(texts["texts"]) == TEXTS
    for told in texts["texts"]:
        for instruction, response in told.values():
            assert len(instruction) <= CHARACTERS and len(response) == CHARACTERS and response.endswith("…")


def test_samples_are_those_of_the_table(study):
    """Eleven layers in eight groups: the first three of two layers, the others of one."""
    found = pieces_of(study)
    ids = read(found["pieces"]["texts-0"])[0]["ids"]
    header, columns = read(found["pieces"]["samples-0-0"])
    lists = {name: [item["key"] for item in items] for name, items in found["index"]["lists"].items()}
    table = {
        (row["variant"], row["relation"], row["projection"], row["sample_id"]): row
        for row in pl.read_parquet(study / "per_sample_layers.parquet").to_dicts()
    }
    groups = [[0, 1], [2, 3], [4, 5], *([layer, layer] for layer in range(6, 11))]
    assert header["groups"] == groups
    missing, size = 0, len(header["sets"]) * len(lists["projections"]) * len(ids)
    for s, (v, r) in enumerate(header["sets"]):
        for p, projection in enumerate(lists["projections"]):
            for i, sample_id in enumerate(ids):
                row = table.get((lists["variants"][v], lists["relations"][r], projection, sample_id))
                missing += row is None
                for metric in lists["metrics"]:
                    for g, (first, last) in enumerate(groups):
                        value = columns[metric][g * size + (s * len(lists["projections"]) + p) * len(ids) + i]
                        if row is None:
                            assert value is None
                        else:
                            mean = sum(row[metric][first : last + 1]) / (last - first + 1)
                            assert value == pytest.approx(mean, rel=0.005)
                assert columns["response_tokens"][s * len(ids) + i] == (row["response_tokens"] if row else None)
    assert missing == 8


def test_curves_are_those_of_the_table(study):
    found = pieces_of(study)
    header, columns = read(found["pieces"]["curves-0-0"])
    lists = {name: [item["key"] for item in items] for name, items in found["index"]["lists"].items()}
    rows = pl.read_parquet(study / "curves.parquet").to_dicts()
    for row in rows:
        s = header["sets"].index([lists["variants"].index(row["variant"]), lists["relations"].index(row["relation"])])
        at = s * len(lists["projections"]) + lists["projections"].index(row["projection"])
        at = at * len(lists["metrics"]) + lists["metrics"].index(row["statistic"])
        assert columns["n"][at] == row["n"]
        for name in ("value", "low", "high"):
            assert columns[name][at * header["layers"] + row["layer"]] == float(f"{row[name]:.3e}")
    assert len(rows) == len(columns["value"])


def test_controls_on_some_tokens_stay_out(study, tmp_path):
    rows = pl.read_parquet(study / "curves.parquet").with_columns(loss_tokens=pl.lit("random:1"))
    write_table(CURVES, rows.to_arrow(), tmp_path / "curves.parquet", {})
    assert pieces_of(study, curves=[tmp_path / "curves.parquet"]) is None


def test_a_large_study_shows_fewer_samples(study, monkeypatch):
    """4 sets, 4 projections, 3 metrics and 8 groups: 384 values a sample."""
    monkeypatch.setattr("gradatlas.page.explorer.VALUES", 384 * 25 + 383)
    found = pieces_of(study)
    texts, _ = read(found["pieces"]["texts-0"])
    assert len(texts["ids"]) == len(texts["texts"]) == 25 and texts["total"] == SAMPLES + 20
    _, columns = read(found["pieces"]["samples-0-0"])
    assert len(columns["nuclear_norm"]) == 4 * 4 * 8 * 25 and len(columns["loss"]) == 4 * 25


def test_a_metric_that_was_not_measured_is_missing(study, tmp_path):
    rows = pl.read_parquet(study / "per_sample_layers.parquet").with_columns(effective_rank=None)
    write_table(PER_SAMPLE_LAYERS, rows.to_arrow(), tmp_path / "layers.parquet", {})
    _, columns = read(pieces_of(study, sample_layers=[tmp_path / "layers.parquet"])["pieces"]["samples-0-0"])
    assert set(columns["effective_rank"]) == {None} and None not in columns["nuclear_norm"][:3]


def test_no_texts_and_no_samples(study):
    assert read(pieces_of(study, responses=[])["pieces"]["texts-0"])[0]["texts"] == [{}] * TEXTS
    found = pieces_of(study, sample_layers=[], responses=[])
    assert read(found["pieces"]["texts-0"])[0]["ids"] == []
    assert read(found["pieces"]["samples-0-0"])[0]["sets"] == []


# The verdicts --------------------------------------------------------------------------------------------------------


def test_each_verdict_stands_once_in_the_matrix_and_the_table(tmp_path):
    rows = claim_rows()
    write_table(CLAIMS, rows, tmp_path / "claims.parquet", {})
    found = verdicts(tmp_path / "claims.parquet", {"gsm8k": "GSM8K"})
    (study,) = found["studies"]
    assert study["datasets"] == [("GSM8K", [("mini", False), ("twin", False)])]
    assert [row["title"] for row in study["rows"]] == ["MAD none detailed"] * 2 + ["Separable detailed"] * 2
    places = [one["place"] for row in study["rows"] for cell in row["cells"] for one in cell]
    places = sorted(places)
    assert places == list(range(len(rows)))
    assert study["counts"] == [
        ("Claims of the study", [("✓", "holds", 4), ("✗", "fails", 2), ("?", "inconclusive", 2)])
    ]
    assert [(title, len(own)) for title, own in found["table"]] == [("MAD none detailed", 4), ("Separable detailed", 4)]
    told = {place: row for _, own in found["table"] for place, row in own}
    assert sorted(told) == places
    first = dict(zip(found["header"], told[0], strict=True))
    assert first["Number, 95 % interval"] == "12.3 [10.1, 14.8]" and first["Claimed"] == "above 10"
    assert first["p (Holm)"] == "0.0456" and first["Verdict"] == "✓ holds"
    assert "Seed" not in first and "Against" not in first


def test_all_projections_together_stand_for_each(tmp_path):
    rows = [{**row, "projection": projection} for row in claim_rows() for projection in ("all", "q")]
    write_table(CLAIMS, rows, tmp_path / "claims.parquet", {})
    found = verdicts(tmp_path / "claims.parquet", {})
    assert sum(len(own) for _, own in found["table"]) == len(rows) / 2 and len(found["studies"][0]["rows"]) == 4


def test_each_study_has_its_matrix_and_untrained_networks_are_counted_apart(tmp_path):
    rows = claim_rows()
    for row in rows:
        if row["model"] == "twin":
            row["status"] = "control"
        if row["claim"] == "separable_detailed":
            row |= {"claim_status": "control", "status": "control"}
    other = [{**row, "study": "learning_dynamics", "dataset": "pairs", "status": "stands"} for row in claim_rows()[:2]]
    write_table(CLAIMS, [*other, *rows], tmp_path / "claims.parquet", {})
    first, second = verdicts(tmp_path / "claims.parquet", {"gsm8k": "GSM8K"})["studies"]
    assert (first["title"], second["title"]) == ("Layer gradients", "Learning dynamics")
    assert first["datasets"] == [("GSM8K", [("mini", False), ("twin", True)])]
    counted = {title: sum(count for _, _, count in counts) for title, counts in first["counts"]}
    assert list(counted.values()) == [2, 4, 2] and "untrained" in list(counted)[2]
    # Places are those of the one table, whichever matrix they stand in.
    places = [
        [one["place"] for row in study["rows"] for cell in row["cells"] for one in cell] for study in (first, second)
    ]
    assert sorted(places[0]) == list(range(2, 10)) and sorted(places[1]) == [0, 1]


def test_no_claims_no_matrix(tmp_path):
    write_table(CLAIMS, [], tmp_path / "claims.parquet", {})
    assert verdicts(tmp_path / "claims.parquet", {}) is None


# Bad input -----------------------------------------------------------------------------------------------------------


def test_a_wrong_table_is_named(study, tmp_path):
    gallery.draw(study, "gsm8k", "GSM8K", tmp_path / "figures", [])
    for kind in ("mad", "rd"):
        tables.write_tables(kind, [study], tmp_path)
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    given = [
        "--figures",
        tmp_path / "figures",
        "--cells",
        study / "cells.parquet",
        "--config",
        tmp_path / "config.yaml",
    ]
    given += ["--tables", tmp_path / "mad.csv", tmp_path / "rd.csv", "--output", tmp_path / "index.html"]
    done = call("write_atlas", *given, "--claims", study / "cells.parquet")
    assert "cells.parquet: not a 'claims' table" in user_error(done)
    done = call("write_atlas", *given, "--curves", study / "cells.parquet")
    assert "cells.parquet: not a 'curves' table" in user_error(done)
    for words, text in (("damaged", "[1]"), ("damaged", "{"), ("not a run's status", None), ("no such file", "")):
        path = tmp_path / "status.json"
        path.write_text(text) if text else write_json(path, {"run": "a"}) if text is None else path.unlink()
        done = call("write_atlas", *given, "--statuses", path, *settings(statuses=[("mini", "0")]))
        assert f"status.json: {words}" in user_error(done)
    done = call("write_atlas", *given, "--statuses", path)
    assert "--statuses names 1 files, settings.statuses 0" in user_error(done)
    done = call("write_atlas", *given, "--second", tmp_path / "nowhere")
    assert "index.json: no such file" in user_error(done)
    assert not (tmp_path / "index.html").exists()
