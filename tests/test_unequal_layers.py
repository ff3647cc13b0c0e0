"""A model whose layers differ in shape, two of which use another's keys, from the pass to the statistics."""

import math

import numpy as np
import polars as pl
import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from conftest import call
from gradatlas.core.tables import read_metadata, write_table
from gradatlas.figures.heatmaps import curve_steps
from gradatlas.figures.tables import blocks
from gradatlas.gradients.capture import Factors
from gradatlas.gradients.tables import SPECTRA
from gradatlas.kernels.one_step import inner_products
from gradatlas.statistics import shapes as of_shapes
from gradatlas.statistics.cells import read_cells
from gradatlas.statistics.measures import mean_absolute_difference

SLIDING, FULL = "sliding_attention", "full_attention"
TYPES = [SLIDING, SLIDING, FULL, FULL, SLIDING, FULL]
# Rows of q by layer, and the neighbours that are alike.
ROWS = [24, 24, 40, 40, 24, 40]
STEPS = {"q": [0, 2], "k": [0, 2], "v": [0, 2], "o": [0, 2]}


@pytest.fixture(scope="module")
def measured(miniature, responses, tmp_path_factory):
    """The folder of a job's tables with all extras, and of the statistics of them; and its log."""
    folder = tmp_path_factory.mktemp("unequal")
    tokenizer = AutoTokenizer.from_pretrained(miniature)
    torch.manual_seed(0)
    config = transformers.Gemma4TextConfig(
        vocab_size=len(tokenizer), hidden_size=24, intermediate_size=40, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=2, head_dim=6, global_head_dim=10, sliding_window=5, layer_types=TYPES,
        num_kv_shared_layers=2, vocab_size_per_layer_input=len(tokenizer), hidden_size_per_layer_input=8,
        max_position_embeddings=256,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    done = call(
        "measure_gradients", "--model", folder / "model", "--responses", responses, "--limit", 6, "--journal",
        folder / "journal", "--tokens-first", 1,
        *(each for name in ("samples", "spectra", "singular-values", "cosines", "tokens")
          for each in (f"--{name}", folder / f"{name}.parquet")),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summarised = call(
        "summarise_gradients", "--dataset", "mini_arithmetic", "--samples", folder / "samples.parquet", "--spectra",
        folder / "spectra.parquet", "--output", folder / "statistics", "--settings.draws", 50,
    )  # fmt: skip
    assert summarised.returncode == 0, summarised.stderr
    return folder, done.stderr


def table(folder, name):
    return pl.read_parquet(folder / f"{name}.parquet")


def test_the_job_says_what_differs_and_shapes_are_in_the_metadata(measured):
    folder, log = measured
    assert "no matrix of their own: k in layers 4, 5; v in layers 4, 5" in log
    assert "layers differ in shape: q 24x24, 40x24; k 12x24, 20x24; v 12x24, 20x24; o 24x24, 24x40" in log
    shapes = read_metadata(folder / "spectra.parquet")["matrix_shapes"]
    assert [shape[0] for shape in shapes["q"]] == ROWS and shapes["k"][3:] == [[20, 24], None, None]


def test_spectra_have_a_row_for_every_layer_empty_where_there_is_no_matrix(measured):
    folder, _ = measured
    spectra = table(folder, "spectra")
    rows = table(folder, "samples").height
    assert spectra.height == rows * 6 * 4
    empty = pl.col("projection").is_in(["k", "v"]) & (pl.col("layer") >= 4)
    numbers = ["nuclear_norm", "nuclear_norm_scaled", "sigma_max", "frobenius_norm", "mean", "effective_rank"]
    assert spectra.filter(empty).select(numbers).null_count().row(0) == (rows * 4,) * len(numbers)
    assert spectra.filter(~empty).select(numbers).null_count().row(0) == (0,) * len(numbers)
    # q has 24 columns in all layers: the smaller dimension is 24, of k 12 and 20.
    for projection, layer, least in (("q", 2, 24), ("k", 0, 12), ("k", 2, 20)):
        part = spectra.filter((pl.col("projection") == projection) & (pl.col("layer") == layer))
        ratio = (part["nuclear_norm"] / part["nuclear_norm_scaled"]).to_numpy()
        assert np.allclose(ratio, math.sqrt(least), rtol=1e-12)


def test_extras_agree_with_spectra_layer_by_layer(measured):
    folder, _ = measured
    key = ["sample_id", "variant", "relation", "layer", "projection"]
    joined = table(folder, "singular-values").join(table(folder, "spectra"), on=key)
    assert joined.height == table(folder, "spectra").height
    sums = joined["singular_values"].list.sum().to_numpy()
    assert np.allclose(sums, joined["nuclear_norm"].fill_null(0).to_numpy(), rtol=1e-12)
    cosines = table(folder, "cosines").filter(pl.col("kind") == "adjacent_layers")
    for name, taken in STEPS.items():
        known = cosines.filter((pl.col("pair") == name) & pl.col("cosine").is_not_null())
        assert sorted(known["layer"].unique()) == taken
    tokens = table(folder, "tokens").group_by("projection", "layer").agg(pl.col("term_norm").null_count() == pl.len())
    missing = tokens.filter(pl.col("term_norm")).select("projection", "layer").sort("projection", "layer").rows()
    assert missing == [("k", 4), ("k", 5), ("v", 4), ("v", 5)]


def test_a_second_run_takes_all_from_the_journal(measured, responses):
    folder, _ = measured
    again = call(
        "measure_gradients", "--model", folder / "model", "--responses", responses, "--limit", 6, "--journal",
        folder / "journal", "--tokens-first", 1,
        *(each for name in ("samples", "spectra", "singular-values", "cosines", "tokens")
          for each in (f"--{name}", folder / f"again-{name}.parquet")),
    )  # fmt: skip
    assert again.returncode == 0 and "0 computed" in again.stderr
    for name in ("spectra", "cosines", "tokens"):
        assert (folder / f"again-{name}.parquet").read_bytes() == (folder / f"{name}.parquet").read_bytes()


def test_statistics_compare_neighbours_of_one_shape(measured):
    folder, _ = measured
    _, cells = read_cells("mini_arithmetic", str(folder / "samples.parquet"), str(folder / "spectra.parquet"))
    spectra = table(folder, "spectra")
    curves, mad = table(folder / "statistics", "curves"), table(folder / "statistics", "mad")
    for cell in cells:
        about = (pl.col("variant") == cell.variant) & (pl.col("relation") == cell.relation)
        assert len(cell.sample_ids) == 6
        for name, taken in STEPS.items():
            here = about & (pl.col("projection") == name)
            means = spectra.filter(here).group_by("layer", maintain_order=True).agg(pl.mean("nuclear_norm_scaled"))
            curve = means["nuclear_norm_scaled"]
            drawn = curves.filter(here & (pl.col("statistic") == "nuclear_norm"))
            assert drawn["layer"].to_list() == list(range(4 if name in "kv" else 6))
            assert np.allclose(drawn["value"], curve.drop_nulls(), rtol=1e-12)
            whole = mad.filter(here & (pl.col("statistic") == "nuclear_norm") & (pl.col("segment") == "all"))
            expected = np.mean([abs(curve[layer + 1] - curve[layer]) for layer in taken])
            assert whole["value"].item() == pytest.approx(expected, rel=1e-12)
            assert whole["low"].item() <= whole["corrected"].item() <= whole["high"].item()
            # Layers 4 and 5 are unlike: the last segment has no step.
            assert "last" not in mad.filter(here)["segment"].to_list()
            steps = curve_steps(
                curves.filter(here & (pl.col("statistic") == "nuclear_norm")),
                of_shapes.read_shapes([folder / "statistics"])["model"],
            )
            assert steps["layer"].to_list() == taken
    rd = table(folder / "statistics", "rd_layers")
    assert set(rd.filter(pl.col("projection") == "k")["layer"]) == {0, 1, 2, 3}
    summary = table(folder / "statistics", "rd")
    assert summary.height and summary.filter(pl.col("statistic") == "nuclear_norm")["value"].is_finite().all()
    per_sample = table(folder / "statistics", "per_sample")
    assert per_sample["nuclear_norm"].is_finite().all()


def test_figures_and_tables_say_so(measured):
    folder, _ = measured
    known = of_shapes.read_shapes([folder / "statistics"])
    (line,) = of_shapes.sentence(known["model"])
    assert "q 24×24, 40×24" in line and "no k, v of their own" in line and "neighbouring layers of one shape" in line
    assert of_shapes.sentence({"q": [[4, 4]] * 3}) == of_shapes.sentence(None) == []
    (alternating,) = of_shapes.sentence({"q": [[4, 4], [8, 4]] * 2, "k": [[4, 4]] * 4})
    assert "No two neighbouring layers of q have one shape: no MAD" in alternating
    mad = pl.read_parquet(folder / "statistics" / "mad.parquet").with_columns(published=pl.lit(None, pl.String))
    assert all(line in block.notes for block in blocks(mad, "mad", shapes=known))
    assert not any(line in block.notes for block in blocks(mad, "mad"))


def test_mad_over_some_steps():
    curves = np.array([[1.0, 4.0, 2.0, 9.0], [1.0, 2.0, 4.0, np.nan]])
    taken = np.array([[True, False, True], [True, True, False]])
    assert mean_absolute_difference(curves, taken).tolist() == [5.0, 1.5]
    assert np.isnan(mean_absolute_difference(curves, np.zeros((2, 3), dtype=bool))).all()


def test_a_value_that_is_not_finite_still_leaves_a_sample_out(measured, tmp_path):
    """NaN in a layer that has a matrix is not taken for a missing one."""
    folder, _ = measured
    spectra = table(folder, "spectra")
    first = spectra.row(0, named=True)
    here = (pl.int_range(pl.len()) == spectra["projection"].to_list().index("k")) & (pl.col("layer") == 0)
    broken = spectra.with_columns(pl.when(here).then(math.nan).otherwise("sigma_max").alias("sigma_max"))
    path = tmp_path / "spectra.parquet"
    write_table(SPECTRA, broken.to_arrow(), path, read_metadata(folder / "spectra.parquet"))
    frame, _ = read_cells("mini_arithmetic", str(folder / "samples.parquet"), str(path))
    assert frame.filter(pl.col("status") == "nonfinite")["sample_id"].to_list() == [first["sample_id"]]


def test_inner_products_over_unequal_layers():
    generator = torch.Generator().manual_seed(0)

    def factors():
        sizes = [(5, 4), None, (3, 6)]
        x, d = (
            tuple(size and torch.randn(7, size[side], generator=generator).double() for size in sizes)
            for side in (1, 0)
        )
        return {"k": Factors(x, d)}

    one, other = factors(), factors()
    pairs = zip(one["k"].pairs(), other["k"].pairs(), strict=True)
    expected = sum(float(((d.T @ x) * (e.T @ y)).sum()) for (x, d), (y, e) in pairs)
    assert inner_products(one, other) == pytest.approx(expected, rel=1e-12)
