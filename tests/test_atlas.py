"""The atlas's data for its explorer and verdicts, read back without a browser."""

import base64
import gzip
import json
import math

import numpy as np
import polars as pl
import pytest

from benchmarks import page
from conftest import call, settings, user_error, write_config
from gradatlas.claims.tables import CLAIMS
from gradatlas.core.checked import write_json
from gradatlas.core.tables import write_table
from gradatlas.data.tables import RESPONSES
from gradatlas.figures import gallery, tables
from gradatlas.figures.run_table import write_dynamics_table
from gradatlas.page.explorer import CHARACTERS, SAMPLES, TEXTS, explorer
from gradatlas.page.pieces import pack, rounded
from gradatlas.page.titles import Titles
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
    """Samples of the models and sets of `statistic_rows`, layer by layer: a row per cell, projection and sample."""
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
            row |= {"verdict": verdict, "reason": "the interval contains 10" if verdict == "inconclusive" else ""}
            found.append({name: row.get(name) for name in CLAIMS.names})
    return found


def read(piece):
    """What a piece holds."""
    return json.loads(gzip.decompress(base64.b64decode(piece)))


# Numbers -------------------------------------------------------------------------------------------------------------


def test_numbers_are_rounded_once():
    draw = np.random.default_rng(1)
    values = np.concatenate([draw.lognormal(0, 9, 4000), 10.0 ** np.arange(-12, 0), 1 - 10.0 ** -np.arange(1, 9)])
    values = np.concatenate([values, -values[:100], [0.0, math.nan, math.inf, 999.96, 99950.3, 0.00099949]])
    for value, found in zip([*values, None], rounded([*values, None], 4), strict=True):
        wanted = float(f"{value:.3e}") if value is not None and math.isfinite(value) else None
        assert found == wanted, value


def test_a_piece_is_the_same_bytes_each_time():
    content = {"a": "é🦜", "n": [0, 7, None, 70_001], "v": [1 / 7, -2.5e-9], "none": []}
    assert read(pack(content)) == content and pack(content) == pack(content)
    with pytest.raises(ValueError):
        pack({"v": [math.nan]})


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


@pytest.fixture(scope="module")
def found(study):
    """What the explorer gets of that study."""
    return pieces_of(study)


def pieces_of(folder, **options):
    given = {"curves": [folder / "curves.parquet"], "sample_layers": [folder / "per_sample_layers.parquet"]}
    given |= {"responses": [folder / "responses.parquet"], "titles": Titles({"gsm8k": "GSM8K"}), "able": {}, **options}
    return explorer(**given)


def test_at_most_so_many_samples_and_texts(found):
    texts = read(found["pieces"]["texts-0"])
    assert len(texts["ids"]) == len(set(texts["ids"])) == SAMPLES and texts["total"] == SAMPLES + 20
    assert len(texts["texts"]) == TEXTS
    for of_sample in texts["texts"]:
        for instruction, response in of_sample.values():
            assert len(instruction) <= CHARACTERS and len(response) == CHARACTERS and response.endswith("…")


def series_of(piece):
    """The series of a piece, each with its own entry of every column."""
    columns = piece["columns"].items()
    return [{**one, **{name: column[s] for name, column in columns}} for s, one in enumerate(piece["series"])]


def by_key(found, series):
    """Series by the keys that their places are of."""
    lists = found["index"]["lists"]
    names = ("variant", "relation", "projection", "metric")
    return {tuple(lists[f"{name}s"][one[name]]["key"] for name in names if name in one): one for one in series}


def test_samples_are_those_of_the_table(study, found):
    """Eleven layers in eight groups: the first three of two layers, the others of one."""
    ids = read(found["pieces"]["texts-0"])["ids"]
    piece = read(found["pieces"]["samples-0-0"])
    groups = [[0, 1], [2, 3], [4, 5], *([layer, layer] for layer in range(6, 11))]
    assert piece["groups"] == groups
    rows = pl.read_parquet(study / "per_sample_layers.parquet").to_dicts()
    cell = ("variant", "relation", "projection")
    table = {(*(row[name] for name in cell), row["sample_id"]): row for row in rows}
    missing = 0
    for key, series in by_key(found, series_of(piece)).items():
        for i, sample_id in enumerate(ids):
            row = table.get((*key, sample_id))
            missing += row is None
            for metric in ("nuclear_norm", "sigma_ratio", "effective_rank"):
                for (first, last), values in zip(groups, series[metric], strict=True):
                    if row is None:
                        assert values[i] is None
                    else:
                        mean = sum(row[metric][first : last + 1]) / (last - first + 1)
                        assert values[i] == pytest.approx(mean, rel=0.005)
            assert series["response_tokens"][i] == (row["response_tokens"] if row else None)
            assert series["loss"][i] == (float(f"{row['loss']:.2e}") if row else None)
    assert missing == 8 and len(piece["series"]) == 4 * 4


def test_curves_are_those_of_the_table(study, found):
    series = by_key(found, series_of(read(found["pieces"]["curves-0-0"])))
    rows = pl.read_parquet(study / "curves.parquet").to_dicts()
    for row in rows:
        one = series[tuple(row[name] for name in ("variant", "relation", "projection", "statistic"))]
        at = one["layer"].index(row["layer"])
        assert one["n"] == row["n"]
        for name in ("value", "low", "high"):
            assert one[name][at] == float(f"{row[name]:.3e}")
    assert len(rows) == sum(len(one["value"]) for one in series.values())


def test_controls_on_some_tokens_stay_out(study, tmp_path):
    rows = pl.read_parquet(study / "curves.parquet").with_columns(loss_tokens=pl.lit("random:1"))
    write_table(CURVES, rows.to_arrow(), tmp_path / "curves.parquet", {})
    assert pieces_of(study, curves=[tmp_path / "curves.parquet"]) is None


def test_a_large_study_shows_fewer_samples(study, monkeypatch):
    """4 sets, 4 projections, 3 metrics and 8 groups: 384 values a sample."""
    monkeypatch.setattr("gradatlas.page.explorer.VALUES", 384 * 25 + 383)
    found = pieces_of(study)
    texts = read(found["pieces"]["texts-0"])
    assert len(texts["ids"]) == len(texts["texts"]) == 25 and texts["total"] == SAMPLES + 20
    series = series_of(read(found["pieces"]["samples-0-0"]))
    assert [len(series), len(series[0]["nuclear_norm"]), len(series[0]["nuclear_norm"][0])] == [4 * 4, 8, 25]
    assert len(series[0]["loss"]) == 25


def test_a_metric_that_was_not_measured_is_missing(study, tmp_path):
    rows = pl.read_parquet(study / "per_sample_layers.parquet").with_columns(effective_rank=None)
    write_table(PER_SAMPLE_LAYERS, rows.to_arrow(), tmp_path / "layers.parquet", {})
    found = pieces_of(study, sample_layers=[tmp_path / "layers.parquet"])
    for series in series_of(read(found["pieces"]["samples-0-0"])):
        assert {value for group in series["effective_rank"] for value in group} == {None}
        assert None not in series["nuclear_norm"][0][:3]


def test_no_texts_and_no_samples(study):
    assert read(pieces_of(study, responses=[])["pieces"]["texts-0"])["texts"] == [{}] * TEXTS
    found = pieces_of(study, sample_layers=[], responses=[])
    assert read(found["pieces"]["texts-0"])["ids"] == []
    assert read(found["pieces"]["samples-0-0"])["series"] == []


# The verdicts --------------------------------------------------------------------------------------------------------


def test_each_verdict_is_counted_once_and_has_its_numbers(tmp_path):
    rows = claim_rows()
    write_table(CLAIMS, rows, tmp_path / "claims.parquet", {})
    found = verdicts(tmp_path / "claims.parquet", {"gsm8k": "GSM8K"})
    (study,) = found["studies"]
    [(group, lines)] = study["groups"]
    assert group == "Claims of the study" and [line["title"] for line in lines] == [
        "MAD none detailed", "Separable detailed"
    ]  # fmt: skip
    assert lines[0]["trained"] == [("✓", "holds", 2), ("✗", "fails", 1), ("?", "inconclusive", 1)]
    assert lines[0]["untrained"] == []
    assert study["counts"] == [
        ("Claims of the study", [("✓", "holds", 4), ("✗", "fails", 2), ("?", "inconclusive", 2)])
    ]
    numbers = read(found["piece"])
    assert {claim: len(own) for claim, own in numbers["rows"].items()} == dict.fromkeys(
        ("mad_none_detailed", "separable_detailed"), 4
    )
    first = dict(zip(numbers["header"], numbers["rows"]["mad_none_detailed"][0], strict=True))
    assert first["Number, 95 % interval"] == "12.3 [10.1, 14.8]" and first["Claimed"] == "above 10"
    assert first["p (Holm)"] == "0.0456" and first["Verdict"] == "✓ holds"
    assert "Seed" not in first and "Against" not in first


def test_all_projections_together_stand_for_each(tmp_path):
    rows = [{**row, "projection": projection} for row in claim_rows() for projection in ("all", "q")]
    write_table(CLAIMS, rows, tmp_path / "claims.parquet", {})
    found = verdicts(tmp_path / "claims.parquet", {})
    assert sum(map(len, read(found["piece"])["rows"].values())) == len(rows) / 2


def test_each_study_has_its_claims_in_the_order_of_the_figure_and_untrained_networks_apart(tmp_path):
    rows = claim_rows()
    for row in rows:
        if row["model"] == "twin":
            row |= {"status": "control", "kind": "random"}
        if row["claim"] == "mad_none_detailed":
            row |= {"claim_status": "control", "status": "control"}
    other = [{**row, "study": "learning_dynamics", "dataset": "pairs", "status": "stands"} for row in claim_rows()[:2]]
    write_table(CLAIMS, [*other, *rows], tmp_path / "claims.parquet", {})
    first, second = verdicts(tmp_path / "claims.parquet", {"gsm8k": "GSM8K"})["studies"]
    assert (first["title"], second["title"]) == ("Layer gradients", "Learning dynamics")
    counted = {title: sum(count for _, _, count in counts) for title, counts in first["counts"]}
    assert list(counted.values()) == [2, 4, 2] and "untrained" in list(counted)[2]
    # Controls come after the claims of the study, whatever their place in the sheet.
    assert [(group, [line["claim"] for line in lines]) for group, lines in first["groups"]] == [
        ("Claims of the study", ["separable_detailed"]), ("Controls", ["mad_none_detailed"])
    ]  # fmt: skip
    # Also of controls.
    for _, [line] in first["groups"]:
        assert [sum(count for _, _, count in line[name]) for name in ("trained", "untrained")] == [2, 2]


def test_no_claims_no_verdicts(tmp_path):
    write_table(CLAIMS, [], tmp_path / "claims.parquet", {})
    assert verdicts(tmp_path / "claims.parquet", {}) is None


@pytest.mark.slow
def test_the_page_at_the_papers_size_is_under_15_mb(tmp_path):
    """Of the samples, as many as it may show. `python -m benchmarks.page` measures the time to its first drawing."""
    first = page.write(tmp_path, models=10, datasets=11, samples=SAMPLES, layers=42)
    assert first.stat().st_size + first.with_name(page.MORE).stat().st_size < 15e6


# Bad input -----------------------------------------------------------------------------------------------------------


def test_a_wrong_table_is_named(study, tmp_path):
    gallery.draw(study, "gsm8k", "GSM8K", tmp_path / "figures", [])
    for kind in ("mad", "rd"):
        tables.write_tables(kind, [study], tmp_path)
    write_config(tmp_path / "config.yaml")
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


def test_titles_stand_for_keys_and_equal_ones_have_their_key():
    titles = Titles({"a": "Same", "b": "Same", "c": "Own"})
    assert [titles[key] for key in "abcd"] == ["Same (a)", "Same (b)", "Own", "d"]
