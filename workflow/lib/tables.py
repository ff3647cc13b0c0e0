"""The tables' columns, and one way to write and read them (Parquet, whole or not at all).

Metadata hold deterministic facts only, so that the same numbers are the same bytes.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from workflow.lib.errors import InputError
from workflow.lib.files import replacing

_TEXT = pa.string()
_REAL = pa.float64()
_COUNT = pa.int32()

_CELL = [("model", _TEXT), ("dataset", _TEXT), ("variant", _TEXT), ("relation", _TEXT), ("loss_tokens", _TEXT)]
_ESTIMATE = [("value", _REAL), ("low", _REAL), ("high", _REAL), ("n", _COUNT)]

SCHEMAS: dict[str, pa.Schema] = {
    # One row: one response that a model may be trained on.
    "responses": pa.schema(
        [
            ("dataset", _TEXT),
            ("sample_id", _TEXT),
            ("variant", _TEXT),
            ("relation", _TEXT),
            ("instruction", _TEXT),
            ("response", _TEXT),
            ("label", _TEXT),
            ("gold", _TEXT),
            ("label_equals_gold", pa.bool_()),
            ("status", _TEXT),
            ("sources", pa.list_(_TEXT)),
        ]
    ),
    # One row: one forward and backward pass.
    "samples": pa.schema(
        [
            ("model", _TEXT),
            ("dataset", _TEXT),
            ("sample_id", _TEXT),
            ("variant", _TEXT),
            ("relation", _TEXT),
            ("loss_tokens", _TEXT),
            ("loss", _REAL),
            ("prompt_tokens", _COUNT),
            ("response_tokens", _COUNT),
            ("truncated", pa.bool_()),
            ("status", _TEXT),
        ]
    ),
    # One row: one weight matrix's gradient on one sample. A metric that was not asked for is null.
    "spectra": pa.schema(
        [
            ("model", _TEXT),
            ("dataset", _TEXT),
            ("sample_id", _TEXT),
            ("variant", _TEXT),
            ("relation", _TEXT),
            ("loss_tokens", _TEXT),
            ("layer", pa.int16()),
            ("projection", _TEXT),
            ("nuclear_norm", _REAL),
            # Divided by sqrt(min(rows, columns)) of the matrix: K and V under grouped queries compare with Q and O.
            ("nuclear_norm_scaled", _REAL),
            ("sigma_max", _REAL),
            ("sigma_min", _REAL),
            ("frobenius_norm", _REAL),
            ("mean", _REAL),
            ("max", _REAL),
            ("min", _REAL),
            ("effective_rank", _REAL),
        ]
    ),
    # Mean over samples, per layer, with a bootstrap interval.
    "curves": pa.schema(
        [*_CELL, ("projection", _TEXT), ("statistic", _TEXT), ("layer", pa.int16()), *_ESTIMATE, ("purpose", _TEXT)]
    ),
    # Mean absolute difference of neighbouring layers of a mean curve, by segment of the layers.
    "mad": pa.schema(
        [
            *_CELL,
            ("projection", _TEXT),
            ("statistic", _TEXT),
            ("segment", _TEXT),
            ("layers", _TEXT),
            *_ESTIMATE,
            ("purpose", _TEXT),
        ]
    ),
    # Relative difference of `relation` against the correct responses, averaged over layers.
    "rd": pa.schema(
        [
            *_CELL,
            ("projection", _TEXT),
            ("statistic", _TEXT),
            ("measure", _TEXT),
            *_ESTIMATE,
            ("top_layers", pa.list_(pa.int16())),
            ("purpose", _TEXT),
        ]
    ),
    # The same, layer by layer (signed).
    "rd_layers": pa.schema(
        [*_CELL, ("projection", _TEXT), ("statistic", _TEXT), ("layer", pa.int16()), *_ESTIMATE, ("purpose", _TEXT)]
    ),
    # One row: one sample's statistics of one projection, each the mean over its layers.
    "per_sample": pa.schema(
        [
            *_CELL,
            ("sample_id", _TEXT),
            ("projection", _TEXT),
            ("loss", _REAL),
            ("response_tokens", _COUNT),
            ("nuclear_norm", _REAL),
            ("sigma_ratio", _REAL),
            ("effective_rank", _REAL),
            ("purpose", _TEXT),
        ]
    ),
    # One row: a statement of a study, tested on one model and dataset; `seed` is the model's, `reference_model` the one
    # that it is compared with, `verdict` one of holds, fails, inconclusive, and `reason` says why it is no more.
    "claims": pa.schema(
        [
            ("claim", _TEXT),
            ("study", _TEXT),
            ("source", _TEXT),
            ("model", _TEXT),
            ("reference_model", _TEXT),
            ("dataset", _TEXT),
            ("relation", _TEXT),
            ("projection", _TEXT),
            ("seed", _COUNT),
            ("statistic", _TEXT),
            *_ESTIMATE,
            ("threshold", _REAL),
            ("p_value", _REAL),
            ("p_adjusted", _REAL),
            ("verdict", _TEXT),
            ("reason", _TEXT),
        ]
    ),
    # What the samples of a cell were: counts by status, loss and lengths.
    "cells": pa.schema(
        [
            *_CELL,
            ("n", _COUNT),
            ("n_ok", _COUNT),
            ("n_truncated", _COUNT),
            ("n_no_response_tokens", _COUNT),
            ("n_nonfinite", _COUNT),
            ("n_out_of_memory", _COUNT),
            ("loss", _REAL),
            ("prompt_tokens", _REAL),
            ("response_tokens", _REAL),
            # Of the usable samples' responses: how many state an answer that can be read, how many the right one.
            ("n_labelled", _COUNT),
            ("n_label_equals_gold", _COUNT),
            ("purpose", _TEXT),
        ]
    ),
    # What a response set holds: one row a dataset, variant and relation; counts of responses, null where a question
    # does not apply (workflow/lib/audit/responses.py defines each).
    "audit": pa.schema(
        [
            ("dataset", _TEXT),
            ("variant", _TEXT),
            ("relation", _TEXT),
            *[(name, _COUNT) for name in ("n", "label_equals_gold", "missing_final_answer", "double_final_answer")],
            *[(name, _COUNT) for name in ("duplicates", "mojibake", "artefacts")],
            *[(name, pa.int64()) for name in ("characters", "characters_max", "words")],
            *[(name, _COUNT) for name in ("not_constructible", "labelled", "contradicts_label")],
            *[(name, _COUNT) for name in ("own_parts", "most_uses_of_a_donor")],
            ("marked", pa.bool_()),
        ]
    ),
    # One row: how many of a model's own answers to a dataset's held-out questions are right (`test`: answer,
    # counterfactual or recall), with Wilson 95 % bounds and what an answer that reads no question would get.
    "accuracy": pa.schema(
        [
            ("model", _TEXT),
            ("dataset", _TEXT),
            ("part", _TEXT),
            ("test", _TEXT),
            ("variant", _TEXT),
            ("n", _COUNT),
            ("correct", _COUNT),
            ("accuracy", _REAL),
            ("low", _REAL),
            ("high", _REAL),
            ("chance", _REAL),
        ]
    ),
    # One row: a prompt with a chosen and a rejected response; only those with status `ok` are trained on or probed.
    "pairs": pa.schema(
        [
            ("pair_id", _TEXT),
            ("split", _TEXT),
            ("prompt", _TEXT),
            ("chosen", _TEXT),
            ("rejected", _TEXT),
            ("status", _TEXT),
        ]
    ),
    # One row: a response whose log-probability is followed; `split` is that of its prompt, `sources` the pairs that its
    # text comes from.
    "probes": pa.schema(
        [
            ("probe_id", _TEXT),
            ("split", _TEXT),
            ("type", _TEXT),
            ("prompt", _TEXT),
            ("response", _TEXT),
            ("sources", pa.list_(_TEXT)),
            ("status", _TEXT),
        ]
    ),
    # One row: one probe at one step of a run; `examples` seen by then. Sums, then means over the response's tokens.
    "dynamics": pa.schema(
        [
            ("run", _TEXT),
            ("seed", _COUNT),
            ("step", _COUNT),
            ("examples", _COUNT),
            ("probe_id", _TEXT),
            ("split", _TEXT),
            ("type", _TEXT),
            ("tokens", _COUNT),
            ("log_prob_sum", _REAL),
            ("log_prob_mean", _REAL),
            ("argmax_log_prob", _REAL),
            ("rest_log_mass", _REAL),
            ("entropy", _REAL),
            ("a_norm", _REAL),
            ("g_norm", _REAL),
            ("status", _TEXT),
        ]
    ),
    # One row: one update of a run; loss and gradient (before clipping) are those before it. `pull` and `push`: the
    # means of c+ and c- (workflow/lib/dynamics/losses.py).
    "training": pa.schema(
        [
            ("run", _TEXT),
            ("seed", _COUNT),
            ("step", _COUNT),
            ("examples", _COUNT),
            ("learning_rate", _REAL),
            ("loss", _REAL),
            ("pull", _REAL),
            ("push", _REAL),
            ("grad_norm", _REAL),
        ]
    ),
    # One row: one probe's change of log-probability over one step of SGD, by size of the step (`halving` counts from
    # the largest). `captured`: the part of `predicted` that the captured projections carry.
    "one_step": pa.schema(
        [
            ("seed", _COUNT),
            ("loss", _TEXT),
            ("pair_id", _TEXT),
            ("trained", _TEXT),
            ("halving", _COUNT),
            ("learning_rate", _REAL),
            ("probe_id", _TEXT),
            ("type", _TEXT),
            ("predicted", _REAL),
            ("captured", _REAL),
            ("measured", _REAL),
        ]
    ),
    # One row: the mean of one measure over the probes of a type, with a bootstrap interval over probes, and its change
    # since the run's first step, paired by probe. `before`: examples of the runs that this one starts from.
    "dynamics_curves": pa.schema(
        [
            ("model", _TEXT),
            ("seed", _COUNT),
            ("run", _TEXT),
            ("split", _TEXT),
            ("type", _TEXT),
            ("measure", _TEXT),
            ("step", _COUNT),
            ("examples", _COUNT),
            ("before", _COUNT),
            *_ESTIMATE,
            ("change", _REAL),
            ("change_low", _REAL),
            ("change_high", _REAL),
        ]
    ),
}


def write_table(name: str, data: pa.Table | list[dict], path: str | Path, metadata: Mapping[str, Any]) -> None:
    """Write one of `SCHEMAS` as Parquet.

    `data` has exactly the schema's columns (a table, or rows as dicts). `metadata` values are written
    as JSON under the key ``gradatlas``; give deterministic facts only.
    """
    schema = SCHEMAS[name]
    table = (
        pa.Table.from_pylist(data, schema=schema) if isinstance(data, list) else data.select(schema.names).cast(schema)
    )
    facts = json.dumps({"table": name, **metadata}, sort_keys=True)
    with replacing(path) as temporary:
        pq.write_table(table.replace_schema_metadata({"gradatlas": facts}), temporary, compression="zstd")


def read_table(name: str, path: str | Path) -> pa.Table:
    """Read one of `SCHEMAS`; `InputError` where the file is not Parquet or lacks a column."""
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; make it with the rule that writes '{name}' tables") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({error}); make it again") from None
    missing = [column for column in SCHEMAS[name].names if column not in table.column_names]
    if missing:
        raise InputError(
            f"{path}: not a '{name}' table, column '{missing[0]}' is missing; have {', '.join(table.column_names)}"
        )
    return table


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The deterministic facts written with a table; `InputError` where the file is not Parquet."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({error}); make it again") from None
    return json.loads(metadata.get(b"gradatlas", b"{}"))
