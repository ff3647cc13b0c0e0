"""What the page of scores holds of a file and of its samples, for the browser: plain values that JSON can hold."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gradatlas.charts.names import label, projections_in_order, statistic_label
from gradatlas.charts.numbers import plotted
from gradatlas.core.errors import InputError
from gradatlas.core.tables import read_metadata, read_table
from gradatlas.page.pieces import rounded
from gradatlas.scores.tables import MEASURED

#: Of a sample: tokens, characters of all its tokens, and of one token. Of a name or an id, and of a reason: characters.
TOKENS, CHARACTERS, PIECE, NAME, REASON = 600, 6_000, 120, 80, 320
#: Groups with a colour of their own, and bins of a histogram.
GROUPS, BINS = 5, 40
#: Shares of the tokens with a loss below each of the upper steps of the colours.
STEPS = (0.5, 0.75, 0.9, 0.97)
CURVES = ("nuclear_norm", "effective_rank")
#: Integers from here on lose digits in a browser.
EXACT = 2**53
_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {127: 0x2421}
_PICTURES |= dict.fromkeys(range(128, 160), 0xFFFD)


# The file -------------------------------------------------------------------------------------------------------------


def histogram(ok: pl.DataFrame, name: str, groups: Sequence[str]) -> dict[str, Any] | None:
    """Edges of the bins, and counts by bin for each of the first groups and the rest together; None without numbers.

    Twice the cube root of the number of values (Rice's rule), at most `BINS`; even in the logarithm where positive
    values span more than a decade; one for each of a few whole numbers.
    """
    frame = ok.select("group", pl.col(name).alias("value")).drop_nulls("value")
    values = frame["value"].to_numpy()
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, np.inf)
    if not np.isfinite(high - low):
        return None
    whole = bool((values == values.round()).all()) and high - low < BINS and max(abs(low), abs(high)) < EXACT
    log = low > 0 and high / low > 10 and not whole
    if whole:
        edges = np.arange(low - 0.5, high + 1)
    elif low == high:
        edges = np.array([low - abs(low) / 2, low + abs(low) / 2])
    else:
        bins = min(BINS, 2 * math.ceil(len(values) ** (1 / 3)))
        edges = np.geomspace(low, high, bins + 1) if log else np.linspace(low, high, bins + 1)
        # Not a last digit inside, where the smallest and the largest value would be lost.
        edges[0], edges[-1] = low, high
    edges = np.unique(edges)
    parts = [frame.filter(group=group)["value"] for group in groups[:GROUPS]]
    parts.append(frame.filter(~pl.col("group").is_in(groups[:GROUPS]).fill_null(False))["value"])
    counts = [np.histogram(part.to_numpy(), edges)[0].tolist() for part in parts]
    return {"edges": edges.tolist(), "log": log, "counts": counts}


def bands(layers: pl.DataFrame, projections: Sequence[str]) -> dict[str, Any]:
    """By metric and projection: layers, median, 10th and 90th percentile over all samples with scores."""
    projections = projections_in_order(projections)
    found = {
        metric: [
            {name: rounded(rows[name], 3) for name in ("p10", "p50", "p90")} | {"layer": rows["layer"].to_list()}
            for projection in projections
            for rows in [layers.filter(metric=metric, projection=projection).sort("layer")]
        ]
        for metric in CURVES
    }
    metrics = [{"key": metric, "title": statistic_label(metric)} for metric in CURVES]
    return {"projections": [label(key) for key in projections], "metrics": metrics, "bands": found}


# Samples --------------------------------------------------------------------------------------------------------------


def measured_of(folder: Path, held: pl.DataFrame) -> dict[tuple[int, str], dict[str, Any]]:
    """Tokens and layer curves of the held samples, by row and response; reads one part of the file at a time."""
    keys = set(held.select("row", "response").rows())
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for part in sorted(folder.glob("*.parquet")):
        frame = pl.from_arrow(read_table(MEASURED, part, ["row", "response"])).with_row_index()
        places = [row[0] for row in frame.iter_rows() if row[1:] in keys]
        if places:
            table = read_table(MEASURED, part).take(places)
            found |= dict(_of_part(table.to_pylist(), read_metadata(part, MEASURED)))
    if missing := keys - found.keys():
        row, _ = min(missing)
        raise InputError(f"{folder}: row {row} of scores.parquet is in no part; run `gradatlas score` again")
    return found


def _of_part(rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> Iterator[tuple[tuple[int, str], dict]]:
    """Each row's key, its `text` for the page, and its `curves` by metric, projection and layer."""
    projections, metrics = list(facts["projections"]), list(facts["metrics"])
    order = [projections.index(key) for key in projections_in_order(projections)]
    wanted = [metrics.index(metric) for metric in CURVES]
    for row in rows:
        values = np.asarray(row["values"], dtype=float).reshape(-1, len(projections), len(metrics))
        curves = values[:, order][:, :, wanted].transpose(2, 1, 0)
        yield (
            (row["row"], row["response"]),
            {"text": _text(row), "curves": [[rounded(curve, 3) for curve in metric] for metric in curves.tolist()]},
        )


def _text(row: Mapping[str, Any]) -> dict[str, Any]:
    """A sample's first tokens; losses in hundredths, terms in thousandths of the largest term of the whole sample."""
    tokens, used = [], 0
    for token in row["tokens"][:TOKENS]:
        token = cut(token, PIECE)
        used += len(token)
        if used > CHARACTERS:
            break
        tokens.append(token)
    terms = np.asarray([np.nan if term is None else term for term in row["token_terms"]], dtype=float)
    finite = terms[np.isfinite(terms)]
    largest = float(finite.max()) if len(finite) else 0.0
    return {
        "tokens": tokens,
        "all": len(row["tokens"]),
        "losses": [_whole(loss, 0.01) for loss in row["token_losses"][: len(tokens)]],
        "terms": [_whole(term, largest / 1000) for term in terms[: len(tokens)].tolist()],
        "largest": plotted(largest, 3),
    }


def loss_steps(losses: Iterable[Sequence[int | None]]) -> list[float]:
    """Where a step of the colours begins, in nats: 0 and the `STEPS` of all tokens of the page.

    Not at fixed losses: on a model that does not know the text, all tokens would have one colour.
    """
    known = np.array([loss for sample in losses for loss in sample if loss is not None], dtype=float)
    return [0, *(plotted(step / 100, 3) for step in (np.quantile(known, STEPS) if len(known) else (1, 2, 3, 4)))]


def _whole(value: float | None, unit: float) -> int | None:
    return None if value is None or not np.isfinite(value) or unit == 0 else round(value / unit)


def cut(text: str | None, most: int) -> str:
    """The first `most` characters of a text, with an ellipsis in place of the last where more follows.

    Control characters become their pictures (NUL: ␀), so that they are seen; HTML cannot hold all of them.
    """
    text = text or ""
    return (text if len(text) <= most else text[: most - 1] + "…").translate(_PICTURES)
