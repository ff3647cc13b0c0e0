"""The evidence of the second study: every claim's function on every run that a config makes, and on the toys."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import polars as pl

from gradatlas.claims.dynamics import influence, training
from gradatlas.claims.dynamics.answers import ANSWERS, able
from gradatlas.claims.dynamics.bridge import ON_BRIDGE
from gradatlas.claims.dynamics.bridge import TABLES as OF_BRIDGE
from gradatlas.claims.dynamics.exact import EXACT
from gradatlas.claims.dynamics.kernels import KERNELS as ON_KERNELS
from gradatlas.claims.dynamics.runs import NothingMeasured, OnRuns, Run, RunGroup, nothing
from gradatlas.claims.estimates import NOT_REQUESTED, DynamicsEstimate
from gradatlas.claims.sheet import DynamicsClaim
from gradatlas.claims.tables import EVIDENCE, TOY
from gradatlas.core.command import progress
from gradatlas.core.errors import InputError
from gradatlas.core.tables import read_metadata, read_table, write_table
from gradatlas.finetuning.tables import GENERATION_SCORES, JUDGEMENTS
from gradatlas.kernels.tables import BUDGET, ENTANGLEMENT, KERNELS, ONE_STEP
from gradatlas.toys.tables import TABLES, TOY_PREDICTIONS

ON_RUNS = training.TRAINING | influence.INFLUENCE | ANSWERS | ON_KERNELS
ALONG = training.ALONG | influence.ALONG
# The tables of toys that make up one of the sheet's.
TOYS = {
    "squeeze": ("squeeze_cases", "squeeze_sweeps"),
    "clip": ("clip",),
    "images": ("predictions", "kernels", "steps"),
    "formulas": (),
}


def gather_runs(
    pairs: str,
    model: str,
    kind: str,
    groups: Mapping[int, Mapping[str, Any]],
    sheet: Mapping[str, Mapping[str, Any]],
    claims: Sequence[DynamicsClaim],
    output: str | Path,
    draws: int,
    seed: int,
) -> None:
    """Write the evidence of one model on one table of pairs.

    `groups`: by seed of training, ``runs`` (the ``dynamics`` table of each, by name), and where they were made
    ``one_step``, ``generation_scores`` and ``judgements``, and, one table a run, ``budget``, ``kernels`` and
    ``entanglement``. `sheet`: the runs' rows of config/runs.tsv. A claim whose
    runs or table are not there has one row that states it, and no number.
    """
    check(claims)
    rows = []
    steps = [pl.from_arrow(read_table(ONE_STEP, group["one_step"])) for group in groups.values() if "one_step" in group]
    for claim in (claim for claim in claims if claim.table == "one_step"):
        found = EXACT[claim.claim]({"one_step": pl.concat(steps)}, claim) if steps else [_not_requested("one step")]
        rows += [_row(claim, estimate, model, kind, None, pairs) for estimate in found]
    for training_seed, tables in groups.items():
        group = _group(pairs, model, training_seed, tables, sheet, draws, seed)
        for claim in (claim for claim in claims if claim.table not in (*TOYS, *OF_BRIDGE, "one_step")):
            for estimate in on_runs(group, claim):
                # What this config does not request, it requests of no seed.
                requested = estimate.test != NOT_REQUESTED
                if requested or training_seed == next(iter(groups)):
                    rows.append(_row(claim, estimate, model, kind, training_seed if requested else None, pairs))
    measured = {row["claim"] for row in rows if row["test"] != NOT_REQUESTED}
    progress(f"{pairs}, {model}: {len(rows)} rows of {len(measured)} claims")
    write_table(EVIDENCE, rows, output, {"dataset": pairs, "draws": draws, "seed": seed})


def gather_toys(folder: str | Path, claims: Sequence[DynamicsClaim], output: str | Path, images: str) -> None:
    """Write the evidence of the toys, whose tables are in `folder`, and of the losses' formulas.

    `images`: the source of the classifier's images, as the config names it.
    """
    check(claims)
    rows = []
    for claim in claims:
        if claim.table not in TOYS:
            continue
        paths = {name: Path(folder) / f"toy_{name}.parquet" for name in TOYS[claim.table]}
        tables = {name: pl.from_arrow(read_table(TABLES[f"toy_{name}"], path)) for name, path in paths.items()}
        model, dataset, seed = *{"formulas": ("losses", "autograd")}.get(claim.table, ("softmax", "toys")), None
        if claim.table == "images":
            facts = read_metadata(paths["predictions"], TOY_PREDICTIONS)
            model, dataset = "classifier", Path(str(facts["images"])).stem
            seed = facts["seed"] if claim.over_seeds else None
            if claim.runs and images not in claim.runs:
                rows.append(_row(claim, _not_requested(f"about {' or '.join(claim.runs)}"), model, TOY, None, dataset))
                continue
        rows += [_row(claim, estimate, model, TOY, seed, dataset) for estimate in EXACT[claim.claim](tables, claim)]
    progress(f"toys: {len(rows)} rows of {len({row['claim'] for row in rows})} claims")
    write_table(EVIDENCE, rows, output, {"dataset": "toys"})


def check(claims: Sequence[DynamicsClaim]) -> None:
    """`InputError` for a row of the sheet that nothing measures."""
    for claim in claims:
        known = ON_BRIDGE if claim.table in OF_BRIDGE else EXACT if claim.table in (*TOYS, "one_step") else ON_RUNS
        if claim.claim not in known:
            have = ", ".join(sorted(known))
            raise InputError(
                f"config/claims_dynamics.tsv, '{claim.claim}': nothing measures it on {claim.table}; have {have}"
            )
        compared = [":" in entry for entry in claim.runs]
        wrong = [
            *(place for place in claim.at if place != "end" and claim.claim not in ALONG),
            *(["peak"] if "peak" in claim.at and any(compared) else []),
            *(["equal_examples"] if "equal_examples" in claim.at and not all(compared) else []),
        ]
        if wrong:
            raise InputError(
                f"config/claims_dynamics.tsv, '{claim.claim}', column 'at': it cannot be measured at {wrong[0]}; write "
                "peak only for single runs, equal_examples only for RUN:RUN, and end for claims that are on no curve"
            )


def on_runs(group: RunGroup, claim: DynamicsClaim) -> Iterator[DynamicsEstimate]:
    """A claim's estimates: one a run (or RUN:RUN) and type that the sheet names and the group has, and place."""
    entries = [entry for entry in claim.runs if all(name in group.runs for name in entry.split(":"))]
    if not entries:
        yield _not_requested(f"needs {' or '.join(claim.runs).replace(':', ' and ')}")
        return
    if claim.table != "dynamics" and getattr(group, claim.table) is None:
        yield _not_requested(f"no table of {claim.table.replace('_', ' ')} was made")
        return
    for entry in entries:
        run, _, other = entry.partition(":")
        stopped = [name for name in entry.split(":") if group.runs[name].stopped]
        start = able(group, entry.split(":")) if claim.table in (GENERATION_SCORES.name, JUDGEMENTS.name) else {}
        for kind, at in product(claim.types or ("",), claim.at):
            of = entry + (f"/{kind}" if kind else "") + (f"@{at}" if list(claim.at) != ["end"] else "")
            try:
                if stopped:
                    raise NothingMeasured(f"run {stopped[0]} diverged")
                yield replace(ON_RUNS[claim.claim](OnRuns(group, claim, run, other, kind, at)), of=of, **start)
            except NothingMeasured as reason:
                yield nothing(of, str(reason))


def _group(
    pairs: str,
    model: str,
    seed: int,
    tables: Mapping[str, Any],
    sheet: Mapping[str, Mapping[str, Any]],
    draws: int,
    bootstrap: int,
) -> RunGroup:
    missing = [name for name in tables["runs"] if name not in sheet]
    if missing:
        raise InputError(f"run '{missing[0]}' is in no row of the sheet of runs; give its row too (--runs)")
    runs = {name: Run.read(path, sheet[name]) for name, path in tables["runs"].items()}
    answers = {
        table.name: pl.from_arrow(read_table(table, tables[table.name]))
        for table in (GENERATION_SCORES, JUDGEMENTS)
        if table.name in tables
    }
    answers |= {
        table.name: pl.concat(pl.from_arrow(read_table(table, path)) for path in tables[table.name])
        for table in (BUDGET, KERNELS, ENTANGLEMENT)
        if tables.get(table.name)
    }
    scores = tables.get(GENERATION_SCORES.name)
    chance = read_metadata(scores, GENERATION_SCORES)["chance"] if scores else None
    return RunGroup(pairs, model, seed, runs, draws, bootstrap, **answers, chance=chance)


def _not_requested(why: str) -> DynamicsEstimate:
    return nothing("", f"not tested: {why}", NOT_REQUESTED)


def _row(
    claim: DynamicsClaim, estimate: DynamicsEstimate, model: str, kind: str, seed: int | None, dataset: str
) -> dict[str, Any]:
    return estimate.row(claim=claim.claim, model=model, kind=kind, seed=seed, dataset=dataset)
