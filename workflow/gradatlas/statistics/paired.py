"""Gradients of the same samples side by side: of two models, or of two kinds of response to one model."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from gradatlas.statistics.bootstrap import interval, resampled_means
from gradatlas.study.shares import wilson

_KEYS = ["variant", "relation", "projection", "statistic", "layer"]


def ratios(partner: pl.DataFrame, own: pl.DataFrame) -> pl.DataFrame:
    """The mean curves of `own` as multiples of those of `partner`, where both have a value.

    Columns as in the `rd_layers` table. Intervals come from the two curves' own, as if independent: on the log scale
    the widths add as squares. They are null where an end is not positive.
    """
    both = partner.join(own, on=_KEYS, suffix="_other")
    ratio = pl.col("value_other") / pl.col("value")
    width = (
        sum(((pl.col(f"high{end}") / pl.col(f"low{end}")).log() / 2) ** 2 for end in ("", "_other"))
        .sqrt()
        .alias("width")
    )
    known = pl.min_horizontal("low", "low_other") > 0
    ends = {"low": ratio * (-width).exp(), "high": ratio * width.exp()}
    return both.select(
        *_KEYS,
        pl.col("model_other").alias("model"),
        pl.when(pl.col("value") > 0).then(ratio).alias("value"),
        *(pl.when(known & end.is_finite()).then(end).alias(name) for name, end in ends.items()),
        pl.min_horizontal("n", "n_other").alias("n"),
    )


def relative_differences(partner: pl.DataFrame, own: pl.DataFrame, draws: int, seed: int) -> pl.DataFrame:
    """The relative difference of gradients averaged over layers and samples, by variant and projection.

    `partner`, `own`: rows of the `per_sample` table of one dataset and relation. Intervals are 95 % percentile
    bootstraps that draw the samples of both models together; `n` samples that both have.
    """
    rows = []
    keys = ["variant", "projection", "sample_id"]
    joined = partner.join(own, on=keys, suffix="_other").sort(keys)
    for (variant, projection), group in joined.group_by("variant", "projection", maintain_order=True):
        values = group.select("nuclear_norm", "nuclear_norm_other").to_numpy().astype(float)
        # One stream of draws a variant: its projections stay paired.
        means = resampled_means(values, draws, seed, f"{group['dataset'][0]} {variant} base and instructed")
        with np.errstate(divide="ignore", invalid="ignore"):
            value, low, high = interval(means[:, 1] / means[:, 0] - 1)
        estimate = {"value": float(value), "low": float(low), "high": float(high)}
        rows.append({"variant": variant, "projection": projection, **estimate, "n": group.height})
    schema = {"variant": pl.String, "projection": pl.String, "value": pl.Float64, "low": pl.Float64, "high": pl.Float64}
    return pl.DataFrame(rows, schema={**schema, "n": pl.Int64})


def leans(samples: pl.DataFrame, relation: str) -> pl.DataFrame:
    """By variant and projection, the share of samples whose other response has the larger gradient, less a half.

    Columns variant, projection, low, high: Wilson's 95 % interval; ties are left out.
    """
    keys = ["variant", "projection", "sample_id"]
    pairs = samples.filter(relation="correct").join(samples.filter(relation=relation), on=keys, suffix="_other")
    pairs = pairs.filter(pl.col("nuclear_norm") != pl.col("nuclear_norm_other"))

    def rows() -> Iterator[dict[str, Any]]:
        for (variant, projection), group in pairs.group_by("variant", "projection", maintain_order=True):
            low, high = wilson(group.filter(pl.col("nuclear_norm_other") > pl.col("nuclear_norm")).height, group.height)
            yield {"variant": variant, "projection": projection, "low": low - 0.5, "high": high - 0.5}

    numbers = dict.fromkeys(("low", "high"), pl.Float64)
    return pl.DataFrame(list(rows()), {"variant": pl.String, "projection": pl.String, **numbers})
