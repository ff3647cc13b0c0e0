"""The claims about budgets and kernels along finetuning runs. Signs and bounds were fixed before any was measured.

A stage is one of the run's models: its start, a snapshot or its end. All are of prompts that are trained on.
"""

from functools import partial

import numpy as np
import polars as pl
import torch

from gradatlas.claims.dynamics.runs import NothingMeasured, OnRuns, exactly
from gradatlas.claims.dynamics.training import Measure
from gradatlas.claims.estimates import CORRELATION, SHARE, DynamicsEstimate
from gradatlas.finetuning.losses import LOSSES, Scores
from gradatlas.statistics.kernels import rank_agreement

_PROMPT = pl.col("probe_id").str.replace(r"/[^/]*$", "").alias("prompt")


def _rows(on: OnRuns, run: str) -> pl.DataFrame:
    """The rows of the claim's table of a run; `NothingMeasured` where it has none."""
    rows = getattr(on.group, on.claim.table).filter(pl.col("run") == run)
    if rows.is_empty():
        raise NothingMeasured(f"{run} is not among dynamics.kernels.runs, or diverged at once")
    return rows


def _changes(on: OnRuns) -> pl.DataFrame:
    """By interval and probe, the predicted and the measured change."""
    keys = ["since", "step", "probe_id"]
    rows = _rows(on, on.run).group_by(keys, maintain_order=True)
    return rows.agg(pl.col("predicted").sum(), pl.col("measured").first())


def budget_signs(on: OnRuns) -> DynamicsEstimate:
    """The share of probes and intervals whose parts add up to a change of the measured sign."""
    found = _changes(on)
    right = (found["predicted"].sign() == found["measured"].sign()).mean()
    return exactly(float(right), len(found), on.run)


def budget_closes(on: OnRuns) -> DynamicsEstimate:
    """||predicted - measured|| / ||measured|| over probes, of the interval where it is largest."""
    squares = _changes(on).group_by("step", maintain_order=True).agg(
        ((pl.col("predicted") - pl.col("measured")) ** 2).sum().alias("missing"), (pl.col("measured") ** 2).sum()
    )  # fmt: skip
    return exactly(float((squares["missing"] / squares["measured"]).sqrt().max()), squares.height, on.run)


def _entanglement(on: OnRuns) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Prompts; E summed over blocks at the start of each interval; whether chosen falls in it: (prompts, n) both."""
    steps = _rows(on, on.run)["step"].unique().sort().to_list()
    sums = _by_stage(_rows(on, on.run), pl.col("entanglement").sum())
    chosen = on.group.runs[on.run].rows.filter((pl.col("type") == "chosen") & pl.col("step").is_in(steps))
    scores = _by_stage(chosen.with_columns(_PROMPT), pl.col("log_prob_sum").first())
    prompts = [prompt for prompt in sums if prompt in scores]
    if len(steps) < 2 or not prompts:
        raise NothingMeasured(f"{on.run} has no interval with a chosen and a rejected response")
    e, change = (np.array([each[prompt] for prompt in prompts]) for each in (sums, scores))
    return prompts, e[:, :-1], np.diff(change) < 0


def _by_stage(rows: pl.DataFrame, number: pl.Expr) -> dict[str, list[float]]:
    """By prompt, a number at each stage."""
    found = (
        rows.group_by("prompt", "step", maintain_order=True)
        .agg(number.alias("number"))
        .sort("step", maintain_order=True)
    )
    return {str(prompt): part["number"].to_list() for (prompt,), part in found.group_by("prompt", maintain_order=True)}


def entanglement_predicts_fall(on: OnRuns, shift: int = 0) -> DynamicsEstimate:
    """The area under the curve: the chance that E is larger for a chosen response that falls than for one that rises.

    `shift`: E is another prompt's, so many places on, as a control.
    """
    prompts, e, falls = _entanglement(on)
    weights = on.group.means(np.eye(len(prompts)))[0]
    e = np.roll(e, shift, axis=0)
    # By interval, as E and falls both change along a run; ties count half.
    above = (np.sign(e[:, None] - e[None]) + 1) / 2
    pairs = falls[:, None] & ~falls[None]
    if not pairs.any():
        raise NothingMeasured(f"no number: within each interval of {on.run} all chosen responses fall, or none does")
    won, all_pairs = (
        np.einsum("di,ij,dj->d", weights, each.sum(-1), weights) for each in (np.where(pairs, above, 0.0), 1.0 * pairs)
    )
    # A resample without a pair has no number.
    area = np.where(all_pairs > 0, won / np.where(all_pairs > 0, all_pairs, 1), 0.5)
    return on.of_draws(np.clip(area, 1e-6, 1 - 1e-6), len(prompts), SHARE)


def _ranks(on: OnRuns, run: str) -> tuple[list[str], np.ndarray]:
    """The responses o; of each, the mean over intervals of Kendall's tau of k(o, .) at both ends."""
    keys, steps, taus = rank_agreement(_rows(on, run))
    if not steps or np.isnan(taus).any():
        raise NothingMeasured(f"{run} has no two stages with at least four responses")
    return keys, taus.mean(0)


def _by_prompt(keys: list[str], values: np.ndarray) -> dict[str, float]:
    """The mean over a prompt's responses."""
    frame = pl.DataFrame({"probe_id": keys, "value": values}).with_columns(_PROMPT)
    return dict(frame.group_by("prompt", maintain_order=True).agg(pl.col("value").mean()).iter_rows())


def kernel_ranks_last(on: OnRuns) -> DynamicsEstimate:
    """The mean of Kendall's tau of k(o, .) from one stage to the next; of RUN:RUN, how much more the first run has."""
    sides = [_by_prompt(*_ranks(on, run)) for run in on.runs]
    prompts = [prompt for prompt in sides[0] if all(prompt in side for side in sides)]
    values = [np.array([side[prompt] for prompt in prompts]) for side in sides]
    if on.other:
        return on.mean(values[0] - values[1])
    return on.of_draws(on.group.means(values[0])[0], len(prompts), CORRELATION)


def negative_gradient(on: OnRuns, pushed: bool) -> DynamicsEstimate:
    """How much ln ||s-||, or with `pushed` ln (|c-| ||s-||), of the rejected responses changes from start to end."""
    run = on.group.runs[on.run]
    if not LOSSES[run.loss].paired:
        raise NothingMeasured(f"{on.run} has no negative gradient")
    rows = _rows(on, on.run)
    norms = _by_stage(rows, pl.col("rejected").sum().sqrt())
    steps = rows["step"].unique().sort().to_list()
    if len(steps) < 2:
        raise NothingMeasured(f"{on.run} has one stage")
    curves = {kind: run.curve(kind) for kind in ("chosen", "rejected")}
    prompts = [prompt for prompt in norms if all(prompt in curve.prompts for curve in curves.values())]
    found = np.log([[norms[prompt][at] for at in (0, -1)] for prompt in prompts])
    if pushed:
        ends = {kind: torch.tensor(curve.of(prompts).values[:, [0, -1]]) for kind, curve in curves.items()}
        start = {kind: each[:, :1].expand_as(each) for kind, each in ends.items()}
        lengths = [torch.ones_like(start["chosen"])] * 2
        scores = Scores(ends["chosen"], ends["rejected"], start["chosen"], start["rejected"], *lengths)
        push = LOSSES[run.loss].of(scores, run.beta, run.margin).rejected
        found = found + np.log(np.maximum(np.abs(push.numpy()), 1e-300))
    return on.mean(found[:, 1] - found[:, 0])


KERNELS: dict[str, Measure] = {
    "budget_signs": budget_signs,
    "budget_closes": budget_closes,
    "entanglement_predicts_fall": entanglement_predicts_fall,
    "entanglement_shuffled": partial(entanglement_predicts_fall, shift=1),
    "kernel_ranks_last": kernel_ranks_last,
    "kernel_ranks_last_less_in_dpo": kernel_ranks_last,
    "negative_gradient_grows": partial(negative_gradient, pushed=False),
    "negative_push_falls": partial(negative_gradient, pushed=True),
}
