"""What the figures of finetuning runs share: names of the probes, panels of lines, words for a change."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from workflow.lib.figures import theme

#: Every type of probe by itself.
TYPES = {
    "chosen": "chosen",
    "initial": "before finetuning",
    "self_rephrase": "own rephrase",
    "chosen_semantic": "chosen, same meaning",
    "chosen_format": "chosen, same form",
    "rejected": "rejected",
    "rejected_semantic": "rejected, same meaning",
    "rejected_format": "rejected, same form",
    "irrelevant_train": "other question, trained",
    "irrelevant_held_out": "other question, held out",
    "unrelated": "unrelated text",
    "permuted": "chosen, shuffled",
    "random_tokens": "random tokens",
}
# As many lines as one panel can hold: those in order of speed, then those of the projections.
_MORE_COLOURS = tuple(theme.PROJECTION_COLOURS.values())
_MORE_SHAPES = tuple(theme.PROJECTION_SHAPES.values())
MOST = len(_MORE_COLOURS)
_BELOW = 125  # pixels between two rows of plots
LEVELS = (
    "Log-probability of whole responses in nats, mean over {n} probed questions that are trained on, with 95 % "
    "intervals over questions; each panel has a scale of its own."
)


def looks(entries: Sequence[str]) -> tuple[list[str], list[str]]:
    """Colours and shapes of so many lines."""
    few = len(entries) <= len(theme.ORDERED_COLOURS)
    colours, shapes = (theme.ORDERED_COLOURS, theme.ORDERED_SHAPES) if few else (_MORE_COLOURS, _MORE_SHAPES)
    return list(colours[: len(entries)]), list(shapes[: len(entries)])


def sure(frame: pl.DataFrame, kind: str, measure: str, words: str) -> str:
    """A change within a run of ``dynamics_curves``, with its sign only where its interval says so."""
    if of_measure(frame, kind, measure).is_empty():
        return f"{words} not followed"
    last = last_of(frame, kind, measure)
    if last["change_low"] <= 0 <= last["change_high"]:
        return f"{words} not clearly moved"
    return f"{words} {signed(last['change'])}"


def not_followed(frame: pl.DataFrame) -> list[str]:
    """A line that names the types without a usable probe, such as rephrases that nobody wrote; none where all have."""
    missing = [words for kind, words in TYPES.items() if kind not in set(frame["type"])]
    return [f"No probes of these types: {'; '.join(missing)}."] if missing else []


def of_measure(frame: pl.DataFrame, kind: str, measure: str) -> pl.DataFrame:
    """The curves of one measure of one type of probe."""
    return frame.filter((pl.col("type") == kind) & (pl.col("measure") == measure))


def last_of(frame: pl.DataFrame, kind: str, measure: str) -> dict[str, Any]:
    """The last row of one measure of one type of probe in one run."""
    return of_measure(frame, kind, measure).sort("step")[-1].to_dicts()[0]


def signed(value: float, digits: int | None = None) -> str:
    """A change with its sign: one digit behind the point from 1 on, else two."""
    digits = digits if digits is not None else 1 if abs(value) >= 1 else 2
    return f"{value:+.{digits}f}".replace("-", "−")


def probes_of(frame: pl.DataFrame) -> int:
    """The number of probes that a mean is over."""
    return int(frame["n"].max())


def panel(
    part: pl.DataFrame,
    name: str,
    entries: Sequence[str],
    x_title: str,
    turns: Sequence[float] = (),
    y_title: str | None = None,
    y_scale: alt.Scale | None = None,
) -> alt.LayerChart:
    """Lines with bands and points: columns series, run, x, value, low, high, n; `turns`: where rules stand."""
    colours, shapes = looks(entries)
    columns = 3 if max(map(len, entries)) < 20 else 2
    legend = alt.Legend(title=None, columns=columns, orient="bottom", labelLimit=170)
    colour = alt.Color("series:N", scale=alt.Scale(domain=list(entries), range=colours), legend=legend)
    shape = alt.Shape("series:N", scale=alt.Scale(domain=list(entries), range=shapes), legend=legend)
    data = part.select("series", "run", "x", *(pl.col(key).round_sig_figs(6) for key in ("value", "low", "high")), "n")
    axis = alt.Axis(format=",d", tickCount=6) if data.schema["x"].is_integer() else alt.Axis(tickCount=6)
    base = alt.Chart(data).encode(x=alt.X("x:Q", title=x_title, axis=axis), color=colour, detail="run:N")
    scale = y_scale or alt.Scale(zero=False, nice=True)
    y = alt.Y("value:Q", scale=scale, title=y_title)
    tooltip = ["series:N", "run:N", "x:Q", "value:Q", "low:Q", "high:Q", "n:Q"]
    layers = [
        base.mark_area(style="band").encode(y=alt.Y("low:Q", scale=scale, title=y_title), y2="high:Q"),
        base.mark_line(style="curve").encode(y=y, order="x:Q"),
        base.mark_point(style="dot").encode(y=y, shape=shape, tooltip=tooltip),
    ]
    if turns:
        rules = alt.Chart(alt.InlineData([{"x": turn} for turn in turns]))
        layers.insert(0, rules.mark_rule(style="zero", strokeDash=list(theme.DASHES[1])).encode(x="x:Q"))
    title = alt.Title(name, style="panel-title")
    return alt.layer(*layers, width=theme.panel_width(2), height=theme.HEIGHTS["main"], title=title)


def grid(
    panels: Sequence[alt.LayerChart], columns: int, heading: theme.Heading, below: int = _BELOW
) -> alt.ConcatChart:
    """Panels in rows of `columns`, each with axes and a legend of its own, below their heading."""
    apart = alt.Resolve(
        scale=alt.ScaleResolveMap(x="independent", y="independent", color="independent", shape="independent"),
        legend=alt.LegendResolveMap(color="independent", shape="independent"),
    )
    # Plots stand in line whatever their legends' heights; the space between rows holds axis and legend.
    room = alt.RowColnumber(row=below, column=theme.GAP * 3)
    return alt.concat(
        *panels, columns=columns, title=theme.heading_of(heading, columns), resolve=apart, bounds="flush", spacing=room
    )
