"""Squeezing of preference runs, compared at equal examples and at equal margin.

Runs from different starts learn at different speeds: at equal examples, the run that has changed most has squeezed
most. At an equal growth of the margin log pi(chosen) - log pi(rejected), DPO's aim, the comparison shows the cost of
that growth. All numbers are changes since the run's first evaluation, of a question's own responses.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from gradatlas.core.errors import InputError
from gradatlas.statistics.bootstrap import interval, resampled

#: A run's changes for a question: nats lost by the chosen response; nats per token gained by the likeliest token at
#: each position of the chosen response.
SQUEEZING = ("fall", "rise")
#: Quantities that runs are matched on.
ON = ("examples", "margin")


@dataclass(frozen=True)
class Trajectory:
    """A run's changes by question, (n, steps), in nats: growth of the `margin`, `fall` and `rise` as in `SQUEEZING`.

    `questions`: (n,). `examples`: (steps,).
    """

    questions: tuple[str, ...]
    examples: np.ndarray
    margin: np.ndarray
    fall: np.ndarray
    rise: np.ndarray


def trajectory_of(dynamics: pl.DataFrame) -> Trajectory:
    """The trajectory of one run from its ``dynamics`` table, over trained questions with both responses.

    `InputError` where there are none.
    """
    usable = dynamics.filter((pl.col("status") == "ok") & (pl.col("split") == "train"))
    sides = {}
    for kind in ("chosen", "rejected"):
        side = usable.filter(pl.col("type") == kind)
        sides[kind] = side.with_columns(pl.col("probe_id").str.strip_suffix(f"/{kind}").alias("question"))
    both = sides["chosen"].join(
        sides["rejected"].select("question", "step", pl.col("log_prob_sum").alias("other")), on=["question", "step"]
    )
    if both.is_empty():
        raise InputError("no question has both a chosen and a rejected probe; follow both types of probes")
    both = both.sort("question", "step")
    steps = both.select("step", "examples").unique().sort("step")
    values = both.select(
        margin=pl.col("log_prob_sum") - pl.col("other"),
        fall=-pl.col("log_prob_sum"),
        rise=pl.col("argmax_log_prob") / pl.col("tokens"),
    ).to_numpy()
    values = values.reshape(-1, len(steps), 3)
    margin, fall, rise = np.moveaxis(values - values[:, :1], -1, 0)
    questions = both["question"].unique(maintain_order=True).to_list()
    return Trajectory(tuple(questions), steps["examples"].to_numpy(), margin, fall, rise)


@dataclass(frozen=True)
class Matched:
    """`SQUEEZING` of runs at one `level` that all reach: values and 95 % intervals, each (runs, 2)."""

    level: float
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    #: (draws, runs, 2): the values, then those of the resamples.
    drawn: np.ndarray

    def difference(self, run: int, other: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`SQUEEZING` of a run less that of another, paired: value and 95 % interval, each (2,)."""
        return interval(self.drawn[:, run] - self.drawn[:, other])


def matched(trajectories: Mapping[str, Trajectory], draws: int, seed: int) -> dict[str, Matched]:
    """`SQUEEZING` of runs by what they are matched on, `ON`; runs in the order of ``trajectories``."""
    found = {}
    for on in ON:
        drawn, levels = squeezing(trajectories, on, draws, seed, f"squeezing {on}")
        found[on] = Matched(float(levels[0]), *interval(drawn), drawn)
    return found


def squeezing(
    trajectories: Mapping[str, Trajectory], on: str, draws: int, seed: int, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """`SQUEEZING` of every run where it first reaches the highest number of examples, or mean margin, that all reach.

    Linear interpolation between evaluations. Returns (1 + draws, runs, 2), and the levels, (1 + draws,); index 0: the
    questions without resampling. Runs have the same resamples, so that differences between them are paired.
    `InputError` where runs have different questions.
    """
    first = next(iter(trajectories.values()))
    for run, trajectory in trajectories.items():
        if trajectory.questions != first.questions:
            raise InputError(
                f"run '{run}' has other questions than '{next(iter(trajectories))}'; compare runs of one seed"
            )
    columns = [np.stack([each.margin, each.fall, each.rise], axis=-1) for each in trajectories.values()]
    drawn = resampled(columns, draws, seed, name)
    means = [np.concatenate([values.mean(0, keepdims=True), more]) for values, more in zip(columns, drawn, strict=True)]
    paths = [mean[..., 0] for mean in means]
    if on == "examples":
        seen = [each.examples.astype(float) for each in trajectories.values()]
        paths = [np.broadcast_to(one, path.shape) for one, path in zip(seen, paths, strict=True)]
    levels = np.min([path.max(1) for path in paths], axis=0)
    found = [reached(path, mean[..., 1:], levels) for path, mean in zip(paths, means, strict=True)]
    return np.stack(found, axis=1), levels


def reached(paths: np.ndarray, values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """`values`, (draws, steps, k), where `paths`, (draws, steps), first reach `levels`, (draws,); else NaN."""
    there = paths >= levels[:, None]
    rows, place = np.arange(len(paths)), there.argmax(1)
    before = np.maximum(place - 1, 0)
    start, end = paths[rows, before], paths[rows, place]
    share = np.divide(levels - start, end - start, out=np.zeros(len(paths)), where=end > start)
    found = values[rows, before] + share[:, None] * (values[rows, place] - values[rows, before])
    return np.where(there.any(1)[:, None], found, np.nan)
