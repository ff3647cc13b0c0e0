"""All figures of one model's runs: of one seed, and over seeds. Tables in, charts and a list of them out."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl

from gradatlas.charts import theme
from gradatlas.charts.listing import saved, write_index
from gradatlas.core.command import progress
from gradatlas.core.tables import Table, read_metadata, read_table
from gradatlas.figures.dynamics import choose
from gradatlas.figures.dynamics.compared import extend_compared, losses_compared, negatives_compared
from gradatlas.figures.dynamics.curves import chains_compared, norms_compared, run_curves
from gradatlas.figures.dynamics.influence import heat_map, over_time, table_of
from gradatlas.figures.dynamics.one_step import step_chart
from gradatlas.figures.dynamics.seeds import over_seeds
from gradatlas.figures.dynamics.squeezing import length_compared
from gradatlas.finetuning.tables import DYNAMICS, TRAINING
from gradatlas.kernels.tables import ONE_STEP
from gradatlas.statistics.matching import trajectory_of
from gradatlas.statistics.tables import DYNAMICS_CURVES

# A figure, where it was drawn, is of runs on the probed prompts.
_PROBED = "SFT on one type of the probed prompts' responses a run, and DPO on their pairs, each {seen} examples."


def draw_dynamics(
    curves: str | Path,
    tables: str | Path,
    one_step: str | Path | None,
    runs: choose.Runs,
    title: str,
    output: str | Path,
    formats: Sequence[str],
) -> None:
    """Draw one model's and seed's runs into the folder `output`, with index.json, a list of the figures.

    `curves`: of `summarise_runs`; `tables`: the folder that has each run's tables in a folder of its name; `one_step`:
    that table, where the step was checked. `runs`: rows of the sheet of runs, by name; a figure is drawn where its
    runs are among them. `title`: what readers see as the model and seed.
    """
    frame = pl.from_arrow(read_table(DYNAMICS_CURVES, curves)).filter(pl.col("split") == "train")
    facts = read_metadata(curves, DYNAMICS_CURVES)
    stopped = set(facts["diverged"])
    runs = {name: row for name, row in runs.items() if name in set(frame["run"])}

    def table(kind: Table, name: str) -> pl.DataFrame:
        return pl.from_arrow(read_table(kind, Path(tables) / name / f"{kind.name}.parquet"))

    def figures() -> Iterator[tuple]:
        for name, row in runs.items():
            yield f"{name}.curves", [name], run_curves(frame.filter(pl.col("run") == name), row["title"] or name)
        extended = choose.extended(runs)
        if extended:
            yield "extend", _names(extended), extend_compared(frame, extended)
        for more, chains in _groups(choose.chains_of(runs)):
            # What the figure of extend shows already is not drawn again.
            if len(chains) > 1 and set(chains) != set(extended):
                yield f"chains{more}", _names(chains), chains_compared(frame, chains)
            yield f"norms{more}", _names(chains), norms_compared(frame, chains)
        # A run that stopped early has no place among matched ones: all would be cut to its length.
        lengths = [chain for chain in choose.lengths(runs) if not stopped & set(chain.runs)]
        if len(lengths) > 1:
            courses = {chain.last: trajectory_of(table(DYNAMICS, chain.last)) for chain in lengths}
            made = length_compared(frame, lengths, courses, facts["draws"], facts["seed"])
            yield "length", _names(lengths), made
        for kind, chains, draw in (
            ("losses", choose.losses(runs), losses_compared),
            ("negatives", choose.negatives(runs), negatives_compared),
        ):
            if chains:
                yield kind, _names(chains), draw(frame, chains)
        learnt = choose.learnt(runs)
        if learnt:
            dynamics, training = ({name: table(kind, name) for name in learnt} for kind in (DYNAMICS, TRAINING))
            seen = sorted({int(each["examples"].max()) for each in dynamics.values()})
            settings = _PROBED.format(seen=" or ".join(f"{value:,}" for value in seen))
            influences = table_of(dynamics, learnt, facts["draws"], facts["seed"])
            yield "influence", list(learnt), heat_map(influences, settings)
            yield "influence_time", list(learnt), over_time(dynamics, training, learnt, settings)
        if one_step:
            yield "one_step", [], step_chart(read_table(ONE_STEP, one_step).to_pylist())

    early = {name: runs[name]["title"] or name for name in runs if name in stopped}
    _write(figures(), early, title, output, formats, "draw_dynamics")


def draw_seeds(
    curves: Sequence[str | Path], runs: choose.Runs, title: str, output: str | Path, formats: Sequence[str]
) -> None:
    """Draw what several seeds of one model show together, as `draw_dynamics` does one seed."""
    frame = pl.concat(pl.from_arrow(read_table(DYNAMICS_CURVES, path)) for path in curves)
    frame = frame.filter(pl.col("split") == "train")
    stopped = {name for path in curves for name in read_metadata(path, DYNAMICS_CURVES)["diverged"]}
    runs = {name: row for name, row in runs.items() if name in set(frame["run"])}
    early = {name: runs[name]["title"] or name for name in runs if name in stopped}
    made = (
        (f"chains{more}", _names(chains), over_seeds(frame, chains)) for more, chains in _groups(choose.chains_of(runs))
    )
    _write(made, early, title, output, formats, "draw_seeds")


def _names(chains: Sequence[choose.Chain]) -> list[str]:
    return list(dict.fromkeys(name for chain in chains for name in chain.runs))


def _groups(chains: Sequence[choose.Chain]) -> Iterator[tuple[str, list[choose.Chain]]]:
    """As many chains to a figure as there are looks, with what ends the figure's name."""
    most = len(theme.ORDERED_COLOURS)
    for first in range(0, len(chains), most):
        yield f".{first // most + 1}" if first else "", list(chains[first : first + most])


def _write(
    figures, early: Mapping[str, str], title: str, output: str | Path, formats: Sequence[str], rule: str
) -> None:
    """Save each (kind, names of runs, (heading, chart)), and their list; `early`: titles of runs that diverged."""
    listed = []
    for kind, names, (heading, chart) in figures:
        stopped = [early[name] for name in names if name in early]
        if stopped:
            heading = heading.saying([f"STOPPED EARLY, a loss or gradient was not finite: {', '.join(stopped)}."])
            chart.title = theme.heading_of(heading, 2)
        listed.append(saved(chart, Path(output) / kind, {"kind": kind}, heading, formats))
        progress(f"{title}: {kind}: {', '.join(listed[-1]['files'])}")
    write_index(output, "dynamics", title, listed, rule)
