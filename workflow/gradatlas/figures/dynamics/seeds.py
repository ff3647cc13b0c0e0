"""The main curves over several seeds: means over seeds, with the lowest and the highest seed."""

from collections.abc import Sequence

import altair as alt
import polars as pl

from gradatlas.charts import theme
from gradatlas.figures.dynamics.choose import Chain
from gradatlas.figures.dynamics.curves import COMPARED
from gradatlas.figures.dynamics.parts import grid, last_of, of_measure, panel, signed


def over_seeds(frame: pl.DataFrame, chains: Sequence[Chain]) -> tuple[theme.Heading, alt.ConcatChart]:
    """Chains of runs, each a mean over seeds; `frame`: ``dynamics_curves`` of all seeds.

    An evaluation that a seed lacks, since its run stopped early, is left out.
    """
    seeds = sorted(frame["seed"].unique())
    said = [f"{chain.title}: {_over(frame, chain, seeds)}" for chain in chains]
    count = int(frame["n"].max())
    heading = theme.Heading(
        "; ".join(said) + " (nats)",
        (
            f"Means over {len(seeds)} seeds of the runs and their probes, {count} probed questions each; bands, and "
            "brackets in the title: lowest to highest seed. Changes in the title are those of the last run of a chain; "
            "the rule: where that run begins. Each panel has a scale of its own.",
        ),
    )
    keys = ["run", "before", "examples", "type", "measure"]
    means = (
        frame.group_by(keys)
        .agg(
            pl.col("value").mean(),
            pl.col("value").min().alias("low"),
            pl.col("value").max().alias("high"),
            pl.col("seed").n_unique().cast(pl.Int32).alias("n"),
        )
        .filter(pl.col("n") == len(seeds))
        .sort(keys)
    )
    every = pl.concat(
        means.filter(pl.col("run").is_in(chain.runs)).with_columns(
            pl.lit(chain.title).alias("series"), (pl.col("before") + pl.col("examples")).alias("x")
        )
        for chain in chains
    )
    turns = sorted({value for value in every["before"] if value})
    entries = [chain.title for chain in chains]
    panels = [
        panel(of_measure(every, kind, measure), name, entries, "Examples seen by all runs of the chain", turns)
        for name, kind, measure in COMPARED
    ]
    return heading, grid(panels, 2, heading)


def _over(frame: pl.DataFrame, chain: Chain, seeds: Sequence[int]) -> str:
    part = frame.filter(pl.col("run") == chain.last)
    told = []
    for measure, words in (("log_prob_sum", "chosen"), ("argmax_log_prob", "likeliest tokens")):
        changes = [last_of(part.filter(pl.col("seed") == seed), "chosen", measure)["change"] for seed in seeds]
        low, high = signed(min(changes)), signed(max(changes))
        told.append(f"{words} {signed(sum(changes) / len(changes))} [{low}, {high}]")
    return ", ".join(told)
