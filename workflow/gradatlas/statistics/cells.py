"""The usable samples of a gradients job, cell by cell, as arrays."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from gradatlas.core.errors import InputError
from gradatlas.core.tables import read_metadata, read_table
from gradatlas.gradients.tables import SAMPLES, SPECTRA
from gradatlas.statistics.shapes import Shapes, own_shapes, present, shapes_differ, steps
from gradatlas.statistics.tables import STATISTICS
from gradatlas.study.settings import PROJECTIONS

REFERENCE = "correct"
KEY = ["variant", "relation", "loss_tokens"]

# The sigma ratio is averaged per sample: a mean of ratios, as the study takes it, not a ratio of means.
_RATIO = pl.when(pl.col("nuclear_norm") > 0).then(pl.col("sigma_max") / pl.col("nuclear_norm"))
# A sample's statistics, from the columns of the spectra table.
_VALUES = {name: _RATIO if name == "sigma_ratio" else pl.col(name) for name in STATISTICS}
_READ = {column for value in _VALUES.values() for column in value.meta.root_names()}
_COLUMNS = ("layer", "projection", "nuclear_norm_scaled", *sorted(_READ))


@dataclass(frozen=True)
class Cell:
    """The usable samples of one model, variant, relation and token set.

    `values`: by statistic, (samples, projections, layers); samples in the order of `sample_ids`, as are `loss`
    (mean response cross-entropy) and `response_tokens`. `shapes`: of the matrices, where layers differ in shape
    (`gradatlas.statistics.shapes`): then the nuclear norm is the scaled one, and values are NaN where a layer has no
    such projection.
    """

    model: str
    variant: str
    relation: str
    loss_tokens: str
    purpose: str
    sample_ids: tuple[str, ...]
    projections: tuple[str, ...]
    loss: np.ndarray
    response_tokens: np.ndarray
    values: Mapping[str, np.ndarray]
    shapes: Shapes | None = None

    @property
    def present(self) -> np.ndarray:
        """(projections, layers): whether a layer has its own projection."""
        layers = next(iter(self.values.values())).shape[-1]
        everywhere = np.ones((len(self.projections), layers), dtype=bool)
        return present(self.shapes, self.projections) if self.shapes else everywhere

    @property
    def steps(self) -> np.ndarray:
        """(projections, layers - 1): whether two neighbouring layers can be compared."""
        return steps(self.shapes, self.projections) if self.shapes else self.present[:, 1:]


def read_cells(dataset: str, samples_path: str, spectra_path: str) -> tuple[pl.DataFrame, list[Cell]]:
    """One model's samples table, and its cells with usable samples in the order of that table.

    A sample with a value that is not finite in any layer or projection gets the status ``nonfinite``, and is in no
    cell. Raises `InputError` where the tables are of another dataset, or do not belong together.
    """
    frame = pl.from_arrow(read_table(SAMPLES, samples_path))
    found = frame["dataset"].unique().to_list()
    if found != [dataset]:
        raise InputError(
            f"{samples_path}: holds dataset {', '.join(map(repr, found)) or 'none'}, not '{dataset}'; give its table"
        )
    ok = (frame["status"] == "ok").to_numpy()
    spectra = pl.from_arrow(read_table(SPECTRA, spectra_path, _COLUMNS))
    # The study is of the model's own matrices, not of an adapter's A and B beside them.
    spectra = spectra.filter(pl.col("projection").is_in(PROJECTIONS))
    # Rows of spectra are ordered by sample, layer and projection (measure_gradients).
    projections = spectra["projection"].unique(maintain_order=True).to_list()
    layers = spectra["layer"].max() + 1 if spectra.height else 0
    if spectra.height != ok.sum() * layers * len(projections) or ok.any() > bool(layers):
        raise InputError(
            f"{spectra_path}: {spectra.height} rows do not belong to the samples of {samples_path}; give both tables "
            "of one job"
        )
    if not ok.any():
        return frame, []
    facts = read_metadata(samples_path, SAMPLES)
    shapes = own_shapes(facts)
    shapes = shapes if shapes_differ(shapes) else None
    statistics = _VALUES | ({"nuclear_norm": pl.col("nuclear_norm_scaled")} if shapes else {})
    values = {
        name: spectra.select(value).to_numpy().astype(float).reshape(-1, layers, len(projections)).swapaxes(1, 2)
        for name, value in statistics.items()
        # Released statistics do not have all of these.
        if spectra.select(value).to_series().count()
    }
    missing = ~present(shapes, projections) if shapes else np.False_
    finite = np.logical_and.reduce([(np.isfinite(stack) | missing).all((1, 2)) for stack in values.values()])
    usable = np.zeros(frame.height, dtype=bool)
    usable[ok] = finite
    status = pl.when(pl.Series(ok & ~usable)).then(pl.lit("nonfinite")).otherwise("status")
    values = {name: stack[finite] for name, stack in values.items()}
    frame = frame.with_columns(status.alias("status"))
    return frame, list(_usable(frame, tuple(projections), values, facts["purpose"], shapes))


def _usable(
    frame: pl.DataFrame,
    projections: tuple[str, ...],
    values: Mapping[str, np.ndarray],
    purpose: str,
    shapes: Shapes | None,
) -> Iterator[Cell]:
    good = frame.filter(pl.col("status") == "ok").with_row_index("at")
    for key, group in good.group_by(KEY, maintain_order=True):
        at = group["at"].to_numpy()
        taken = {name: stack[at] for name, stack in values.items()}
        per_sample = (group[name].to_numpy().astype(float) for name in ("loss", "response_tokens"))
        yield Cell(frame["model"][0], *key, purpose, tuple(group["sample_id"]), projections, *per_sample, taken, shapes)


def pairs(cells: Sequence[Cell]) -> Iterator[tuple[Cell, Cell]]:
    """The cell of the correct responses and each cell of another relation, with the samples that both have."""
    for other in cells:
        there = set(other.sample_ids)
        for reference in cells:
            same = (reference.variant, reference.loss_tokens) == (other.variant, other.loss_tokens)
            if same and reference.relation == REFERENCE != other.relation:
                shared = [sample_id for sample_id in reference.sample_ids if sample_id in there]
                if shared:
                    yield cut(reference, shared), cut(other, shared)


def cut(cell: Cell, sample_ids: Sequence[str]) -> Cell:
    """The cell with these samples only, in this order."""
    position = {sample_id: i for i, sample_id in enumerate(cell.sample_ids)}
    at = [position[sample_id] for sample_id in sample_ids]
    values = {name: stack[at] for name, stack in cell.values.items()}
    return replace(
        cell,
        sample_ids=tuple(sample_ids),
        loss=cell.loss[at],
        response_tokens=cell.response_tokens[at],
        values=values,
    )
