"""What the page's explorer reads: curves and samples by dataset and model, texts by dataset, and a list of it all.

Every number of a curve is here. Of a dataset's samples at most `SAMPLES`, the same ones for every model, variant and
relation, chosen by a hash of their ids, and of those the first `TEXTS` with their texts, cut to `CHARACTERS`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import vl_convert

from workflow.lib.figures import theme
from workflow.lib.figures.atlas.pieces import WHOLE, pack, pack_text
from workflow.lib.figures.names import (
    PIPELINE_CHECK,
    in_order,
    label,
    projections_in_order,
    relations_in_order,
    statistic_label,
    variants_in_order,
)
from workflow.lib.tables import SCHEMAS, read_table

SAMPLES, TEXTS, CHARACTERS = 300, 100, 300
LOSS_TOKENS = "all"
METRICS = ("nuclear_norm", "sigma_ratio", "effective_rank")
CURVE_DIGITS, SAMPLE_DIGITS = 4, 3
# Beyond the figures' five: shapes tell apart what colours this many cannot. On the dark page the same order, light
# enough to be seen.
LIGHT_COLOURS = (*theme.ORDERED_COLOURS, "#2f6b34", "#b0438f", "#7a5230")
DARK_COLOURS = ("#b08be0", "#f08a80", "#f0b64a", "#4cc4d0", "#a9b1bd", "#7fc486", "#ec8fd0", "#c9a27c")
SHAPES = (*theme.ORDERED_SHAPES, "triangle-down", "triangle-right", "triangle-left")
VEGA_LITE = "6.1"


def explorer(
    curves: Sequence[str | Path],
    per_sample: Sequence[str | Path],
    responses: Sequence[str | Path],
    titles: Mapping[str, str],
) -> dict[str, Any] | None:
    """The explorer's list (`index`) and its `pieces`, by the id of their element; None where there are no curves.

    `curves` and `per_sample`: tables of the statistics, one a dataset. `responses`: tables with the samples' texts. A
    dataset may stand in some of them only. `titles`: of datasets, by key.
    """
    frame = _read("curves", curves)
    if frame.is_empty():
        return None
    samples, texts = _read("per_sample", per_sample), {}
    for path in responses:
        table = pl.from_arrow(read_table("responses", path))
        texts.update({key: rows for (key,), rows in table.group_by("dataset")})
    keys = {
        "datasets": in_order(frame["dataset"], titles),
        "models": sorted(set(frame["model"])),
        "variants": variants_in_order(frame["variant"]),
        "relations": relations_in_order(frame["relation"]),
        "projections": projections_in_order(frame["projection"]),
        "metrics": [name for name in METRICS if name in set(frame["statistic"])],
    }
    pieces, sets = {}, {}
    for d, dataset in enumerate(keys["datasets"]):
        of_dataset = samples.filter(pl.col("dataset") == dataset)
        chosen = _chosen(of_dataset["sample_id"])
        pieces[f"texts-{d}"] = _texts(chosen, of_dataset["sample_id"].n_unique(), texts.get(dataset), keys)
        for m, model in enumerate(keys["models"]):
            cell = frame.filter((pl.col("dataset") == dataset) & (pl.col("model") == model))
            if cell.is_empty():
                continue
            sets[f"{d}-{m}"] = {"check": bool((cell["purpose"] == PIPELINE_CHECK).any())}
            pieces[f"curves-{d}-{m}"] = _curves(cell, keys)
            pieces[f"samples-{d}-{m}"] = _samples(of_dataset.filter(pl.col("model") == model), chosen, keys)
    # Within a function: the bundle's short names would be the page's names too.
    script = f"(() => {{{vl_convert.javascript_bundle(vl_version=VEGA_LITE)}}})();"
    return {"index": _index(keys, titles, sets), "pieces": {"vega": pack_text(script), **pieces}}


def _index(keys: Mapping[str, list[str]], titles: Mapping[str, str], sets: Mapping[str, Any]) -> dict[str, Any]:
    """Names, order and look of everything that can be chosen; pieces speak of them by their place in these lists."""
    named = {
        "datasets": [titles.get(key, key) for key in keys["datasets"]],
        "models": keys["models"],
        **{name: [label(key) for key in keys[name]] for name in ("variants", "relations", "projections")},
        "metrics": [statistic_label(key) for key in keys["metrics"]],
    }
    return {
        "lists": {
            name: [{"key": key, "title": title} for key, title in zip(keys[name], named[name], strict=True)]
            for name in keys
        },
        "sets": sets,
        "own": [theme.OWN_LOOK.get(key) for key in keys["variants"]],
        "colours": {"light": LIGHT_COLOURS, "dark": DARK_COLOURS},
        "shapes": SHAPES,
        "config": theme.gradatlas()["config"],
    }


def _read(name: str, paths: Sequence[str | Path]) -> pl.DataFrame:
    """The tables of one kind as one, with the loss on the whole response alone."""
    schema = SCHEMAS[name]
    found = (read_table(name, path).select(schema.names) for path in paths)
    frame = pl.concat([pl.from_arrow(table) for table in (schema.empty_table(), *found)])
    return frame.filter(pl.col("loss_tokens") == LOSS_TOKENS)


def _chosen(sample_ids: pl.Series) -> list[str]:
    """At most `SAMPLES` ids, the same whatever the models and variants, and in an order that tells nothing."""
    return sorted(set(sample_ids), key=lambda key: hashlib.sha256(key.encode()).digest())[:SAMPLES]


def _curves(cell: pl.DataFrame, keys: Mapping[str, list[str]]) -> str:
    """One model on one dataset: values and bounds by (set of responses, projection, metric, layer)."""
    sets = _sets(cell, keys)
    layers = int(cell["layer"].max()) + 1
    shape = (len(sets), len(keys["projections"]), len(keys["metrics"]), layers)
    cell = cell.filter(pl.col("statistic").is_in(keys["metrics"]))
    at = (*_at(cell, sets, keys), _place(cell["statistic"], keys["metrics"]), cell["layer"].to_numpy())
    columns = {}
    for name in ("value", "low", "high", "n"):
        values = np.full(shape, np.nan)
        values[at] = cell[name].to_numpy()
        columns[name] = (values, CURVE_DIGITS)
    # The same in every layer.
    columns["n"] = (np.nanmax(np.nan_to_num(columns["n"][0]), axis=-1), WHOLE)
    return pack({"sets": sets, "layers": layers}, columns)


def _samples(cell: pl.DataFrame, chosen: Sequence[str], keys: Mapping[str, list[str]]) -> str:
    """One model on one dataset: each metric by (set, projection, sample), loss and length by (set, sample)."""
    sets = _sets(cell, keys)
    cell = cell.filter(pl.col("sample_id").is_in(list(chosen)))
    at = (*_at(cell, sets, keys), _place(cell["sample_id"], chosen))
    columns = {}
    for name in keys["metrics"]:
        # A column each: values of one kind stand together and compress better.
        values = np.full((len(sets), len(keys["projections"]), len(chosen)), np.nan)
        values[at] = cell[name].to_numpy()
        columns[name] = (values, SAMPLE_DIGITS)
    for name, digits in (("loss", SAMPLE_DIGITS), ("response_tokens", WHOLE)):
        per_sample = np.full((len(sets), len(chosen)), np.nan)
        per_sample[at[0], at[2]] = cell[name].to_numpy()
        columns[name] = (per_sample, digits)
    return pack({"sets": sets}, columns)


def _sets(cell: pl.DataFrame, keys: Mapping[str, list[str]]) -> list[tuple[int, int]]:
    """The sets of responses in a table, as places of variant and relation."""
    pairs = cell.select("variant", "relation").unique().rows()
    return sorted((keys["variants"].index(variant), keys["relations"].index(relation)) for variant, relation in pairs)


def _at(cell: pl.DataFrame, sets: Sequence[tuple[int, int]], keys: Mapping[str, list[str]]) -> tuple[np.ndarray, ...]:
    """Each row's place among sets and projections."""
    names = [f"{keys['variants'][v]}\n{keys['relations'][r]}" for v, r in sets]
    joined = cell.select(pl.concat_str("variant", "relation", separator="\n"))
    return _place(joined.to_series(), names), _place(cell["projection"], keys["projections"])


def _place(values: pl.Series, known: Sequence[str]) -> np.ndarray:
    if not len(values):
        return np.empty(0, dtype=np.int64)
    return values.replace_strict(list(known), list(range(len(known))), return_dtype=pl.Int64).to_numpy()


def _texts(chosen: Sequence[str], total: int, responses: pl.DataFrame | None, keys: Mapping[str, list[str]]) -> str:
    """One dataset: the chosen ids of `total`, and for the first of them instruction and response by set."""
    told: dict[str, dict[str, list[str]]] = {sample_id: {} for sample_id in chosen[:TEXTS]}
    if responses is not None:
        known = [pl.col(name).is_in(keys[f"{name}s"]) for name in ("variant", "relation")]
        rows = responses.filter(pl.col("sample_id").is_in(list(told)) & (pl.col("status") == "ok"), *known)
        for row in rows.select("sample_id", "variant", "relation", "instruction", "response").iter_rows():
            place = f"{keys['variants'].index(row[1])}-{keys['relations'].index(row[2])}"
            told[row[0]][place] = [_cut(row[3]), _cut(row[4])]
    return pack({"ids": list(chosen), "total": total, "texts": list(told.values())})


def _cut(text: str | None) -> str:
    """The first `CHARACTERS` of a text, with an ellipsis in place of the last where more follows."""
    text = text or ""
    return text if len(text) <= CHARACTERS else text[: CHARACTERS - 1] + "…"
