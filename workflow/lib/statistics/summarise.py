"""All statistics of one dataset, from the spectra of all models on it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from workflow.lib.command import progress
from workflow.lib.statistics.bootstrap import interval, resampled_means
from workflow.lib.statistics.cells import KEY, REFERENCE, Cell, pairs, read_cells
from workflow.lib.statistics.measures import mean_absolute_difference, relative_difference, segments, top_layers
from workflow.lib.tables import SCHEMAS, read_metadata, read_table, write_table

TABLES = ("curves", "mad", "rd", "rd_layers", "cells", "per_sample")


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
        frame, cells = read_cells(dataset, samples_path, spectra_path)
        facts = read_metadata(samples_path)
        revisions[facts["model"]] = {key: facts[key] for key in _FACTS}
        rows["cells"] += _cells(frame, facts["purpose"], labels)
        progress(f"{facts['model']}: {len(cells)} cells, {sum(len(cell.sample_ids) for cell in cells)} samples")
        for cell in cells:
            rows["per_sample"] += _per_sample(cell, dataset)
            _curves(rows, cell, dataset, draws, seed)
        for reference, other in pairs(cells):
            _differences(rows, reference, other, dataset, draws, seed)
    metadata = {"dataset": dataset, "draws": draws, "seed": seed, "models": revisions}
    for name in TABLES:
        write_table(name, rows[name], Path(output) / f"{name}.parquet", metadata)


# What the statistics' own metadata keep of the tables they were made from.
_FACTS = ("model_digest", "revision", "dtype", "compat", "max_length")
_LEFT_OUT = ("no_response_tokens", "nonfinite", "out_of_memory")


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


def _per_sample(cell: Cell, dataset: str) -> list[dict[str, Any]]:
    """Each sample's statistics, averaged over the layers of a projection."""
    means = {statistic: values.mean(2) for statistic, values in cell.values.items()}
    return [
        {
            **_about(cell, dataset),
            "sample_id": sample_id,
            "projection": projection,
            "loss": cell.loss[i],
            # Released statistics come without lengths.
            "response_tokens": None if np.isnan(cell.response_tokens[i]) else int(cell.response_tokens[i]),
            **{name: mean[i, p] for name, mean in means.items()},
        }
        for i, sample_id in enumerate(cell.sample_ids)
        for p, projection in enumerate(cell.projections)
    ]


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
    summary = samples.group_by(["model", "dataset", *KEY], maintain_order=True).agg(
        pl.len().alias("n"),
        ok.sum().alias("n_ok"),
        pl.col("truncated").sum().alias("n_truncated"),
        *counts,
        *means,
        *judged,
    )
    return summary.with_columns(pl.lit(purpose).alias("purpose")).to_dicts()
