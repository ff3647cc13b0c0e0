"""Import of released gradient statistics (JSON Lines) into the gradients tables, without a model or a GPU.

One line is one sample: ``instruction``, ``output``, ``loss``, and by parameter name (``model.layers.0.self_attn.
q_proj.weight``) ``M_mean, M_max, M_min, frobenius_norm, S_sum, S_max, S_min``; the follow-up (arXiv 2504.10766) has
the singular values, ``S_list``.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from gradatlas.core.command import progress
from gradatlas.core.errors import InputError
from gradatlas.core.files import from_json
from gradatlas.core.tables import read_table, write_table
from gradatlas.data.tables import RESPONSES
from gradatlas.gradients.plan import drawn_ids
from gradatlas.gradients.tables import SAMPLES, SPECTRA

PROJECTIONS = ("q", "k", "v", "o")
#: Our columns by the released names.
VALUES = {
    "S_sum": "nuclear_norm",
    "S_max": "sigma_max",
    "S_min": "sigma_min",
    "frobenius_norm": "frobenius_norm",
    "M_mean": "mean",
    "M_max": "max",
    "M_min": "min",
}
_COLUMNS = (*VALUES.values(), "effective_rank")
_NAME = re.compile(r"(?:.*\.)?layers\.(\d+)\.self_attn\.([qkvo])_proj(?:\.weight)?")
_TEXTS = ("instruction", "output", "loss")


def read_line(text: str, where: str) -> dict[str, Any]:
    """One sample: `instruction`, `output`, `loss` (NaN for null), and `spectra`, [layer][projection] -> values.

    Other parameters are ignored; `others` names them. Raises `InputError` naming `where` for a line that is not JSON,
    for a missing text, value, layer or projection, and for a wrong type.
    """
    try:
        line = from_json(text)
    except ValueError as error:
        raise InputError(f"{where}: not JSON ({error}), perhaps cut off; fix or delete the line") from None
    if not isinstance(line, dict):
        raise InputError(f"{where}: not an object; give instruction, output, loss and parameters")
    for key in _TEXTS:
        if key not in line:
            raise InputError(f"{where}: '{key}' is missing; give every line instruction, output and loss")
    layers: dict[int, dict[str, dict[str, float | None]]] = defaultdict(dict)
    others = []
    for name, values in line.items():
        if name in _TEXTS:
            continue
        found = _NAME.fullmatch(name)
        if found is None:
            others.append(name)
        elif isinstance(values, dict):
            layers[int(found[1])][found[2]] = _values(values, f"{where}, '{name}'")
        else:
            raise InputError(f"{where}, '{name}': not an object; give S_sum, S_max and so on")
    if sorted(layers) != list(range(len(layers))) or not layers:
        found = ", ".join(map(str, sorted(layers))) or "none"
        raise InputError(f"{where}: has layers {found}; give all layers from 0 on")
    for layer, parts in sorted(layers.items()):
        for projection in PROJECTIONS:
            if projection not in parts:
                raise InputError(
                    f"{where}: layer {layer} has no {projection}_proj, only {', '.join(sorted(parts))}; add it"
                )
    for key in ("instruction", "output"):
        if not isinstance(line[key], str):
            raise InputError(f"{where}: '{key}' is not a text; fix or delete the line")
    loss = math.nan if line["loss"] is None else _number(line["loss"], "loss", where)
    spectra = [[layers[layer][projection] for projection in PROJECTIONS] for layer in range(len(layers))]
    return {
        "instruction": line["instruction"],
        "output": line["output"],
        "loss": loss,
        "spectra": spectra,
        "others": others,
    }


def _values(values: Mapping[str, Any], where: str) -> dict[str, float | None]:
    """Our columns for one matrix; None for a missing value."""
    found: dict[str, float | None] = {
        ours: None if values.get(theirs) is None else _number(values[theirs], theirs, where)
        for theirs, ours in VALUES.items()
    }
    found["effective_rank"] = None
    sigma = values.get("S_list")
    if sigma is not None and not isinstance(sigma, list):
        raise InputError(f"{where}: 'S_list' is not a list of numbers; fix or delete the line")
    if sigma:
        sigma = [_number(value, "S_list", where) for value in sigma]
        total = math.fsum(sigma)
        computed = {"nuclear_norm": total, "sigma_max": max(sigma), "sigma_min": min(sigma)}
        computed["frobenius_norm"] = math.sqrt(math.fsum(value * value for value in sigma))
        found = {key: computed.get(key) if value is None else value for key, value in found.items()}
        shares = [value / total for value in sigma if value > 0] if total > 0 else []
        found["effective_rank"] = math.exp(-math.fsum(p * math.log(p) for p in shares)) if shares else 0.0
    for theirs in ("S_sum", "S_max"):
        if found[VALUES[theirs]] is None:
            raise InputError(f"{where}: '{theirs}' is missing, and there is no S_list to compute it from; add one")
    return found


def _number(value: Any, key: str, where: str) -> float:
    """A number, NaN and infinity included; `InputError` for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"{where}: '{key}' is {json.dumps(value)[:40]}, not a number; fix or delete the line")
    try:
        return float(value)
    except OverflowError:
        raise InputError(f"{where}: '{key}' is too large; fix or delete the line") from None


def read_file(path: str | Path) -> Iterator[dict[str, Any]]:
    """The samples of a file, line by line; `InputError` where it is missing, not UTF-8, or its layers change."""
    path = Path(path)
    depth, named = None, set()
    try:
        with open(path, encoding="utf-8") as file:
            for number, text in enumerate(file, start=1):
                sample = read_line(text, f"{path}, line {number}")
                if depth not in (None, len(sample["spectra"])):
                    raise InputError(
                        f"{path}, line {number}: {len(sample['spectra'])} layers, but {depth} before; fix the file"
                    )
                depth = len(sample["spectra"])
                new = set(sample["others"]) - named
                if new:
                    named |= new
                    progress(f"{path}: not q, k, v or o, ignored: {', '.join(sorted(new))}")
                yield sample
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; add it") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    if depth is None:
        raise InputError(f"{path}: the file is empty; give at least one line")


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

    Lines are matched with the responses table by instruction and output; a line without a match is an error. Lengths in
    tokens and `loss_concentration` are null. A sample whose loss is not finite has the status ``no_response_tokens``
    where all gradients are zero, else ``nonfinite``. `limit` and `seed` choose samples as in `plan.drawn_ids`.
    """
    table = pl.from_arrow(read_table(RESPONSES, responses))
    dataset = table["dataset"][0]
    kept = drawn_ids(table["sample_id"], limit, seed)
    samples: list[dict[str, Any]] = []
    spectra: list[dict[str, Any]] = []
    for (variant, relation), path in files.items():
        waiting = _places(table, variant, relation)
        for number, line in enumerate(read_file(path), start=1):
            places = waiting[line["instruction"], line["output"]]
            if not places:
                raise InputError(
                    f"{path}, line {number}: its instruction and output are not a {variant}, {relation} response in "
                    f"{responses}; give the statistics of these data"
                )
            sample_id = places.pop(0)
            if sample_id not in kept:
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
    # The study's settings, as far as they are known.
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
    write_table(SAMPLES, samples, samples_path, facts)
    write_table(SPECTRA, spectra, spectra_path, facts)


def _places(table: pl.DataFrame, variant: str, relation: str) -> dict[tuple[str, str], list[str]]:
    """By instruction and response, the ids of their samples, in order: some questions occur twice."""
    rows = table.filter((pl.col("variant") == variant) & (pl.col("relation") == relation))
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    for sample_id, instruction, response in rows.select("sample_id", "instruction", "response").iter_rows():
        places[instruction, response].append(sample_id)
    return places


def _status(line: Mapping[str, Any]) -> str:
    sums = [values["nuclear_norm"] for projections in line["spectra"] for values in projections]
    if math.isfinite(line["loss"]) and all(map(math.isfinite, sums)):
        return "ok"
    # The study's code kept samples without response tokens: no loss, and zero gradients.
    return "no_response_tokens" if not any(sums) else "nonfinite"
