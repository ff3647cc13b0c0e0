"""The claims about the first study's gradients along SFT on its own variants. Signs were fixed before measuring."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gradatlas.claims.dynamics.runs import NothingMeasured, nothing
from gradatlas.claims.estimates import PLAIN, RATIO, DynamicsEstimate, estimate, paired_tails
from gradatlas.claims.sheet import DynamicsClaim
from gradatlas.claims.tables import EVIDENCE
from gradatlas.core.command import progress
from gradatlas.core.tables import read_table, write_table
from gradatlas.kernels.tables import BRIDGE, KERNELS
from gradatlas.statistics.bootstrap import resampled_means
from gradatlas.statistics.bridge import Measured
from gradatlas.statistics.effects import matched_pairs
from gradatlas.statistics.intervals import FEWEST

#: The claims' tables.
TABLES = ("bridge", "bridge_kernels")
DETAILED = "detailed:correct"


@dataclass(frozen=True)
class OnBridge:
    """What a number is measured on: the rows of one run of one model and seed."""

    claim: DynamicsClaim
    bridge: pl.DataFrame
    kernels: pl.DataFrame
    draws: int
    seed: int

    def ends(self, kind: str) -> tuple[Measured, Measured]:
        """A kind of responses at the run's start and at its end; `NothingMeasured` where they were not measured."""
        steps = self.bridge["step"]
        found = [Measured.of(self.bridge, kind, step) for step in (steps.min(), steps.max())]
        if not all(len(each.norms) for each in found):
            raise NothingMeasured(f"{kind} is not among bridge.measured")
        return found[0], found[1]

    def fall(self, before: Measured, after: Measured) -> DynamicsEstimate:
        """MAD after over MAD before; samples pair."""
        draws = after.mads(self.draws, self.seed) / before.mads(self.draws, self.seed)
        return estimate(DynamicsEstimate, self.claim, draws, RATIO, len(before.loss))


def mad_falls(on: OnBridge) -> DynamicsEstimate:
    """MAD of Detailed at the end over that at the start."""
    return on.fall(*on.ends(DETAILED))


def mad_falls_matched(on: OnBridge) -> DynamicsEstimate:
    """The same of samples at the end matched with samples at the start on logarithms of loss and length."""
    before, after = on.ends(DETAILED)
    places = matched_pairs(before.covariates, after.covariates, on.seed)
    if len(places[0]) < FEWEST:
        raise NothingMeasured(
            f"only {len(places[0])} pairs of samples of equal loss and length; {FEWEST} are needed (mean loss "
            f"{before.loss.mean():.3g} before, {after.loss.mean():.3g} after)"
        )
    return on.fall(before.take(places[0]), after.take(places[1]))


def cosines_differ(on: OnBridge) -> DynamicsEstimate:
    """By question, the cosine of Detailed with Simplified less that with None, at the start."""
    start = on.kernels.filter(pl.col("step") == pl.col("step").min())
    found: dict[str, dict[frozenset[str], float]] = {}
    for row in start.to_dicts():
        (one, kind), (other, other_kind) = (row[side].rsplit("/", 1) for side in ("o", "u"))
        if one == other:
            found.setdefault(one, {})[frozenset({kind, other_kind})] = row["cosine"]
    pairs = frozenset({"detailed", "simplified"}), frozenset({"detailed", "none"})
    values = np.array([each[pairs[0]] - each[pairs[1]] for each in found.values() if each.keys() >= set(pairs)])
    if len(values) < 2:
        raise NothingMeasured("no two questions with None, Simplified and Detailed")
    draws = resampled_means(values, on.draws, on.seed, f"bridge {len(values)}")
    tails = paired_tails(values, PLAIN)
    return estimate(DynamicsEstimate, on.claim, draws, PLAIN, len(values), tails, "Wilcoxon")


ON_BRIDGE: dict[str, Callable[[OnBridge], DynamicsEstimate]] = {
    "sft_detailed_mad_falls": mad_falls,
    "sft_detailed_mad_falls_matched": mad_falls_matched,
    "slow_answers_alike": cosines_differ,
}


def gather_bridge(
    dataset: str,
    model: str,
    kind: str,
    groups: Mapping[int, Mapping[str, Sequence[str | Path]]],
    claims: Sequence[DynamicsClaim],
    output: str | Path,
    draws: int,
    seed: int,
) -> None:
    """Write the evidence of one model on one dataset. `groups`: by seed, all runs' ``bridge`` and ``kernels``."""
    rows: list[dict[str, Any]] = []
    for training_seed, tables in groups.items():
        bridge, kernels = (
            pl.concat(pl.from_arrow(read_table(table, path)) for path in tables[table.name])
            for table in (BRIDGE, KERNELS)
        )
        for claim in (claim for claim in claims if claim.table in TABLES):
            for found in _estimates(claim, bridge, kernels, draws, seed):
                rows.append(found.row(claim=claim.claim, model=model, kind=kind, seed=training_seed, dataset=dataset))
    progress(f"{dataset}, {model}: {len(rows)} rows")
    write_table(EVIDENCE, rows, output, {"dataset": dataset, "draws": draws, "seed": seed})


def _estimates(
    claim: DynamicsClaim, bridge: pl.DataFrame, kernels: pl.DataFrame, draws: int, seed: int
) -> Iterator[DynamicsEstimate]:
    for run in claim.runs:
        on = OnBridge(claim, bridge.filter(run=run), kernels.filter(run=run), draws, seed)
        try:
            yield replace(ON_BRIDGE[claim.claim](on), of=run)
        except NothingMeasured as reason:
            yield nothing(run, str(reason))
