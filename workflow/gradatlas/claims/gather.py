"""The evidence of one dataset: every claim's function on every model of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from gradatlas.claims.controls import CONTROLS
from gradatlas.claims.findings import FINDINGS
from gradatlas.claims.sheet import GradientClaim
from gradatlas.claims.tables import EVIDENCE
from gradatlas.claims.two_alternative import two_alternative
from gradatlas.claims.views import Key, View, estimates
from gradatlas.core.command import progress
from gradatlas.core.errors import InputError, nearest
from gradatlas.core.tables import read_metadata, read_table, write_table
from gradatlas.gradients.tables import SAMPLES
from gradatlas.miniature.tables import ACCURACY
from gradatlas.statistics.cells import KEY, Cell, read_cells

MEASURES = FINDINGS | CONTROLS


def gather(
    dataset: str,
    samples: Sequence[str],
    spectra: Sequence[str],
    models: Mapping[str, Mapping[str, Any]],
    claims: Sequence[GradientClaim],
    output: str,
    draws: int,
    seed: int,
    accuracy: str = "",
    task: str = "other",
) -> None:
    """Write the evidence table of one dataset, and, to `accuracy`, which of two responses its models find likelier.

    `samples` and `spectra`: one path per model, of this dataset and of those that a claim compares it with. `models`:
    by name, the sheet's `kind`, `partner` and `seed`; `task`: the dataset's. A model on data that it was never meant
    for takes no part.
    """
    for claim in claims:
        if claim.measure not in MEASURES:
            raise InputError(
                f"config/claims.tsv, '{claim.claim}': column 'measure': {nearest(claim.measure, MEASURES)}"
            )
    views: dict[tuple[str, str], View] = {}
    for samples_path, spectra_path in zip(samples, spectra, strict=True):
        facts = read_metadata(samples_path, SAMPLES)
        if facts["purpose"] != "study":
            progress(f"{samples_path}: {facts['purpose']}, takes no part")
            continue
        view = replace(_view(samples_path, spectra_path, facts, models, draws, seed), task=task)
        views[view.model, view.dataset] = view
    rows = [row for view in _compared(views, dataset, models) for row in _rows(view, claims, models[view.model])]
    progress(f"{dataset}: {len(rows)} tests of {len({row['claim'] for row in rows})} claims")
    write_table(EVIDENCE, rows, output, {"dataset": dataset, "draws": draws, "seed": seed})
    if accuracy:
        of_dataset = [view for (_, name), view in views.items() if name == dataset]
        write_table(ACCURACY, [row for view in of_dataset for row in two_alternative(view)], accuracy, {})


def _view(
    samples: str, spectra: str, facts: Mapping[str, Any], models: Mapping[str, Any], draws: int, seed: int
) -> View:
    frame, cells = read_cells(_dataset_of(samples), samples, spectra)
    if cells and not cells[0].present.all():
        progress(f"{samples}: claims are about {', '.join(_slim(cells[0]).projections)}; some layers have no other")
    measured = {(cell.variant, cell.relation, cell.loss_tokens): _slim(cell) for cell in cells}
    name = facts["model"]
    return View(
        dataset=frame["dataset"][0],
        model=name,
        kind=models[name]["kind"],
        cells=measured,
        draws=draws,
        seed=seed,
        concentration=_concentration(frame),
        loss_norm=facts.get("loss_norm", "mean"),
        lost=frozenset(frame.select(KEY).unique().iter_rows()) - measured.keys(),
    )


def _dataset_of(samples: str) -> str:
    found = read_table(SAMPLES, samples, ["dataset"])["dataset"].unique().to_pylist()
    if len(found) != 1:
        raise InputError(f"{samples}: holds {len(found)} datasets, not one; make it again")
    return found[0]


def _slim(cell: Cell) -> Cell:
    """Without the statistics that no claim is about, as all models of a dataset are held at once.

    And without projections that some layers have none of: claims are about the curve of all layers.
    """
    norms = cell.values["nuclear_norm"]
    if cell.present.all():
        return replace(cell, values={"nuclear_norm": norms})
    whole = cell.present.all(1)
    left = tuple(name for name, kept in zip(cell.projections, whole, strict=True) if kept)
    return replace(cell, projections=left, values={"nuclear_norm": norms[:, whole]})


def _concentration(frame: pl.DataFrame) -> dict[Key, np.ndarray]:
    usable = frame.filter(pl.col("status") == "ok")
    return {
        key: group["loss_concentration"].cast(pl.Float64).fill_null(np.nan).to_numpy()
        for key, group in usable.group_by(KEY, maintain_order=True)
    }


def _compared(views: Mapping[tuple[str, str], View], dataset: str, models: Mapping[str, Any]) -> Iterator[View]:
    """The views of this dataset, each with what it is compared with."""
    here = {model: view for (model, name), view in views.items() if name == dataset}
    kinds = {name: row["kind"] for name, row in models.items()}
    for model, view in here.items():
        partner = models[model]["partner"]
        # An instructed model's network before training is its base model's.
        trained = {model} | ({partner} if view.kind == "instruct" else set()) if view.kind != "random" else set()
        twins = [name for name, row in models.items() if row["kind"] == "random" and row["partner"] in trained]
        yield replace(
            view,
            base=here.get(partner) if view.kind == "instruct" and kinds.get(partner) == "base" else None,
            untrained=next((here[name] for name in twins if name in here), None),
            others={name: other for (owner, name), other in views.items() if owner == model and name != dataset},
        )


def _rows(view: View, claims: Sequence[GradientClaim], model: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for claim in claims:
        if view.kind in claim.kinds and (not claim.models or view.model in claim.models):
            for found in estimates(view, claim, MEASURES[claim.measure]):
                yield found.row(
                    claim=claim.claim,
                    model=view.model,
                    kind=view.kind,
                    seed=model["seed"],
                    dataset=view.dataset,
                    untrained_model=view.untrained.model if view.untrained else "",
                )
