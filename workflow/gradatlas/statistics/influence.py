"""SignDelta and LBK: how learning one type of response changes the log-probability of others along a run.

The paper (Ren and Sutherland, ICLR 2025, section 4 and appendix C) defines both over all V x L entries of the change of
log pi between two evaluations: SignDelta = E_{v,l}[change], LBK = ||change||_F^2 / (||A_o||_F^2 ||G||_F^2). The
``dynamics`` table has only the mean over a response's own tokens. With d the change of the mean log-probability of a
response's L tokens:

- SignDelta here is d, the part of the label entries. Summed over evaluations it is the end minus the start.
- LBK here is d^2 / (||A_o||^2 ||G||_F^2), with ||A_o|| the mean over tokens before the change. L d^2 is at most the sum
  of squares of the label entries, which is at most the paper's ||change||_F^2; ||A_o||_F^2 is L ||A_o||^2 for equal
  tokens. So changes common to all tokens count, but not those that cancel, nor those of other entries.
- ||G||_F^2 = c+^2 E[L+ ||G+||^2] + c-^2 E[L- ||G-||^2] of the learned responses before the change, with c the mean pull
  and push of the updates in between (workflow/gradatlas/finetuning/losses.py).

(The study's notebook divides by the root of ||A_o||, which is already a root, and by ||G|| not squared.)
"""

from collections.abc import Sequence
from itertools import pairwise

import polars as pl

from gradatlas.statistics.bootstrap import interval, resampled_means

#: The key of a probe's curve.
CURVE = ("run", "seed", "split", "type", "probe_id")


def sign_delta(dynamics: pl.DataFrame) -> pl.DataFrame:
    """Every usable probe's change of mean log-probability since the evaluation before, in nats per token.

    `dynamics`: rows of that table, of any runs. Columns: `CURVE`, step, examples, before (that evaluation's step),
    change, a_norm (before the change). A run's first evaluation has no row.
    """
    frame = dynamics.filter(pl.col("status") == "ok").sort(*CURVE, "step")
    return (
        frame.with_columns(
            pl.col("step").shift(1).over(CURVE).alias("before"),
            pl.col("log_prob_mean").diff().over(CURVE).alias("change"),
            pl.col("a_norm").shift(1).over(CURVE),
        )
        .filter(pl.col("before").is_not_null())
        .select(*CURVE, "step", "examples", "before", "change", "a_norm")
    )


def accumulated(deltas: pl.DataFrame) -> pl.DataFrame:
    """The sum of the changes of `sign_delta` over a run's evaluations, by probe: `CURVE` and change."""
    return deltas.group_by(CURVE, maintain_order=True).agg(pl.col("change").sum())


def mean_changes(dynamics: pl.DataFrame, draws: int, seed: int, name: str) -> dict[str, dict[str, float]]:
    """By type of probe, the mean over probes of the `accumulated` changes: value, low, high (nats per token), and n.

    `dynamics`: rows of that table of one run. Intervals are 95 % percentile bootstraps, by streams that `name` begins.
    """
    sums = accumulated(sign_delta(dynamics)).sort("type", "probe_id")
    found = {}
    for (kind,), part in sums.group_by("type", maintain_order=True):
        value, low, high = interval(resampled_means(part["change"].to_numpy(), draws, seed, f"{name} {kind}"))
        found[kind] = {"value": float(value), "low": float(low), "high": float(high), "n": len(part)}
    return found


def learnt_norm(dynamics: pl.DataFrame, training: pl.DataFrame, pulled: str, pushed: str = "") -> pl.DataFrame:
    """||G||_F^2 of a run's updates between two evaluations.

    `dynamics` and `training`: tables of one run. `pulled`, `pushed`: the probe types of the learned chosen and rejected
    responses; `pushed` is empty for SFT. Columns: step, before, norm.
    """
    frame = dynamics.filter((pl.col("status") == "ok") & (pl.col("split") == "train"))
    squares = (
        frame.filter(pl.col("type").is_in([pulled, pushed]))
        .group_by("type", "step")
        .agg((pl.col("tokens") * pl.col("g_norm") ** 2).mean().alias("square"))
    )
    by_type = {(kind, step): value for kind, step, value in squares.iter_rows()}
    steps = sorted(frame["step"].unique())
    rows = []
    for before, step in pairwise(steps):
        between = training.filter((pl.col("step") > before) & (pl.col("step") <= step))
        norm = between["pull"].mean() ** 2 * by_type[pulled, before]
        if pushed:
            norm += between["push"].mean() ** 2 * by_type[pushed, before]
        rows.append({"step": step, "before": before, "norm": norm})
    types = {"step": dynamics.schema["step"], "before": dynamics.schema["step"], "norm": pl.Float64}
    return pl.DataFrame(rows, schema=types)


def lbk(dynamics: pl.DataFrame, training: pl.DataFrame, pulled: str, pushed: str = "") -> pl.DataFrame:
    """`sign_delta` of one run with its `lbk`, by probe and evaluation; arguments as in `learnt_norm`."""
    norms = learnt_norm(dynamics, training, pulled, pushed)
    value = pl.col("change") ** 2 / (pl.col("a_norm") ** 2 * pl.col("norm"))
    return (
        sign_delta(dynamics)
        .join(norms, on=["step", "before"], maintain_order="left")
        .with_columns(value.alias("lbk"))
        .drop("norm")
    )


def by_column(values: Sequence[float]) -> list[float]:
    """A column of the table of influences divided by its range (maximum - minimum), as in the study; zeros stay."""
    extent = max(values) - min(values)
    return [value / extent if extent else 0.0 for value in values]
