"""Wrong and partial measurements, from gradients to figures, tables and the page: stated, never averaged away."""

import json
import math

import altair as alt
import numpy as np
import polars as pl
import pytest

from conftest import call, settings, write_config
from gradatlas.core.tables import read_metadata, read_table, write_table
from gradatlas.gradients.tables import SAMPLES, SPECTRA

PROJECTIONS = ("q", "k", "v", "o")
METRICS = ("nuclear_norm", "nuclear_norm_scaled", "sigma_max", "sigma_min", "frobenius_norm", "mean", "max", "min")


def gradients(
    folder, model, dataset="d", variants=("none", "detailed"), relations=("correct", "derangement"),
    layers=8, count=25, status="ok", spoilt=(),
):  # fmt: skip
    """Tables of one model; samples in `spoilt` (by number) have a value that is not finite, in one layer of V."""
    generator = np.random.default_rng(0)
    samples, spectra = [], []
    for variant in variants:
        for relation in relations:
            for i in range(count):
                key = {"model": model, "dataset": dataset, "sample_id": str(i), "variant": variant}
                key |= {"relation": relation, "loss_tokens": "all"}
                lost = {"loss": math.nan if status != "ok" else 1.0, "status": status}
                samples.append({**key, "prompt_tokens": 5, "response_tokens": i + 1, "truncated": False, **lost})
                if status != "ok":
                    continue
                for layer in range(layers):
                    for projection in PROJECTIONS:
                        values = dict(zip(METRICS, generator.gamma(9.0, size=len(METRICS)), strict=True))
                        if i in spoilt and layer == layers - 1 and projection == "v":
                            values["nuclear_norm"] = spoilt[i]
                        spectra.append(
                            {**key, "layer": layer, "projection": projection, **values, "effective_rank": 2.0}
                        )
    facts = {"model": model, "model_digest": "x", "revision": "", "dtype": "float32", "compat": "none"}
    facts |= {"max_length": 9, "purpose": "study"}
    paths = [folder / f"{model}.{dataset}.{name}.parquet" for name in ("samples", "spectra")]
    write_table(SAMPLES, samples, paths[0], facts)
    write_table(SPECTRA, spectra, paths[1], facts)
    return paths


def summarise(folder, *tables, dataset="d"):
    samples, spectra = zip(*tables, strict=True)
    return call(
        "summarise_gradients", "--dataset", dataset, "--samples", *samples, "--spectra", *spectra,
        *settings(draws=50, seed=0), "--output", folder / "statistics" / dataset,
    )  # fmt: skip


def read(folder, name, dataset="d"):
    return pl.read_parquet(folder / "statistics" / dataset / f"{name}.parquet")


def _model(path):
    return path.name.partition(".")[0]


def drawn(folder, *datasets, formats=("vl.json",)):
    """Figures, tables and the page of these datasets; the page's text."""
    for dataset in datasets:
        done = call(
            "draw_figures", "--statistics", folder / "statistics" / dataset, "--dataset", dataset, "--title", dataset,
            "--formats", *formats, "--output", folder / "figures" / dataset,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    rows = [{"key": name, "title": name, "task": "math"} for name in datasets]
    models = [{"key": _model(path), "kind": "base"} for path in sorted(folder.glob("*.samples.parquet"))]
    statistics = [folder / "statistics" / name for name in datasets]
    done = call(
        "write_tables", "--statistics", *statistics, *settings(datasets=rows, models=models), "--output", folder
    )
    assert done.returncode == 0, done.stderr
    write_config(folder / "config.yaml")
    done = call(
        "write_atlas", "--figures", *(folder / "figures" / name for name in datasets),
        "--cells", *(folder / "statistics" / name / "cells.parquet" for name in datasets),
        "--tables", folder / "mad.csv", folder / "rd.csv", "--config", folder / "config.yaml",
        "--output", folder / "index.html",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return (folder / "index.html").read_text()


def listed(folder, dataset):
    return json.loads((folder / "figures" / dataset / "index.json").read_text())["figures"]


def test_a_model_without_a_usable_sample_is_counted_and_stops_no_other(tmp_path):
    tables = gradients(tmp_path, "good"), gradients(tmp_path, "empty", status="no_response_tokens")
    assert summarise(tmp_path, *tables).returncode == 0
    cells = read(tmp_path, "cells").filter(pl.col("model") == "empty")
    assert cells.select("n", "n_ok", "n_no_response_tokens").unique().rows() == [(25, 0, 25)]
    for name in ("curves", "mad", "rd", "per_sample", "per_sample_layers"):
        assert read(tmp_path, name)["model"].unique().to_list() == ["good"]
    assert "empty" in drawn(tmp_path, "d")
    figures = listed(tmp_path, "d")
    assert [figure["relation"] for figure in figures if figure["model"] == "empty"] == ["correct", "derangement"]
    assert {figure["kind"] for figure in figures if figure["model"] == "empty"} == {"unusable"}
    assert "unusable" not in {figure["kind"] for figure in figures if figure["model"] == "good"}


def test_a_dataset_without_a_usable_sample_is_counted_and_stops_no_other(tmp_path):
    lost = [gradients(tmp_path, name, status="out_of_memory") for name in ("one", "two")]
    assert summarise(tmp_path, *lost).returncode == 0
    assert summarise(tmp_path, gradients(tmp_path, "one", "e"), dataset="e").returncode == 0
    assert all(read(tmp_path, name).is_empty() for name in ("curves", "per_sample", "per_sample_layers"))
    assert read(tmp_path, "cells").select("n", "n_ok", "n_out_of_memory").unique().rows() == [(25, 0, 25)]
    page = drawn(tmp_path, "d", "e", formats=("vl.json", "svg"))
    placeholders = listed(tmp_path, "d")
    assert {figure["kind"] for figure in placeholders} == {"unusable"} and len(placeholders) == 4
    for figure in placeholders:
        stated = " ".join([figure["title"], figure["caption"]])
        assert "No usable sample among 50" in stated and "Detailed 25 of 25 (25 out of memory)" in stated
        assert all(line in page for line in (figure["title"], *figure["subtitle"]))
    assert list((tmp_path / "figures/e").glob("*.vl.json"))
    assert page.count('<span class="badge">no usable sample</span>') == len(placeholders)
    assert "None 0, Detailed 0" in (tmp_path / "scope.md").read_text()
    assert set(pl.read_csv(tmp_path / "mad.csv")["dataset"]) == {"e"}
    folders = [tmp_path / "statistics" / name for name in ("d", "e")]
    named = settings(datasets=[{"key": name, "title": name} for name in ("d", "e")])
    done = call(
        "draw_overview", "--statistics", *folders, *named, "--formats", "vl.json", "--output", tmp_path / "figures/all"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("status", ["ok", "no_response_tokens"])
def test_the_figure_in_place_of_curves_counts_what_became_of_the_samples(tmp_path, status):
    # The first: measured, and not finite in one layer of V.
    spoilt = dict.fromkeys(range(25), math.nan)
    assert summarise(tmp_path, gradients(tmp_path, "m", status=status, spoilt=spoilt)).returncode == 0
    assert read(tmp_path, "cells").select("n", "n_ok").unique().rows() == [(25, 0)]
    assert "m.correct.unusable.vl.json" in drawn(tmp_path, "d")
    chart = json.loads((tmp_path / "figures/d/m.correct.unusable.vl.json").read_text())
    alt.ConcatChart.from_dict(chart)  # Checked against the schema.
    (bars,) = chart["datasets"].values()
    reason = {"ok": "not finite", "no_response_tokens": "no response tokens"}[status]
    assert {(bar["variant"], bar["reason"], bar["samples"]) for bar in bars} == {
        (variant, reason, 25) for variant in ("None", "Detailed")
    }


def test_a_relation_without_a_usable_sample_has_its_figure_beside_the_others(tmp_path):
    samples, spectra = gradients(tmp_path, "m")
    lost = pl.col("relation") == "derangement"
    facts = read_metadata(samples)
    status = pl.when(lost).then(pl.lit("out_of_memory")).otherwise("status").alias("status")
    frame = pl.from_arrow(read_table(SAMPLES, samples)).with_columns(status)
    write_table(SAMPLES, frame.to_dicts(), samples, {key: facts[key] for key in facts if key != "table"})
    frame = pl.from_arrow(read_table(SPECTRA, spectra)).filter(~lost)
    write_table(SPECTRA, frame.to_dicts(), spectra, {key: facts[key] for key in facts if key != "table"})
    assert summarise(tmp_path, (samples, spectra)).returncode == 0
    drawn(tmp_path, "d")
    kinds = {(figure["relation"], figure["kind"]) for figure in listed(tmp_path, "d")}
    assert ("derangement", "unusable") in kinds and ("correct", "panels") in kinds
    assert ("correct", "unusable") not in kinds and ("derangement", "panels") not in kinds


def test_a_model_that_lacks_a_dataset(tmp_path):
    small = {"variants": ("none",), "relations": ("correct",)}
    tables = [gradients(tmp_path, name, **small) for name in ("one", "two")]
    assert summarise(tmp_path, *tables).returncode == 0
    assert summarise(tmp_path, gradients(tmp_path, "one", "e", **small), dataset="e").returncode == 0
    page = drawn(tmp_path, "d", "e")
    assert (tmp_path / "figures/d/two.correct.panels.vl.json").is_file()
    assert not (tmp_path / "figures/e/two.correct.panels.vl.json").is_file() and "two" in page


def test_a_variant_without_a_usable_sample_is_named(tmp_path):
    samples, spectra = gradients(tmp_path, "m")
    lost = pl.col("variant") == "detailed"
    status = pl.when(lost).then(pl.lit("out_of_memory")).otherwise("status").alias("status")
    for table, path, change in ((SAMPLES, samples, [status]), (SPECTRA, spectra, None)):
        facts = read_metadata(path)
        frame = pl.from_arrow(read_table(table, path))
        frame = frame.with_columns(change) if change else frame.filter(~lost)
        write_table(table, frame.to_dicts(), path, {key: facts[key] for key in facts if key != "table"})
    assert summarise(tmp_path, (samples, spectra)).returncode == 0
    drawn(tmp_path, "d")
    figures = listed(tmp_path, "d")
    assert "panels" in {figure["kind"] for figure in figures}
    for figure in figures:
        stated = figure["caption"]
        assert "No usable sample: " in stated and "etailed 25 of 25 (25 out of memory)" in stated, figure["kind"]


def test_a_dataset_without_none(tmp_path):
    assert summarise(tmp_path, gradients(tmp_path, "m", variants=("detailed",))).returncode == 0
    assert read(tmp_path, "mad")["variant"].unique().to_list() == ["detailed"]
    drawn(tmp_path, "d")


def test_a_relation_without_its_correct_responses_has_curves_and_no_difference(tmp_path):
    assert summarise(tmp_path, gradients(tmp_path, "m", relations=("derangement",))).returncode == 0
    assert read(tmp_path, "rd").is_empty() and read(tmp_path, "rd_layers").is_empty()
    assert read(tmp_path, "curves").height
    drawn(tmp_path, "d")


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_few_layers(tmp_path, layers):
    assert summarise(tmp_path, gradients(tmp_path, "m", layers=layers)).returncode == 0
    mad = read(tmp_path, "mad")
    # One layer has no neighbours: no row, and not one without a number.
    assert mad["segment"].unique().to_list() == (["all"] if layers > 1 else [])
    assert mad.select(pl.col("value", "corrected", "low", "high").is_finite().all()).row(0) == (True,) * 4
    assert read(tmp_path, "rd").select(pl.col("value", "low", "high").is_finite().all()).row(0) == (True,) * 3
    drawn(tmp_path, "d")
    csv = pl.read_csv(tmp_path / "mad.csv", infer_schema=False)
    assert csv.height == mad.height and csv["value"].null_count() == 0


def test_values_that_are_not_finite_are_counted_and_left_out_of_all_projections(tmp_path):
    spoilt = {3: math.nan, 5: math.inf, 9: -math.inf}
    assert summarise(tmp_path, gradients(tmp_path, "m", spoilt=spoilt)).returncode == 0
    cells = read(tmp_path, "cells")
    assert cells.select("n", "n_ok", "n_nonfinite").unique().rows() == [(25, 22, 3)]
    for name in ("curves", "mad", "rd", "rd_layers"):
        table = read(tmp_path, name)
        assert table["n"].unique().to_list() == [22]
        assert table.filter(pl.col("segment") == "all" if name == "mad" else True)["value"].is_finite().all()
    assert not set(read(tmp_path, "per_sample")["sample_id"]) & {"3", "5", "9"}
    drawn(tmp_path, "d")
    for figure in listed(tmp_path, "d"):
        stated = figure["caption"]
        assert "3 of 25 (3 not finite)" in stated and "None where" not in stated, figure["kind"]


def test_a_handful_of_samples_has_values_and_no_intervals(tmp_path):
    assert summarise(tmp_path, gradients(tmp_path, "m", count=3)).returncode == 0
    curves = read(tmp_path, "curves")
    assert curves["value"].is_finite().all() and curves["low"].is_nan().all()
    drawn(tmp_path, "d")
