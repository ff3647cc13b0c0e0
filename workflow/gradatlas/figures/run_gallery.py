"""Which figures of finetuning runs there are, and of which runs each is drawn: of one seed, over seeds, of responses.

A kind is a row here and a function of the data and of the runs that it compares, which returns heading and chart.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from gradatlas.charts import theme
from gradatlas.charts.listing import saved, write_index
from gradatlas.core.command import progress
from gradatlas.core.tables import Table, read_metadata, read_table
from gradatlas.figures import generations, influence, kernels, one_step, rates, run_curves, runs, squeezing
from gradatlas.figures.runs import Chain, RunData, Runs
from gradatlas.statistics.tables import DYNAMICS_CURVES, GENERATION_CURVES


@dataclass(frozen=True)
class Kind:
    """A kind of figure: its name, the groups of runs that it shows (none: not drawn), and what draws it.

    `empty`: why a figure of such runs would decide nothing and is left out; nothing where it is drawn.
    """

    name: str
    chosen: Callable[[RunData], Sequence[Sequence[Chain]]]
    draw: Callable[[RunData, Sequence[Chain]], run_curves.Figure]
    empty: Callable[[RunData, Sequence[Chain]], str] = lambda data, chains: ""


def _found(choose: Callable[[Runs], list[Chain]]) -> Callable[[RunData], list[list[Chain]]]:
    """Drawn once, where the config has such runs."""
    return lambda data: [found] if (found := choose(data.runs)) else []


def _chains(data: RunData) -> list[list[Chain]]:
    return runs.in_groups(runs.chains_of(data.runs))


def _chains_beside(data: RunData) -> list[list[Chain]]:
    # What the figure of extend shows already is not drawn again.
    extended = set(runs.extended(data.runs))
    return [group for group in _chains(data) if len(group) > 1 and set(group) != extended]


#: Kinds of one run each, whose figures are called ``{run}.{kind}``.
OF_ONE_RUN = ("curves", "budget", "kernels")
#: Figures of one seed.
RUNS = (
    Kind("curves", runs.each_run, run_curves.run_curves),
    Kind("extend", _found(runs.extended), run_curves.extend),
    Kind("chains", _chains_beside, run_curves.CHAINS.draw),
    Kind("norms", _chains, run_curves.CHAIN_NORMS.draw),
    Kind("rates", rates.chosen, rates.sweep),
    Kind("length", squeezing.chosen, squeezing.length),
    Kind("losses", _found(runs.losses), run_curves.LOSSES.draw),
    Kind("negatives", _found(runs.negatives), run_curves.NEGATIVES.draw),
    Kind("influence", influence.chosen, influence.influence),
    Kind("influence_time", influence.chosen, influence.influence_time),
    Kind("budget", kernels.chosen, kernels.budget),
    Kind("kernels", kernels.chosen, kernels.kernels),
    Kind("one_step", lambda data: [[]] if data.one_step else [], one_step.one_step),
)
#: Figures over seeds.
SEEDS = (Kind("chains", _chains, run_curves.seeds), Kind("rates", rates.chosen, rates.sweep))
#: Figures of free generations.
GENERATIONS = (
    Kind("win_rate", generations.judged, generations.win_rate, generations.undecided),
    *(
        Kind(name, generations.measured(name), generations.chains(name), generations.none_seen(name))
        for name in generations.MEASURES
    ),
)


def draw_dynamics(
    curves: str | Path,
    tables: str | Path,
    one_step: str | Path | None,
    rows: Runs,
    title: str,
    output: str | Path,
    formats: Sequence[str],
    followed: Sequence[str] = (),
) -> None:
    """Draw one model's and seed's runs into the folder `output`, with index.json, a list of the figures.

    `curves`: of `summarise_runs`; `tables`: the folder that has each run's tables in a folder of its name; `one_step`:
    that table, where the step was checked. `rows`: of the sheet of runs, by name; a figure is drawn where its runs are
    among them. `title`: what readers see as the model and seed. `followed`: the runs with a budget and kernels.
    """

    def table(kind: Table, name: str) -> pl.DataFrame:
        return pl.from_arrow(read_table(kind, Path(tables) / name / f"{kind.name}.parquet"))

    frame, facts = _read([curves]), read_metadata(curves, DYNAMICS_CURVES)
    data = RunData(frame, _in(frame, rows), title, facts, table, one_step, followed)
    _write(RUNS, data, _stopped(data.runs, facts["diverged"]), "dynamics", title, output, formats, "draw_dynamics")


def draw_seeds(
    curves: Sequence[str | Path], rows: Runs, title: str, output: str | Path, formats: Sequence[str]
) -> None:
    """Draw what several seeds of one model show together, as `draw_dynamics` does one seed."""
    frame = _read(curves)
    diverged = {name for path in curves for name in read_metadata(path, DYNAMICS_CURVES)["diverged"]}
    data = RunData(frame, _in(frame, rows), title)
    _write(SEEDS, data, _stopped(data.runs, diverged), "dynamics", title, output, formats, "draw_seeds")


def draw_generations(
    curves: str | Path,
    rows: Runs,
    published: Sequence[Mapping[str, Any]],
    title: str,
    output: str | Path,
    formats: Sequence[str],
) -> None:
    """Draw one model's and seed's free generations into the folder `output`, with index.json, a list of the figures.

    `rows`: of the sheet of runs, by name. `published`: rows of config/published_dynamics.tsv, in a line below the win
    rates. `title`: what readers see as the model, or model and seed.
    """
    frame = pl.from_arrow(read_table(GENERATION_CURVES, curves))
    data = RunData(frame, rows, title, read_metadata(curves, GENERATION_CURVES), published=published)
    _write(GENERATIONS, data, {}, "generations", f"{title}: free generations", output, formats, "draw_generations")


def figures(
    kinds: Sequence[Kind], data: RunData
) -> Iterator[tuple[str, list[str], str, Callable[[], run_curves.Figure]]]:
    """Of each figure its name, the names of its runs, why it is left out (or nothing), and what draws it.

    Of several of a kind the later ones are numbered.
    """
    for kind in kinds:
        for place, chains in enumerate(kind.chosen(data)):
            if kind.name in OF_ONE_RUN:
                name = f"{chains[0].last}.{kind.name}"
            else:
                name = f"{kind.name}.{place + 1}" if place else kind.name
            of_runs = [run for chain in chains for run in chain.runs]
            yield name, of_runs, kind.empty(data, chains), partial(kind.draw, data, chains)


def _write(
    kinds: Sequence[Kind],
    data: RunData,
    stopped: Mapping[str, str],
    dataset: str,
    title: str,
    output,
    formats,
    rule: str,
) -> None:
    """Save each figure, and their list; `stopped`: titles of the runs that diverged, by name."""
    listed, left_out = [], []
    for name, of_runs, empty, draw in figures(kinds, data):
        if empty:
            left_out.append({"kind": name, "title": generations.TITLES[name.partition(".")[0]], "reason": empty})
            progress(f"{title}: {name}: left out, {empty}")
            continue
        heading, chart = draw()
        early = [stopped[run] for run in dict.fromkeys(of_runs) if run in stopped]
        if early:
            line = f"STOPPED EARLY, a loss or gradient was not finite: {', '.join(early)}."
            heading = heading.with_lines([line])
            for place, value in theme.headed(heading, 2).items():
                setattr(chart, place, value)
        listed.append(saved(chart, Path(output) / name, {"kind": name}, heading, formats))
        progress(f"{title}: {name}: {', '.join(listed[-1]['files'])}")
    write_index(output, dataset, title, listed, rule, left_out)


def _read(curves: Sequence[str | Path]) -> pl.DataFrame:
    frames = [pl.from_arrow(read_table(DYNAMICS_CURVES, path)) for path in curves]
    return pl.concat(frames).filter(pl.col("split") == "train")


def _in(frame: pl.DataFrame, rows: Runs) -> Runs:
    return {name: row for name, row in rows.items() if name in set(frame["run"])}


def _stopped(rows: Runs, diverged: Sequence[str] | set[str]) -> dict[str, str]:
    return {name: row["title"] or name for name, row in rows.items() if name in diverged}
