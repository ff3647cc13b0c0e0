"""Curves of one run's probes, of chains of runs over one another, and of their norms.

Levels are means over probes with 95 % intervals over probes; titles state the change within a run, paired by probe.
"""

from collections.abc import Sequence

import altair as alt
import polars as pl

from workflow.lib.figures import theme
from workflow.lib.figures.dynamics.choose import Chain
from workflow.lib.figures.dynamics.parts import LEVELS, grid, not_followed, of_measure, panel, probes_of, sure

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
    ("Likeliest token at each place", ("chosen", "permuted", "random_tokens"), "argmax_log_prob"),
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
#: The likeliest tokens along shuffled words: by an error of its code, what the study drew as those along the chosen.
OWN = "chosen, shuffled: the study's own"
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
_RULE = "Changes in the title are those of the last run of a chain. The rule: where that run begins."


def run_curves(frame: pl.DataFrame, title: str) -> tuple[theme.Heading, alt.ConcatChart]:
    """The paper's panels of one run: groups of probes over the examples seen."""
    said = [f"{sure(frame, kind, measure, words)}" for kind, measure, words in (
        ("chosen", "log_prob_sum", "chosen"),
        ("rejected", "log_prob_sum", "rejected"),
        ("irrelevant_train", "log_prob_sum", "other questions' answers"),
        ("chosen", "argmax_log_prob", "likeliest tokens"),
    )]  # fmt: skip
    lines = (LEVELS.format(n=probes_of(frame)), *not_followed(frame))
    heading = theme.Heading(f"{title}: {', '.join(said)} (nats)", lines)
    panels = []
    for name, kinds, measure in PANELS:
        names = NAMES | {"permuted": OWN} if measure == "argmax_log_prob" else NAMES
        kinds = [kind for kind in kinds if kind in set(frame["type"])]
        if not kinds:
            continue
        part = frame.filter(pl.col("type").is_in(kinds) & (pl.col("measure") == measure))
        part = part.with_columns(pl.col("type").replace_strict(names).alias("series"), pl.col("examples").alias("x"))
        name += ", along the prefix of" if measure == "argmax_log_prob" else ""
        panels.append(panel(part, name, [names[kind] for kind in kinds], "Examples seen"))
    return heading, grid(panels, 2, heading)


def chains_compared(frame: pl.DataFrame, chains: Sequence[Chain]) -> tuple[theme.Heading, alt.ConcatChart]:
    """Chains of runs over one another: what the last run of each does to responses and to the likeliest tokens."""
    said = []
    for chain in chains:
        part = frame.filter(pl.col("run") == chain.last)
        told = (
            sure(part, "chosen", "log_prob_sum", "chosen"),
            sure(part, "chosen", "argmax_log_prob", "likeliest tokens"),
        )
        said.append(f"{chain.title}: {', '.join(told)}")
    lines = f"{_RULE} {LEVELS.format(n=probes_of(frame))}"
    heading = theme.Heading("; ".join(said) + " (nats)", (lines,))
    return heading, _over_examples(frame, chains, COMPARED, heading)


def norms_compared(frame: pl.DataFrame, chains: Sequence[Chain]) -> tuple[theme.Heading, alt.ConcatChart]:
    """||A||, ||G||, the likeliest token and all others, chain by chain (the paper's figure 9)."""
    said = []
    for chain in chains:
        part = frame.filter(pl.col("run") == chain.last)
        told = (sure(part, "chosen", "a_norm", "norm of A"), sure(part, "chosen", "g_norm", "norm of G"))
        said.append(f"{chain.title}: {', '.join(told)}")
    lines = (
        f"Along the chosen responses' own prefixes. {_RULE} Means over {probes_of(frame)} probed questions with 95 % "
        "intervals over questions."
    )
    heading = theme.Heading("; ".join(said), (lines,))
    return heading, _over_examples(frame, chains, NORMS, heading)


def _over_examples(frame, chains, shown, heading) -> alt.ConcatChart:
    """A panel a measure; a rule where one run ends and the next begins."""
    every = pl.concat(
        frame.filter(pl.col("run").is_in(chain.runs)).with_columns(
            pl.lit(chain.title).alias("series"), (pl.col("before") + pl.col("examples")).alias("x")
        )
        for chain in chains
    )
    turns = sorted({value for value in every["before"] if value})
    entries = [chain.title for chain in chains]
    return grid(
        [
            panel(of_measure(every, kind, measure), name, entries, "Examples seen by all runs of the chain", turns)
            for name, kind, measure in shown
        ],
        2,
        heading,
    )
