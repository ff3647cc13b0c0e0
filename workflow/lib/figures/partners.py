"""A model against its partner, such as the base model that it was made from, on the same samples."""

from collections.abc import Sequence

import altair as alt
import numpy as np
import polars as pl

from workflow.lib.figures import charts, findings
from workflow.lib.figures.panel import Dashed, of
from workflow.lib.figures.theme import Heading
from workflow.lib.statistics.bootstrap import interval, resampled_means

_KEYS = ["variant", "relation", "projection", "statistic", "layer"]
DRAWN = (
    "Mean nuclear norm by layer; below it, {own} over {partner}. That band takes "
    "the two models’ samples for independent, which makes it wide; the title’s intervals are paired by sample."
)
APART = (
    "The two read different prompts, {own} {forms[1]} ones and {partner} {forms[0]} ones: a difference may be theirs."
)


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


def paired(partner: pl.DataFrame, own: pl.DataFrame, draws: int, seed: int) -> pl.DataFrame:
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


def shared(partner: pl.DataFrame, own: pl.DataFrame) -> pl.DataFrame:
    """The curves of both models, for the variants and relations that both have, the partner's first."""
    keys = ["variant", "relation"]
    return pl.concat([partner.join(own, on=keys, how="semi"), own.join(partner, on=keys, how="semi")])


def heading(curves: pl.DataFrame, differences: pl.DataFrame, dataset: str, forms: Sequence[str] = ("", "")) -> Heading:
    """By how much the model's mean gradients differ from its partner's, where the intervals of `paired` leave out zero.

    `curves`: of `shared`; `forms`: of the partner's and the model's own prompts, which stand in the title where they
    differ.
    """
    partner, own = curves["model"].unique(maintain_order=True)
    apart = forms[0] != forms[1]
    named = [f"{name} ({form} prompts)" if apart else name for name, form in zip((partner, own), forms, strict=True)]
    against = f"{named[1]} against {named[0]}"
    layered = max(curves.group_by("model").agg(pl.col("layer").n_unique())["layer"]) > 1
    rows = differences.filter(pl.col("value").is_finite() & pl.col("low").is_not_nan())
    enough = findings.speaks(curves) and not rows.is_empty() and int(rows["n"].min()) >= findings.FEWEST
    title = findings.clear_differences(rows, against) if enough else f"{against}{', by layer' if layered else ''}"
    notes = [APART.format(own=own, partner=partner, forms=forms)] if apart else []
    return Heading(title, findings.subtitle_of(curves, dataset, DRAWN.format(own=own, partner=partner), notes))


def chart(curves: pl.DataFrame, heading: Heading) -> alt.ConcatChart:
    """Both models' curves, told apart by dash, and their ratio below. `curves`: of `shared`."""
    names = tuple(curves["model"].unique(maintain_order=True))
    by_model = [of(curves, model=name) for name in names]
    # Of any length the names stand in the legend.
    below = ["Dashed / solid,", "log"]
    return charts.compared(curves, ratios(*by_model), heading, Dashed("model", names), below, neutral=1)
