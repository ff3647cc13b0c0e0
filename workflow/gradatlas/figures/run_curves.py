"""Lines of finetuning runs over the examples they have seen: of one run's probes, and of runs over one another.

Levels are means over probes with 95 % intervals over probes; titles state which way a run moved, paired by probe.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import altair as alt
import polars as pl

from gradatlas.charts import theme
from gradatlas.charts.panel import OWN_SCALE, Axis, Palette, grid, palette_of, panel, series_palette
from gradatlas.figures.runs import Chain, RunData

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
    "random_nonhum": "other question, shuffled",
    "random_tokens": "random tokens",
}
#: Panels of one run: title, types, measure.
PANELS = (
    (
        "Chosen, and its rephrases",
        ("chosen", "chosen_semantic", "chosen_format", "initial", "self_rephrase"),
        "log_prob_sum",
    ),
    ("Rejected, and its rephrases", ("rejected", "rejected_semantic", "rejected_format"), "log_prob_sum"),
    ("Answers to other questions", ("irrelevant_train", "irrelevant_held_out", "unrelated"), "log_prob_sum"),
    ("No answers", ("permuted", "random_nonhum", "random_tokens"), "log_prob_sum"),
    (
        "Likeliest token along the prefix of",
        ("chosen", "permuted", "random_nonhum", "random_tokens"),
        "argmax_log_prob",
    ),
)
OWN = (
    "The likeliest tokens along “other question, shuffled” are, by an error of its code, what the study drew as those "
    "along the chosen."
)
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
LEVELS = (
    "Log-probability of whole responses in nats, mean over {n} probed questions that are trained on, with 95 % "
    "intervals over questions."
)
_CLEAR = "The title states the change over the last run of a chain, where its interval excludes 0."
_RULE = "The rule: where the last run of a chain begins."
OF_CHAINS = "Examples seen by all runs of the chain"
NATS = f"Nats, {OWN_SCALE}"

Figure = tuple[theme.Heading, alt.ConcatChart]


def run_curves(data: RunData, chains: Sequence[Chain]) -> Figure:
    """The paper's panels of one run: groups of probes over the examples seen."""
    (chain,) = chains
    frame = _of_runs(data.frame, (chain.last,))
    missing = [words for kind, words in TYPES.items() if kind not in set(frame["type"])]
    lost = [f"No probes of these types: {'; '.join(missing)}."] if missing else []
    lines = (f"One run: {chain.title}. {LEVELS.format(n=probes_of(frame))} {OWN}", *lost)
    heading = theme.Heading(titles_of(frame, chains), facts_of(data), lines)
    palette = palette_of("probe", {kind: words for kind, words in TYPES.items() if kind in set(frame["type"])})
    panels = []
    for name, kinds, measure in PANELS:
        kinds = [kind for kind in kinds if kind in set(frame["type"])]
        if not kinds:
            continue
        part = frame.filter(pl.col("type").is_in(kinds) & (pl.col("measure") == measure))
        part = part.with_columns(pl.col("type").replace_strict(TYPES).alias("series"), pl.col("examples").alias("x"))
        panels.append(line_panel(part, name, palette, "Examples seen"))
    return heading, grid(panels, 2, heading)


@dataclass(frozen=True)
class Comparison:
    """One kind of figure of runs over one another: the line below its title, where ``{n}`` is the number of probes.

    `over`: the chains as rows with a column x, and where rules are; `x_title`: of that column. `title`: if not which
    way each chain moves.
    """

    line: str
    over: Callable[[pl.DataFrame, Sequence[Chain]], tuple[pl.DataFrame, Sequence[float]]]
    x_title: str
    shown: Sequence[tuple[str, str, str]] = COMPARED
    title: str = ""

    def draw(self, data: RunData, chains: Sequence[Chain]) -> Figure:
        """A panel per measure, a line per chain."""
        title = self.title or titles_of(data.frame, chains)
        heading = theme.Heading(title, facts_of(data), (self.line.format(n=probes_of(data.frame)),))
        every, turns = self.over(data.frame, chains)
        palette = series_palette([chain.title for chain in chains])
        panels = [
            line_panel(of_measure(every, kind, measure), name, palette, self.x_title, turns, _axis(measure))
            for name, kind, measure in self.shown
        ]
        return heading, grid(panels, 2, heading)


def over_chains(frame: pl.DataFrame, chains: Sequence[Chain]) -> tuple[pl.DataFrame, list[float]]:
    """All runs of the chains over the examples that a chain has seen; and where one run ends and the next begins."""
    every = pl.concat(_series(frame, chain, chain.runs, pl.col("before") + pl.col("examples")) for chain in chains)
    return every, sorted({value for value in every["before"] if value})


def from_last_run(frame: pl.DataFrame, chains: Sequence[Chain]) -> tuple[pl.DataFrame, list[float]]:
    """The same, counted from where the last run of each chain begins."""
    starts = {chain.last: _of_runs(frame, (chain.last,))["before"][0] for chain in chains}
    x = pl.col("before") + pl.col("examples")
    return pl.concat(_series(frame, chain, chain.runs, x - starts[chain.last]) for chain in chains), [0]


def last_runs(frame: pl.DataFrame, chains: Sequence[Chain]) -> tuple[pl.DataFrame, list[float]]:
    """The last run of each chain over its own examples."""
    return pl.concat(_series(frame, chain, (chain.last,), pl.col("examples")) for chain in chains), []


CHAINS = Comparison(f"{_CLEAR} {_RULE} {LEVELS}", over_chains, OF_CHAINS)
#: ||A||, ||G||, the likeliest token and all others, chain by chain (the paper's figure 9).
CHAIN_NORMS = Comparison(
    f"Along the chosen responses' own prefixes. {_RULE} Means over {{n}} probed questions with 95 % intervals over "
    "questions.",
    over_chains,
    OF_CHAINS,
    NORMS,
    "Norms of A and G, the likeliest token and all others",
)
#: Losses of preference on the same pairs, which are those probed.
LOSSES = Comparison(
    "Trained on the probed pairs alone, all with the same learning rate: losses are of different sizes, and so are "
    f"their steps. {_CLEAR} {LEVELS}",
    last_runs,
    "Examples seen",
)
#: DPO on the data's pairs, on pairs of the model's own samples, and with a sample in place of the rejected response.
NEGATIVES = Comparison(
    "On-policy: both responses are samples of the model itself, ranked by the judge; self-play: the rejected one is. "
    f"“Rejected” is always that of the data, which only off-policy DPO is shown. {_CLEAR} {LEVELS}",
    last_runs,
    "Examples of DPO",
)


def extend(data: RunData, chains: Sequence[Chain]) -> Figure:
    """DPO after SFT on both responses beside DPO after SFT on the chosen ones (the paper's figure 5), on one axis.

    The last of `chains` is extend, the others come from `runs.extended`.
    """
    *beside, last = chains
    same = [chain.title for chain in beside if chain.exposure == last.exposure]
    control = (
        f"“{same[0]}” sees the chosen responses as often as extend does."
        if same
        else "No run here sees the chosen responses as often as extend does: the other one, twice as often."
    )
    line = f"The rule: DPO begins. {_CLEAR} {control} {LEVELS}"
    return Comparison(line, from_last_run, "Examples of SFT (below 0), then of DPO").draw(data, chains)


def seeds(data: RunData, chains: Sequence[Chain]) -> Figure:
    """Chains of runs, each a mean over seeds, with the lowest and the highest seed.

    An evaluation that not every seed reached, since a run stopped early, is left out.
    """
    keys = ["run", "before", "examples", "type", "measure"]
    count, probes = data.frame["seed"].n_unique(), probes_of(data.frame)
    means = data.frame.group_by(keys).agg(
        pl.col("value").mean(),
        pl.col("value").min().alias("low"),
        pl.col("value").max().alias("high"),
        pl.col("seed").n_unique().cast(pl.Int32).alias("n"),
    )
    line = (
        f"Means over {count} seeds of the runs and their probes, {probes} probed questions each; bands: lowest to "
        f"highest seed. {_RULE}"
    )
    made = Comparison(line, over_chains, OF_CHAINS, title=f"Log-probability over {count} seeds")
    return made.draw(replace(data, frame=means.filter(pl.col("n") == count).sort(keys)), chains)


def titles_of(frame: pl.DataFrame, chains: Sequence[Chain]) -> str:
    """Which way the last run of each chain moves the chosen response and the likeliest tokens along it."""
    found: dict[str, list[str]] = {}
    for chain in chains:
        part = _of_runs(frame, (chain.last,))
        changes = [f"{words} {_moved(part, measure)}" for words, measure in
                   (("chosen", "log_prob_sum"), ("likeliest tokens", "argmax_log_prob"))]  # fmt: skip
        found.setdefault(", ".join(changes), []).append(chain.title)
    return "; ".join(f"{' · '.join(titles)}: {changes}" for changes, titles in found.items())


def facts_of(data: RunData) -> tuple[str, ...]:
    """What the line below a title holds: the model and seed, and the number of probed questions."""
    return (data.title, f"{probes_of(data.frame)} probed questions")


def of_measure(frame: pl.DataFrame, kind: str, measure: str) -> pl.DataFrame:
    """The curves of one measure of one type of probe."""
    return frame.filter((pl.col("type") == kind) & (pl.col("measure") == measure))


def probes_of(frame: pl.DataFrame) -> int:
    """The number of probes that a mean is over."""
    return int(frame["n"].max())


def line_panel(
    part: pl.DataFrame,
    title: str,
    palette: Palette,
    x_title: str,
    turns: Sequence[float] = (),
    y: Axis | None = None,
    **options,
) -> alt.LayerChart:
    """Lines with bands and points: columns series, run, x, value, low, high, n; `turns`: where rules are.

    Without `y` the panel's values are in nats, on a scale of its own.
    """
    x = Axis("x", x_title, format=",d", count=5)
    size = (theme.panel_width(2), theme.HEIGHTS["main"])
    return panel(
        part, x, y or Axis("value", NATS), palette, size, title=title, detail="run", turns=turns, more=("n",), **options
    )


def _axis(measure: str) -> Axis:
    return Axis("value", OWN_SCALE.capitalize() if measure.endswith("_norm") else NATS)


def _series(frame: pl.DataFrame, chain: Chain, runs: Sequence[str], x: pl.Expr) -> pl.DataFrame:
    return _of_runs(frame, runs).with_columns(pl.lit(chain.title).alias("series"), x.alias("x"))


def _of_runs(frame: pl.DataFrame, runs: Sequence[str]) -> pl.DataFrame:
    return frame.filter(pl.col("run").is_in(runs))


def _moved(frame: pl.DataFrame, measure: str) -> str:
    rows = of_measure(frame, "chosen", measure).sort("step")
    if rows.is_empty():
        return "not followed"
    low, high = rows["change_low"][-1], rows["change_high"][-1]
    return "unclear" if low <= 0 <= high else "up" if low > 0 else "down"
