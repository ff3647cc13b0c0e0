"""All statistics of one dataset, from the spectra of all models on it.

MAD and mean absolute RD have two numbers: `value`, the study's, a mean of absolute values that noise makes too large;
and `corrected`, with the interval `low` to `high` (`gradatlas.statistics.intervals`). Near zero `value` can be above
`high`.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from gradatlas.core.command import progress
from gradatlas.core.tables import Table, read_metadata, read_table, table_in_parts, write_table
from gradatlas.data.tables import RESPONSES
from gradatlas.gradients.tables import SAMPLES
from gradatlas.statistics.cells import KEY, REFERENCE, Cell, pairs, read_cells
from gradatlas.statistics.estimates import curve_estimates, difference_estimates
from gradatlas.statistics.measures import segments, top_layers
from gradatlas.statistics.shapes import own_shapes, shapes_differ
from gradatlas.statistics.tables import CELLS, CURVES, MAD, PER_SAMPLE, PER_SAMPLE_LAYERS, RD, RD_LAYERS

# Written at the end. `per_sample_layers` is written in parts, as it is as long as the spectra.
_WHOLE = (CURVES, MAD, RD, RD_LAYERS, CELLS, PER_SAMPLE)


def summarise(
    dataset: str,
    samples: Sequence[str],
    spectra: Sequence[str],
    output: str,
    draws: int,
    seed: int,
    responses: str | None = None,
) -> None:
    """Write curves, MAD, RD, cells and each sample's means and layers of one dataset into the folder `output`.

    `samples` and `spectra`: one path per model, in the same order. Intervals are 95 % bootstraps over samples with
    `draws` resamples. Samples with a status other than ``ok``, or with a value that is not finite in any layer or
    projection, are left out of all curves and counted in the cells table; a model without usable samples is only there.
    `responses`: the measured table, for the counts of right labels.
    """
    labels = _labels(responses)
    tables: dict[str, list[pa.Table]] = {table.name: [] for table in _WHOLE}
    known = [_known(path) for path in samples]
    revisions = {
        facts["model"]: {key: facts[key] for key in _FACTS}
        | ({"matrix_shapes": own_shapes(facts)} if shapes_differ(own_shapes(facts)) else {})
        | {key: facts[key] for key in ("rounding",) if key in facts}
        for facts in known
    }
    metadata = {"dataset": dataset, "draws": draws, "seed": seed, "models": revisions}
    with table_in_parts(PER_SAMPLE_LAYERS, Path(output) / "per_sample_layers.parquet", metadata) as write_layered:
        # One model in memory at a time.
        for facts, samples_path, spectra_path in zip(known, samples, spectra, strict=True):
            frame, cells = read_cells(dataset, samples_path, spectra_path)
            tables["cells"].append(_cells(frame, facts["purpose"], labels))
            progress(f"{facts['model']}: {len(cells)} cells, {sum(len(cell.sample_ids) for cell in cells)} samples")
            for cell in cells:
                tables["per_sample"].append(_per_sample(cell, dataset))
                write_layered(_per_sample_layers(cell, dataset))
                _curves(tables, cell, dataset, draws, seed)
            for reference, other in pairs(cells):
                _differences(tables, reference, other, dataset, draws, seed)
    for table in _WHOLE:
        rows = pa.concat_tables([table.empty(), *tables[table.name]])
        write_table(table, rows, Path(output) / f"{table.name}.parquet", metadata)


# Facts of the samples tables in the metadata of the statistics.
_FACTS = ("model_digest", "revision", "dtype", "compat", "max_length")
_LEFT_OUT = ("no_response_tokens", "nonfinite", "out_of_memory")


def _known(samples: str) -> dict[str, Any]:
    """The metadata of a samples table; `InputError` where it is not one."""
    read_table(SAMPLES, samples, ["status"])
    return read_metadata(samples, SAMPLES)


def _curves(tables: dict[str, list], cell: Cell, dataset: str, draws: int, seed: int) -> None:
    # All statistics at once: (samples, statistics, projections, layers).
    values = np.stack(list(cell.values.values()), axis=1)
    name = f"{cell.model} {dataset} {cell.variant} {cell.relation}"
    curves, mad = curve_estimates(values, draws, seed, name, cell.steps)
    about = {**_about(cell, dataset), "n": len(cell.sample_ids)}
    axes = {"statistic": list(cell.values), "projection": cell.projections}
    # No row for a layer without the projection, nor for a segment without neighbours of the same shape.
    there = np.broadcast_to(cell.present, curves["value"].shape).ravel()
    table = _long(CURVES, about, {**axes, "layer": range(values.shape[-1])}, curves)
    tables["curves"].append(table.filter(pa.array(there)))
    if values.shape[-1] < 2:
        return  # one layer: no MAD
    ranges = segments(values.shape[-1])
    layers = np.array([f"{first}-{end - 1}" for first, end in ranges.values()], dtype=object)
    mad["layers"] = np.broadcast_to(layers, mad["value"].shape)
    compared = [cell.steps[:, first : end - 1].any(-1) for first, end in ranges.values()]
    there = np.broadcast_to(np.stack(compared, axis=-1), mad["value"].shape).ravel()
    tables["mad"].append(_long(MAD, about, {**axes, "segment": list(ranges)}, mad).filter(pa.array(there)))


def _differences(tables: dict[str, list], reference: Cell, other: Cell, dataset: str, draws: int, seed: int) -> None:
    # In released statistics, one relation may have fewer statistics.
    statistics = [statistic for statistic in other.values if statistic in reference.values]
    both = (np.stack([cell.values[name] for name in statistics], axis=1) for cell in (reference, other))
    name = f"{other.model} {dataset} {other.variant} {other.relation} against {REFERENCE}"
    layers, signed, absolute = difference_estimates(*both, draws, seed, name, other.present if other.shapes else None)
    about = {**_about(other, dataset), "n": len(other.sample_ids)}
    axes = {"statistic": statistics, "projection": other.projections}
    values = layers["value"]
    table = _long(RD_LAYERS, about, {**axes, "layer": range(values.shape[-1])}, layers)
    tables["rd_layers"].append(table.filter(pa.array(np.broadcast_to(other.present, values.shape).ravel())))
    measures = {key: np.stack([signed[key], absolute[key]], axis=-1) for key in signed}
    measures["top_layers"] = np.empty(measures["value"].shape, dtype=object)
    for place in np.ndindex(measures["value"].shape):
        measures["top_layers"][place] = top_layers(values[place[:-1]])
    tables["rd"].append(_long(RD, about, {**axes, "measure": ["signed", "absolute"]}, measures))


def _per_sample(cell: Cell, dataset: str) -> pa.Table:
    """Each sample's statistics, averaged over the layers of a projection."""
    mean = np.nanmean if cell.shapes else np.mean
    means = {statistic: mean(values, axis=2) for statistic, values in cell.values.items()}
    return _by_sample(PER_SAMPLE, cell, dataset, means)


def _per_sample_layers(cell: Cell, dataset: str) -> pa.Table:
    """Each sample's statistics, as lists over the layers of a projection."""
    return _by_sample(PER_SAMPLE_LAYERS, cell, dataset, cell.values)


def _by_sample(table: Table, cell: Cell, dataset: str, columns: Mapping[str, np.ndarray]) -> pa.Table:
    shape = (len(cell.sample_ids), len(cell.projections))
    about = {key: np.broadcast_to(getattr(cell, key)[:, None], shape) for key in ("loss", "response_tokens")}
    axes = {"sample_id": cell.sample_ids, "projection": cell.projections}
    return _long(table, _about(cell, dataset), axes, {**columns, **about})


def _long(
    table: Table, about: Mapping[str, Any], axes: Mapping[str, Sequence], columns: Mapping[str, np.ndarray]
) -> pa.Table:
    """Rows of a table: one for each element of the arrays `columns`, with the labels of its `axes`, and `about`.

    An array with one more axis gives a column of lists.
    """
    shape = tuple(map(len, axes.values()))
    rows = math.prod(shape)
    data = {key: pa.repeat(value, rows) for key, value in about.items()}
    for (key, labels), index in zip(axes.items(), np.indices(shape), strict=True):
        data[key] = pa.array(list(labels)).take(pa.array(index.ravel()))
    for key, values in columns.items():
        # Released statistics have no lengths: NaN becomes null.
        data[key] = pa.array(values.ravel(), from_pandas=key == "response_tokens")
        if values.ndim > len(shape):
            ends = pa.array(np.arange(rows + 1) * values.shape[-1], pa.int32())
            data[key] = pa.ListArray.from_arrays(ends, data[key])
    schema = table.schema
    arrays = [
        data[field.name].cast(field.type) if field.name in data else pa.nulls(rows, field.type) for field in schema
    ]
    return pa.table(arrays, schema=schema)


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
    """Whether each response states the right answer; null where that is unknown."""
    columns = ["sample_id", "variant", "relation", "label_equals_gold"]
    if responses is None:
        return pl.from_arrow(RESPONSES.empty()).select(columns)
    return pl.from_arrow(read_table(RESPONSES, responses)).select(columns)


def _cells(samples: pl.DataFrame, purpose: str, labels: pl.DataFrame) -> pa.Table:
    """Counts of each cell's samples; loss and lengths are means over the usable ones."""
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
    cells = summary.with_columns(pl.lit(purpose).alias("purpose")).to_arrow()
    return cells.select(CELLS.names).cast(CELLS.schema)
