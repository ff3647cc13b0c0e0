"""All statistics of one dataset, from the spectra of all models on it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from workflow.lib.command import progress
from workflow.lib.errors import InputError
from workflow.lib.statistics.bootstrap import interval, resampled_means
from workflow.lib.statistics.measures import mean_absolute_difference, relative_difference, segments, top_layers
from workflow.lib.tables import SCHEMAS, read_metadata, read_table, write_table

# A sample's statistics, from the columns of the spectra table. The sigma ratio is averaged per sample: a mean of
# ratios, as the study takes it, not a ratio of means.
STATISTICS = {
    "nuclear_norm": pl.col("nuclear_norm"),
    "sigma_ratio": pl.when(pl.col("nuclear_norm") > 0).then(pl.col("sigma_max") / pl.col("nuclear_norm")),
    "effective_rank": pl.col("effective_rank"),
}
TABLES = ("curves", "mad", "rd", "rd_layers", "cells")
REFERENCE = "correct"


@dataclass(frozen=True)
class Cell:
    """The usable samples of one model, variant, relation and token set.

    `values`: by statistic, (samples, projections, layers); samples in the order of `sample_ids`.
    """

    model: str
    variant: str
    relation: str
    loss_tokens: str
    purpose: str
    sample_ids: tuple[str, ...]
    projections: tuple[str, ...]
    values: Mapping[str, np.ndarray]


def summarise(
    dataset: str,
    samples: Sequence[str],
    spectra: Sequence[str],
    output: str,
    draws: int,
    seed: int,
    responses: str | None = None,
) -> None:
    """Write curves, MAD, RD and cells of one dataset into the folder `output`.

    `samples` and `spectra`: one path per model, in the same order. Intervals are 95 % percentile bootstraps over
    samples, `draws` of them. Samples with a status other than ``ok``, or with a value that is not finite in any
    layer or projection, are left out of all curves alike, and counted in the cells table. `responses`, the table that
    was measured, tells how many of the labels are right.
    """
    labels = _labels(responses)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    revisions = {}
    for samples_path, spectra_path in zip(samples, spectra, strict=True):
        frame, projections, values = _load(dataset, samples_path, spectra_path)
        facts = read_metadata(samples_path)
        revisions[facts["model"]] = {key: facts[key] for key in _FACTS}
        rows["cells"] += _cells(frame, facts["purpose"], labels)
        cells = list(_usable(frame, projections, values, facts["purpose"]))
        progress(f"{facts['model']}: {len(cells)} cells, {sum(len(cell.sample_ids) for cell in cells)} samples")
        for cell in cells:
            _curves(rows, cell, dataset, draws, seed)
        for reference, other in _pairs(cells):
            _differences(rows, reference, other, dataset, draws, seed)
    metadata = {"dataset": dataset, "draws": draws, "seed": seed, "models": revisions}
    for name in TABLES:
        write_table(name, rows[name], Path(output) / f"{name}.parquet", metadata)


# What the statistics' own metadata keep of the tables they were made from.
_FACTS = ("model_digest", "revision", "dtype", "compat", "max_length")
_KEY = ["variant", "relation", "loss_tokens"]
_LEFT_OUT = ("no_response_tokens", "nonfinite", "out_of_memory")


def _load(
    dataset: str, samples_path: str, spectra_path: str
) -> tuple[pl.DataFrame, tuple[str, ...], dict[str, np.ndarray]]:
    """One model's samples, its projections, and by statistic (ok samples, projections, layers).

    A sample with a value that is not finite becomes ``nonfinite`` in the samples; its spectra are dropped.
    """
    frame = pl.from_arrow(read_table("samples", samples_path))
    spectra = pl.from_arrow(read_table("spectra", spectra_path))
    found = frame["dataset"].unique().to_list()
    if found != [dataset]:
        raise InputError(f"{samples_path}: holds dataset {', '.join(map(repr, found)) or 'none'}, not '{dataset}'")
    ok = (frame["status"] == "ok").to_numpy()
    if not ok.any():
        statuses = ", ".join(sorted(set(frame["status"])))
        raise InputError(
            f"{samples_path}: no sample is left (statuses: {statuses}); raise max_length or look at the responses"
        )
    # The spectra stand sample by sample, layer by layer, projection by projection (measure_gradients writes them so).
    projections = spectra["projection"].unique(maintain_order=True).to_list()
    layers = spectra["layer"].max() + 1
    if spectra.height != ok.sum() * layers * len(projections):
        raise InputError(f"{spectra_path}: {spectra.height} rows do not belong to the samples of {samples_path}")
    values = {
        name: spectra.select(value).to_numpy().astype(float).reshape(-1, layers, len(projections)).swapaxes(1, 2)
        for name, value in STATISTICS.items()
        # Released statistics do not tell all of ours.
        if spectra.select(value).to_series().count()
    }
    finite = np.logical_and.reduce([np.isfinite(stack).all((1, 2)) for stack in values.values()])
    usable = np.zeros(frame.height, dtype=bool)
    usable[ok] = finite
    status = pl.when(pl.Series(ok & ~usable)).then(pl.lit("nonfinite")).otherwise("status")
    values = {name: stack[finite] for name, stack in values.items()}
    return frame.with_columns(status.alias("status")), tuple(projections), values


def _usable(
    frame: pl.DataFrame, projections: tuple[str, ...], values: Mapping[str, np.ndarray], purpose: str
) -> Iterator[Cell]:
    """The cells of one model, in the order of the samples table."""
    good = frame.filter(pl.col("status") == "ok").with_row_index("at")
    for key, group in good.group_by(_KEY, maintain_order=True):
        at = group["at"].to_numpy()
        taken = {name: stack[at] for name, stack in values.items()}
        yield Cell(frame["model"][0], *key, purpose, tuple(group["sample_id"]), projections, taken)


def _pairs(cells: Sequence[Cell]) -> Iterator[tuple[Cell, Cell]]:
    """Each cell of another relation with its correct one, cut to the samples that both have."""
    for other in cells:
        for reference in cells:
            same = (reference.variant, reference.loss_tokens) == (other.variant, other.loss_tokens)
            if same and reference.relation == REFERENCE != other.relation:
                shared = [sample_id for sample_id in reference.sample_ids if sample_id in set(other.sample_ids)]
                if shared:
                    yield _cut(reference, shared), _cut(other, shared)


def _cut(cell: Cell, sample_ids: Sequence[str]) -> Cell:
    position = {sample_id: i for i, sample_id in enumerate(cell.sample_ids)}
    at = [position[sample_id] for sample_id in sample_ids]
    values = {name: stack[at] for name, stack in cell.values.items()}
    return replace(cell, sample_ids=tuple(sample_ids), values=values)


def _curves(rows: dict[str, list], cell: Cell, dataset: str, draws: int, seed: int) -> None:
    about = {**_about(cell, dataset), "n": len(cell.sample_ids)}
    for statistic, values in cell.values.items():
        means = resampled_means(values, draws, seed, f"{cell.model} {dataset} {cell.variant} {cell.relation}")
        ranges = segments(values.shape[2])
        for p, projection in enumerate(cell.projections):
            named = {**about, "projection": projection, "statistic": statistic}
            for layer, (value, low, high) in enumerate(zip(*interval(means[:, p]), strict=True)):
                rows["curves"].append({**named, "layer": layer, "value": value, "low": low, "high": high})
            for segment, (first, end) in ranges.items():
                value, low, high = interval(mean_absolute_difference(means[:, p, first:end]))
                place = {"segment": segment, "layers": f"{first}-{end - 1}"}
                rows["mad"].append({**named, **place, "value": value, "low": low, "high": high})


def _differences(rows: dict[str, list], reference: Cell, other: Cell, dataset: str, draws: int, seed: int) -> None:
    about = {**_about(other, dataset), "n": len(other.sample_ids)}
    for statistic, values in other.values.items():
        # Both relations of a sample are drawn together: the difference is a paired one.
        both = np.stack([reference.values[statistic], values], axis=1)
        name = f"{other.model} {dataset} {other.variant} {other.relation} against {REFERENCE}"
        means = resampled_means(both, draws, seed, name)
        by_layer = relative_difference(means[:, 0], means[:, 1])
        for p, projection in enumerate(other.projections):
            named = {**about, "projection": projection, "statistic": statistic}
            differences = by_layer[:, p]
            for layer, (value, low, high) in enumerate(zip(*interval(differences), strict=True)):
                rows["rd_layers"].append({**named, "layer": layer, "value": value, "low": low, "high": high})
            for measure, taken in (("signed", differences), ("absolute", np.abs(differences))):
                value, low, high = interval(taken.mean(-1))
                top = top_layers(differences[0])
                rows["rd"].append(
                    {**named, "measure": measure, "value": value, "low": low, "high": high, "top_layers": top}
                )


def _about(cell: Cell, dataset: str) -> dict[str, Any]:
    return {
        "model": cell.model,
        "dataset": dataset,
        "variant": cell.variant,
        "relation": cell.relation,
        "loss_tokens": cell.loss_tokens,
        "purpose": cell.purpose,
    }


def _labels(responses: str | None) -> pl.DataFrame:
    """Whether each response states the right answer: null where that cannot be told."""
    columns = ["sample_id", "variant", "relation", "label_equals_gold"]
    if responses is None:
        return pl.from_arrow(SCHEMAS["responses"].empty_table()).select(columns)
    return pl.from_arrow(read_table("responses", responses)).select(columns)


def _cells(samples: pl.DataFrame, purpose: str, labels: pl.DataFrame) -> list[dict[str, Any]]:
    """What the samples of each cell were; loss and lengths are means over the usable ones."""
    samples = samples.join(labels, on=["sample_id", "variant", "relation"], how="left", maintain_order="left")
    ok = pl.col("status") == "ok"
    counts = [(pl.col("status") == status).sum().alias(f"n_{status}") for status in _LEFT_OUT]
    means = [pl.col(name).filter(ok).mean() for name in ("loss", "prompt_tokens", "response_tokens")]
    right = pl.col("label_equals_gold").filter(ok)
    judged = [right.count().alias("n_labelled"), right.sum().alias("n_label_equals_gold")]
    summary = samples.group_by(["model", "dataset", *_KEY], maintain_order=True).agg(
        pl.len().alias("n"),
        ok.sum().alias("n_ok"),
        pl.col("truncated").sum().alias("n_truncated"),
        *counts,
        *means,
        *judged,
    )
    return summary.with_columns(pl.lit(purpose).alias("purpose")).to_dicts()
