"""What a model can do on a dataset's task, beside its gradients: a claim about reasoning needs a model that reasons.

Read from the ``accuracy`` tables. A model that is in no table (its answers were not measured) gets no mark.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from gradatlas.charts.names import label, variants_in_order
from gradatlas.charts.numbers import share
from gradatlas.charts.tables import Section
from gradatlas.charts.tables import markdown as as_markdown
from gradatlas.core.files import write_text
from gradatlas.core.spreadsheets import csv_of
from gradatlas.core.tables import read_table
from gradatlas.miniature.tables import ACCURACY
from gradatlas.study.shares import wilson

# A task counts as mastered where the lower 95 % bound lies this far above chance,
MARGIN = 0.2
# (of two responses: as where a fifth is known and the rest guessed),
OF_TWO = "two_alternative"
MARGIN_OF_TWO = 0.1
# and where a question and its edit are both answered right this often.
EDITED = 0.6
UNABLE = {
    "answer": "cannot do this task",
    "recall": "does not know these",
    OF_TWO: "does not separate right from wrong here",
}
_TESTS = {
    "answer": "Held-out questions",
    "counterfactual": "Question and its edit",
    "recall": "Jobs and cities recalled",
    OF_TWO: "Right of two responses",
}


@dataclass(frozen=True)
class Ability:
    """What one model answers on one dataset: by variant (accuracy, low, high), slowest last, and `chance`.

    `test`: of the ``accuracy`` table, ``answer`` or ``recall``; ``two_alternative``: how often the model finds the
    right one of two responses likelier. `edited`: by variant, how often a question and its edit are both answered
    right, where edits were tested.
    """

    test: str
    shares: dict[str, tuple[float, float, float]]
    chance: float
    edited: dict[str, float] = field(default_factory=dict)

    def masters(self, variant: str) -> bool:
        """Whether the model can do the task with this variant, by reading the question.

        The lower bound lies `MARGIN` above chance (of two responses, `MARGIN_OF_TWO`), and the model follows an edit of
        the question in at least `EDITED` of the cases, where edits were tested.
        """
        margin = MARGIN_OF_TWO if self.test == OF_TWO else MARGIN
        return self.shares[variant][1] > self.chance + margin and self.edited.get(variant, 1.0) >= EDITED

    @property
    def able(self) -> bool:
        """Whether the model can do the task with its slowest variant; it may do it with a faster one too."""
        return self.masters(self.slowest())

    def slowest(self, variants: Collection[str] = ()) -> str:
        """The slowest of these variants whose answers were counted; of all variants, where none of these was."""
        return next((name for name in reversed(self.shares) if name in variants), list(self.shares)[-1])

    def accuracies(self, variants: Collection[str]) -> str:
        """The accuracy of each of these variants; of all, where none of these was counted."""
        unit = " of two" if self.test == OF_TWO else ""
        used = [name for name in self.shares if name in variants] or list(self.shares)
        return ", ".join(f"{label(name)} {self.shares[name][0]:.2f}{unit}" for name in used)

    def unable(self, variants: Collection[str] = ()) -> str:
        """What the model cannot do with the slowest of these variants (or of all); nothing where it can."""
        slowest = self.slowest(variants)
        if self.masters(slowest):
            return ""
        what, unit = (
            ("does not separate right from wrong", " of two") if self.test == OF_TWO else ("cannot do this task", "")
        )
        accuracy = f"{self.shares[slowest][0]:.2f}{unit}"
        return f"{what} with {label(slowest)} ({accuracy}, chance {self.chance:.2f})"

    @property
    def guessed(self) -> list[str]:
        """The variants whose accuracy does not lie above chance."""
        return [name for name, (_, low, _) in self.shares.items() if low <= self.chance]

    @property
    def sentence(self) -> str:
        """One line for a figure: the shares, and the mark where the model cannot do the task."""
        if len(self.shares) == 1:
            right = share(next(iter(self.shares.values()))[0])
        else:
            right = ", ".join(f"{label(name)} {share(value)}" for name, (value, _, _) in self.shares.items())
        text = f"{_TESTS[self.test]}, right: {right} (chance {share(self.chance)})."
        return text if self.able else f"{UNABLE[self.test].upper()}: nothing here is about a model that can. {text}"

    @property
    def mark(self) -> str:
        """What is written beside the model where it does not master the task, else nothing."""
        return "" if self.able else UNABLE[self.test]


# By model and dataset.
Abilities = Mapping[tuple[str, str], Ability]


def before_a_run(row: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """What the model can do that a run starts from, as columns of the claims table, and why it gives no verdict, if so.

    `row`: of the second study's evidence, with the share of the run's first free answers that is right. Nothing for a
    row without.
    """
    share, n, run = row["accuracy"], row["answers"], row["answers_of"]
    if share is None:
        return {}, ""
    low, high = wilson(share * n, n)
    known = Ability("answer", {run: (share, low, high)}, row["chance"])
    text = f"start of {run} {share:.2f} [{low:.2f}, {high:.2f}] of {n}"
    unable = f"the start of {run} {UNABLE['answer']} ({share:.2f} [{low:.2f}, {high:.2f}], chance {row['chance']:.2f})"
    return {"accuracies": text, "ability_test": "answer", "mastered": known.able}, "" if known.able else unable


def read(paths: Sequence[str | Path]) -> pl.DataFrame:
    """The rows of all accuracy tables, in reading order; an empty frame for none."""
    frames = [pl.from_arrow(read_table(ACCURACY, path)) for path in paths]
    frame = pl.concat(frames) if frames else pl.from_arrow(ACCURACY.empty())
    variants = variants_in_order(frame["variant"].unique())
    rank = pl.col("variant").replace_strict(variants, range(len(variants)), return_dtype=pl.Int32)
    return frame.sort("model", "dataset", "test", "part", rank, maintain_order=True)


def abilities(frame: pl.DataFrame) -> dict[tuple[str, str], Ability]:
    """By (model, dataset), from the rows of whole datasets: its own answers, else which of two it finds likelier."""
    found = {}
    own = pl.col("test").is_in(["answer", "recall"])
    whole = frame.filter(pl.col("part") == "all")
    whole = whole.filter(own | ((pl.col("test") == OF_TWO) & ~own.any().over("model", "dataset")))
    for (model, dataset), rows in whole.group_by("model", "dataset", maintain_order=True):
        by_variant = {row["variant"]: (row["accuracy"], row["low"], row["high"]) for row in rows.to_dicts()}
        shares = {name: by_variant[name] for name in variants_in_order(by_variant)}
        same = (pl.col("model") == model) & (pl.col("dataset") == dataset) & (pl.col("part") == "all")
        edits = frame.filter(same & (pl.col("test") == "counterfactual"))
        edited = dict(edits.select("variant", "accuracy").iter_rows())
        found[model, dataset] = Ability(rows["test"][0], shares, rows["chance"][0], edited)
    return found


def write_accuracy(paths: Sequence[str | Path], csv: str | Path, markdown: str | Path) -> None:
    """All accuracy tables as one tidy CSV file, and as one Markdown table of whole datasets to two digits."""
    frame = read(paths)
    write_text(csv, csv_of(frame))
    write_text(markdown, as_markdown("What the models can do", [NOTE], [Section("", *table(frame), left=4)]))


NOTE = (
    "How many of a model’s greedy answers to held-out questions are right (exact match), as a share with Wilson’s 95 % "
    "bounds. Chance: the share that the best answer gets without reading the question. A model masters a task if, with "
    f"its slowest variant, the lower bound lies {MARGIN:.2f} above chance, and it answers both a question and its edit "
    f"right in {EDITED:.2f} of the cases. Figures of a model that does not master a task carry a mark."
)


def table(frame: pl.DataFrame, titles: Mapping[str, str] | None = None) -> tuple[list[str], list[list[str]]]:
    """Header and rows for a reader: a row per model, dataset and test, a column per variant.

    `titles`: of models and datasets, by key; those without are named by their keys.
    """
    titles = titles or {}
    whole = frame.filter(pl.col("part") == "all")
    answered = whole.filter(pl.col("test") != "recall")
    variants = variants_in_order(answered["variant"].unique())
    # Recall is tested on one kind of description alone: one column for all.
    recall = ["Recall"] if len(answered) < len(whole) else []
    able = abilities(frame)
    rows = []
    for (model, dataset, test), group in whole.group_by("model", "dataset", "test", maintain_order=True):
        by_variant = {row["variant"]: row for row in group.to_dicts()}
        recalled = next(iter(by_variant.values())) if test == "recall" else None
        shown = [_with_bounds(by_variant.get(name)) for name in variants]
        shown += [_with_bounds(recalled) for _ in recall]
        mastered = "–" if test == "counterfactual" else "yes" if able[model, dataset].able else "no"
        of = [titles.get(model, model), titles.get(dataset, dataset), _TESTS[test], mastered]
        rows.append([*of, *shown, share(group["chance"][0]), f"{group['n'][0]:,}"])
    return ["Model", "Dataset", "Test", "Mastered", *map(label, variants), *recall, "Chance", "n"], rows


def _with_bounds(row: dict | None) -> str:
    return "–" if row is None else f"{share(row['accuracy'])} [{share(row['low'])}, {share(row['high'])}]"
