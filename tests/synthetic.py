"""Synthetic statistics whose numbers are known, for the tests of charts, tables and the page."""

import math
import random
from pathlib import Path

import polars as pl
import pyarrow as pa

from gradatlas.core.tables import write_table
from gradatlas.statistics.tables import TABLES

VARIANTS = ("none", "simplified", "detailed")
STATISTICS = ("nuclear_norm", "sigma_ratio", "effective_rank")


def curve_value(model: str, variant: str, relation: str, projection: str, statistic: str, layer: int, layers: int):
    """A plausible mean: None large and steep at the front, Detailed small and flat; V and O above Q and K."""
    depth = layer / max(layers - 1, 1)
    place = {"q": 0, "k": 1, "v": 2, "o": 3}[projection]
    slow = {"none": 0.0, "simplified": 0.6, "detailed": 1.0}.get(variant, 0.5)
    if statistic == "sigma_ratio":
        return 0.5 - 0.25 * slow + 0.06 * math.sin(5 * depth + place) - 0.03 * place
    if statistic == "effective_rank":
        return 12 + 40 * slow + 5 * math.sin(4 * depth + place)
    scale = (6.0, 4.0, 26.0, 18.0)[place]
    peak = 1 + 5 * math.exp(-6 * depth) * (1 - slow) + 0.5 * math.exp(-((depth - 0.45) ** 2) / 0.02)
    wobble = 1 + 0.18 * (1 - 0.8 * slow) * math.sin(2.4 * layer + place)
    wrong = 1 if relation == "correct" else 1 + (0.004 + 0.8 * slow) * (1 + 0.7 * math.exp(-8 * depth))
    return scale * peak * wobble * math.exp(-2.2 * slow) * wrong * (1.3 if model == "random" else 1)


def statistic_rows(
    models=("mini",),
    dataset="gsm8k",
    variants=VARIANTS,
    relations=("correct", "published"),
    layers=28,
    purpose="study",
    n=200,
    projections=("q", "k", "v", "o"),
) -> dict[str, list[dict]]:
    """Rows of the six tables; intervals of +-6 % of the value (NaN where n is 1)."""

    def interval(value, spread=0.06):
        if n < 2:
            return {"value": value, "low": math.nan, "high": math.nan, "n": n}
        return {"value": value, "low": value - spread * abs(value), "high": value + spread * abs(value), "n": n}

    rows = {name: [] for name in ("curves", "mad", "rd", "rd_layers", "cells", "per_sample")}
    quarter = round(layers / 4)
    segments = {"early": (0, quarter), "middle": (quarter, layers - quarter), "last": (layers - quarter, layers)}
    segments = {**(segments if layers >= 4 else {}), "all": (0, layers)}
    for model in models:
        for variant in variants:
            for relation in relations:
                cell = {"model": model, "dataset": dataset, "variant": variant, "relation": relation}
                cell |= {"loss_tokens": "all", "purpose": purpose}
                counts = {"n": n + 2, "n_ok": n, "n_truncated": 3, "n_no_response_tokens": 2}
                lengths = {"loss": 0.8, "prompt_tokens": 61.5, "response_tokens": 120.25}
                lengths |= {"n_labelled": n, "n_label_equals_gold": n if relation == "correct" else 0}
                rows["cells"].append({**cell, **counts, "n_nonfinite": 0, "n_out_of_memory": 0, **lengths})
                rows["per_sample"] += sample_rows(cell, projections, layers, n)
                for projection in projections:
                    for statistic in STATISTICS:
                        key = {**cell, "projection": projection, "statistic": statistic}
                        where = (projection, statistic)
                        curve = [curve_value(model, variant, relation, *where, i, layers) for i in range(layers)]
                        rows["curves"] += [{**key, "layer": i, **interval(value)} for i, value in enumerate(curve)]
                        for segment, (first, end) in segments.items():
                            steps = [abs(curve[i + 1] - curve[i]) for i in range(first, end - 1)]
                            if not steps:
                                continue
                            value = sum(steps) / len(steps)
                            about = {"segment": segment, "layers": f"{first}-{end - 1}"}
                            rows["mad"].append({**key, **about, **interval(value)})
                        if relation == "correct" or "correct" not in relations:
                            continue
                        correct = [curve_value(model, variant, "correct", *where, i, layers) for i in range(layers)]
                        change = [(b - a) / a for a, b in zip(correct, curve, strict=True)]
                        rows["rd_layers"] += [{**key, "layer": i, **interval(v, 0.3)} for i, v in enumerate(change)]
                        top = sorted(range(layers), key=lambda i: -abs(change[i]))[:5]
                        for measure, values in (("signed", change), ("absolute", [abs(v) for v in change])):
                            mean = sum(values) / layers
                            rows["rd"].append({**key, "measure": measure, "top_layers": top, **interval(mean, 0.3)})
    return rows


def sample_rows(cell: dict, projections, layers: int, n: int) -> list[dict]:
    """Samples around the mean of each projection, the same factor for all relations of a sample."""
    factors = [math.exp(random.Random(i).gauss(0, 0.3)) for i in range(n)]
    about = {**cell, "loss": 0.8, "response_tokens": 120}
    rows = []
    for projection in projections:
        place = (cell["model"], cell["variant"], cell["relation"], projection)
        means = {name: sum(curve_value(*place, name, i, layers) for i in range(layers)) / layers for name in STATISTICS}
        for i, factor in enumerate(factors):
            values = {**means, "nuclear_norm": means["nuclear_norm"] * factor}
            rows.append({**about, "sample_id": f"s{i}", "projection": projection, **values})
    return rows


def write_statistics(folder: Path, rows: dict[str, list[dict]]) -> Path:
    """Write the six tables as the statistics stage does; returns the folder."""
    facts = {"revision": "1a2b3c4d5e6f", "model_digest": "00ff", "dtype": "float32", "compat": None, "max_length": 1024}
    models = {row["model"]: facts for row in rows["cells"]}
    for name, table in rows.items():
        metadata = {"dataset": rows["cells"][0]["dataset"], "draws": 1000, "seed": 7, "models": models}
        write_table(TABLES[name], table, folder / f"{name}.parquet", metadata)
    return folder


def frames(**options) -> dict[str, pl.DataFrame]:
    """Synthetic tables as frames."""
    rows = statistic_rows(**options)
    return {name: pl.from_arrow(pa.Table.from_pylist(rows[name], schema=TABLES[name].schema)) for name in rows}
