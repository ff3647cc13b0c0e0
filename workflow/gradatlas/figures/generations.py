"""Figures of free generations along the runs: win rates, repetition, answers of other questions, right answers.

Means over prompts with 95 % intervals over prompts (`gradatlas.statistics.generations`). Axes begin at 0; those of win
rates go to 1.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from gradatlas.charts import theme
from gradatlas.charts.numbers import percentage
from gradatlas.charts.panel import Axis, Palette, grid, series_palette
from gradatlas.charts.scales import Scale
from gradatlas.figures.run_curves import OF_CHAINS, Figure, line_panel, over_chains
from gradatlas.figures.runs import Chain, RunData, chains_of, in_groups
from gradatlas.statistics.generations import CHANGE

SPLITS = {"train": "Prompts that were trained on", "held_out": "Prompts that were never trained on"}
#: Figures of chains by measure: what the title counts, what was drawn.
MEASURES = {
    "repetition": (
        "Repeated 4-grams",
        "Repetition: share of a response's 4-grams of tokens that came before in it (seq-rep-4), mean over responses.",
    ),
    "borrowed": (
        "Answers of other questions",
        "Share of responses that state what a training response to another question states ({rule}).",
    ),
    "correct": ("Right answers", "Share of responses that are a right answer to their question, by the grammar."),
}
RULES = {
    True: "the same fact of the same other person, by the grammar",
    False: "six words in a row that its own prompt and its training responses do not have",
}
#: What readers see as a kind of figure.
TITLES = {"win_rate": "Win rates", **{name: title for name, (title, _) in MEASURES.items()}}
# With more ties than this a win rate is of few of the prompts.
_MOST_TIES = 0.75


def judged(data: RunData) -> list[list[Chain]]:
    """The runs with win rates."""
    runs = set(_of(data.frame, "win_rate")["run"])
    found = [Chain((name,), row["title"] or name) for name, row in data.runs.items() if name in runs]
    return [found] if found else []


def win_rate(data: RunData, chains: Sequence[Chain]) -> Figure:
    """A panel per run that is judged, a curve per baseline, over the examples the run has seen."""
    titles = {name: row["title"] or name for name, row in data.runs.items()}
    runs = [chain.last for chain in chains]
    rates = _of(data.frame, "win_rate")
    found, panels = [], []
    baselines = [name for name in titles if name in set(rates.filter(pl.col("run").is_in(runs))["baseline"])]
    palette = series_palette([f"against {titles[name]}" for name in baselines])
    for chain in chains:
        part = rates.filter(pl.col("run") == chain.last)
        against = [name for name in titles if name in set(part["baseline"])]
        for name in against:
            last = part.filter(pl.col("baseline") == name).sort("step").row(-1, named=True)
            unclear = " (unclear)" if last["low"] <= 0.5 <= last["high"] else ""
            found.append(f"{chain.title} against {titles[name]} {percentage(last['value'])}{unclear}")
        part = part.with_columns(
            (pl.lit("against ") + pl.col("baseline").replace_strict(titles)).alias("series"), x=pl.col("examples")
        )
        panels.append(_panel(part, chain.title, palette, "Examples seen by the run", 1.0, level=0.5))
    others = data.frame.filter(
        pl.col("measure").is_in(["tie", "disagreement", "unreadable"]) & pl.col("run").is_in(runs)
    )
    mean = dict(others.group_by("measure").agg(pl.col("value").mean()).iter_rows())
    judge = data.facts["judge"].get("model", "the grammar's oracle")
    ties, disagree, unread = (percentage(mean.get(name, 0.0)) for name in ("tie", "disagreement", "unreadable"))
    line = (
        f"Win rate: the share of {rates['n'].max()} prompts, none trained on, where {judge} prefers the "
        "run's response to the baseline's, a tie counting half, at equal shares of both runs; 95 % intervals over "
        f"prompts (Wilson's). Over all points: {ties} ties, {disagree} where the two orders disagree, {unread} without "
        "a readable verdict."
    )
    lines = (line, *_published(data.published), _able(data, chains), *_left_out(data))
    facts = (data.title, f"{rates['n'].max()} prompts")
    heading = theme.Heading("Wins at the end: " + "; ".join(found), facts, lines)
    return heading, grid(panels, 2, heading)


def undecided(data: RunData, chains: Sequence[Chain]) -> str:
    """Why the win rates decide nothing: no interval excludes 1/2, and nearly all contests are ties."""
    runs = [chain.last for chain in chains]
    rates, ties = (_of(data.frame, measure).filter(pl.col("run").is_in(runs)) for measure in ("win_rate", "tie"))
    unclear = ((rates["low"] <= 0.5) & (rates["high"] >= 0.5)).all()
    if not unclear or ties.is_empty() or ties["value"].mean() <= _MOST_TIES:
        return ""
    return f"{percentage(ties['value'].mean())} of the contests are ties, and no interval of a win rate excludes 50 %"


def none_seen(measure: str) -> Callable[[RunData, Sequence[Chain]], str]:
    """Why a measure decides nothing: no run shows any on prompts that it was not trained on."""

    def reason(data: RunData, chains: Sequence[Chain]) -> str:
        runs = [run for chain in chains for run in chain.runs]
        held = _of(data.frame, measure).filter((pl.col("split") == "held_out") & pl.col("run").is_in(runs))
        if held.is_empty() or held["value"].max():
            return ""
        unseen = held["high"].max()
        rest = f"; up to {percentage(unseen)} could go unseen" if unseen else ""
        return f"none on prompts that were never trained on, in any run{rest}"

    return reason


def measured(measure: str) -> Callable[[RunData], list[list[Chain]]]:
    """Drawn of the runs with this measure, as many chains to a figure as there are colours."""

    def chosen(data: RunData) -> list[list[Chain]]:
        present = {name: row | {"probed": False} for name, row in data.runs.items() if name in set(data.frame["run"])}
        runs = set(_of(data.frame, measure)["run"])
        return [
            group for group in in_groups(chains_of(present)) if runs & {run for chain in group for run in chain.runs}
        ]

    return chosen


def chains(measure: str) -> Callable[[RunData, Sequence[Chain]], Figure]:
    """Chains of runs over one another, a panel per split; a rule where one run ends and the next begins."""

    def draw(data: RunData, chains: Sequence[Chain]) -> Figure:
        title, drawn = MEASURES[measure]
        every, turns = over_chains(_of(data.frame, measure), chains)
        changes = _of(data.frame, CHANGE.format(measure))
        found = [f"{chain.title} {_change(changes.filter(pl.col('run') == chain.last))}" for chain in chains]
        line = (
            f"{drawn.format(rule=RULES[data.facts.get('oracle', False)])} Sampled at temperature 1; 95 % intervals "
            f"over {every['n'].max()} prompts a panel. In the title: prompts not trained on, from first to last step; "
            "unclear where the interval of the change, prompt by prompt, holds 0 (the same random numbers answer "
            "a prompt at every step)."
        )
        line += " The rule: where the last run of a chain begins." if turns else ""
        facts = (data.title, f"{every['n'].max()} prompts a panel")
        heading = theme.Heading(f"{title}: {'; '.join(found)}", facts, (line, *_left_out(data)))
        top = max(0.1, every["high"].max() or 0, every["value"].max())
        palette = series_palette([chain.title for chain in chains])
        panels = [
            _panel(
                every.filter(pl.col("split") == split),
                name,
                palette,
                OF_CHAINS,
                top,
                turns,
            )
            for split, name in SPLITS.items()
            if split in set(every["split"])
        ]
        return heading, grid(panels, 2, heading)

    return draw


def _of(frame: pl.DataFrame, measure: str) -> pl.DataFrame:
    return frame.filter(pl.col("measure") == measure)


def _change(change: pl.DataFrame) -> str:
    """Which way a chain's share moves, where the interval of the paired change excludes 0."""
    if change.is_empty():
        return "not measured at both ends"
    row = change.row(0, named=True)
    low, high = (row["value"],) * 2 if row["low"] is None else (row["low"], row["high"])
    return "unclear" if low <= 0 <= high else "up" if low > 0 else "down"


def _able(data: RunData, chains: Sequence[Chain]) -> str:
    """How many answers are right before each run: a win means little between models that cannot answer."""
    right = _of(data.frame, "correct").filter(pl.col("split") == "held_out").sort("step")
    found = []
    for chain in chains:
        first = right.filter(pl.col("run") == chain.last).head(1)
        for row in first.iter_rows(named=True):
            low, high = percentage(row["low"]), percentage(row["high"])
            found.append(f"{chain.title} {percentage(row['value'])} [{low}, {high}] of {row['n']}")
    if not found:
        return "No measure of ability: nothing tells right answers from wrong."
    return (
        f"Right answers to these prompts before the run: {'; '.join(found)}; chance {percentage(data.facts['chance'])}."
    )


def _published(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The study's own win rates in a line, by judge."""
    rows = [row for row in rows if row["measure"] == "win_rate"]
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row["judge"], []).append(f"{row['value']:.2f}")
    if not found:
        return []
    rates = "; ".join(f"{judge}: {', '.join(values)}" for judge, values in found.items())
    epochs = ", ".join(str(each) for each in sorted({row["epochs"] for row in rows}))
    models = ", ".join(dict.fromkeys(row["title"] for row in rows))
    return [f"Published, extend against its baseline after {epochs} epochs of DPO, {models}: {rates}."]


def _left_out(data: RunData) -> list[str]:
    lost = ", ".join(f"{count} {reason}" for reason, count in sorted(data.facts["left_out"].items()))
    return [f"Without a response, and left out: {lost}."] if lost else []


def _panel(part: pl.DataFrame, title: str, palette: Palette, x_title: str, top: float, turns=(), level=None):
    y = Axis("value", "Share", Scale("linear", 0.0, top), ".0%", count=5)
    # Beside points without an interval there is no band.
    bars = part["low"].null_count() > 0
    return line_panel(part, title, palette, x_title, turns, y, level=level, bars=bars)
