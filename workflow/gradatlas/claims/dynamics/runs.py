"""What the claims of the second study are measured on: the runs of one model and seed, probe by probe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gradatlas.claims.estimates import (
    EXACT,
    NO_NUMBER,
    PLAIN,
    DynamicsEstimate,
    Scale,
    estimate,
    paired_tails,
    resampled,
)
from gradatlas.claims.sheet import DynamicsClaim
from gradatlas.core.tables import read_metadata, read_table
from gradatlas.finetuning.tables import DYNAMICS


class NothingMeasured(Exception):
    """A claim has no number on these runs; the message is the reason of its row."""


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
    """A run's ``dynamics`` rows; claims use those on prompts that are trained on. `stopped`, where it diverged.

    From its row of the sheet of runs: `target`, the type of probe that it learns by SFT, empty where it learns pairs;
    `loss`, `beta`, `margin`. `vocabulary`: how many tokens the model chooses among.
    """

    rows: pl.DataFrame
    stopped: bool = False
    target: str = ""
    vocabulary: int | None = None
    loss: str = "sft"
    beta: float = 0.1
    margin: float = 0

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
        facts = read_metadata(path, DYNAMICS)
        target = row["target"] if row["loss"] == "sft" else ""
        rows = pl.from_arrow(read_table(DYNAMICS, path))
        how = {name: row[name] for name in ("loss", "beta", "margin") if name in row}
        return cls(rows, facts.get("status") == "diverged", target, facts.get("vocabulary"), **how)


@dataclass(frozen=True)
class RunGroup:
    """The runs of one model and seed on one table of pairs, by name, and tables of all of them, where made."""

    dataset: str
    model: str
    seed: int
    runs: Mapping[str, Run]
    draws: int
    bootstrap_seed: int
    generation_scores: pl.DataFrame | None = None
    judgements: pl.DataFrame | None = None
    budget: pl.DataFrame | None = None
    kernels: pl.DataFrame | None = None
    entanglement: pl.DataFrame | None = None
    chance: float | None = None
    """of the free answers, the share that the best answer without knowledge gets right"""

    def means(self, *values: np.ndarray) -> list[np.ndarray]:
        """Means over prompts under the same bootstrap draws, the plain ones in front: (1 + draws, ...) each."""
        return resampled(values, self.dataset, self.draws, self.bootstrap_seed)


@dataclass(frozen=True)
class OnRuns:
    """What one number is measured on: a run of a group, a run that it is compared with, and a type, or "" for none.

    `at`: where on the curves, as in the sheet.
    """

    group: RunGroup
    claim: DynamicsClaim
    run: str
    other: str = ""
    type: str = ""
    at: str = "end"

    @property
    def runs(self) -> list[str]:
        """The run, and the one that it is compared with."""
        return [name for name in (self.run, self.other) if name]

    @property
    def margin(self) -> float | None:
        """The growth of the margin that the claim is measured at, in nats; None: it is measured elsewhere."""
        return float(self.at.removeprefix("margin_")) if self.at.startswith("margin_") else None

    def curves(self, *which: tuple[str, str]) -> list[Curve]:
        """The curves of these (type, measure) of each of `runs`, cut to the prompts that all have.

        An empty type is the claim's. `NothingMeasured` where no prompt is shared.
        """
        curves = [
            self.group.runs[name].curve(kind or self.type, measure) for name in self.runs for kind, measure in which
        ]
        common = set(curves[0].prompts).intersection(*(curve.prompts for curve in curves))
        if not common:
            raise NothingMeasured("the probes that are compared share no prompt")
        return [curve.of([prompt for prompt in curves[0].prompts if prompt in common]) for curve in curves]

    def mean(self, values: np.ndarray) -> DynamicsEstimate:
        """The mean of each prompt's own number, (prompts,): bootstrap interval, Wilcoxon's signed ranks."""
        (draws,) = self.group.means(values)
        tails = paired_tails(values, PLAIN)
        return estimate(DynamicsEstimate, self.claim, draws, PLAIN, len(values), tails, "Wilcoxon")

    def of_draws(self, draws: np.ndarray, n: int, scale: Scale = PLAIN) -> DynamicsEstimate:
        """A number that no single prompt has, from its bootstrap draws."""
        return estimate(DynamicsEstimate, self.claim, draws, scale, n)


def exactly(value: float, n: int, of: str = "") -> DynamicsEstimate:
    """A number that nothing random is in: its own interval."""
    return DynamicsEstimate(value=value, low=value, high=value, n=n, p_value=0.0, test=EXACT, scale=PLAIN.name, of=of)


def nothing(of: str, reason: str, test: str = "") -> DynamicsEstimate:
    """No number, and why."""
    return DynamicsEstimate(**NO_NUMBER | {"test": test}, scale=PLAIN.name, of=of, reason=reason)
