"""Merging the tables of one gradients job from its shards."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gradatlas.core.checked import read_json, write_json
from gradatlas.core.errors import InputError
from gradatlas.core.tables import read_metadata, read_table, write_table
from gradatlas.gradients.tables import SAMPLES, TABLES

_ROW = ("dataset", "sample_id", "variant", "relation", "loss_tokens")
# Facts in which the parts may differ; the merged table lists all devices.
_OF_A_PART = ("shard", "places", "of_places", "device")


def gather(
    parts: Mapping[str, Sequence[str]], outputs: Mapping[str, str], runs: Sequence[str] = (), run_path: str = ""
) -> None:
    """Write each table of `outputs`, by name, from its `parts`: the rows, order and facts of a single job.

    `samples` must be among the tables. `runs`: the parts' JSON files of time, host and machine, merged into `run_path`.
    Raises `InputError` with both files where two parts differ in a fact (revision, precision, code, ...), and where
    parts are missing or overlap.
    """
    facts = {path: read_metadata(path, TABLES[name]) for name, paths in parts.items() for path in paths}
    for paths in parts.values():
        _check_agree({path: facts[path] for path in paths})
    places = {path: facts[path]["places"] for path in parts["samples"]}
    _check_whole(places, facts)
    samples = pa.concat_tables([read_table(SAMPLES, path) for path in parts["samples"]])
    order = np.concatenate([np.array(places[path], dtype=np.int64) for path in parts["samples"]])
    place_of = dict(zip(_names(samples), order.tolist(), strict=True))
    if len(place_of) < len(order):
        raise InputError(f"{parts['samples'][0]}: two rows have the same ids, so rows have no order; set shards to 1")
    devices = sorted({facts[path]["device"] for path in parts["samples"]})
    for name, paths in parts.items():
        table = pa.concat_tables([read_table(TABLES[name], path) for path in paths])
        # Stable, so that a sample's rows keep their order.
        at = np.argsort(np.fromiter((place_of[row] for row in _names(table)), np.int64, len(table)), kind="stable")
        common = {key: value for key, value in facts[paths[0]].items() if key not in (*_OF_A_PART, "table")}
        common["device"] = ", ".join(devices)
        write_table(TABLES[name], table.take(pa.array(at)).combine_chunks(), outputs[name], common)
    if run_path:
        write_json(run_path, {"shards": [read_json(path, "measure_gradients") for path in runs]})


def _names(table: pa.Table) -> list[tuple[str, ...]]:
    return list(zip(*(table[name].to_pylist() for name in _ROW), strict=True))


def _check_agree(facts: Mapping[str, Mapping[str, Any]]) -> None:
    first, *others = facts
    for path in facts:
        if "shard" not in facts[path]:
            raise InputError(f"{path}: not a part of a gradients job; make it with measure_gradients --shard")
    for path in others:
        for fact in sorted({*facts[first], *facts[path]} - {*_OF_A_PART}):
            here, there = facts[path].get(fact), facts[first].get(fact)
            if here != there:
                raise InputError(
                    f"{path}: measured with {fact} {here}, but {first} with {there}; delete the older of the two and "
                    "run again"
                )


def _check_whole(places: Mapping[str, Sequence[int]], facts: Mapping[str, Mapping[str, Any]]) -> None:
    owner: dict[int, str] = {}
    for path, own in places.items():
        for place in own:
            if place in owner:
                raise InputError(
                    f"{path}: row {place} is in {owner[place]} too, which has another number of shards; delete both "
                    "and run again"
                )
            owner[place] = path
    path = next(iter(places))
    if missing := set(range(facts[path]["of_places"])) - owner.keys():
        raise InputError(
            f"{path}: {len(missing)} of {facts[path]['of_places']} rows are in none of the {len(places)} parts given; "
            "give all parts of one job"
        )
