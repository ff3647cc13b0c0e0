"""How the length of SFT bears on the squeezing of the DPO after it, at matched examples and at a matched margin."""

from collections.abc import Sequence

import altair as alt
import polars as pl

from gradatlas.charts import theme
from gradatlas.charts.panel import Axis, Palette, grid, rounded, series_palette, titled
from gradatlas.figures.run_curves import COMPARED, Figure, facts_of, last_runs, line_panel, of_measure
from gradatlas.figures.runs import Chain, RunData, lengths
from gradatlas.finetuning.tables import DYNAMICS
from gradatlas.statistics.matching import SQUEEZING, Matched, matched, trajectory_of

_SERIES = {"examples": "at {level:,.0f} examples", "margin": "at a margin {level:+.1f} nats"}
#: By index of squeezing: the panel's title, that of its axis, and how a larger index reads.
_INDEX = {
    "fall": ("Squeezing: chosen", "Fall of the chosen response, nats", "chosen falls"),
    "rise": ("Squeezing: likeliest token", "Rise of the likeliest token, nats per token", "likeliest tokens rise"),
}


def chosen(data: RunData) -> list[list[Chain]]:
    """DPO after SFT of different lengths; a run that stopped early is none: all would be cut to its length."""
    stopped = set(data.facts["diverged"])
    found = [chain for chain in lengths(data.runs) if not stopped & set(chain.runs)]
    return [found] if len(found) > 1 else []


def length(data: RunData, chains: Sequence[Chain]) -> Figure:
    """Curves of DPO by the length of the SFT before it, and what DPO squeezed, run by run."""
    trajectories = {chain.last: trajectory_of(data.table(DYNAMICS, chain.last)) for chain in chains}
    found = matched(trajectories, data.facts["draws"], data.facts["seed"])
    # The paper holds ten epochs of SFT against one; DPO at once takes part where no shorter SFT does.
    first = next(place for place, chain in enumerate(chains) if chain.exposure or len(chains) == 2)
    _, low, high = found["margin"].difference(-1, first)
    differences = [_difference(low[place], high[place], _INDEX[index][2]) for place, index in enumerate(SQUEEZING)]
    n = len(next(iter(trajectories.values())).questions)
    heading = theme.Heading(
        f"{chains[-1].title}, against {chains[first].title}, at the same margin: {', '.join(differences)}",
        facts_of(data),
        (
            f"Means over {n} probed questions with 95 % intervals; the title's are of the paired difference. Below: "
            "changes within DPO. The margin, log π(chosen) − log π(rejected), is matched at "
            f"{found['margin'].level:.1f} nats gained, examples at {found['examples'].level:,.0f}, the most that all "
            "reach. A run that learns faster squeezes more at equal examples for that alone.",
        ),
    )
    entries, every = [chain.title for chain in chains], last_runs(data.frame, chains)[0]
    series = {on: _SERIES[on].format(level=each.level) for on, each in found.items()}
    palette = series_palette([*entries, *series.values()])
    panels = [
        line_panel(of_measure(every, kind, measure), name, palette, "Examples of DPO")
        for name, kind, measure in (COMPARED[0], COMPARED[3])
    ]
    points = pl.concat(_points(each, chains, series[on]) for on, each in found.items())
    panels += [
        _index_panel(points.filter(pl.col("index") == index), index, [*series.values()], palette) for index in SQUEEZING
    ]
    return heading, grid(panels, 2, heading)


def _points(found: Matched, chains: Sequence[Chain], series: str) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {"run": chain.last, "exposure": chain.exposure, "series": series, "index": index}
            | {name: getattr(found, name)[run, place] for name in ("value", "low", "high")}
            for run, chain in enumerate(chains)
            for place, index in enumerate(SQUEEZING)
        ]
    )


def _index_panel(part: pl.DataFrame, index: str, entries: Sequence[str], palette: Palette) -> alt.LayerChart:
    title, y_title, _ = _INDEX[index]
    # Beside one another: intervals over one another could not be read.
    base = theme.Chart(part.with_columns(map(rounded, ("value", "low", "high")))).encode(
        x=alt.X("exposure:O", title="Examples of SFT before DPO", axis=alt.Axis(labelAngle=0, format=",d")),
        xOffset=alt.XOffset("series:N", sort=list(entries)),
        color=palette.encode(alt.Color),
    )
    zero = theme.Chart(alt.InlineData([{"zero": 0}])).mark_rule(style="zero").encode(y="zero:Q")
    y, tooltip = Axis("value", y_title), ["run:N", "series:N", "value:Q", "low:Q", "high:Q"]
    parts = [
        zero,
        base.mark_rule(style="interval").encode(y=y.encode(alt.Y, "low"), y2="high:Q"),
        base.mark_point(style="dot-alone").encode(y=y.encode(alt.Y), shape=palette.encode(alt.Shape), tooltip=tooltip),
    ]
    return theme.layer(*parts, width=theme.panel_width(2), height=theme.HEIGHTS["main"], **titled(title))


def _difference(low: float, high: float, verb: str) -> str:
    """Whether an index is larger after the longest SFT, where the interval of the difference excludes 0."""
    if not low <= high or low <= 0 <= high:
        return f"{verb}: no clear difference"
    return f"{verb} {'more' if low > 0 else 'less'}"
