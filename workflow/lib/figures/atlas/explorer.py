"""What the page's explorer reads: curves and samples by dataset and model, texts by dataset, and a list of it all.

Every number of a curve is here. Of a dataset's samples at most `SAMPLES`, the same ones for every model, variant and
relation, chosen by a hash of their ids, and of those the first `TEXTS` with their texts, cut to `CHARACTERS`.

A sample's values are there layer by layer; those of a model of more than `GROUPS` layers as means over `GROUPS` groups
of neighbouring layers, as even as can be, larger ones first. All samples' values together are at most `VALUES`: of a
large study fewer samples of each dataset are shown, so that the page stays small.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import vl_convert

from workflow.lib.figures import theme
from workflow.lib.figures.atlas.pieces import CHAIN, WHOLE, pack, pack_text
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
GROUPS, VALUES = 8, 3_600_000
LOSS_TOKENS = "all"
METRICS = ("nuclear_norm", "sigma_ratio", "effective_rank")
CURVE_DIGITS, LOSS_DIGITS = 4, 3
# Beyond the figures' five: shapes tell apart what colours this many cannot. On the dark page the same order, light
# enough to be seen.
LIGHT_COLOURS = (*theme.ORDERED_COLOURS, "#2f6b34", "#b0438f", "#7a5230")
DARK_COLOURS = ("#b08be0", "#f08a80", "#f0b64a", "#4cc4d0", "#a9b1bd", "#7fc486", "#ec8fd0", "#c9a27c")
SHAPES = (*theme.ORDERED_SHAPES, "triangle-down", "triangle-right", "triangle-left")
VEGA_LITE = "6.1"


def explorer(
    curves: Sequence[str | Path],
    sample_layers: Sequence[str | Path],
    responses: Sequence[str | Path],
    titles: Mapping[str, str],
) -> dict[str, Any] | None:
    """The explorer's list (`index`) and its `pieces`, by the id of their element; None where there are no curves.

    `curves` and `sample_layers`: tables of the statistics, one a dataset. `responses`: tables with the samples' texts.
    A dataset may stand in some of them only. `titles`: of datasets, by key.
    """
    frame = _curves_of(curves)
    if frame.is_empty():
        return None
    samples, texts = _Samples(sample_layers), {}
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
    most = _most_samples(frame)
    pieces, sets = {}, {}
    for d, dataset in enumerate(keys["datasets"]):
        ids = samples.ids(dataset)
        chosen = _chosen(ids, most)
        rows = samples.rows(dataset, chosen)
        pieces[f"texts-{d}"] = _texts(chosen, len(ids), texts.get(dataset), keys)
        for m, model in enumerate(keys["models"]):
            cell = frame.filter((pl.col("dataset") == dataset) & (pl.col("model") == model))
            if cell.is_empty():
                continue
            sets[f"{d}-{m}"] = {"check": bool((cell["purpose"] == PIPELINE_CHECK).any())}
            pieces[f"curves-{d}-{m}"] = _curves(cell, keys)
            pieces[f"samples-{d}-{m}"] = _samples(rows.filter(pl.col("model") == model), chosen, keys)
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


def _curves_of(paths: Sequence[str | Path]) -> pl.DataFrame:
    """All curves, with the loss on the whole response alone."""
    schema = SCHEMAS["curves"]
    found = (read_table("curves", path).select(schema.names) for path in paths)
    frame = pl.concat([pl.from_arrow(table) for table in (schema.empty_table(), *found)])
    return frame.filter(pl.col("loss_tokens") == LOSS_TOKENS)


class _Samples:
    """The samples' values by layer, of which only those that are asked for are read: all are as many as the spectra."""

    def __init__(self, paths: Sequence[str | Path]):
        self._paths: dict[str, list[str | Path]] = {}
        for path in paths:
            # Its checksum is verified here, for the scans below.
            for dataset in pl.from_arrow(read_table("per_sample_layers", path, ["dataset"]))["dataset"].unique():
                self._paths.setdefault(dataset, []).append(path)

    def ids(self, dataset: str) -> list[str]:
        """A dataset's samples."""
        return self._of(dataset).select("sample_id").unique().collect()["sample_id"].to_list()

    def rows(self, dataset: str, ids: Sequence[str]) -> pl.DataFrame:
        """The rows of some of a dataset's samples."""
        return self._of(dataset).filter(pl.col("sample_id").is_in(list(ids))).collect(engine="streaming")

    def _of(self, dataset: str) -> pl.LazyFrame:
        empty = pl.from_arrow(SCHEMAS["per_sample_layers"].empty_table()).lazy()
        frame = pl.concat([empty, *(pl.scan_parquet(path) for path in self._paths.get(dataset, []))])
        return frame.filter(pl.col("dataset") == dataset, pl.col("loss_tokens") == LOSS_TOKENS)


def _most_samples(curves: pl.DataFrame) -> int:
    """How many samples of each dataset make no more than `VALUES`, but at most `SAMPLES`."""
    cell = ["dataset", "model", "variant", "relation", "projection", "statistic"]
    groups = pl.min_horizontal(pl.col("layer").n_unique(), pl.lit(GROUPS))
    of_one = curves.group_by(cell).agg(groups.alias("groups"))["groups"].sum()
    return max(1, min(SAMPLES, VALUES // of_one))


def _chosen(sample_ids: Sequence[str], most: int) -> list[str]:
    """At most so many ids, the same whatever the models and variants, and in an order that tells nothing."""
    return sorted(sample_ids, key=lambda key: hashlib.sha256(key.encode()).digest())[:most]


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
    """One model on one dataset: each metric by (group of layers, set, projection, sample), loss and length by sample.

    `groups`: first and last layer of each.
    """
    sets = _sets(cell, keys)
    at = (*_at(cell, sets, keys), _place(cell["sample_id"], chosen))
    layers = max((cell[name].list.len().max() or 0 for name in keys["metrics"]), default=0)
    groups = [part for part in np.array_split(np.arange(layers), min(GROUPS, max(layers, 1))) if len(part)]
    columns = {}
    for name in keys["metrics"]:
        # A column each: values of one kind stand together and compress better.
        values = np.full((len(groups), len(sets), len(keys["projections"]), len(chosen)), np.nan)
        if known := cell[name].count():
            told = np.full((cell.height, layers), np.nan)
            told[cell[name].is_not_null().to_numpy()] = cell[name].drop_nulls().list.to_array(layers).to_numpy()
        for g, part in enumerate(groups if known else []):
            values[(g, *at)] = told[:, part].mean(1)
        columns[name] = (values, CHAIN)
    for name, digits in (("loss", LOSS_DIGITS), ("response_tokens", WHOLE)):
        per_sample = np.full((len(sets), len(chosen)), np.nan)
        per_sample[at[0], at[2]] = cell[name].to_numpy()
        columns[name] = (per_sample, digits)
    return pack({"sets": sets, "groups": [(int(part[0]), int(part[-1])) for part in groups]}, columns)


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
