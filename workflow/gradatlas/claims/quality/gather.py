"""The evidence of the data-quality study: every claim's function on every model that is measured."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gradatlas.claims.estimates import GradientEstimate
from gradatlas.claims.quality.measures import OF_PAIR, Pair, largest_rank, not_requested
from gradatlas.claims.quality.wider import correct_ratio, cosine, family_likeness
from gradatlas.claims.sheet import QualityClaim
from gradatlas.claims.tables import EVIDENCE
from gradatlas.core.command import progress
from gradatlas.core.errors import InputError, nearest
from gradatlas.core.tables import read_table, write_table
from gradatlas.gradients.tables import COSINES
from gradatlas.statistics.groups import Group, read_group
from gradatlas.statistics.tables import PER_SAMPLE

_OTHERS = ("largest_rank", "family_likeness", "cosine", "correct_ratio")


def gather_quality(
    scores: Mapping[tuple[str, str], Path],
    pairs: Mapping[str, Mapping[str, Any]],
    per_sample: Sequence[Path],
    cosines: Sequence[Path],
    models: Mapping[str, Mapping[str, Any]],
    claims: Sequence[QualityClaim],
    output: Path,
    draws: int,
    seed: int,
) -> None:
    """Write the evidence of all models.

    `scores`: scores.parquet by (model, dataset). `pairs`: by name, ``high`` and ``low``, each (dataset, groups), and
    the columns of ``quality``. `per_sample` and `cosines`: tables of the first study's datasets. A claim whose data are
    not there has one row that states it.
    """
    known = (*OF_PAIR, *_OTHERS)
    for claim in claims:
        if claim.measure not in known:
            raise InputError(
                f"config/claims_quality.tsv, '{claim.claim}': column 'measure': {nearest(claim.measure, known)}"
            )
    rows, curves = [], {}
    names = list(dict.fromkeys(model for model, _ in scores))
    for model in names:
        tables = {dataset: read_group(path, dataset) for (owner, dataset), path in scores.items() if owner == model}
        found = {name: _pair(name, pair, tables, draws, seed) for name, pair in pairs.items() if _there(pair, tables)}
        curves[model] = {name: np.nanmean(group.values, axis=0) for name, group in tables.items()}
        for claim in claims:
            for name, pair in found.items() if claim.measure in OF_PAIR else ():
                rows += [_row(claim, each, models, model, name) for each in OF_PAIR[claim.measure](pair, claim)]
            if claim.measure == "largest_rank":
                estimates = largest_rank(found, claim)
                rows += [_row(claim, each, models, model, "reasoning") for each in estimates]
        progress(f"{model}: {len(found)} pairs of high and low quality")
    for claim in claims:
        if claim.measure == "family_likeness":
            found = family_likeness(curves, claim, draws, seed)
            rows += [_row(claim, each, {}, "all models", "all") for each in found]
        elif claim.measure in ("cosine", "correct_ratio"):
            table, paths = (COSINES, cosines) if claim.measure == "cosine" else (PER_SAMPLE, per_sample)
            made = list(_of_first_study(claim, table, paths, models, draws, seed))
            if not made:
                missing = "config key cosines" if table is COSINES else "the first study's datasets"
                made = [_row(claim, not_requested(f"needs {missing}"), {}, "", "")]
            rows += made
    write_table(EVIDENCE, rows, output, {"dataset": "quality", "draws": draws, "seed": seed})


def _there(pair: Mapping[str, Any], tables: Mapping[str, Group]) -> bool:
    return pair["high"][0] in tables and pair["low"][0] in tables


def _pair(name: str, pair: Mapping[str, Any], tables: Mapping[str, Group], draws: int, seed: int) -> Pair:
    sides, quality = [], []
    for dataset, groups in (pair["high"], pair["low"]):
        side = tables[dataset] if list(groups) == ["*"] else tables[dataset].of(groups)
        column = pair["quality"]
        if column and column not in side.frame.columns:
            raise InputError(f"pair '{name}': dataset '{dataset}' has no column '{column}'; correct its 'quality'")
        sides.append(side)
        values = side.frame[column].cast(pl.Float64, strict=False) if column else pl.Series([None] * len(side.frame))
        quality.append(values.cast(pl.Float64).fill_null(np.nan).to_numpy())
    return Pair(name, *sides, *quality, draws, seed)


def _of_first_study(claim, table, paths, models, draws: int, seed: int) -> Iterator[dict[str, Any]]:
    measure = cosine if table is COSINES else correct_ratio
    for path in paths:
        frame = pl.from_arrow(read_table(table, path))
        if table is PER_SAMPLE:
            frame = frame.filter(pl.col("purpose") == "study")
        for (model, dataset), part in frame.group_by("model", "dataset", maintain_order=True):
            if table is PER_SAMPLE and claim.number not in part.columns:
                continue
            yield from (_row(claim, each, models, model, dataset) for each in measure(part, claim, draws, seed))


def _row(
    claim: QualityClaim, estimate: GradientEstimate, models: Mapping[str, Any], model: str, dataset: str
) -> dict[str, Any]:
    row = models.get(model, {"kind": "base", "seed": None, "untrained": ""})
    return estimate.row(
        claim=claim.claim,
        model=model,
        kind=row["kind"],
        seed=row["seed"],
        dataset=dataset,
        untrained_model=row["untrained"],
    )
