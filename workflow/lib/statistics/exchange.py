"""From released statistics to the gradients tables, and back: so that figures need no GPU, and ours can be shared."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from workflow.lib.command import progress
from workflow.lib.errors import InputError
from workflow.lib.seeds import seeded_hash
from workflow.lib.statistics.released import PROJECTIONS, VALUES, read_file, write_file
from workflow.lib.tables import read_metadata, read_table, write_table

_COLUMNS = (*VALUES.values(), "effective_rank")


def import_released(
    files: Mapping[tuple[str, str], str],
    model: str,
    responses: str,
    samples_path: str,
    spectra_path: str,
    *,
    purpose: str,
    revision: str = "",
    limit: int | None = None,
    seed: int | None = None,
) -> None:
    """Write the samples and spectra tables of one model and dataset from released `files`, by (variant, relation).

    Lines are found in the responses table by their instruction and output, so that samples pair as measured ones do;
    a line that is not there is an error. Lengths in tokens and the spread of the loss over them are unknown (null); a
    loss that is no number makes the status ``no_response_tokens`` where all gradients are zero, else ``nonfinite``.
    `limit` and `seed` draw samples as the engine does.
    """
    table = pl.from_arrow(read_table("responses", responses))
    dataset = table["dataset"][0]
    kept = _drawn(table, limit, seed)
    samples: list[dict[str, Any]] = []
    spectra: list[dict[str, Any]] = []
    for (variant, relation), path in files.items():
        waiting = _places(table, variant, relation)
        for number, line in enumerate(read_file(path), start=1):
            places = waiting[line["instruction"], line["output"]]
            if not places:
                raise InputError(
                    f"{path}, line {number}: its instruction and output are no {variant}, {relation} response of "
                    f"{responses}; were they measured on other data?"
                )
            sample_id = places.pop(0)
            if kept is not None and sample_id not in kept:
                continue
            key = {"model": model, "dataset": dataset, "sample_id": sample_id, "variant": variant}
            key |= {"relation": relation, "loss_tokens": "all"}
            status = _status(line)
            samples.append({**key, "loss": line["loss"], "status": status})
            if status == "ok":
                spectra += [
                    {**key, "layer": layer, "projection": projection, **values}
                    for layer, projections in enumerate(line["spectra"])
                    for projection, values in zip(PROJECTIONS, projections, strict=True)
                ]
    progress(f"{model}, {dataset}: {len(samples)} samples from {len(files)} files")
    # The study's own settings, as far as they are known.
    facts = {
        "model": model,
        "model_digest": "released statistics",
        "revision": revision,
        "dtype": "float32",
        "compat": "reference",
        "max_length": 1024,
        "device": "unknown",
        "purpose": purpose,
        "rows": len(samples),
        "limit": limit,
        "engine": "released statistics",
        "metrics": list(_COLUMNS),
        "projections": list(PROJECTIONS),
        "torch": "unknown",
        "transformers": "unknown",
    }
    write_table("samples", samples, samples_path, facts)
    write_table("spectra", spectra, spectra_path, facts)


def _drawn(table: pl.DataFrame, limit: int | None, seed: int | None) -> set[str] | None:
    if limit is None:
        return None
    ids = table["sample_id"].unique(maintain_order=True).to_list()
    if seed is not None:
        ids.sort(key=lambda sample_id: seeded_hash(seed, sample_id))
    return set(ids[:limit])


def _places(table: pl.DataFrame, variant: str, relation: str) -> dict[tuple[str, str], list[str]]:
    """By instruction and response, the ids of the samples that have them, in order: some questions stand twice."""
    rows = table.filter((pl.col("variant") == variant) & (pl.col("relation") == relation))
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    for sample_id, instruction, response in rows.select("sample_id", "instruction", "response").iter_rows():
        places[instruction, response].append(sample_id)
    return places


def _status(line: Mapping[str, Any]) -> str:
    sums = [values["nuclear_norm"] for projections in line["spectra"] for values in projections]
    if math.isfinite(line["loss"]) and all(map(math.isfinite, sums)):
        return "ok"
    # The study's code kept a sample whose response was cut off whole: no loss, and gradients of zero.
    return "no_response_tokens" if not any(sums) else "nonfinite"


def export_tables(
    samples: Sequence[str], spectra: Sequence[str], responses: str, outputs: Mapping[tuple[str, str, str], str]
) -> None:
    """Write measured tables of one dataset in the released format, a file for each (model, variant, relation).

    `samples` and `spectra`: one table a model, in the same order. Samples without a status ``ok`` are left out, and
    told.
    """
    texts = pl.from_arrow(read_table("responses", responses)).select(
        "sample_id", "variant", "relation", "instruction", "response"
    )
    measured = {}
    for samples_path, spectra_path in zip(samples, spectra, strict=True):
        name = read_metadata(samples_path, "samples")["model"]
        keys = ["sample_id", "variant", "relation"]
        # The released format knows the whole response's loss alone.
        whole = pl.col("loss_tokens") == "all"
        rows = (
            pl.from_arrow(read_table("samples", samples_path))
            .filter(whole)
            .join(texts, on=keys, how="left", maintain_order="left")
        )
        values = pl.from_arrow(read_table("spectra", spectra_path)).filter(whole)
        missing = sorted(set(PROJECTIONS) - set(values["projection"]))
        if values.height and missing:
            raise InputError(
                f"{spectra_path}: no projection '{missing[0]}', which the released format needs; measure "
                f"{', '.join(PROJECTIONS)}"
            )
        measured[name] = rows, {key: group for key, group in values.group_by(keys, maintain_order=True)}
    for (model, variant, relation), path in outputs.items():
        rows, values = measured[model]
        rows = rows.filter((pl.col("variant") == variant) & (pl.col("relation") == relation))
        lines = [
            {
                "instruction": row["instruction"],
                "output": row["response"],
                "loss": row["loss"],
                "spectra": _nested(values[row["sample_id"], variant, relation]),
            }
            for row in rows.filter(pl.col("status") == "ok").to_dicts()
        ]
        if len(lines) < rows.height:
            progress(f"{path}: {rows.height - len(lines)} of {rows.height} samples have no gradient; left out")
        write_file(path, lines)


def _nested(group: pl.DataFrame) -> list[list[dict[str, float]]]:
    """The spectra of one sample, [layer][projection]; the table holds them in this order."""
    rows = group.select("layer", "projection", *_COLUMNS).to_dicts()
    by_place = {(row["layer"], row["projection"]): row for row in rows}
    return [
        [by_place[layer, projection] for projection in PROJECTIONS]
        for layer in range(max(row["layer"] for row in rows) + 1)
    ]
