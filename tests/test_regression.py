"""The regression of gradient size on loss and length, against numpy's least squares and data made to order."""

import numpy as np
import polars as pl
import pytest

from conftest import call
from gradatlas.core.tables import write_table
from gradatlas.statistics.tables import PER_SAMPLE

VARIANTS = {"none": 0.0, "simplified": 0.2, "detailed": -0.1}
PROJECTIONS = ("q", "o")


def per_sample(folder, dataset="d", model="m", count=60, loss=0.8, tokens=-0.2, effect=1.0, noise=0.05, lengths=None):
    """Norms of exp(1 + loss log(loss) + tokens log t + effect of the variant + noise), the same of both projections."""
    generator = np.random.default_rng([count, len(dataset)])
    rows = []
    for v, (variant, shift) in enumerate(VARIANTS.items()):
        for i in range(count):
            size, t = np.exp(generator.normal()), int(generator.integers(2, 200)) if lengths is None else lengths
            norm = np.exp(1 + loss * np.log(size) + tokens * np.log(t) + effect * shift + noise * generator.normal())
            for p, projection in enumerate(PROJECTIONS):
                for relation in ("correct", "derangement"):
                    rows.append(
                        {
                            **{"model": model, "dataset": dataset, "variant": variant, "relation": relation},
                            **{"loss_tokens": "all", "sample_id": str(i), "projection": projection, "loss": size},
                            **{
                                "response_tokens": t,
                                "nuclear_norm": norm * (1 + p) * (9 if relation != "correct" else 1),
                            },
                            **{"sigma_ratio": 0.5, "effective_rank": 3.0 + v, "purpose": "study"},
                        }
                    )
    write_table(PER_SAMPLE, rows, folder / dataset / "per_sample.parquet", {})
    return folder / dataset


def regress(folder, *statistics):
    outputs = "--output", folder / "regression.parquet", "--csv", folder / "regression.csv"
    done = call(
        "regress_gradients", "--statistics", *statistics, "--settings.draws", 200, "--settings.seed", 0, *outputs
    )
    assert done.returncode == 0, done.stderr
    found = pl.read_parquet(folder / "regression.parquet")
    assert pl.read_csv(folder / "regression.csv").height == found.height
    return found


def plain(folder, projection, datasets):
    """Coefficients, R2 and mean residuals by numpy's least squares."""
    frame = pl.concat(pl.read_parquet(folder / name / "per_sample.parquet") for name in datasets)
    frame = frame.filter((pl.col("relation") == "correct") & (pl.col("projection") == projection))
    x = np.column_stack([np.ones(frame.height), frame["loss"].log(), frame["response_tokens"].log()])
    y = frame["nuclear_norm"].log().to_numpy()
    beta = np.linalg.lstsq(x, y)[0]
    left = y - x @ beta
    names = frame["variant"].to_numpy()
    residuals = {name: left[names == name].mean() for name in VARIANTS}
    return beta, 1 - left.var() / y.var(), residuals


def test_it_is_least_squares_for_each_dataset_and_all(tmp_path):
    folders = [per_sample(tmp_path, "d"), per_sample(tmp_path, "ee", count=40, loss=0.5)]
    found = regress(tmp_path, *folders)
    assert set(found["dataset"]) == {"all", "d", "ee"} and set(found["projection"]) == {"all", *PROJECTIONS}
    for dataset, datasets in (("all", ["d", "ee"]), ("d", ["d"]), ("ee", ["ee"])):
        rows = found.filter((pl.col("dataset") == dataset) & (pl.col("projection") == "o"))
        value = {(row["term"], row["variant"]): row["value"] for row in rows.to_dicts()}
        beta, explained, residuals = plain(tmp_path, "o", datasets)
        assert [value[t, None] for t in ("intercept", "log_loss", "log_tokens")] == pytest.approx(list(beta))
        assert value["r2", None] == pytest.approx(explained)
        for variant, residual in residuals.items():
            assert value["residual", variant] == pytest.approx(residual)
        assert rows.filter(pl.col("term") == "r2")["n"].item() == sum({"d": 180, "ee": 120}[name] for name in datasets)


def test_intervals_hold_the_numbers_that_the_data_were_made_with(tmp_path):
    found = regress(tmp_path, per_sample(tmp_path)).filter((pl.col("dataset") == "d") & (pl.col("projection") == "q"))
    rows = {(row["term"], row["variant"]): row for row in found.to_dicts()}
    centre = np.mean(list(VARIANTS.values()))
    truth = {("log_loss", None): 0.8, ("log_tokens", None): -0.2}
    truth |= {("residual", variant): shift - centre for variant, shift in VARIANTS.items()}
    for key, value in truth.items():
        assert rows[key]["low"] < rows[key]["value"] < rows[key]["high"]
        assert abs(rows[key]["value"] - value) < 2 * (rows[key]["high"] - rows[key]["low"]), key
    assert rows["residual", "simplified"]["low"] > 0 > rows["residual", "detailed"]["high"]


def test_without_an_effect_of_the_variant_nothing_is_left(tmp_path):
    found = regress(tmp_path, per_sample(tmp_path, effect=0.0)).filter(pl.col("term") == "residual")
    assert found["value"].abs().max() < 0.03


def test_lengths_that_do_not_vary_are_no_covariate(tmp_path):
    assert regress(tmp_path, per_sample(tmp_path, lengths=3)).is_empty()
