"""Folders as ``score`` writes them, with random numbers, for the tests of the page of scores."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from gradatlas.core.tables import Table, write_table
from gradatlas.scores.tables import LAYERS, MEASURED, METRICS, SCORES
from gradatlas.statistics.outliers import LEAST

PROJECTIONS = ("q", "k", "v", "o")
WORDS = ("The", "answer", "is", "three", "plus", "four", ",", "so", "we", "add", "\n", "A", "longer", "sentence")


def score_folder(
    folder: Path,
    samples: int = 60,
    *,
    groups=("web", "book"),
    failed: int = 3,
    layers: int = 6,
    part: int = 256,
    texts: dict[int, list[str]] | None = None,
    ids: dict[int, str] | None = None,
    pairs: bool = False,
    metadata: dict | None = None,
) -> Path:
    """A folder as `score` writes it, with random numbers; the last `failed` rows have no scores.

    `texts` and `ids`: tokens and ids of some rows. `pairs`: rows have a chosen and a rejected
    response. The file's own numeric columns are `quality` and ``count "<b>"``.
    """
    chance = np.random.default_rng(7)
    metrics = list(METRICS)
    shape = (layers, len(PROJECTIONS), len(metrics))
    facts = {"model": "tiny", "projections": list(PROJECTIONS), "metrics": metrics, "layers": layers}
    facts |= metadata or {}
    rows, measured, curves = [], [], []
    for row in range(samples + failed):
        ok = row < samples
        tokens = (texts or {}).get(row) or [f"{chance.choice(WORDS)} " for _ in range(4 + int(chance.integers(4, 90)))]
        prompt = min(4, len(tokens) - 1)
        losses = [None] * prompt + chance.gamma(1, 1.5, len(tokens) - prompt).tolist()
        values = np.exp(chance.normal(0, 0.3, shape)) * np.arange(1, layers + 1)[:, None, None]
        reason = "" if ok else f"row {row}: its last message is not the assistant's <b>"
        counts = {"prompt_tokens": prompt if ok else None, "response_tokens": len(tokens) - prompt if ok else None}
        loss = float(np.mean(losses[prompt:])) if ok else None
        key = {
            "row": row // 2 if pairs else row,
            "response": ("chosen", "rejected")[row % 2] if pairs else "",
            "status": "ok" if ok else "no_response",
            "reason": reason,
            "truncated": False,
        }
        measured.append(
            {**key, **counts, "loss": loss, "loss_without_prompt": None, "loss_with_prompt": None}
            | {"values": values.ravel().tolist() if ok else None, "tokens": tokens if ok else None}
            | {"token_losses": losses if ok else None}
            | {"token_terms": chance.gamma(1, 0.01, len(tokens)).tolist() if ok else None}
        )
        found = dict.fromkeys(SCORES.names) | key | counts | {"loss": loss}
        found |= {"id": (ids or {}).get(row, f"s{row}"), "group": groups[row % len(groups)] if groups else None}
        if ok:
            curves.append(values)
            found |= {name: float(values[..., i].mean()) for i, name in enumerate(metrics[:2])}
            found |= {"gradient_norm": float(chance.gamma(2, 3)), "outlier": float(chance.gamma(2, 1))}
            found |= {"outlier_of": str(chance.choice(["loss", "nuclear_norm"])), "largest_layer": layers - 1}
        rows.append(
            {**found, "quality": float(chance.normal()), 'count "<b>"': int(chance.integers(0, 9)), "text": "x"}
        )
    if sum(row["outlier"] is not None for row in rows) < LEAST:
        rows = [row | {"outlier": None, "outlier_of": None} for row in rows]
    order = sorted((row for row in rows if row["outlier"] is not None), key=lambda row: -row["outlier"])
    for rank, row in enumerate(order, 1):
        row["rank"] = rank
    own = [("quality", pa.float64()), ('count "<b>"', pa.int64()), ("text", pa.string())]
    table = Table(SCORES.name, SCORES.rule, pa.schema([*SCORES.schema, *own]))
    write_table(table, rows, folder / "scores.parquet", facts)
    for start in range(0, len(measured), part):
        write_table(MEASURED, measured[start : start + part], folder / f"measured/{start // part:05}.parquet", facts)
    write_table(LAYERS, _layer_rows(np.array(curves), metrics), folder / "layers.parquet", facts)
    return folder


def _layer_rows(curves: np.ndarray, metrics) -> list[dict]:
    """`curves`: (samples, layers, projections, metrics)."""
    ends = dict(zip(("p10", "p50", "p90"), np.quantile(curves, (0.1, 0.5, 0.9), axis=0), strict=True))
    summary = {"mean": curves.mean(0), "sd": curves.std(0), **ends}
    return [
        {"group": None, "layer": layer, "projection": projection, "metric": metric, "samples": len(curves)}
        | {name: float(values[layer, p, m]) for name, values in summary.items()}
        for layer in range(curves.shape[1])
        for p, projection in enumerate(PROJECTIONS)
        for m, metric in enumerate(metrics)
    ]
