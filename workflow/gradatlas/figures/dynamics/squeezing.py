"""How the length of SFT bears on the squeezing of the DPO after it, at matched examples and at a matched margin."""

from collections.abc import Mapping, Sequence

import altair as alt
import numpy as np
import polars as pl

from gradatlas.charts import theme
from gradatlas.figures.dynamics.choose import Chain
from gradatlas.figures.dynamics.curves import COMPARED
from gradatlas.figures.dynamics.parts import grid, of_measure, panel, signed
from gradatlas.statistics.bootstrap import interval
from gradatlas.statistics.matching import ON, SQUEEZING, Trajectory, squeezing

_MATCHED = {"examples": "at {level:,.0f} examples", "margin": "at a margin {level:+.1f} nats"}
_INDEX = {"fall": "Fall of the chosen response, nats", "rise": "Rise of the likeliest token, nats per token"}


def length_compared(
    frame: pl.DataFrame, chains: Sequence[Chain], courses: Mapping[str, Trajectory], draws: int, seed: int
) -> tuple[theme.Heading, alt.ConcatChart]:
    """Curves of DPO by the length of the SFT before it, and what DPO squeezed, run by run.

    `frame`: ``dynamics_curves``; `courses`: by the name of a chain's last run; `draws`, `seed`: of the bootstrap over
    questions.
    """
    found, levels = {}, {}
    for on in ON:
        found[on], drawn = squeezing(courses, on, draws, seed, f"squeezing {on}")
        levels[on] = float(drawn[0])
    # The paper holds ten epochs of SFT against one; DPO at once takes part where no shorter SFT does.
    first = next(place for place, chain in enumerate(chains) if chain.exposure or len(chains) == 2)
    shortest, longest = chains[first], chains[-1]
    cost = interval(found["margin"][:, -1] - found["margin"][:, first])
    said = [_difference(cost, place) for place in range(len(SQUEEZING))]
    n = len(next(iter(courses.values())).questions)
    matched = {on: _MATCHED[on].format(level=levels[on]) for on in ON}
    heading = theme.Heading(
        f"{longest.title}, against {shortest.title}, at the same margin: {', '.join(said)}",
        (
            f"Means over {n} probed questions with 95 % intervals. Below: changes within DPO; in the title the "
            "paired difference. The margin, log π(chosen) − log π(rejected), is matched at "
            f"{levels['margin']:.1f} nats gained, examples at {levels['examples']:,.0f}, the most that all reach. A "
            "run that learns faster squeezes more at equal examples for that alone. Each panel has its own scale.",
        ),
    )
    entries = [chain.title for chain in chains]
    every = pl.concat(
        frame.filter(pl.col("run") == chain.last).with_columns(
            pl.lit(chain.title).alias("series"), pl.col("examples").alias("x")
        )
        for chain in chains
    )
    panels = [
        panel(of_measure(every, kind, measure), name, entries, "Examples of DPO", y_title="Nats")
        for name, kind, measure in (COMPARED[0], COMPARED[3])
    ]
    points = pl.concat(_points(on, found[on], chains, matched[on]) for on in ON)
    panels += [
        _index_panel(points.filter(pl.col("index") == index), index, list(matched.values())) for index in SQUEEZING
    ]
    return heading, grid(panels, 2, heading)


def _points(on: str, found: np.ndarray, chains: Sequence[Chain], words: str) -> pl.DataFrame:
    value, low, high = interval(found)
    return pl.DataFrame(
        [
            {
                "run": chain.last,
                "exposure": chain.exposure,
                "series": words,
                "index": index,
                "value": value[run, place],
                "low": low[run, place],
                "high": high[run, place],
            }
            for run, chain in enumerate(chains)
            for place, index in enumerate(SQUEEZING)
        ]
    )


def _index_panel(part: pl.DataFrame, index: str, entries: Sequence[str]) -> alt.LayerChart:
    colours = [theme.ORDERED_COLOURS[place] for place in (0, 2)]
    legend = alt.Legend(title=None, orient="bottom", columns=2, labelLimit=200)
    colour = alt.Color("series:N", scale=alt.Scale(domain=list(entries), range=colours), legend=legend)
    shape = alt.Shape("series:N", scale=alt.Scale(domain=list(entries), range=["circle", "triangle-up"]), legend=legend)
    data = part.with_columns(pl.col(key).round_sig_figs(6) for key in ("value", "low", "high"))
    # Beside one another: intervals over one another could not be read.
    base = alt.Chart(data).encode(
        x=alt.X("exposure:O", title="Examples of SFT before DPO", axis=alt.Axis(labelAngle=0, format=",d")),
        xOffset=alt.XOffset("series:N", sort=list(entries)),
        color=colour,
    )
    y = alt.Y("value:Q", title=_INDEX[index], scale=alt.Scale(zero=False))
    zero = alt.Chart(alt.InlineData([{"zero": 0}])).mark_rule(style="zero").encode(y="zero:Q")
    return alt.layer(
        zero,
        base.mark_rule(style="interval").encode(y=alt.Y("low:Q", title=_INDEX[index]), y2="high:Q"),
        base.mark_point(style="dot-alone").encode(
            y=y, shape=shape, tooltip=["run:N", "series:N", "value:Q", "low:Q", "high:Q"]
        ),
        width=theme.panel_width(2),
        height=theme.HEIGHTS["main"],
        title=alt.Title(
            {"fall": "Squeezing: chosen", "rise": "Squeezing: likeliest token"}[index], style="panel-title"
        ),
    )


def _difference(told: tuple[np.ndarray, ...], place: int) -> str:
    """How the longest SFT differs from the shortest, with a direction only where the interval has one."""
    value, low, high = (float(each[place]) for each in told)
    who, does, unit = (("chosen", "falls", "nats"), ("likeliest token", "rises", "nats per token"))[place]
    if not low <= high or low <= 0 <= high:
        return f"{who} not clearly different"
    return f"{who} {does} {signed(abs(value))[1:]} {unit} {'more' if value > 0 else 'less'}"
