"""The claims about free answers to held-out prompts at the end of a run: judged, repeating, borrowed."""

import numpy as np
import polars as pl
from scipy import stats

from gradatlas.claims.dynamics.evidence import Room, nothing, of_differences
from gradatlas.claims.dynamics.training import Measure, relation_of
from gradatlas.claims.evidence import OVERALL, SHARE, Claim, Estimate, p_value
from gradatlas.statistics.bootstrap import LEVEL

_WORTH = {"run": 1.0, "tie": 0.5, "baseline": 0.0}


def win_rate(room: Room, claim: Claim, run: str, other: str, of: str) -> Estimate:
    """Mean over held-out prompts of what the run wins against the other at the last step judged; a tie is half.

    Wilson's score interval of as many trials as prompts, and its test; with ties both are a little too careful. A
    judgement that could not be read takes no part.
    """
    rows = room.judgements.filter((pl.col("run") == run) & (pl.col("baseline") == other))
    rows = rows.filter((pl.col("step") == pl.col("step").max()) & pl.col("verdict").is_not_null())
    relation = relation_of(f"{run}:{other}", of)
    if rows.is_empty():
        return nothing(relation, f"no judgement of {run} against {other}")
    worth = rows.group_by("pair_id").agg(pl.col("verdict").replace_strict(_WORTH, return_dtype=pl.Float64).mean())
    value, n = float(worth["verdict"].mean()), worth.height

    def tails(bound: float) -> tuple[float, float]:
        z = (value - bound) / np.sqrt(bound * (1 - bound) / n)
        return float(stats.norm.sf(z)), float(stats.norm.cdf(z))

    low, high = wilson(value, n)
    found = p_value(claim, value, tails)
    return Estimate(relation, OVERALL, value, low, high, n, found, "score test", SHARE.name)


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's score interval of a share of n, which may be no multiple of 1 / n."""
    z = stats.norm.ppf((1 + LEVEL) / 2)
    centre, reach = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return float((centre - reach) / (1 + z**2 / n)), float((centre + reach) / (1 + z**2 / n))


def _answers(room: Room, run: str, column: str, last: bool) -> dict[str, float]:
    """By held-out prompt, the mean over draws at a run's last step, or its first."""
    rows = room.generation_scores.filter((pl.col("run") == run) & (pl.col("split") == "held_out"))
    step = rows["step"].max() if last else rows["step"].min()
    rows = rows.filter((pl.col("step") == step) & pl.col(column).is_not_null())
    return dict(rows.group_by("pair_id", maintain_order=True).agg(pl.col(column).cast(pl.Float64).mean()).iter_rows())


def _differing(column: str) -> Measure:
    """A run's last answers against its first, or, of RUN:RUN, against the other's last."""

    def measured(room: Room, claim: Claim, run: str, other: str, of: str) -> Estimate:
        one, two = _answers(room, run, column, True), _answers(room, other or run, column, bool(other))
        relation = relation_of(f"{run}:{other}" if other else run, of)
        common = sorted(set(one) & set(two))
        if not common:
            return nothing(relation, f"no scored answers of {relation} to held-out prompts")
        return of_differences(room, claim, np.array([one[key] - two[key] for key in common]), relation)

    return measured


ANSWERS: dict[str, Measure] = {
    "win_after_sft": win_rate,
    "win_after_dpo": win_rate,
    "dpo_repeats": _differing("repetition"),
    "extend_repeats_less": _differing("repetition"),
    "sft_borrows": _differing("borrowed"),
    "dpo_borrows": _differing("borrowed"),
}
