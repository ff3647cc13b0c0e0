"""The claims about free answers to held-out prompts at the end of a run: judged, repeating, borrowed."""

from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from gradatlas.claims.dynamics.runs import NothingMeasured, OnRuns, RunGroup
from gradatlas.claims.dynamics.training import Measure
from gradatlas.claims.estimates import SHARE, DynamicsEstimate, Z, p_value
from gradatlas.statistics.generations import POINTS
from gradatlas.study.shares import wilson


def win_rate(on: OnRuns) -> DynamicsEstimate:
    """Mean over held-out prompts of what the run wins against the other at the last step judged; a tie is half.

    Wilson's score interval of as many trials as prompts, and its test; with ties both are slightly conservative. A
    judgement that could not be read takes no part.
    """
    rows = on.group.judgements.filter((pl.col("run") == on.run) & (pl.col("baseline") == on.other))
    rows = rows.filter((pl.col("step") == pl.col("step").max()) & pl.col("verdict").is_not_null())
    if rows.is_empty():
        raise NothingMeasured(f"no judgement of {on.run} against {on.other}")
    points = rows.group_by("pair_id").agg(pl.col("verdict").replace_strict(POINTS, return_dtype=pl.Float64).mean())
    value, n = float(points["verdict"].mean()), points.height

    def tails(bound: float) -> tuple[float, float]:
        z = (value - bound) / np.sqrt(bound * (1 - bound) / n)
        return float(stats.norm.sf(z)), float(stats.norm.cdf(z))

    low, high = wilson(value * n, n, Z)
    found = p_value(on.claim, value, tails)
    return DynamicsEstimate(value=value, low=low, high=high, n=n, p_value=found, test="score test", scale=SHARE.name)


def _answers(group: RunGroup, run: str, column: str, last: bool) -> dict[str, float]:
    """By held-out prompt, the mean over draws at a run's last step, or its first."""
    rows = group.generation_scores.filter((pl.col("run") == run) & (pl.col("split") == "held_out"))
    step = rows["step"].max() if last else rows["step"].min()
    rows = rows.filter((pl.col("step") == step) & pl.col(column).is_not_null())
    return dict(rows.group_by("pair_id", maintain_order=True).agg(pl.col(column).cast(pl.Float64).mean()).iter_rows())


def _differing(column: str) -> Measure:
    """A run's last answers against its first, or, of RUN:RUN, against the other's last."""

    def measured(on: OnRuns) -> DynamicsEstimate:
        one = _answers(on.group, on.run, column, True)
        two = _answers(on.group, on.other or on.run, column, bool(on.other))
        common = sorted(set(one) & set(two))
        if not common:
            names = f"{on.run}:{on.other}" if on.other else on.run
            raise NothingMeasured(f"no scored answers of {names} to held-out prompts")
        return on.mean(np.array([one[key] - two[key] for key in common]))

    return measured


def able(group: RunGroup, runs: list[str]) -> dict[str, Any]:
    """What the models can do that runs start from: of the run whose first answers are least often right, that share.

    Columns of the evidence; none where nothing tells right from wrong.
    """
    right = {run: _answers(group, run, "correct", False) for run in runs} if group.generation_scores is not None else {}
    shares = {run: (float(np.mean(list(hits.values()))), len(hits)) for run, hits in right.items() if hits}
    if not shares or group.chance is None:
        return {}
    run = min(shares, key=lambda run: shares[run][0])
    return {"answers_of": run, "accuracy": shares[run][0], "answers": shares[run][1], "chance": group.chance}


ANSWERS: dict[str, Measure] = {
    "win_after_sft": win_rate,
    "win_after_dpo": win_rate,
    "dpo_repeats": _differing("repetition"),
    "extend_repeats_less": _differing("repetition"),
    "sft_borrows": _differing("borrowed"),
    "dpo_borrows": _differing("borrowed"),
}
