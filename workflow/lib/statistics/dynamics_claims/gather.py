"""The evidence of the second study: every claim's function on every run that a config makes, and on the toys."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from workflow.lib.command import progress
from workflow.lib.errors import InputError
from workflow.lib.statistics.claims.evidence import Estimate
from workflow.lib.statistics.dynamics_claims.answers import ANSWERS
from workflow.lib.statistics.dynamics_claims.evidence import (
    NOT_ASKED,
    DynamicsClaim,
    NothingMeasured,
    Room,
    Run,
    nothing,
)
from workflow.lib.statistics.dynamics_claims.exact import EXACT
from workflow.lib.statistics.dynamics_claims.influence import INFLUENCE
from workflow.lib.statistics.dynamics_claims.training import TRAINING, relation_of
from workflow.lib.tables import read_metadata, read_table, write_table

ON_RUNS = TRAINING | INFLUENCE | ANSWERS
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
    rooms: Mapping[int, Mapping[str, Any]],
    sheet: Mapping[str, Mapping[str, Any]],
    claims: Sequence[DynamicsClaim],
    output: str | Path,
    draws: int,
    seed: int,
) -> None:
    """Write the evidence of one model on one table of pairs.

    `rooms`: by seed of training, ``runs`` (the ``dynamics`` table of each, by name), and where they were made
    ``one_step``, ``generation_scores`` and ``judgements``. `sheet`: the runs' rows of config/runs.tsv. A claim whose
    runs or table are not there has one row that says so, and no number.
    """
    check(claims)
    asked = [claim for claim in claims if claim.table not in TOYS]
    rows = []
    for claim in (claim for claim in asked if claim.table == "one_step"):
        tables = [
            pl.from_arrow(read_table("one_step", room["one_step"])) for room in rooms.values() if "one_step" in room
        ]
        found = list(EXACT[claim.claim]({"one_step": pl.concat(tables)}, claim)) if tables else [_not_asked("one step")]
        rows += [_row(claim, estimate, model, kind, None, pairs) for estimate in found]
    for training_seed, tables in rooms.items():
        room = _room(pairs, model, training_seed, tables, sheet, draws, seed)
        for claim in (claim for claim in asked if claim.table != "one_step"):
            for estimate in on_room(room, claim):
                # What this config does not ask for, it asks for of no seed.
                if estimate.test != NOT_ASKED:
                    rows.append(_row(claim, estimate, model, kind, training_seed, pairs))
                elif training_seed == next(iter(rooms)):
                    rows.append(_row(claim, estimate, model, kind, None, pairs))
    told = {row["claim"] for row in rows if row["test"] != NOT_ASKED}
    progress(f"{pairs}, {model}: {len(rows)} rows of {len(told)} claims")
    write_table("evidence", rows, output, {"dataset": pairs, "draws": draws, "seed": seed})


def gather_toys(folder: str | Path, claims: Sequence[DynamicsClaim], output: str | Path, images: str) -> None:
    """Write the evidence of the toys, whose tables stand in `folder`, and of the losses' formulas.

    `images`: the source of the classifier's images, as the config names it.
    """
    check(claims)
    rows = []
    for claim in claims:
        if claim.table not in TOYS:
            continue
        paths = {name: Path(folder) / f"toy_{name}.parquet" for name in TOYS[claim.table]}
        tables = {name: pl.from_arrow(read_table(f"toy_{name}", path)) for name, path in paths.items()}
        model, dataset, seed = *{"formulas": ("losses", "autograd")}.get(claim.table, ("softmax", "toys")), None
        if claim.table == "images":
            facts = read_metadata(paths["predictions"], "toy_predictions")
            model, dataset = "classifier", Path(str(facts["images"])).stem
            seed = facts["seed"] if claim.rests == "seeds" else None
            if claim.runs and images not in claim.runs:
                rows.append(_row(claim, _not_asked(f"about {' or '.join(claim.runs)}"), model, "toy", None, dataset))
                continue
        rows += [_row(claim, estimate, model, "toy", seed, dataset) for estimate in EXACT[claim.claim](tables, claim)]
    progress(f"toys: {len(rows)} rows of {len({row['claim'] for row in rows})} claims")
    write_table("evidence", rows, output, {"dataset": "toys"})


def check(claims: Sequence[DynamicsClaim]) -> None:
    """`InputError` for a row of the sheet that nothing measures."""
    for claim in claims:
        known = EXACT if claim.table in (*TOYS, "one_step") else ON_RUNS
        if claim.claim not in known:
            have = ", ".join(sorted(known))
            raise InputError(
                f"config/claims_dynamics.tsv, '{claim.claim}': nothing measures it on {claim.table}; have {have}"
            )


def on_room(room: Room, claim: DynamicsClaim) -> Iterator[Estimate]:
    """A claim's estimates: one a run (or RUN:RUN) and type that the sheet names and the room has."""
    entries = [entry for entry in claim.runs if all(name in room.runs for name in entry.split(":"))]
    if not entries:
        yield _not_asked(f"needs {' or '.join(claim.runs).replace(':', ' and ')}")
        return
    if claim.table != "dynamics" and getattr(room, claim.table) is None:
        yield _not_asked(f"no {claim.table.replace('_', ' ')} were made")
        return
    for entry in entries:
        run, _, other = entry.partition(":")
        stopped = [name for name in entry.split(":") if room.runs[name].stopped]
        for kind in claim.types or ("",):
            relation = relation_of(entry, kind)
            if stopped:
                yield nothing(relation, f"run {stopped[0]} diverged")
                continue
            try:
                yield ON_RUNS[claim.claim](room, claim, run, other, kind)
            except NothingMeasured as lacking:
                yield nothing(relation, str(lacking))


def _room(
    pairs: str,
    model: str,
    seed: int,
    tables: Mapping[str, Any],
    sheet: Mapping[str, Mapping[str, Any]],
    draws: int,
    bootstrap: int,
) -> Room:
    lacking = [name for name in tables["runs"] if name not in sheet]
    if lacking:
        raise InputError(f"run '{lacking[0]}' is in no row of the sheet of runs; give its row too (--runs)")
    runs = {name: Run.read(path, sheet[name]) for name, path in tables["runs"].items()}
    answers = {
        name: pl.from_arrow(read_table(name, tables[name]))
        for name in ("generation_scores", "judgements")
        if name in tables
    }
    return Room(pairs, model, seed, runs, draws, bootstrap, **answers)


def _not_asked(why: str) -> Estimate:
    return nothing("", f"not asked: {why}", NOT_ASKED)


def _row(
    claim: DynamicsClaim, estimate: Estimate, model: str, kind: str, seed: int | None, dataset: str
) -> dict[str, Any]:
    about = {"claim": claim.claim, "model": model, "kind": kind, "seed": seed, "dataset": dataset}
    return about | {"untrained_model": ""} | asdict(estimate)
