"""Curves of free generations: means over prompts at every step, with 95 % intervals over prompts.

Draws of one prompt are averaged first. Shares and win rates have Wilson's interval, with prompts as trials: it does not
vanish where all prompts agree, and with ties (which count half) it is wider than necessary. Repetition, tokens and
changes have the bootstrap's percentile interval, or none where all prompts agree. Changes are paired by prompt, whose
responses have the same random numbers at every step of every run.
"""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from gradatlas.core.tables import read_metadata, read_table, write_table
from gradatlas.finetuning.tables import GENERATION_SCORES, JUDGEMENTS
from gradatlas.statistics.bootstrap import interval, resampled_means
from gradatlas.statistics.tables import GENERATION_CURVES
from gradatlas.study.shares import wilson

SHARES = ("borrowed", "correct", "finished")
AMOUNTS = ("repetition", "tokens")
#: The name of a measure's change over a chain of runs.
CHANGE = "change of {}"
#: Of a comparison: wins (a tie is half a win), ties, orders that disagree (if both are readable), unreadable verdicts.
COMPARED = ("win_rate", "tie", "disagreement", "unreadable")
#: What a verdict counts in the win rate.
POINTS = {"run": 1.0, "tie": 0.5, "baseline": 0.0}
_KEYS = ["run", "split", "step", "examples"]


def summarise_generations(
    model: str,
    scores: str | Path,
    judgements: str | Path | None,
    starts: Mapping[str, str],
    output: str | Path,
    draws: int,
    seed: int,
) -> None:
    """Write the ``generation_curves`` table of one model and seed; `starts`: the run that each run starts from, if any.

    Unknown measures (`correct` without an oracle, a comparison without a readable verdict) have no row.
    """
    scored = pl.from_arrow(read_table(GENERATION_SCORES, scores))
    ends = dict(scored.group_by("run").agg(pl.col("examples").max()).iter_rows())
    before = {name: _before(name, starts, ends) for name in ends}
    rows = []
    means = [pl.col(name).cast(pl.Float64).mean() for name in (*SHARES, *AMOUNTS)]
    each = scored.group_by(*_KEYS, "pair_id", maintain_order=True).agg(means)
    for key, part in each.group_by(_KEYS, maintain_order=True):
        place = dict(zip(_KEYS, key, strict=True)) | {"baseline": None, "baseline_step": None}
        rows += [
            place | _share(part[name].drop_nulls(), name) for name in SHARES if part[name].null_count() < part.height
        ]
        rows += [place | _amount(part[name], name, draws, seed, f"{model} {key}") for name in AMOUNTS]
    rows += _changes(each, starts, draws, seed, model)
    rows += _comparisons(judgements) if judgements else []
    named = {"model": model, "seed": int(scored["seed"][0])}
    judged = {"judge": read_metadata(judgements, JUDGEMENTS)["judge"]} if judgements else {}
    known = read_metadata(scores, GENERATION_SCORES)
    facts = {"draws": draws, "seed": seed, **{key: known[key] for key in ("left_out", "oracle", "chance")}, **judged}
    rows = [{**named, **row, "before": before[row["run"]]} for row in rows]
    write_table(GENERATION_CURVES, rows, output, facts)


def _before(run: str, starts: Mapping[str, str], ends: Mapping[str, int]) -> int:
    """The number of examples seen by the runs that `run` starts from."""
    start = starts.get(run, "")
    return ends.get(start, 0) + _before(start, starts, ends) if start else 0


def _changes(each: pl.DataFrame, starts: Mapping[str, str], draws: int, seed: int, model: str) -> list[dict]:
    """For each run, how its last answers to held-out prompts differ from the first ones of its chain, by prompt."""
    held = each.filter(pl.col("split") == "held_out")
    known, rows = set(held["run"]), []
    for run in dict.fromkeys(held["run"]):
        first = run
        while starts.get(first) in known:
            first = starts[first]
        ended = held.filter(pl.col("run") == run).filter(pl.col("step") == pl.col("step").max())
        begun = held.filter(pl.col("run") == first).filter(pl.col("step") == pl.col("step").min())
        both = ended.join(begun, on="pair_id", how="inner", maintain_order="left", suffix=" before")
        place = ended.select(_KEYS).row(0, named=True) | {"baseline": None, "baseline_step": None}
        for name in (*SHARES, *AMOUNTS):
            change = (both[name] - both[f"{name} before"]).drop_nulls()
            if len(change):
                rows.append(place | _amount(change, CHANGE.format(name), draws, seed, f"{model} {run} change"))
    return rows


def _comparisons(judgements: str | Path) -> list[dict]:
    frame = pl.from_arrow(read_table(JUDGEMENTS, judgements)).with_columns(
        pl.col("verdict").replace_strict(POINTS, default=None, return_dtype=pl.Float64).alias("win_rate"),
        (pl.col("verdict") == "tie").cast(pl.Float64).alias("tie"),
        pl.when(pl.col("verdict").is_not_null())
        .then((pl.col("forward") != pl.col("backward")).cast(pl.Float64))
        .alias("disagreement"),
        pl.col("verdict").is_null().cast(pl.Float64).alias("unreadable"),
    )
    keys = ["run", "baseline", "step", "baseline_step", "examples"]
    each = frame.group_by(*keys, "pair_id", maintain_order=True).agg(pl.col(name).mean() for name in COMPARED)
    return [
        dict(zip(keys, key, strict=True)) | {"split": "held_out"} | _share(part[name].drop_nulls(), name)
        for key, part in each.group_by(keys, maintain_order=True)
        for name in COMPARED
        if part[name].null_count() < part.height
    ]


def _share(values: pl.Series, measure: str) -> dict:
    mean, count = float(values.mean()), len(values)
    return _estimate(measure, mean, *wilson(mean * count, count), count)


def _amount(values: pl.Series, measure: str, draws: int, seed: int, name: str) -> dict:
    found = interval(resampled_means(values.to_numpy(), draws, seed, name))
    value, low, high = map(float, found) if values.n_unique() > 1 else (float(values[0]), None, None)
    return _estimate(measure, value, low, high, len(values))


def _estimate(measure: str, value: float, low: float | None, high: float | None, count: int) -> dict:
    return {"measure": measure, "value": value, "low": low, "high": high, "n": count}
