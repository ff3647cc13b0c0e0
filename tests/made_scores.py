"""Folders of scores with known numbers, in the form that gradatlas score writes."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from gradatlas.core.tables import write_table
from gradatlas.scores.tables import MEASURED, METRICS, SCORES

PROJECTIONS = ("q", "k", "v", "o")


def write_scores(folder, tokens, loss, norm, rank, groups=None, statuses=None, layers=4, own=None, responses=("",)):
    """A folder with scores.parquet and measured/, one row a sample; returns the path of scores.parquet.

    `norm` and `rank`: each sample's nuclear norm and effective rank, the same in all layers and projections.
    `own`: further columns of the file, by name. `responses`: those of each row, whose groups they are if there are two.
    """
    folder, count = Path(folder), len(tokens)
    (folder / "measured").mkdir(parents=True)
    statuses = statuses or ["ok"] * count
    measured, scores = [], []
    if len(responses) > 1:
        groups = [*responses] * (count // len(responses))
    for row in range(count):
        usable = statuses[row] == "ok"
        values = np.empty((layers, len(PROJECTIONS), len(METRICS)), dtype=np.float32)
        values[..., 0], values[..., 1], values[..., 2], values[..., 3] = norm[row], rank[row], norm[row] / 2, 0.5
        number, response = row // len(responses), responses[row % len(responses)]
        same = {"row": number, "response": response, "status": statuses[row], "reason": ""}
        measured.append(same | {"values": values.ravel().tolist() if usable else None})
        numbers = {"response_tokens": int(tokens[row]), "loss": float(loss[row]), "loss_without_prompt": 3.0}
        numbers |= {"ifd": float(loss[row]) / 3, "gradient_norm": float(norm[row]), "sigma_ratio": 0.5, "mad": 0.1}
        numbers |= {"self_influence": float(norm[row]) ** 2, "largest_layer_share": 0.3, "outlier": 1.0}
        for part in ("", "_early", "_middle", "_last"):
            numbers |= {f"nuclear_norm{part}": float(norm[row]), f"effective_rank{part}": float(rank[row])}
        scores.append(
            same
            | {"id": str(number), "group": groups[row] if groups is not None else None}
            | (numbers if usable else {})
            | {name: column[row] for name, column in (own or {}).items()}
        )
    half = (count + 1) // 2
    facts = {"model": "made", "projections": PROJECTIONS, "metrics": METRICS, "layers": layers}
    for number, part in enumerate((measured[:half], measured[half:])):
        write_table(MEASURED, part, folder / "measured" / f"{number:05d}.parquet", facts)
    schema = SCORES.schema
    for name in own or {}:
        schema = schema.append(pa.field(name, pa.array(own[name]).type))
    table = type(SCORES)("scores", "score_samples", schema)
    write_table(table, scores, folder / "scores.parquet", facts)
    return folder / "scores.parquet"
