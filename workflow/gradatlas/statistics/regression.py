"""Regression of the size of a gradient on loss and length: least squares of log nuclear norm.

For each model, log nuclear norm = intercept + a log loss + b log response tokens, over the correct responses of all
variants, of one dataset or of all; and the mean residual of each variant. The norm is a sample's mean over layers, of
one projection or of all. A difference between variants that is not in the residuals is explained by loss and length.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gradatlas.core.command import progress
from gradatlas.core.files import write_text
from gradatlas.core.spreadsheets import csv_of
from gradatlas.core.tables import read_table, write_table
from gradatlas.statistics.bootstrap import TAILS, resampled
from gradatlas.statistics.cells import REFERENCE
from gradatlas.statistics.intervals import FEWEST
from gradatlas.statistics.tables import PER_SAMPLE, REGRESSION

#: In the columns `dataset` and `projection`: all of them.
ALL = "all"
TERMS = ("intercept", "log_loss", "log_tokens")
_COLUMNS = ("model", "dataset", "variant", "relation", "loss_tokens", "sample_id", "projection")
_NUMBERS = ("loss", "response_tokens", "nuclear_norm")


def regress(statistics: Sequence[str], output: str, csv: str, draws: int, seed: int) -> None:
    """Write the regression table of all datasets' `statistics` folders, as Parquet and CSV.

    Intervals are 95 % percentile bootstraps with `draws` resamples of questions: the variants of a question are drawn
    together. Samples without a positive loss and length are left out; `n` counts the others.
    """
    frame = pl.concat([_read(Path(folder) / "per_sample.parquet") for folder in statistics])
    rows: list[dict[str, Any]] = []
    for model in frame["model"].unique().sort():
        of_model = frame.filter(pl.col("model") == model)
        datasets = of_model["dataset"].unique().sort().to_list()
        for dataset in [ALL, *datasets]:
            part = of_model if dataset == ALL else of_model.filter(pl.col("dataset") == dataset)
            purpose = ", ".join(part["purpose"].unique().sort())
            about = {"model": model, "dataset": dataset, "purpose": purpose}
            rows += [{**about, **row} for row in _of_part(part, draws, seed, f"regression {model} {dataset}")]
        progress(f"{model}: {len(datasets)} datasets")
    write_table(REGRESSION, rows, output, {"draws": draws, "seed": seed})
    write_text(csv, csv_of(pl.from_arrow(read_table(REGRESSION, output))))


def _read(path: Path) -> pl.DataFrame:
    """One row per correct response, with lists of projections and of their mean nuclear norms."""
    frame = pl.from_arrow(read_table(PER_SAMPLE, path, [*_COLUMNS, *_NUMBERS, "purpose"]))
    frame = frame.filter((pl.col("relation") == REFERENCE) & (pl.col("loss_tokens") == "all"))
    keys = ["model", "dataset", "variant", "sample_id", "loss", "response_tokens", "purpose"]
    return frame.group_by(keys, maintain_order=True).agg("projection", "nuclear_norm")


def _of_part(part: pl.DataFrame, draws: int, seed: int, name: str) -> Iterator[dict[str, Any]]:
    norms = np.array(part["nuclear_norm"].to_list(), dtype=float).reshape(part.height, -1)
    projections = part["projection"][0].to_list()
    predictors = part.select("loss", "response_tokens").to_numpy().astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        x = np.log(predictors)
        y = np.log(np.column_stack([norms.mean(1), norms]))
    usable = np.isfinite(x).all(1) & np.isfinite(y).all(1)
    variants = part.filter(pl.Series(usable))["variant"].to_numpy().astype(str)
    questions = part.filter(pl.Series(usable)).select(pl.struct("dataset", "sample_id").rank("dense")).to_series()
    x, y, count = x[usable], y[usable], int(usable.sum())
    if not separable(x):
        return
    names = list(dict.fromkeys(part["variant"]))
    sums, shift = sums_of(x, y, variants, names, questions.to_numpy() - 1)
    plain = [total.mean(0, keepdims=True) for total in sums]
    drawn = resampled(sums, draws, seed, name)
    estimates = solve_least_squares([np.concatenate(pair) for pair in zip(plain, drawn, strict=True)], shift, names)
    enough = questions.n_unique() >= FEWEST
    for p, projection in enumerate([ALL, *projections]):
        for (term, variant), values in estimates.items():
            low, high = np.nanquantile(values[1:, p], TAILS) if enough else (np.nan, np.nan)
            n = int((variants == variant).sum()) if variant else count
            numbers = {"value": values[0, p], "low": low, "high": high, "n": n}
            yield {"projection": projection, "term": term, "variant": variant, **numbers}


def separable(x: np.ndarray) -> bool:
    """Whether the slopes of predictors (responses, k) are determined: each varies, and not only with the others."""
    count, k = x.shape
    return count > k + 1 and bool((np.ptp(x, axis=0) > 0).all()) and np.linalg.matrix_rank(x - x.mean(0)) == k


def sums_of(
    x: np.ndarray, y: np.ndarray, variants: np.ndarray, names: Sequence[str], questions: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray]:
    """The sums for least squares over each question's responses, (questions, ...), and the predictors' means.

    `x`: (responses, predictors). `y`: (responses, targets). `variants`: of the responses; residuals are for `names`.
    `questions`: each response's question, numbered from 0. A bootstrap draws the rows of the sums.
    """
    # Centred, so that the normal equations are well conditioned; `solve_least_squares` corrects the intercept.
    shift = x.mean(0)
    x = np.column_stack([np.ones(len(x)), x - shift])
    inside = np.column_stack([variants == name for name in names]).astype(float)
    columns = [
        (x[:, :, None] * x[:, None, :]),
        x[:, :, None] * y[:, None, :],
        y,
        y**2,
        inside,
        inside[:, :, None] * x[:, None, :],
        inside[:, :, None] * y[:, None, :],
    ]
    return [_by_question(column, questions) for column in columns], shift


def _by_question(values: np.ndarray, questions: np.ndarray) -> np.ndarray:
    total = np.zeros((questions.max() + 1, *values.shape[1:]))
    np.add.at(total, questions, values)
    return total


def solve_least_squares(
    sums: Sequence[np.ndarray], shift: np.ndarray, variants: Sequence[str], terms: Sequence[str] = TERMS
) -> dict[tuple[str, str | None], np.ndarray]:
    """Coefficients, R2 (`r2`) and mean residuals (of each variant), (1 + draws, targets), from the resamples' sums."""
    xx, xy, y, yy, inside, inside_x, inside_y = sums
    beta = np.linalg.pinv(xx, hermitian=True) @ xy
    total = xx[:, 0, 0, None]
    left = yy - (beta * xy).sum(1)
    explained = 1 - left / (yy - y**2 / total)
    found = {("r2", None): explained}
    for i, term in enumerate(terms):
        found[term, None] = beta[:, i] if i else beta[:, 0] - np.einsum("k,bkp->bp", shift, beta[:, 1:])
    with np.errstate(divide="ignore", invalid="ignore"):
        residuals = (inside_y - np.einsum("bvk,bkp->bvp", inside_x, beta)) / inside[:, :, None]
    return found | {("residual", variant): residuals[:, v] for v, variant in enumerate(variants)}
