"""The learning-dynamics study's figures: one run's probes, chains of runs against one another, one step's prediction.

Levels are means over probes with 95 % intervals over probes; titles state the change within a run, paired by probe.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import altair as alt
import polars as pl

from workflow.lib.command import progress
from workflow.lib.dynamics.one_step import summary
from workflow.lib.figures import theme
from workflow.lib.figures.save import save
from workflow.lib.files import write_text
from workflow.lib.tables import read_metadata, read_table

#: Panels of one run: title, types, measure.
PANELS = (
    (
        "Chosen, and its rephrases",
        ("chosen", "chosen_semantic", "chosen_format", "initial", "self_rephrase"),
        "log_prob_sum",
    ),
    ("Rejected, and its rephrases", ("rejected", "rejected_semantic", "rejected_format"), "log_prob_sum"),
    ("Answers to other questions", ("irrelevant_train", "irrelevant_held_out", "unrelated"), "log_prob_sum"),
    ("No answers", ("permuted", "random_tokens"), "log_prob_sum"),
    ("Likeliest token at each place", ("chosen", "random_tokens"), "argmax_log_prob"),
)
NAMES = {
    "chosen": "chosen",
    "chosen_semantic": "same meaning",
    "chosen_format": "same form",
    "initial": "before finetuning",
    "self_rephrase": "own rephrase",
    "rejected": "rejected",
    "rejected_semantic": "same meaning",
    "rejected_format": "same form",
    "irrelevant_train": "chosen, trained",
    "irrelevant_held_out": "chosen, held out",
    "unrelated": "unrelated text",
    "permuted": "chosen, shuffled",
    "random_tokens": "random tokens",
}
#: Panels of chains: title, type, measure.
COMPARED = (
    ("Chosen", "chosen", "log_prob_sum"),
    ("Rejected", "rejected", "log_prob_sum"),
    ("Chosen of other questions", "irrelevant_train", "log_prob_sum"),
    ("Likeliest token along chosen", "chosen", "argmax_log_prob"),
)
NORMS = (
    ("Norm of A, mean over tokens", "chosen", "a_norm"),
    ("Norm of G of the chosen, mean over tokens", "chosen", "g_norm"),
    ("Log-probability of the likeliest token, sum", "chosen", "argmax_log_prob"),
    ("Log of all other probability, mean over tokens", "chosen", "rest_log_mass"),
)
TRAINED = {"captured": "projections only", "all": "all parameters"}
_BELOW = 125  # pixels between two rows of plots
_SUBTITLE = (
    "Log-probability of whole responses in nats, mean over {n} probed questions that are trained on, with 95 % "
    "intervals over questions; each panel has a scale of its own."
)


def draw_dynamics(
    curves: str | Path,
    one_step: str | Path | None,
    titles: Mapping[str, str],
    starts: Mapping[str, str],
    output: str | Path,
    formats: Sequence[str],
) -> None:
    """Draw one model's and seed's runs into the folder `output`, with index.json, a list of the figures.

    `titles` and `starts`: by run, its name to readers and the run it starts from. `one_step`: that table, where the
    step was checked.
    """
    frame = pl.from_arrow(read_table("dynamics_curves", curves)).filter(pl.col("split") == "train")
    runs = [name for name in titles if name in set(frame["run"])]
    made = {f"{name}.curves": run_curves(frame.filter(pl.col("run") == name), titles[name]) for name in runs}
    # As many chains to a figure as there are looks.
    chains, most = chains_of(runs, starts), len(theme.ORDERED_COLOURS)
    for first in range(0, len(chains), most):
        some, more = chains[first : first + most], f".{first // most + 1}" if first else ""
        if len(some) > 1:
            made[f"chains{more}"] = chains_compared(
                frame, some, titles, COMPARED, heading_of_chains(frame, some, titles)
            )
        made[f"norms{more}"] = chains_compared(frame, some, titles, NORMS, heading_of_norms(frame, some, titles))
    if one_step:
        made["one_step"] = step_chart(read_table("one_step", one_step).to_pylist())
    stopped = [titles[name] for name in read_metadata(curves)["diverged"] if name in titles]
    listed = []
    for kind, (heading, chart) in made.items():
        if stopped and kind != "one_step":
            heading = heading.saying([f"STOPPED EARLY, a loss or gradient was not finite: {', '.join(stopped)}."])
            chart.title = theme.heading_of(heading, 2)
        files = save(chart, Path(output) / kind, formats)
        listed.append({"kind": kind, "title": heading.title, "subtitle": list(heading.subtitle), "files": files})
        progress(f"{kind}: {', '.join(files)}")
    write_text(Path(output) / "index.json", json.dumps({"figures": listed}, indent=1, ensure_ascii=False) + "\n")


def chains_of(runs: Sequence[str], starts: Mapping[str, str]) -> list[list[str]]:
    """Runs that lead to one another, the last of each chain being one that no other starts from."""
    last = [name for name in runs if name not in {starts.get(other) for other in runs}]
    chains = []
    for name in last:
        chain = [name]
        while starts.get(chain[0]) in runs:
            chain.insert(0, starts[chain[0]])
        chains.append(chain)
    return chains


def run_curves(frame: pl.DataFrame, title: str) -> tuple[theme.Heading, alt.ConcatChart]:
    """The paper's panels of one run: groups of probes over the examples seen."""
    said = [f"{_sure(frame, kind, measure, words)}" for kind, measure, words in (
        ("chosen", "log_prob_sum", "chosen"),
        ("rejected", "log_prob_sum", "rejected"),
        ("irrelevant_train", "log_prob_sum", "other questions' answers"),
        ("chosen", "argmax_log_prob", "likeliest tokens"),
    )]  # fmt: skip
    heading = theme.Heading(f"{title}: {', '.join(said)} (nats)", (_SUBTITLE.format(n=_probes(frame)),))
    panels = []
    for name, kinds, measure in PANELS:
        entries = {NAMES[kind]: look for look, kind in enumerate(kinds)}
        part = frame.filter(pl.col("type").is_in(kinds) & (pl.col("measure") == measure))
        part = part.with_columns(pl.col("type").replace_strict(NAMES).alias("series"), pl.col("examples").alias("x"))
        name += ", along the prefix of" if measure == "argmax_log_prob" else ""
        panels.append(_panel(part, name, list(entries), "Examples seen"))
    return heading, _grid(panels, 2, heading)


def chains_compared(frame, chains, titles, shown, heading) -> tuple[theme.Heading, alt.ConcatChart]:
    """Chains of runs over one another, a panel a measure; a rule where one run ends and the next begins."""
    parts = []
    for chain in chains:
        series = titles[chain[-1]]
        parts.append(frame.filter(pl.col("run").is_in(chain)).with_columns(
            pl.lit(series).alias("series"), (pl.col("before") + pl.col("examples")).alias("x")))  # fmt: skip
    every = pl.concat(parts)
    turns = sorted({value for value in every["before"] if value})
    panels = []
    for name, kind, measure in shown:
        part = every.filter((pl.col("type") == kind) & (pl.col("measure") == measure))
        entries = [titles[chain[-1]] for chain in chains]
        panels.append(_panel(part, name, entries, "Examples seen by all runs of the chain", turns))
    return heading, _grid(panels, 2, heading)


def heading_of_chains(frame: pl.DataFrame, chains, titles: Mapping[str, str]) -> theme.Heading:
    """What the last run of every chain does to the chosen responses and to the likeliest tokens."""
    said = []
    for chain in chains:
        part = frame.filter(pl.col("run") == chain[-1])
        told = (
            _sure(part, "chosen", "log_prob_sum", "chosen"),
            _sure(part, "chosen", "argmax_log_prob", "likeliest tokens"),
        )
        said.append(f"{titles[chain[-1]]}: {', '.join(told)}")
    lines = ("Changes in the title are those of the last run of a chain. The rule: where that run begins. "
             + _SUBTITLE.format(n=_probes(frame)))  # fmt: skip
    return theme.Heading("; ".join(said) + " (nats)", (lines,))


def heading_of_norms(frame: pl.DataFrame, chains, titles: Mapping[str, str]) -> theme.Heading:
    """How ||A|| and ||G|| change over every chain's last run."""
    said = []
    for chain in chains:
        part = frame.filter(pl.col("run") == chain[-1])
        told = (_sure(part, "chosen", "a_norm", "norm of A"), _sure(part, "chosen", "g_norm", "norm of G"))
        said.append(f"{titles[chain[-1]]}: {', '.join(told)}")
    lines = "Along the chosen responses' own prefixes; changes in the title are those of the last run of a chain. " + (
        f"Means over {_probes(frame)} probed questions with 95 % intervals over questions."
    )
    return theme.Heading("; ".join(said), (lines,))


def _sure(frame: pl.DataFrame, kind: str, measure: str, words: str) -> str:
    """A change within a run, with its sign only where its interval says so."""
    last = frame.filter((pl.col("type") == kind) & (pl.col("measure") == measure)).sort("step")[-1].to_dicts()[0]
    if last["change_low"] <= 0 <= last["change_high"]:
        return f"{words} not clearly moved"
    digits = 1 if abs(last["change"]) >= 1 else 2
    return f"{words} " + f"{last['change']:+.{digits}f}".replace("-", "−")


def _probes(frame: pl.DataFrame) -> int:
    return int(frame["n"].max())


def _panel(part: pl.DataFrame, name: str, entries: Sequence[str], x_title: str, turns=()) -> alt.LayerChart:
    colours, shapes = theme.ORDERED_COLOURS[: len(entries)], theme.ORDERED_SHAPES[: len(entries)]
    legend = alt.Legend(title=None, columns=3, orient="bottom", labelLimit=150)
    colour = alt.Color("series:N", scale=alt.Scale(domain=entries, range=list(colours)), legend=legend)
    shape = alt.Shape("series:N", scale=alt.Scale(domain=entries, range=list(shapes)), legend=legend)
    data = part.select("series", "run", "x", *(pl.col(key).round_sig_figs(6) for key in ("value", "low", "high")), "n")
    base = alt.Chart(data).encode(
        x=alt.X("x:Q", title=x_title, axis=alt.Axis(format=",d", tickCount=6)), color=colour, detail="run:N"
    )
    scale = alt.Scale(zero=False, nice=True)
    y = alt.Y("value:Q", scale=scale, title=None)
    tooltip = ["series:N", "run:N", "x:Q", "value:Q", "low:Q", "high:Q", "n:Q"]
    layers = [
        base.mark_area(style="band").encode(y=alt.Y("low:Q", scale=scale, title=None), y2="high:Q"),
        base.mark_line(style="curve").encode(y=y),
        base.mark_point(style="dot").encode(y=y, shape=shape, tooltip=tooltip),
    ]
    if turns:
        rules = alt.Chart(alt.InlineData([{"x": turn} for turn in turns]))
        layers.insert(0, rules.mark_rule(style="zero", strokeDash=list(theme.DASHES[1])).encode(x="x:Q"))
    title = alt.Title(name, style="panel-title")
    return alt.layer(*layers, width=theme.panel_width(2), height=theme.HEIGHTS["main"], title=title)


def _grid(panels, columns: int, heading: theme.Heading) -> alt.ConcatChart:
    apart = alt.Resolve(
        scale=alt.ScaleResolveMap(x="independent", y="independent", color="independent", shape="independent"),
        legend=alt.LegendResolveMap(color="independent", shape="independent"),
    )
    # Plots stand in line whatever their legends' heights; the space between rows holds axis and legend.
    room = alt.RowColnumber(row=_BELOW, column=theme.GAP * 3)
    return alt.concat(
        *panels, columns=columns, title=theme.heading_of(heading, columns), resolve=apart, bounds="flush", spacing=room
    )


def step_chart(rows: Sequence[Mapping]) -> tuple[theme.Heading, alt.ConcatChart]:
    """Predicted against measured changes at the smallest step, and the residual against the size of the step."""
    told = summary(rows)
    slopes, orders = (_range([row[key] for row in told], form) for key, form in (("slope", ".3f"), ("order", ".2f")))
    share = _range([row["share"] for row in told if row["trained"] == "all"], ".0%")
    frame = pl.DataFrame(rows).with_columns(
        pl.col("trained").replace_strict(TRAINED).alias("series"),
        (pl.col("measured") - pl.col("predicted")).alias("residual"),
    )
    pairs = frame["pair_id"].n_unique()
    learnt = f"{pairs} updates, each" if pairs > 1 else "one update,"
    counts = f"{frame['probe_id'].n_unique()} responses, {learnt} by SFT and by DPO"
    heading = theme.Heading(
        f"One step of SGD: measured on predicted change has slope {slopes}; the residual falls {orders} times when the "
        "step is halved",
        (
            f"{counts}, in float64. The query, key, value, output and feed-forward weights carry {share} of the "
            "prediction for all parameters. On the right: circles, projections only; triangles, all parameters.",
        ),
    )
    entries = list(TRAINED.values())
    colours, shapes = [theme.ORDERED_COLOURS[i] for i in (0, 2)], ["circle", "triangle-up"]
    colour = alt.Color("series:N", scale=alt.Scale(domain=entries, range=colours), title=None, legend=None)
    shape = alt.Shape("series:N", scale=alt.Scale(domain=entries, range=shapes), title=None, legend=None)
    place = {"width": theme.panel_width(3), "height": theme.HEIGHTS["main"]}
    panels = []
    for name in entries:
        smallest = frame.filter((pl.col("series") == name) & (pl.col("halving") == pl.col("halving").max()))
        digits = [pl.col(key).round_sig_figs(6) for key in ("predicted", "measured")]
        ends = [float(smallest["predicted"].min()), float(smallest["predicted"].max())]
        diagonal = alt.Chart(alt.InlineData([{"predicted": value, "measured": value} for value in ends]))
        axis = alt.Axis(tickCount=4)
        x = alt.X("predicted:Q", title="Predicted change, nats", axis=axis)
        y = alt.Y("measured:Q", title="Measured change, nats" if name == entries[0] else None, axis=axis)
        tooltip = ["probe_id:N", "loss:N", "predicted:Q", "measured:Q"]
        dots = alt.Chart(smallest.select("series", "loss", "probe_id", *digits)).mark_point(style="dot", size=28)
        panels.append(
            alt.layer(
                diagonal.mark_line(style="zero", color=theme.RULE).encode(x=x, y=y),
                dots.encode(x=x, y=y, color=colour, shape=shape, tooltip=tooltip),
                title=alt.Title(f"{name[:1].upper()}{name[1:]} trained", style="panel-title"),
                **place,
            )
        )
    keys = ["series", "loss", "pair_id", "halving"]
    falls = frame.group_by(keys).agg((pl.col("residual") ** 2).mean().sqrt().round_sig_figs(6)).sort(keys)
    falls = falls.with_columns(
        (0.5 ** pl.col("halving")).alias("size"), pl.concat_str("loss", "pair_id", separator=" ").alias("update")
    )
    sizes = alt.Axis(values=sorted(falls["size"].unique()))
    decades = range(math.floor(math.log10(falls["residual"].min())), math.ceil(math.log10(falls["residual"].max())) + 1)
    lines = alt.Chart(falls).encode(
        x=alt.X("size:Q", scale=alt.Scale(type="log", base=2), title="Step, share of the largest", axis=sizes),
        y=alt.Y(
            "residual:Q",
            scale=alt.Scale(type="log", domain=[10.0 ** decades[0], 10.0 ** decades[-1]]),
            title="Residual, root mean square, nats",
            axis=alt.Axis(format=".0e", values=[10.0**decade for decade in decades]),
        ),
        color=colour,
        detail="update:N",
    )
    panels.append(
        alt.layer(
            lines.mark_line(style="curve"),
            lines.mark_point(style="dot", size=28).encode(shape=shape),
            title=alt.Title("As the step is halved", style="panel-title"),
            **place,
        )
    )
    return heading, alt.concat(*panels, columns=3, title=theme.heading_of(heading, 3), spacing=theme.GAP)


def _range(values: Sequence[float], form: str) -> str:
    """The least and the greatest as readers see them, or one number where they are alike."""
    ends = dict.fromkeys(format(value, form) for value in (min(values), max(values)))
    return " to ".join(ends)
