"""How far preference runs squeeze, at the same number of examples and at the same margin.

Runs that start from elsewhere learn at other speeds. At equal examples the one that has moved most has squeezed most,
for no other reason; at an equal growth of the margin log pi(chosen) - log pi(rejected), DPO's aim, the question is what
that growth has cost. All are changes since the run's first evaluation, along a question's own responses.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from gradatlas.core.errors import InputError
from gradatlas.statistics.bootstrap import resampled

#: What a run has done to a question, in this order: nats of the chosen response lost; nats per token that the likeliest
#: token gains at each place of the chosen response.
SQUEEZING = ("fall", "rise")
#: On what runs are matched.
ON = ("examples", "margin")


@dataclass(frozen=True)
class Trajectory:
    """A run by question: `questions`, (n,), `examples`, (steps,), and changes, (n, steps), in nats: growth of the
    margin, `fall` and `rise` as in `SQUEEZING`."""

    questions: tuple[str, ...]
    examples: np.ndarray
    margin: np.ndarray
    fall: np.ndarray
    rise: np.ndarray


def trajectory_of(dynamics: pl.DataFrame, split: str = "train") -> Trajectory:
    """The course of one run from its ``dynamics`` table; questions that lack one of the two responses are left out.

    `InputError` where none has both.
    """
    usable = dynamics.filter((pl.col("status") == "ok") & (pl.col("split") == split))
    sides = {}
    for kind in ("chosen", "rejected"):
        side = usable.filter(pl.col("type") == kind)
        sides[kind] = side.with_columns(pl.col("probe_id").str.strip_suffix(f"/{kind}").alias("question"))
    both = sides["chosen"].join(
        sides["rejected"].select("question", "step", pl.col("log_prob_sum").alias("other")), on=["question", "step"]
    )
    if both.is_empty():
        raise InputError("no question's chosen and rejected responses are both followed; watch both types of probes")
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


def squeezing(
    courses: Mapping[str, Trajectory], on: str, draws: int, seed: int, name: str, level: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """`SQUEEZING` of every run where it first reaches a level of examples or of the mean margin, between evaluations by
    straight lines; (1 + draws, runs, 2), and the levels, (1 + draws,). Index 0 is of the questions themselves.

    `level`: None for the highest that all runs reach, found anew in each resample of the questions. Runs see the same
    resamples, so that differences between them are paired. A run that does not reach a given level in a resample is
    NaN there. `InputError` where runs follow other questions.
    """
    first = next(iter(courses.values()))
    for run, course in courses.items():
        if course.questions != first.questions:
            raise InputError(
                f"run '{run}' follows other questions than '{next(iter(courses))}'; match runs of one seed"
            )
    columns = [np.stack([each.margin, each.fall, each.rise], axis=-1) for each in courses.values()]
    drawn = resampled(columns, draws, seed, name)
    means = [np.concatenate([values.mean(0, keepdims=True), more]) for values, more in zip(columns, drawn, strict=True)]
    paths = [mean[..., 0] for mean in means]
    if on == "examples":
        seen = [each.examples.astype(float) for each in courses.values()]
        paths = [np.broadcast_to(one, path.shape) for one, path in zip(seen, paths, strict=True)]
    levels = np.min([path.max(1) for path in paths], axis=0) if level is None else np.full(1 + draws, float(level))
    found = [reached(path, mean[..., 1:], levels) for path, mean in zip(paths, means, strict=True)]
    return np.stack(found, axis=1), levels


def reached(paths: np.ndarray, values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """`values`, (draws, steps, k), where `paths`, (draws, steps), first reach `levels`, (draws,); NaN where never."""
    there = paths >= levels[:, None]
    rows, place = np.arange(len(paths)), there.argmax(1)
    before = np.maximum(place - 1, 0)
    start, end = paths[rows, before], paths[rows, place]
    share = np.divide(levels - start, end - start, out=np.zeros(len(paths)), where=end > start)
    found = values[rows, before] + share[:, None] * (values[rows, place] - values[rows, before])
    return np.where(there.any(1)[:, None], found, np.nan)
