"""What the page's explorer reads: curves and samples by dataset and model, texts by dataset, and an index of it all.

Every number of a curve is here. Of a dataset's samples at most `SAMPLES`, the same ones for every model, variant and
relation, chosen by a hash of their ids, and of those the first `TEXTS` with their texts, cut to `CHARACTERS`.

A sample's values are there layer by layer; those of a model of more than `GROUPS` layers as means over `GROUPS` groups
of neighbouring layers, as even as can be, larger ones first. All samples' values together are at most `VALUES`: a large
study shows fewer samples of each dataset, so that the page stays small.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gradatlas.charts import theme
from gradatlas.charts.names import (
    in_order,
    projections_in_order,
    relations_in_order,
    statistic_label,
    terms,
    variants_in_order,
)
from gradatlas.charts.numbers import share
from gradatlas.charts.panel import variant_ranks
from gradatlas.claims.ability import Abilities, Ability
from gradatlas.core.tables import Table, read_table
from gradatlas.data.tables import RESPONSES
from gradatlas.page.pieces import pack, rounded, vega
from gradatlas.page.titles import Titles
from gradatlas.statistics.counts import has_check, is_whole
from gradatlas.statistics.tables import CURVES, PER_SAMPLE_LAYERS, STATISTICS

SAMPLES, TEXTS, CHARACTERS = 300, 100, 300
GROUPS, VALUES = 8, 2_300_000
CURVE_DIGITS, SAMPLE_DIGITS = 4, 3
# Of variants, as in the figures; each has a shape of its own too.
_COLOURS = {
    name: [*of["variant"].values(), *of["series"].values()][:8]
    for name, of in (("light", theme.COLOURS), ("dark", theme.ON_DARK))
}
SHAPES = (*theme.SHAPES, "triangle-left")

_Keys = Mapping[str, list[str]]


def explorer(
    curves: Sequence[str | Path],
    sample_layers: Sequence[str | Path],
    responses: Sequence[str | Path],
    titles: Titles,
    able: Abilities,
) -> dict[str, Any] | None:
    """The explorer's `index` and its `pieces`, by the id of their element; None where there are no curves.

    `curves` and `sample_layers`: tables of the statistics, one a dataset. `responses`: tables with the samples' texts.
    A dataset may be in some of them only. `able`: what the models can do.
    """
    frame = pl.concat([pl.from_arrow(table) for table in (CURVES.empty(), *(read_table(CURVES, p) for p in curves))])
    frame = frame.filter(is_whole())
    if frame.is_empty():
        return None
    keys = {
        "datasets": in_order(frame["dataset"], list(titles)),
        "models": sorted(set(frame["model"])),
        "variants": variants_in_order(frame["variant"]),
        "relations": relations_in_order(frame["relation"]),
        "projections": projections_in_order(frame["projection"]),
        "metrics": [name for name in STATISTICS if name in set(frame["statistic"])],
    }
    sample_paths, text_paths = _by_dataset(PER_SAMPLE_LAYERS, sample_layers), _by_dataset(RESPONSES, responses)
    most = _most_samples(frame)
    pieces, measured = {}, {}
    for d, dataset in enumerate(keys["datasets"]):
        samples = _scan(PER_SAMPLE_LAYERS, sample_paths.get(dataset)).filter(is_whole(), dataset=dataset)
        ids = samples.select("sample_id").unique().collect()["sample_id"].to_list()
        # By a hash of their ids: the same ones whatever the models and variants, in no meaningful order.
        chosen = sorted(ids, key=lambda key: hashlib.sha256(key.encode()).digest())[:most]
        rows = samples.filter(pl.col("sample_id").is_in(chosen)).collect(engine="streaming")
        texts = _scan(RESPONSES, text_paths.get(dataset)).filter(dataset=dataset)
        pieces[f"texts-{d}"] = _texts(chosen, len(ids), texts, keys)
        for m, model in enumerate(keys["models"]):
            cell = frame.filter(dataset=dataset, model=model)
            if cell.height:
                held = {
                    f"{name}s": sorted(map(keys[f"{name}s"].index, set(cell[name]))) for name in ("variant", "relation")
                }
                measured[f"{d}-{m}"] = {
                    "check": has_check(cell),
                    "lacks": _lacks(able.get((model, dataset)), keys),
                    **held,
                }
                pieces[f"curves-{d}-{m}"] = _curves(cell, keys)
                pieces[f"samples-{d}-{m}"] = _samples(rows.filter(model=model), chosen, keys)
    return {"index": _index(keys, titles, measured), "pieces": {"vega": vega(), **pieces}}


def _index(keys: _Keys, titles: Titles, measured: Mapping[str, Any]) -> dict[str, Any]:
    """Names, order and style of everything that can be chosen; the pieces name it by its place in these lists."""
    named = {
        **{name: [titles[key] for key in keys[name]] for name in ("datasets", "models")},
        **{name: [*terms(keys[name]).values()] for name in ("variants", "relations", "projections")},
        "metrics": [statistic_label(key) for key in keys["metrics"]],
    }
    return {
        "lists": {
            name: [{"key": key, "title": title} for key, title in zip(keys[name], named[name], strict=True)]
            for name in keys
        },
        "measured": measured,
        "styles": [rank % len(SHAPES) for rank in variant_ranks(keys["variants"])],
        "colours": _COLOURS,
        "shapes": SHAPES,
        "config": theme.gradatlas()["config"],
    }


def _lacks(known: Ability | None, keys: _Keys) -> dict[str, Any]:
    """What a model does not master on a dataset: shares of right answers `by` variant, or `at_all`, and `chance`."""
    if known is None:
        return {"by": [], "at_all": "", "chance": ""}
    lacking = {name: share(known.shares[name][0]) for name in known.shares if not known.masters(name)}
    by_answers = known.test == "answer"
    return {
        "by": [[keys["variants"].index(name), right] for name, right in lacking.items() if name in keys["variants"]]
        if by_answers
        else [],
        "at_all": "" if by_answers or known.able else lacking[known.slowest()],
        "chance": share(known.chance),
    }


def _by_dataset(table: Table, paths: Sequence[str | Path]) -> dict[str, list[str | Path]]:
    """The paths with rows of each dataset. Each file's checksum is verified here, for the scans."""
    found: dict[str, list[str | Path]] = {}
    for path in paths:
        for dataset in set(read_table(table, path, ["dataset"])["dataset"].to_pylist()):
            found.setdefault(dataset, []).append(path)
    return found


def _scan(table: Table, paths: Sequence[str | Path] | None) -> pl.LazyFrame:
    return pl.scan_parquet(paths) if paths else pl.from_arrow(table.empty()).lazy()


def _most_samples(curves: pl.DataFrame) -> int:
    """How many samples of each dataset make no more than `VALUES`, but at most `SAMPLES`."""
    cell = ["dataset", "model", "variant", "relation", "projection", "statistic"]
    groups = pl.min_horizontal(pl.col("layer").n_unique(), pl.lit(GROUPS))
    of_one = curves.group_by(cell).agg(groups.alias("groups"))["groups"].sum()
    return max(1, min(SAMPLES, VALUES // of_one))


def _curves(cell: pl.DataFrame, keys: _Keys) -> str:
    """One model on one dataset: a series for each set of responses, projection and metric; columns by layer."""
    cell = cell.rename({"statistic": "metric"}).filter(pl.col("metric").is_in(keys["metrics"])).sort("layer")
    found = _series(cell, ("variant", "relation", "projection", "metric"), keys)
    columns: dict[str, list] = {
        name: [rounded(rows[name], CURVE_DIGITS) for _, rows in found] for name in ("value", "low", "high")
    }
    columns["layer"] = [rows["layer"].to_list() for _, rows in found]
    columns["n"] = [rows["n"].max() for _, rows in found]
    return pack({"series": [places for places, _ in found], "columns": columns})


def _samples(cell: pl.DataFrame, chosen: Sequence[str], keys: _Keys) -> str:
    """One model on one dataset: a series for each set of responses and projection; columns by sample.

    Metrics are by group of layers and sample. `groups`: first and last layer of each.
    """
    layers = max((cell[name].list.len().max() or 0 for name in keys["metrics"]), default=0)
    groups = [part.tolist() for part in np.array_split(np.arange(layers), GROUPS) if len(part)]
    samples = pl.DataFrame({"sample_id": chosen}, schema={"sample_id": pl.String})
    means = {name: [f"{name} {at}" for at in range(len(groups))] for name in keys["metrics"]}
    cell = cell.with_columns(
        pl.col(name).cast(pl.List(pl.Float64)).list.slice(part[0], len(part)).list.mean().alias(mean)
        for name in keys["metrics"]
        for part, mean in zip(groups, means[name], strict=True)
    ).drop(keys["metrics"])
    found = _series(cell, ("variant", "relation", "projection"), keys)
    columns: dict[str, list] = {name: [] for name in (*keys["metrics"], "loss", "response_tokens")}
    for _, rows in found:
        rows = samples.join(rows, on="sample_id", how="left", maintain_order="left")
        for name in keys["metrics"]:
            columns[name].append([rounded(rows[mean], SAMPLE_DIGITS) for mean in means[name]])
        columns["loss"].append(rounded(rows["loss"], SAMPLE_DIGITS))
        columns["response_tokens"].append(rows["response_tokens"].to_list())
    ends = [(part[0], part[-1]) for part in groups]
    return pack({"groups": ends, "series": [places for places, _ in found], "columns": columns})


def _series(frame: pl.DataFrame, by: Sequence[str], keys: _Keys) -> list[tuple[dict[str, int], pl.DataFrame]]:
    """The rows of each series, with its places in the lists of variants, relations, projections and metrics.

    A piece has a column for each kind of number, with an entry for each series: similar numbers compress better.
    """
    found = []
    for group, rows in frame.group_by(by):
        places = {name: keys[f"{name}s"].index(key) for name, key in zip(by, group, strict=True)}
        found.append((places, rows))
    return sorted(found, key=lambda one: [*one[0].values()])


def _texts(chosen: Sequence[str], total: int, responses: pl.LazyFrame, keys: _Keys) -> str:
    """One dataset: the chosen ids of `total`, and for the first of them instruction and response by set."""
    found: dict[str, dict[str, list[str]]] = {sample_id: {} for sample_id in chosen[:TEXTS]}
    known = [pl.col(name).is_in(keys[f"{name}s"]) for name in ("variant", "relation")]
    rows = responses.filter(pl.col("sample_id").is_in(list(found)), *known, status="ok")
    for row in rows.select("sample_id", "variant", "relation", "instruction", "response").collect().iter_rows():
        place = f"{keys['variants'].index(row[1])}-{keys['relations'].index(row[2])}"
        found[row[0]][place] = [_cut(row[3]), _cut(row[4])]
    return pack({"ids": list(chosen), "total": total, "texts": list(found.values())})


def _cut(text: str | None) -> str:
    """The first `CHARACTERS` of a text, with an ellipsis in place of the last where more follows."""
    text = text or ""
    return text if len(text) <= CHARACTERS else text[: CHARACTERS - 1] + "…"
