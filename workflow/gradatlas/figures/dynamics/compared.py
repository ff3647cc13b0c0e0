"""Runs over one another that answer one question: extend, other losses, the model's own rejected responses."""

from collections.abc import Sequence

import altair as alt
import polars as pl

from gradatlas.charts import theme
from gradatlas.figures.dynamics.choose import Chain
from gradatlas.figures.dynamics.curves import COMPARED
from gradatlas.figures.dynamics.parts import LEVELS, grid, last_of, of_measure, panel, probes_of, sure


def extend_compared(frame: pl.DataFrame, chains: Sequence[Chain]) -> tuple[theme.Heading, alt.ConcatChart]:
    """DPO after SFT on both responses beside DPO after SFT on the chosen ones (the paper's figure 5), on one axis.

    The last of `chains` is extend, the others come from `choose.extended`.
    """
    *beside, extend = chains
    said = [f"{extend.title}: {_moved(frame, extend)}", *(f"{chain.title}: {_moved(frame, chain)}" for chain in beside)]
    exposures = {chain.exposure for chain in beside}
    control = (
        f"“{next(chain.title for chain in beside if chain.exposure == extend.exposure)}” sees the chosen responses as "
        "often as extend does."
        if extend.exposure in exposures
        else "No run here sees the chosen responses as often as extend does: the other one, twice as often."
    )
    heading = theme.Heading(
        "; ".join(said) + " (nats, within DPO)",
        (f"The rule: DPO begins. {control} {LEVELS.format(n=probes_of(frame))}",),
    )
    every = pl.concat(
        frame.filter(pl.col("run").is_in(chain.runs)).with_columns(
            pl.lit(chain.title).alias("series"),
            (pl.col("before") + pl.col("examples") - _start(frame, chain)).alias("x"),
        )
        for chain in chains
    )
    x_title = "Examples of SFT (below 0), then of DPO"
    return heading, _panels(every, [chain.title for chain in chains], x_title, heading, (0,))


def losses_compared(frame: pl.DataFrame, chains: Sequence[Chain]) -> tuple[theme.Heading, alt.ConcatChart]:
    """Losses of preference on the same pairs, which are those probed."""
    counts = {words: _count(frame, chains, *of) for words, of in {
        "the chosen response falls": ("chosen", "log_prob_sum", -1),
        "the rejected one": ("rejected", "log_prob_sum", -1),
        "the likeliest tokens rise": ("chosen", "argmax_log_prob", 1),
    }.items()}  # fmt: skip
    said = ", ".join(f"{words} with {count}" for words, count in counts.items())
    line = (
        "Trained on the probed pairs alone, all with the same learning rate: losses are of different sizes, and so are "
        f"their steps. “Rise” and “fall”: the interval of the change since the start says so. {LEVELS}"
    )
    heading = theme.Heading(f"Of {len(chains)} losses, {said}", (line.format(n=probes_of(frame)),))
    return heading, _ends(frame, chains, "Examples seen", heading)


def negatives_compared(frame: pl.DataFrame, chains: Sequence[Chain]) -> tuple[theme.Heading, alt.ConcatChart]:
    """DPO with the rejected responses of the pairs, and with the model's own samples in their place."""
    said = "; ".join(f"{chain.title}: {_moved(frame, chain)}" for chain in chains)
    line = (
        "On-policy: the rejected side is a sample of the model itself. “Rejected” is in both that of the pairs, which "
        f"on-policy DPO is never shown. {LEVELS.format(n=probes_of(frame))}"
    )
    heading = theme.Heading(f"{said} (nats)", (line,))
    return heading, _ends(frame, chains, "Examples of DPO", heading)


def _moved(frame: pl.DataFrame, chain: Chain) -> str:
    part = frame.filter(pl.col("run") == chain.last)
    chosen = sure(part, "chosen", "log_prob_sum", "chosen")
    return f"{chosen}, {sure(part, 'chosen', 'argmax_log_prob', 'likeliest tokens')}"


def _start(frame: pl.DataFrame, chain: Chain) -> int:
    return frame.filter(pl.col("run") == chain.last)["before"][0]


def _count(frame: pl.DataFrame, chains: Sequence[Chain], kind: str, measure: str, sign: int) -> int:
    """Of the runs, those whose change has that sign with its whole interval."""
    found = [last_of(frame.filter(pl.col("run") == chain.last), kind, measure) for chain in chains]
    return sum(min(sign * row["change_low"], sign * row["change_high"]) > 0 for row in found)


def _ends(frame: pl.DataFrame, chains: Sequence[Chain], x_title: str, heading: theme.Heading) -> alt.ConcatChart:
    """The last runs alone."""
    every = pl.concat(
        frame.filter(pl.col("run") == chain.last).with_columns(
            pl.lit(chain.title).alias("series"), pl.col("examples").alias("x")
        )
        for chain in chains
    )
    return _panels(every, [chain.title for chain in chains], x_title, heading)


def _panels(every: pl.DataFrame, entries, x_title: str, heading: theme.Heading, turns=()) -> alt.ConcatChart:
    shown = [(name, of_measure(every, kind, measure)) for name, kind, measure in COMPARED]
    return grid([panel(part, name, entries, x_title, turns) for name, part in shown], 2, heading)
