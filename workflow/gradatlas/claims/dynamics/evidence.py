"""What a claim of the second study looks at: the runs of one model and seed, probe by probe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gradatlas.claims.evidence import OVERALL, PLAIN, Claim, Estimate, Scale, estimate, paired_tails, resampled
from gradatlas.core.tables import read_metadata, read_table
from gradatlas.finetuning.tables import DYNAMICS
from gradatlas.study.config import read_sheet

STUDY = "learning_dynamics"
# Of a number that nothing random is in; of one whose table or runs this config does not make.
EXACT, NOT_ASKED = "exact", "not asked"


@dataclass(frozen=True)
class DynamicsClaim(Claim):
    """A row of config/claims_dynamics.tsv; its schema says what each column is."""

    table: str
    runs: Sequence[str]
    types: Sequence[str]

    def stated(self, row: Mapping[str, Any]) -> str | None:
        """The number published of this run and type."""
        return dict(entry.split("=") for entry in self.published).get(row["relation"])


def read_claims(sheet: str | Path, schema: str | Path) -> list[DynamicsClaim]:
    """The claims' sheet; `InputError` names the line and column of what is wrong in it."""
    rest = {"study": STUDY, "relations": (), "kinds": (), "models": (), "between": (), "ability": "free"}
    # What is published is of other models than most rows are of.
    rest["published_of"] = " (at the study's scale, on HH)"
    return [DynamicsClaim(**row, **rest) for row in read_sheet(Path(sheet), Path(schema), "claim").values()]


class NothingMeasured(Exception):
    """What a claim compares has no usable probe; the message says so, and becomes the row's reason."""


@dataclass(frozen=True)
class Curve:
    """One measure of one type of probe in one run: `values` (prompts, evaluations), `examples` (evaluations,)."""

    prompts: Sequence[str]
    examples: np.ndarray
    values: np.ndarray

    @property
    def change(self) -> np.ndarray:
        """From the first evaluation to the last, (prompts,)."""
        return self.values[:, -1] - self.values[:, 0]

    def of(self, prompts: Sequence[str]) -> "Curve":
        """Cut to these prompts, in their order."""
        place = {prompt: i for i, prompt in enumerate(self.prompts)}
        return Curve(prompts, self.examples, self.values[[place[prompt] for prompt in prompts]])


@dataclass(frozen=True)
class Run:
    """A run's ``dynamics`` rows on prompts that are trained on; `stopped`, where it diverged.

    `target`: the type of probe that it learns by SFT, from its row of the sheet of runs; empty, where it learns pairs.
    """

    rows: pl.DataFrame
    stopped: bool = False
    target: str = ""

    @property
    def types(self) -> set[str]:
        """The types that have a usable probe."""
        return set(self._sorted["type"])

    def curve(self, kind: str, measure: str = "log_prob_sum") -> Curve:
        """Along the run; a probe that could not be followed takes no part. `NothingMeasured` where none could."""
        rows = self._sorted.filter(pl.col("type") == kind)
        if rows.is_empty():
            raise NothingMeasured(f"no usable probe of type {kind}")
        prompts, examples = (rows[name].unique(maintain_order=True) for name in ("prompt", "examples"))
        values = rows[measure].to_numpy().reshape(len(prompts), -1)
        return Curve(prompts.to_list(), examples.sort().to_numpy(), values)

    @cached_property
    def _sorted(self) -> pl.DataFrame:
        return (
            self.rows.filter((pl.col("split") == "train") & (pl.col("status") == "ok"))
            .with_columns(
                pl.col("probe_id").str.replace(r"/[^/]*$", "").alias("prompt"),
                (pl.col("argmax_log_prob") / pl.col("tokens")).alias("argmax_mean"),
            )
            .sort("prompt", "step")
        )

    @classmethod
    def read(cls, path: str | Path, row: Mapping[str, Any]) -> "Run":
        """From its ``dynamics`` table and its row of the sheet of runs."""
        stopped = read_metadata(path, DYNAMICS).get("status") == "diverged"
        return cls(pl.from_arrow(read_table(DYNAMICS, path)), stopped, row["target"] if row["loss"] == "sft" else "")


@dataclass(frozen=True)
class Room:
    """The runs of one model and seed on one table of pairs, by name, and what was judged of their answers."""

    dataset: str
    model: str
    seed: int
    runs: Mapping[str, Run]
    draws: int
    bootstrap_seed: int
    generation_scores: pl.DataFrame | None = None
    judgements: pl.DataFrame | None = None

    def means(self, *values: np.ndarray) -> list[np.ndarray]:
        """Means over prompts under the same bootstrap draws, the plain ones in front: (1 + draws, ...) each."""
        return resampled(_InverseSampling(self.dataset, self.draws, self.bootstrap_seed), values)


@dataclass(frozen=True)
class _InverseSampling:
    dataset: str
    draws: int
    seed: int


def alike(*curves: Curve) -> list[Curve]:
    """The curves cut to the prompts that all have; `NothingMeasured` where there is none."""
    common = set(curves[0].prompts).intersection(*(curve.prompts for curve in curves))
    if not common:
        raise NothingMeasured("the probes that are compared share no prompt")
    return [curve.of([prompt for prompt in curves[0].prompts if prompt in common]) for curve in curves]


def of_differences(room: Room, claim: Claim, values: np.ndarray, relation: str) -> Estimate:
    """The mean of each prompt's own number, (prompts,): bootstrap interval, Wilcoxon's signed ranks."""
    (draws,) = room.means(values)
    tails = paired_tails(values, PLAIN)
    return estimate(claim, draws, PLAIN, len(values), relation=relation, tails=tails, test="Wilcoxon")


def of_draws(claim: Claim, draws: np.ndarray, n: int, relation: str, scale: Scale = PLAIN) -> Estimate:
    """A number that no prompt has one of its own of, from its bootstrap draws."""
    return estimate(claim, draws, scale, n, relation=relation)


def exactly(value: float, n: int, relation: str = "") -> Estimate:
    """A number that nothing random is in: its own interval."""
    return Estimate(relation, OVERALL, value, value, value, n, 0.0, EXACT, PLAIN.name)


def nothing(relation: str, reason: str, test: str = "") -> Estimate:
    """No number, and why."""
    numbers = dict.fromkeys(("value", "low", "high", "p_value"), np.nan)
    return Estimate(relation=relation, projection=OVERALL, n=0, test=test, scale=PLAIN.name, reason=reason, **numbers)
