"""Figures of free generations along the runs: win rates, repetition, answers of other questions, right answers.

Means over prompts with 95 % intervals over prompts (workflow/lib/statistics/generations.py). Axes begin at 0; those of
win rates go to 1.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import polars as pl

from workflow.lib.command import progress
from workflow.lib.figures import theme
from workflow.lib.figures.listing import saved, write_index
from workflow.lib.statistics.generations import CHANGE
from workflow.lib.tables import read_metadata, read_table

SPLITS = {"train": "Prompts that were trained on", "held_out": "Prompts that were never trained on"}
#: Figures of chains by measure: what the title counts, what was drawn.
TOLD = {
    "repetition": (
        "repeated 4-grams",
        "Repetition: share of a response's 4-grams of tokens that came before in it (seq-rep-4), mean over responses.",
    ),
    "borrowed": (
        "answers of other questions",
        "Share of responses that say what a training response to another question says ({rule}).",
    ),
    "correct": ("right answers", "Share of responses that are a right answer to their question, by the grammar."),
}
RULES = {
    True: "the same fact of the same other person, by the grammar",
    False: "six words in a row that its own prompt and its training responses do not have",
}
_BELOW = 105  # pixels between two rows of plots


def draw_generations(
    curves: str | Path,
    titles: Mapping[str, str],
    starts: Mapping[str, str],
    published: Sequence[Mapping[str, Any]],
    title: str,
    output: str | Path,
    formats: Sequence[str],
) -> None:
    """Draw one model's and seed's generations into the folder `output`, with index.json, a list of the figures.

    `titles` and `starts`: by run, its name to readers and the run it starts from. `published`: rows of
    config/published_dynamics.tsv, told below the win rates.
    `title`: what readers see as the model, or model and seed.
    """
    frame = pl.from_arrow(read_table("generation_curves", curves))
    facts = read_metadata(curves, "generation_curves")
    runs = [name for name in titles if name in set(frame["run"])]
    made = {}
    if not (rates := frame.filter(pl.col("measure") == "win_rate")).is_empty():
        judged = [run for run in runs if run in set(rates["run"])]
        made["win_rate"] = win_rates(frame, judged, titles, facts, _published(published))
    chains, most = _chains(runs, starts), len(theme.ORDERED_COLOURS)
    for measure in TOLD:
        for first in range(0, len(chains), most):
            some, more = chains[first : first + most], f".{first // most + 1}" if first else ""
            drawn = [run for chain in some for run in chain]
            asked = frame.filter(pl.col("run").is_in(drawn))
            part, changes = (asked.filter(pl.col("measure") == name) for name in (measure, CHANGE.format(measure)))
            if not part.is_empty():
                made[f"{measure}{more}"] = chains_told(part, changes, measure, some, titles, facts)
    listed = []
    for kind, (heading, chart) in made.items():
        if facts["left_out"]:
            lost = ", ".join(f"{count} {reason}" for reason, count in sorted(facts["left_out"].items()))
            heading = heading.saying([f"Without a response, and left out: {lost}."])
            chart.title = theme.heading_of(heading, 2)
        listed.append(saved(chart, Path(output) / kind, {"kind": kind}, heading, formats))
        progress(f"{kind}: {', '.join(listed[-1]['files'])}")
    write_index(output, "generations", f"{title}: free generations", listed, "draw_generations")


def win_rates(frame, runs, titles, facts, known: Sequence[str]) -> tuple[theme.Heading, alt.ConcatChart]:
    """A panel a run that is judged, a curve a baseline, over the examples the run has seen."""
    rates = frame.filter(pl.col("measure") == "win_rate")
    said, panels = [], []
    for run in runs:
        part = rates.filter(pl.col("run") == run)
        against = [name for name in titles if name in set(part["baseline"])]
        entries = [titles[name] for name in against]
        for name in against:
            last = part.filter(pl.col("baseline") == name).sort("step").row(-1, named=True)
            unclear = " (unclear)" if last["low"] <= 0.5 <= last["high"] else ""
            said.append(f"{titles[run]} against {titles[name]} {_percent(last['value'])}{unclear}")
        part = part.with_columns(
            pl.col("baseline").replace_strict(dict(titles)).alias("series"), pl.col("examples").alias("x")
        )
        heading = f"{titles[run]}, against"
        panels.append(_panel(part, heading, entries, "Examples seen by the run", (0.0, 1.0), rule=0.5))
    told = frame.filter(pl.col("measure").is_in(["tie", "disagreement", "unreadable"]) & pl.col("run").is_in(runs))
    mean = dict(told.group_by("measure").agg(pl.col("value").mean()).iter_rows())
    judge = facts["judge"].get("model", "the grammar's oracle")
    ties, disagree, unread = (_percent(mean.get(name, 0.0)) for name in ("tie", "disagreement", "unreadable"))
    lines = (
        f"Win rate: the share of {rates['n'].max()} prompts, none trained on, where {judge} prefers the "
        "run's response to the baseline's, a tie counting half, at equal shares of both runs; 95 % intervals over "
        f"prompts (Wilson's). Over all points: {ties} ties, {disagree} where the two orders disagree, {unread} without "
        "a readable verdict."
    )
    heading = theme.Heading("Wins at the end: " + "; ".join(said), (lines, *known))
    return heading, _grid(panels, heading)


def chains_told(part, changes, measure, chains, titles, facts) -> tuple[theme.Heading, alt.ConcatChart]:
    """Chains of runs over one another, a panel a split; a rule where one run ends and the next begins."""
    words, line = TOLD[measure]
    parts, said = [], []
    for chain in chains:
        series = titles[chain[-1]]
        parts.append(part.filter(pl.col("run").is_in(chain)).with_columns(
            pl.lit(series).alias("series"), (pl.col("before") + pl.col("examples")).alias("x")))  # fmt: skip
        change = changes.filter(pl.col("run") == chain[-1])
        if not change.is_empty():
            held = part.filter(pl.col("split") == "held_out").sort("step")
            first, last = (held.filter(pl.col("run") == run)["value"] for run in (chain[0], chain[-1]))
            said.append(f"{series} {_change(first[0], last[-1], change.row(0, named=True))}")
    every = pl.concat(parts)
    turns = sorted({value for value in every["before"] if value})
    entries = [titles[chain[-1]] for chain in chains]
    top = max(0.1, every["high"].max() or 0, every["value"].max())
    x_title = "Examples seen by all runs of the chain"
    panels = [
        _panel(every.filter(pl.col("split") == split), name, entries, x_title, (0.0, top), turns)
        for split, name in SPLITS.items()
        if split in set(every["split"])
    ]
    drawn = line.format(rule=RULES[facts.get("oracle", False)])
    lines = f"{drawn} Sampled at temperature 1; 95 % intervals over {every['n'].max()} prompts a panel."
    lines += (
        " In the title: prompts not trained on, from the first step to the last; unclear where the interval of "
        "the change, prompt by prompt, holds 0 (the same random numbers answer a prompt at every step)."
        + (" The rule: where the last run of a chain begins." if turns else "")
    )
    told = _none(every) or "; ".join(said)
    heading = theme.Heading(f"{words[:1].upper()}{words[1:]}: {told}", (lines,))
    return heading, _grid(panels, heading)


def _none(every: pl.DataFrame) -> str:
    """Where no run shows any on prompts that it was not trained on, that this decides nothing; else nothing."""
    held = every.filter(pl.col("split") == "held_out")
    if held["value"].max() or not held["high"].max():
        return ""
    return f"none in any run, which decides nothing: up to {_percent(held['high'].max())} could go unseen"


def _chains(runs: Sequence[str], starts: Mapping[str, str]) -> list[list[str]]:
    """Runs that lead to one another, by the last ones, from which no other starts."""
    chains = []
    for last in (name for name in runs if name not in {starts.get(other) for other in runs}):
        chain = [last]
        while starts.get(chain[0]) in runs:
            chain.insert(0, starts[chain[0]])
        chains.append(chain)
    return chains


def _published(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The study's own win rates in a line, by judge."""
    found: dict[str, list[str]] = {}
    for row in (row for row in rows if row["measure"] == "win_rate"):
        found.setdefault(row["judge"], []).append(f"{row['value']:.2f}")
    if not found:
        return []
    epochs = sorted({row["epochs"] for row in rows if row["measure"] == "win_rate"})
    told = "; ".join(f"{judge}: {', '.join(values)}" for judge, values in found.items())
    when = ", ".join(str(each) for each in epochs)
    models = ", ".join(dict.fromkeys(row["title"] for row in rows))
    return [f"Published, extend against its baseline after {when} epochs of DPO, {models}: {told}."]


def _change(first: float, last: float, change: Mapping[str, Any]) -> str:
    """From where to where; unclear where the interval of the paired change holds 0."""
    begun, ended = _percent(first), _percent(last)
    if begun == ended:
        return f"{begun} at both ends"
    low, high = (change["value"],) * 2 if change["low"] is None else (change["low"], change["high"])
    return f"{begun} to {ended}" + (" (unclear)" if low <= 0 <= high else "")


def _percent(share: float) -> str:
    return f"{share:.0%}"


def _panel(part: pl.DataFrame, name, entries, x_title, domain, turns=(), rule: float | None = None) -> alt.LayerChart:
    colours, shapes = theme.ORDERED_COLOURS[: len(entries)], theme.ORDERED_SHAPES[: len(entries)]
    legend = alt.Legend(title=None, columns=2, orient="bottom", labelLimit=190)
    colour = alt.Color("series:N", scale=alt.Scale(domain=entries, range=list(colours)), legend=legend)
    shape = alt.Shape("series:N", scale=alt.Scale(domain=entries, range=list(shapes)), legend=legend)
    data = part.select("series", "run", "x", *(pl.col(key).round_sig_figs(6) for key in ("value", "low", "high")), "n")
    x = alt.X("x:Q", title=x_title, axis=alt.Axis(format=",d", tickCount=5))
    base = alt.Chart(data).encode(x=x, color=colour, detail="run:N")
    scale = alt.Scale(domain=list(domain), nice=domain[1] != 1)
    y = alt.Y("value:Q", scale=scale, title=None, axis=alt.Axis(format=".0%", tickCount=5))
    tooltip = ["series:N", "run:N", "x:Q", "value:Q", "low:Q", "high:Q", "n:Q"]
    layers = [
        base.mark_area(style="band").encode(y=alt.Y("low:Q", scale=scale, title=None), y2="high:Q"),
        base.mark_line(style="curve").encode(y=y),
        base.mark_point(style="dot", size=34).encode(y=y, shape=shape, tooltip=tooltip),
    ]
    if data["low"].null_count():
        # Beside points without an interval there is no band.
        layers.insert(
            0, base.mark_rule(style="interval").encode(y=alt.Y("low:Q", scale=scale, title=None), y2="high:Q")
        )
    if turns:
        rules = alt.Chart(alt.InlineData([{"x": turn} for turn in turns]))
        layers.insert(0, rules.mark_rule(style="zero", strokeDash=list(theme.DASHES[1])).encode(x="x:Q"))
    if rule is not None:
        even = alt.Chart(alt.InlineData([{"even": rule}]))
        layers.insert(0, even.mark_rule(style="zero", strokeDash=list(theme.DASHES[1])).encode(y="even:Q"))
    title = alt.Title(name, style="panel-title")
    return alt.layer(*layers, width=theme.panel_width(2), height=theme.HEIGHTS["main"], title=title)


def _grid(panels: Sequence[alt.LayerChart], heading: theme.Heading) -> alt.ConcatChart:
    apart = alt.Resolve(
        scale=alt.ScaleResolveMap(x="independent", y="independent", color="independent", shape="independent"),
        legend=alt.LegendResolveMap(color="independent", shape="independent"),
    )
    room = alt.RowColnumber(row=_BELOW, column=theme.GAP * 3)
    title = theme.heading_of(heading, 2)
    return alt.concat(*panels, columns=2, title=title, resolve=apart, bounds="flush", spacing=room)
