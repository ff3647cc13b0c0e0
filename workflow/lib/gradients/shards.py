"""The tables of one gradients job, gathered from the shards that it was cut into."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from workflow.lib.checked import read_json, write_json
from workflow.lib.errors import InputError
from workflow.lib.tables import read_metadata, read_table, write_table

_ROW = ("dataset", "sample_id", "variant", "relation", "loss_tokens")
# What a shard's metadata say of its part, and nothing else does; the device is listed.
_OF_A_PART = ("shard", "places", "of_places", "device")


def gather(
    parts: Mapping[str, Sequence[str]], outputs: Mapping[str, str], runs: Sequence[str] = (), run_path: str = ""
) -> None:
    """Write each table of `outputs`, by name, from its `parts`: the rows, their order and the facts of a single job.

    `samples` must be among them. `runs`: the parts' JSON files of time, host and machine, listed in `run_path`. Raises
    `InputError` naming both files where two parts disagree on a fact (another revision, precision, code, ...), and
    where they do not make a whole.
    """
    facts = {path: read_metadata(path, name) for name, paths in parts.items() for path in paths}
    for paths in parts.values():
        _check_agree({path: facts[path] for path in paths})
    places = {path: facts[path]["places"] for path in parts["samples"]}
    _check_whole(places, facts)
    samples = pa.concat_tables([read_table("samples", path) for path in parts["samples"]])
    order = np.concatenate([np.array(places[path], dtype=np.int64) for path in parts["samples"]])
    place_of = dict(zip(_names(samples), order.tolist(), strict=True))
    if len(place_of) < len(order):
        raise InputError(f"{parts['samples'][0]}: two rows of one name, which parts cannot tell apart; set shards to 1")
    devices = sorted({facts[path]["device"] for path in parts["samples"]})
    for name, paths in parts.items():
        table = pa.concat_tables([read_table(name, path) for path in paths])
        # A sample's rows stay in their order.
        at = np.argsort(np.fromiter((place_of[row] for row in _names(table)), np.int64, len(table)), kind="stable")
        told = {key: value for key, value in facts[paths[0]].items() if key not in (*_OF_A_PART, "table")}
        write_table(
            name, table.take(pa.array(at)).combine_chunks(), outputs[name], {**told, "device": ", ".join(devices)}
        )
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
                    f"{path}: row {place} is in {owner[place]} too; the two were cut in different ways: delete both "
                    "and run again"
                )
            owner[place] = path
    path = next(iter(places))
    if missing := set(range(facts[path]["of_places"])) - owner.keys():
        raise InputError(
            f"{path}: {len(missing)} of {facts[path]['of_places']} rows are in none of the {len(places)} parts given; "
            "give all parts of one cut"
        )
