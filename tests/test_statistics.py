"""Statistics on hand-computed cases and against the reference's formulas written out plainly in numpy."""

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from conftest import call, user_error

from workflow.lib.checked import parquet_writer
from workflow.lib.statistics.bootstrap import interval, resampled_means
from workflow.lib.statistics.measures import mean_absolute_difference, relative_difference, segments, top_layers
from workflow.lib.tables import read_table, write_table

LAYERS, PROJECTIONS, SAMPLES = 8, ("q", "k", "v", "o"), 20


def test_mad_by_hand():
    assert mean_absolute_difference(np.array([1.0, 4.0, 2.0])) == 2.5
    assert mean_absolute_difference(np.array([[1.0, 4.0], [3.0, 3.0]])).tolist() == [3.0, 0.0]
    assert np.isnan(mean_absolute_difference(np.array([1.0])))


def test_rd_by_hand():
    signed = relative_difference(np.array([2.0, 4.0, 0.0]), np.array([3.0, 1.0, 5.0]))
    assert signed[:2].tolist() == [0.5, -0.75] and np.isnan(signed[2])
    assert top_layers(np.array([0.5, -0.75, np.nan, 0.1]), 2) == [1, 0]


@pytest.mark.parametrize(
    ("layers", "cuts"),
    [(26, (7, 20)), (28, (7, 21)), (32, (10, 20)), (42, (12, 30)), (24, (6, 18)), (6, (2, 4)), (4, (1, 3))],
)
def test_segments_cover_all_layers(layers, cuts):
    found = segments(layers)
    assert found == {"early": (0, cuts[0]), "middle": cuts, "last": (cuts[1], layers), "all": (0, layers)}


def test_too_few_layers_have_no_segments():
    assert segments(3) == {"all": (0, 3)}
    assert segments(1) == {"all": (0, 1)}


def test_bootstrap_is_seeded_and_paired():
    values = np.random.default_rng(0).normal(size=(50, 2, 3))
    means = resampled_means(values, 200, 1, "cell")
    assert np.allclose(means[0], values.mean(0))
    assert np.array_equal(means, resampled_means(values, 200, 1, "cell"))
    assert not np.array_equal(means[1:], resampled_means(values, 200, 1, "other")[1:])
    # The same samples are drawn for every projection and layer: a constant shift stays constant.
    shifted = resampled_means(np.stack([values[:, 0], values[:, 0] + 1], 1), 200, 1, "cell")
    assert np.allclose(shifted[:, 1] - shifted[:, 0], 1)


def test_interval_of_a_mean_covers_at_its_level():
    generator = np.random.default_rng(0)
    hits = 0
    for run in range(400):
        _, low, high = interval(resampled_means(generator.normal(size=(80, 1)), 300, run, "x"))
        hits += bool(low[0] <= 0 <= high[0])
    assert 0.91 <= hits / 400 <= 0.98


def tables(folder, name="m", scale=2.0, spoil=None, layers=LAYERS):
    """Synthetic samples and spectra of one model: two relations, known curves; returns paths and the arrays."""
    generator = np.random.default_rng(3)
    samples, spectra, arrays = [], [], {}
    for relation, factor in (("correct", 1.0), ("derangement", scale)):
        norms = factor * generator.gamma(4.0, size=(SAMPLES, layers, len(PROJECTIONS)))
        arrays[relation] = norms
        for i in range(SAMPLES):
            key = {
                "model": name,
                "dataset": "d",
                "sample_id": str(i),
                "variant": "none",
                "relation": relation,
                "loss_tokens": "all",
            }
            samples.append(
                {**key, "loss": 1.0, "prompt_tokens": 3, "response_tokens": 2, "truncated": False, "status": "ok"}
            )
            for layer in range(layers):
                for p, projection in enumerate(PROJECTIONS):
                    values = dict.fromkeys(("sigma_min", "frobenius_norm", "mean", "max", "min", "effective_rank"), 1.0)
                    norm = norms[i, layer, p]
                    values |= {"nuclear_norm": norm, "sigma_max": norm * (i + 1) / 100}
                    spectra.append({**key, "layer": layer, "projection": projection, **values})
    if spoil:
        spoil(samples, spectra, arrays)
    facts = {"model": name, "model_digest": "x", "revision": "", "dtype": "float32", "compat": "none", "max_length": 9}
    paths = folder / f"{name}.samples.parquet", folder / f"{name}.spectra.parquet"
    write_table("samples", samples, paths[0], facts | {"purpose": "study"})
    write_table("spectra", spectra, paths[1], facts)
    return paths, arrays


def summarise(folder, *paths, dataset="d"):
    samples, spectra = zip(*paths, strict=True)
    return call(
        "summarise_gradients", "--dataset", dataset, "--samples", *samples, "--spectra", *spectra,
        "--draws", 50, "--seed", 0, "--output", folder / "out",
    )  # fmt: skip


def read(folder, name):
    return pl.read_parquet(folder / "out" / f"{name}.parquet")


def test_tables_equal_the_reference_formulas(tmp_path):
    paths, arrays = tables(tmp_path)
    assert summarise(tmp_path, paths).returncode == 0
    mean = {relation: norms.mean(0) for relation, norms in arrays.items()}
    curves = read(tmp_path, "curves").filter(
        (pl.col("statistic") == "nuclear_norm") & (pl.col("relation") == "correct")
    )
    found = curves.sort("layer").pivot(on="projection", index="layer", values="value").select(PROJECTIONS).to_numpy()
    assert np.allclose(found, mean["correct"])
    assert ((curves["low"] <= curves["value"]) & (curves["value"] <= curves["high"])).all()
    # The ratio is a mean of per-sample ratios.
    ratio = read(tmp_path, "curves").filter(pl.col("statistic") == "sigma_ratio")["value"]
    assert np.allclose(ratio, np.mean(np.arange(1, SAMPLES + 1) / 100))
    mad = read(tmp_path, "mad").filter((pl.col("statistic") == "nuclear_norm") & (pl.col("relation") == "correct"))
    for segment, (first, end) in segments(LAYERS).items():
        for p, projection in enumerate(PROJECTIONS):
            curve = mean["correct"][first:end, p]
            plain = sum(abs(curve[i + 1] - curve[i]) for i in range(len(curve) - 1)) / (len(curve) - 1)
            row = mad.filter((pl.col("segment") == segment) & (pl.col("projection") == projection))
            assert row["value"].item() == pytest.approx(plain)
    rd = read(tmp_path, "rd").filter(pl.col("statistic") == "nuclear_norm")
    for p, projection in enumerate(PROJECTIONS):
        one, two = mean["correct"][:, p], mean["derangement"][:, p]
        plain = np.mean([abs(a - b) / abs(a) for a, b in zip(one, two, strict=True)])
        rows = rd.filter(pl.col("projection") == projection)
        assert rows.filter(pl.col("measure") == "absolute")["value"].item() == pytest.approx(plain)
        assert rows.filter(pl.col("measure") == "signed")["value"].item() == pytest.approx(np.mean((two - one) / one))
        top = np.argsort(-np.abs((two - one) / one))[:5].tolist()
        assert rows["top_layers"].to_list() == [top, top]


def test_each_sample_by_layer_and_as_the_mean_of_its_layers(tmp_path):
    paths, arrays = tables(tmp_path)
    assert summarise(tmp_path, paths).returncode == 0
    layers, means = (read(tmp_path, name).to_dicts() for name in ("per_sample_layers", "per_sample"))
    assert len(layers) == len(means) == 2 * SAMPLES * len(PROJECTIONS)
    for row, mean in zip(layers, means, strict=True):
        lists = {name: row.pop(name) for name in ("nuclear_norm", "sigma_ratio", "effective_rank")}
        norms = arrays[row["relation"]][int(row["sample_id"]), :, PROJECTIONS.index(row["projection"])]
        assert lists["nuclear_norm"] == pytest.approx(norms, rel=1e-6)
        assert lists["sigma_ratio"] == pytest.approx([(int(row["sample_id"]) + 1) / 100] * LAYERS, rel=1e-6)
        for name, values in lists.items():
            assert mean.pop(name) == pytest.approx(plain_mean(values), rel=1e-6)
        assert row == mean


# The study's four cuts, as its code writes them.
PAPER_SEGMENTS = {
    26: {"early": (0, 7), "middle": (7, 20), "last": (20, 26), "all": (0, 26)},
    28: {"early": (0, 7), "middle": (7, 21), "last": (21, 28), "all": (0, 28)},
    32: {"early": (0, 10), "middle": (10, 20), "last": (20, 32), "all": (0, 32)},
    42: {"early": (0, 12), "middle": (12, 30), "last": (30, 42), "all": (0, 42)},
}


def plain_mean(numbers):
    numbers = list(numbers)
    return sum(numbers) / len(numbers)


def plain_mad(curve):
    return plain_mean(abs(curve[i + 1] - curve[i]) for i in range(len(curve) - 1))


@pytest.mark.parametrize("layers", PAPER_SEGMENTS)
def test_every_number_of_the_tables_by_plain_loops(tmp_path, layers):
    """All statistics, projections, relations, segments and layers, without numpy, as the paper has the formulas."""
    paths, arrays = tables(tmp_path, scale=0.7, layers=layers)
    assert summarise(tmp_path, paths).returncode == 0
    per_sample = {
        "nuclear_norm": lambda norm, i: norm,
        "sigma_ratio": lambda norm, i: (norm * (i + 1) / 100) / norm,
        "effective_rank": lambda norm, i: 1.0,
    }
    mad, rd, rd_layers = (
        {tuple(row[key] for key in keys): row for row in read(tmp_path, name).to_dicts()}
        for name, keys in (
            ("mad", ("relation", "statistic", "projection", "segment")),
            ("rd", ("statistic", "projection", "measure")),
            ("rd_layers", ("statistic", "projection", "layer")),
        )
    )
    for statistic, of in per_sample.items():
        for p, projection in enumerate(PROJECTIONS):
            curves = {
                relation: [
                    plain_mean(of(float(norms[i, layer, p]), i) for i in range(SAMPLES)) for layer in range(layers)
                ]
                for relation, norms in arrays.items()
            }
            for relation, curve in curves.items():
                for segment, (first, end) in PAPER_SEGMENTS[layers].items():
                    row = mad[relation, statistic, projection, segment]
                    assert row["value"] == pytest.approx(plain_mad(curve[first:end]), abs=1e-12)
                    assert row["layers"] == f"{first}-{end - 1}"
            pairs = zip(curves["correct"], curves["derangement"], strict=True)
            differences = [(other - reference) / reference for reference, other in pairs]
            for layer, difference in enumerate(differences):
                assert rd_layers[statistic, projection, layer]["value"] == pytest.approx(difference, abs=1e-12)
            signed, absolute = (rd[statistic, projection, measure] for measure in ("signed", "absolute"))
            assert signed["value"] == pytest.approx(plain_mean(differences), abs=1e-12)
            assert absolute["value"] == pytest.approx(plain_mean(map(abs, differences)), abs=1e-12)
            if statistic == "nuclear_norm":
                top = sorted(range(layers), key=lambda layer: -abs(differences[layer]))[:5]
                assert signed["top_layers"] == absolute["top_layers"] == top


def test_two_samples_of_three_layers_by_hand(tmp_path):
    """Q of two samples: correct (1, 2, 4) and (3, 2, 0), wrong (2, 3, 1) and (2, 5, 1)."""
    by_hand = {"correct": [[1, 2, 4], [3, 2, 0]], "derangement": [[2, 3, 1], [2, 5, 1]]}

    def spoil(samples, spectra, arrays):
        samples[:] = [row for row in samples if row["sample_id"] in "01"]
        spectra[:] = [row for row in spectra if row["sample_id"] in "01" and row["projection"] == "q"]
        for row in spectra:
            norm = by_hand[row["relation"]][int(row["sample_id"])][row["layer"]]
            row |= {"nuclear_norm": norm, "sigma_max": norm}

    # A norm of zero has no sigma ratio, and its sample would not be usable.
    by_hand["correct"][1][2] = 1e-300
    paths, _ = tables(tmp_path, spoil=spoil, layers=3)
    assert summarise(tmp_path, paths).returncode == 0
    norms = pl.col("statistic") == "nuclear_norm"
    curves = read(tmp_path, "curves").filter(norms).sort("relation", "layer")["value"].to_list()
    assert curves == pytest.approx([2, 2, 2, 2, 4, 1])
    mad = read(tmp_path, "mad").filter(norms).sort("relation")["value"].to_list()
    assert mad == pytest.approx([0, 2.5])
    rd = read(tmp_path, "rd").filter(norms)
    # (0 + 1 - 1/2) / 3 and (0 + 1 + 1/2) / 3; layer 1 differs most.
    assert rd.sort("measure")["value"].to_list() == pytest.approx([0.5, 1 / 6])
    assert rd["top_layers"].to_list() == [[1, 2, 0], [1, 2, 0]]


def test_a_sample_that_is_not_finite_is_left_out_of_all_projections_alike(tmp_path):
    def spoil(samples, spectra, arrays):
        spectra[5]["nuclear_norm"] = float("nan")
        arrays["correct"] = arrays["correct"][1:]

    paths, arrays = tables(tmp_path, spoil=spoil)
    assert summarise(tmp_path, paths).returncode == 0
    curves = read(tmp_path, "curves").filter(
        (pl.col("statistic") == "nuclear_norm") & (pl.col("relation") == "correct")
    )
    assert curves["n"].unique().to_list() == [SAMPLES - 1]
    assert curves["value"].mean() == pytest.approx(arrays["correct"].mean())
    # A difference is taken on the samples that both relations have.
    assert read(tmp_path, "rd")["n"].unique().to_list() == [SAMPLES - 1]
    cells = read(tmp_path, "cells").filter(pl.col("relation") == "correct")
    assert cells.select("n", "n_ok", "n_nonfinite").row(0) == (SAMPLES, SAMPLES - 1, 1)


def test_a_model_more_leaves_the_others_numbers_as_they_are(tmp_path):
    one, _ = tables(tmp_path, "one")
    two, _ = tables(tmp_path, "two", scale=3.0)
    assert summarise(tmp_path, one).returncode == 0
    alone = read(tmp_path, "mad")
    assert summarise(tmp_path, one, two).returncode == 0
    assert read(tmp_path, "mad").filter(pl.col("model") == "one").equals(alone)


def test_another_datasets_table_is_an_error(tmp_path):
    paths, _ = tables(tmp_path)
    assert "holds dataset 'd', not 'e'" in user_error(summarise(tmp_path, paths, dataset="e"))


def test_a_table_without_a_column_is_an_error(tmp_path):
    paths, _ = tables(tmp_path)
    table = read_table("spectra", paths[1]).drop_columns(["nuclear_norm"])
    with parquet_writer(paths[1], table.schema) as writer:
        writer.write_table(table)
    assert "column 'nuclear_norm' is missing" in user_error(summarise(tmp_path, paths))
    with parquet_writer(paths[0], pa.schema([("a", pa.int64())])):
        pass
    assert "is missing" in user_error(summarise(tmp_path, paths))
    paths[0].write_bytes(b"PAR1 cut")
    assert "samples.parquet: has no checksum" in user_error(summarise(tmp_path, paths))
