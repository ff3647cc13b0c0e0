"""The two tables of a gradients job, from its items and what was computed for each."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from workflow.lib.gradients.journal import Record
from workflow.lib.gradients.plan import Item
from workflow.lib.gradients.spectra import METRICS
from workflow.lib.tables import write_table


def write_tables(
    items: Sequence[Item], records: Sequence[Record], facts: Mapping[str, Any], samples_path: str, spectra_path: str
) -> None:
    """Write the samples and spectra tables, each whole or not at all.

    `facts` become the tables' metadata, of which `model`, `projections`, `metrics` and `matrix_shapes` (by
    projection, each layer's (rows, columns)) are read here; a record's values are (layers, projections, metrics).
    Metrics that were not asked for are null.
    """
    samples = pa.table(
        {
            "model": [facts["model"]] * len(items),
            "dataset": [item.row.dataset for item in items],
            "sample_id": [item.row.sample_id for item in items],
            "variant": [item.row.variant for item in items],
            "relation": [item.row.relation for item in items],
            "loss_tokens": [item.loss_tokens for item in items],
            "loss": pa.array([record.loss for record in records], pa.float64()),
            "prompt_tokens": [item.prompt_tokens for item in items],
            "response_tokens": [item.sample.response_tokens for item in items],
            "truncated": [item.sample.truncated for item in items],
            "status": [record.status for record in records],
        }
    )
    projections, metrics, shapes = facts["projections"], facts["metrics"], facts["matrix_shapes"]
    good = [index for index, record in enumerate(records) if record.status == "ok"]
    values = np.array([records[index].values for index in good], dtype=float).reshape(
        len(good), len(shapes[projections[0]]), len(projections), len(metrics)
    )
    # One row per sample, layer and projection, in this order.
    sample, layer, projection = (axis.ravel() for axis in np.indices(values.shape[:3]))
    names = ("model", "dataset", "sample_id", "variant", "relation", "loss_tokens")
    long = samples.select(names).take(pa.array(np.array(good, dtype=np.int64)[sample]))
    long = long.append_column("layer", pa.array(layer.astype(np.int16)))
    long = long.append_column("projection", pa.array(np.array(projections)[projection]))
    columns = {metric: pa.nulls(len(sample), pa.float64()) for metric in ("nuclear_norm_scaled", *METRICS)}
    columns |= {metric: pa.array(values[..., index].ravel()) for index, metric in enumerate(metrics)}
    if "nuclear_norm" in metrics:
        # The largest nuclear norm of a matrix with Frobenius norm 1 is the root of its smaller dimension.
        scale = np.array([[math.sqrt(min(shape)) for shape in shapes[name]] for name in projections]).T
        columns["nuclear_norm_scaled"] = pa.array((values[..., metrics.index("nuclear_norm")] / scale).ravel())
    for metric, column in columns.items():
        long = long.append_column(metric, column)
    write_table("samples", samples, samples_path, facts)
    write_table("spectra", long, spectra_path, facts)
