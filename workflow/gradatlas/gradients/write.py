"""Writing the tables of a gradients job from its items and their records."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gradatlas.core.tables import write_table
from gradatlas.gradients.cosines import ADJACENT, pairs_of
from gradatlas.gradients.journal import Record
from gradatlas.gradients.plan import Item
from gradatlas.gradients.tables import SAMPLES, SPECTRA, TABLES
from gradatlas.study.settings import METRICS


def write_tables(
    items: Sequence[Item], records: Sequence[Record], facts: Mapping[str, Any], samples_path: str, spectra_path: str
) -> None:
    """Write the samples and spectra tables, each atomically.

    `facts`: the tables' metadata; `model`, `projections`, `metrics` and `matrix_shapes` (by projection, each layer's
    (rows, columns), or None) are read here. A record's values are (layers, projections, metrics). Null: metrics that
    were not measured, NaN, and all metrics of a layer without the projection.
    """
    samples = _rows(items, facts)
    measured = {
        "loss": pa.array([record.loss for record in records], pa.float64()),
        "loss_concentration": pa.array([record.loss_concentration for record in records], pa.float64()),
        "prompt_tokens": [item.prompt_tokens for item in items],
        "response_tokens": [item.sample.response_tokens for item in items],
        "truncated": [item.sample.truncated for item in items],
        "status": [record.status for record in records],
    }
    projections, metrics, shapes = facts["projections"], facts["metrics"], facts["matrix_shapes"]
    good = [index for index, record in enumerate(records) if record.status == "ok"]
    values = np.array([records[index].values for index in good], dtype=float).reshape(
        len(good), len(shapes[projections[0]]), len(projections), len(metrics)
    )
    # One row per sample, layer and projection, in this order.
    sample, layer, projection = (axis.ravel() for axis in np.indices(values.shape[:3]))
    long = samples.take(pa.array(np.array(good, dtype=np.int64)[sample]))
    long = long.append_column("layer", pa.array(layer.astype(np.int16)))
    long = long.append_column("projection", pa.array(np.array(projections)[projection]))
    columns = {metric: pa.nulls(len(sample), pa.float64()) for metric in ("nuclear_norm_scaled", *METRICS)}
    columns |= {metric: pa.array(values[..., index].ravel(), from_pandas=True) for index, metric in enumerate(metrics)}
    if "nuclear_norm" in metrics:
        # The largest nuclear norm of a matrix with Frobenius norm 1 is the root of its smaller dimension.
        scale = np.array([[math.sqrt(min(shape)) if shape else 1 for shape in shapes[name]] for name in projections]).T
        scaled = values[..., metrics.index("nuclear_norm")] / scale
        columns["nuclear_norm_scaled"] = pa.array(scaled.ravel(), from_pandas=True)
    for metric, column in columns.items():
        long = long.append_column(metric, column)
    for name, column in measured.items():
        samples = samples.append_column(name, pa.array(column))
    write_table(SAMPLES, samples, samples_path, facts)
    write_table(SPECTRA, long, spectra_path, facts)


def write_extra(
    name: str, items: Sequence[Item], records: Sequence[Record], facts: Mapping[str, Any], path: str, tokenizer: Any
) -> None:
    """Write an optional table (`gradatlas.gradients.extras`) atomically, with the samples that have it in their record.

    `tokenizer`: for the tokens' text.
    """
    columns_of = {"singular_values": _singular_values, "cosines": _cosines, "tokens": _tokens}[name]
    at, columns = [], []
    for index, (item, record) in enumerate(zip(items, records, strict=True)):
        if name in record.extras:
            columns.append(columns_of(item, record.extras, facts, tokenizer))
            at += [index] * len(next(iter(columns[-1].values())))
    table = _rows(items, facts).take(pa.array(at, pa.int64()))
    for field in TABLES[name].schema:
        if field.name not in table.column_names:
            parts = [pa.array(each[field.name], field.type, from_pandas=True) for each in columns]
            table = table.append_column(field, pa.chunked_array(parts, field.type))
    write_table(TABLES[name], table, path, facts)


def _rows(items: Sequence[Item], facts: Mapping[str, Any]) -> pa.Table:
    """The columns that identify a row, in every table."""
    return pa.table(
        {
            "model": pa.array([facts["model"]] * len(items), pa.string()),
            "dataset": [item.row.dataset for item in items],
            "sample_id": [item.row.sample_id for item in items],
            "variant": [item.row.variant for item in items],
            "relation": [item.row.relation for item in items],
            "loss_tokens": [item.loss_tokens for item in items],
        }
    )


def _places(facts: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """Layers and projections in the order of a record's values."""
    names = facts["projections"]
    yield from ((layer, name) for layer in range(len(facts["matrix_shapes"][names[0]])) for name in names)


def _singular_values(item: Item, extras: Mapping, facts: Mapping[str, Any], tokenizer: Any) -> dict[str, Any]:
    places = list(_places(facts))
    shapes = [facts["matrix_shapes"][name][layer] for layer, name in places]
    counts = [min(len(item.sample.ids), *shape) if shape else 0 for shape in shapes]
    values = np.split(np.array(extras["singular_values"]), np.cumsum(counts)[:-1])
    layers, projections = zip(*places, strict=True)
    return {"layer": layers, "projection": projections, "singular_values": values}


def _cosines(item: Item, extras: Mapping, facts: Mapping[str, Any], tokenizer: Any) -> dict[str, Any]:
    shapes = facts["matrix_shapes"]
    layers = len(next(iter(shapes.values())))
    places = [(kind, pair, layer) for kind, pair in pairs_of(shapes) for layer in range(layers - (kind == ADJACENT))]
    columns = zip(*places, strict=True) if places else ((), (), ())
    # NaN becomes null.
    return {**dict(zip(("kind", "pair", "layer"), columns, strict=True)), "cosine": np.array(extras["cosines"])}


def _tokens(item: Item, extras: Mapping, facts: Mapping[str, Any], tokenizer: Any) -> dict[str, Any]:
    ids = item.sample.ids
    each = iter(extras["token_losses"])
    losses = [next(each) if counts and place else None for place, counts in enumerate(item.sample.response)]
    places = list(_places(facts))
    norms = np.array(extras["tokens"]).reshape(len(places), len(ids))
    # By token, then by layer and projection.
    position, place = (axis.ravel() for axis in np.indices((len(ids), len(places))))
    texts = tokenizer.convert_ids_to_tokens(list(ids))
    return {
        "position": position,
        "token_id": np.array(ids)[position],
        "token": [texts[at] for at in position],
        "loss": [losses[at] for at in position],
        "layer": [places[at][0] for at in place],
        "projection": [places[at][1] for at in place],
        "term_norm": norms.T.ravel(),
    }
