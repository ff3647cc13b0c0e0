"""Tables of the scores of a training file, from its measured parts: one row a sample, and means by layer."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from gradatlas.core.command import progress
from gradatlas.core.errors import InputError
from gradatlas.core.files import replacing
from gradatlas.core.spreadsheets import csv_of
from gradatlas.core.tables import Table, read_metadata, read_table, table_in_parts, write_table
from gradatlas.data.training.rows import TrainingRow
from gradatlas.scores.columns import OwnColumns, clean
from gradatlas.scores.tables import LAYERS, MEASURED, METRICS, SCORES
from gradatlas.statistics.measures import mean_absolute_difference, segments
from gradatlas.statistics.outliers import LEAST, outliers

# Rows of the file in memory at one time; bytes of the values by layer in memory at one time.
_ROWS, _BYTES = 1000, 1 << 26
_CHANGED = "the training file has changed since it was measured; run again"
#: Groups with statistics of their own, at most.
GROUPS = 50
_LOSSES = ("loss", "loss_without_prompt", "loss_with_prompt")
_COPIED = ("row", "response", "status", "reason", "prompt_tokens", "response_tokens", "truncated", *_LOSSES)
_READ = (*_COPIED, "values")


def write_scores(
    parts: Sequence[Path], rows: Callable[[], Iterable[TrainingRow]], own: OwnColumns, folder: Path
) -> pl.DataFrame:
    """Write ``scores.parquet``, ``scores.csv`` and ``layers.parquet`` into `folder`; returns the scores.

    `parts`: measured parts in order. `rows`: begins to read the same file again, since parts do not hold its `own`
    columns. Raises `InputError` where it has changed since it was measured.
    """
    facts = _facts(parts)
    scores = pl.concat([sample_scores(read_table(MEASURED, path, _READ), facts) for path in parts])
    scores = scores.hstack(outliers(scores))
    if (measured := scores.filter(status="ok").height) < LEAST:
        progress(f"{measured} samples were measured: too few for outlier scores, which need {LEAST}")
    fields = own.fields(SCORES.names)
    table = Table("scores", "score_samples", pa.schema([*SCORES.schema, *fields]))
    ids: list[str] = []
    groups: list[str | None] = []
    with (
        table_in_parts(table, folder / "scores.parquet", facts) as write,
        replacing(folder / "scores.csv") as csv,
        open(csv, "w", encoding="utf-8", newline="") as file,
    ):
        for start, batch in _batches(rows()):
            known = scores[start : start + len(batch)]
            if [(row.number, row.response) for row in batch] != list(known.select("row", "response").iter_rows()):
                raise InputError(_CHANGED)
            ids += [clean(row.id) for row in batch]
            groups += [row.group and clean(row.group) for row in batch]
            named = known.with_columns(
                id=pl.Series(ids[start:], dtype=pl.String), group=pl.Series(groups[start:], dtype=pl.String)
            )
            arrays = [*named.select(SCORES.names).to_arrow().columns, *own.arrays(batch)]
            part = pa.table(arrays, names=table.names)
            write(part)
            file.write(csv_of(pl.from_arrow(part), header=not start))
        if len(groups) != len(scores):
            raise InputError(_CHANGED)
    scores = scores.with_columns(id=pl.Series(ids, dtype=pl.String), group=pl.Series(groups, dtype=pl.String))
    write_layers(parts, scores, facts, folder / "layers.parquet")
    return scores.select(SCORES.names)


def _facts(parts: Sequence[Path]) -> dict[str, Any]:
    """The metadata of the first part, without what is of its rows alone."""
    facts = read_metadata(parts[0], MEASURED)
    return {name: value for name, value in facts.items() if name not in ("table", "key", "statuses")}


def _batches(rows: Iterable[TrainingRow]) -> Iterator[tuple[int, list[TrainingRow]]]:
    stream, start = iter(rows), 0
    while batch := list(islice(stream, _ROWS)):
        yield start, batch
        start += len(batch)


def sample_scores(part: pa.Table, facts: Mapping[str, Any]) -> pl.DataFrame:
    """The scores of a measured part, without `id`, `group`, outlier and rank; null where a number is not known."""
    values = values_of(part, facts)
    by_name = {name: values[..., at] for at, name in enumerate(METRICS)}
    frame = pl.from_arrow(part.select(_COPIED))
    with np.errstate(all="ignore"):
        found = {f"{name}{part}": each for name in METRICS[:2] for part, each in _means(by_name[name]).items()}
        squares = np.nansum(by_name["frobenius_norm"] ** 2, axis=-1)
        total = np.where(np.isnan(values).all((1, 2, 3)), np.nan, squares.sum(1))
        share = squares.max(1) / total
        found |= {
            "gradient_norm": np.sqrt(total),
            "self_influence": total,
            "sigma_ratio": _mean(by_name["sigma_ratio"], (1, 2)),
            "mad": _mad(_mean(by_name["nuclear_norm"], 2)),
            "largest_layer": np.where(np.isnan(share), np.nan, squares.argmax(1)),
            "largest_layer_share": share,
        }
    frame = frame.with_columns(
        **{name: pl.Series(each).fill_nan(None) for name, each in found.items()},
        # Li et al., arXiv 2308.12032, as their code has it: a ratio of perplexities.
        ifd=(pl.col("loss_with_prompt") - pl.col("loss_without_prompt")).exp(),
    )
    return frame.drop("loss_with_prompt").with_columns(pl.col("largest_layer").cast(pl.Int32))


def values_of(part: pa.Table, facts: Mapping[str, Any]) -> np.ndarray:
    """(samples, layers, projections, metrics), float64; NaN for samples that were not measured, and for no matrix."""
    shape = (facts["layers"], len(facts["projections"]), len(facts["metrics"]))
    found = np.full((len(part), *shape), np.nan)
    column = part["values"].combine_chunks()
    found[np.asarray(column.is_valid())] = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, *shape)
    return found


def _mean(values: np.ndarray, axes: int | tuple[int, ...]) -> np.ndarray:
    """The mean without NaN; NaN where there is nothing else."""
    return np.nansum(values, axis=axes) / (~np.isnan(values)).sum(axis=axes)


def _means(values: np.ndarray) -> dict[str, np.ndarray]:
    """By suffix, the mean over projections and all layers, or the study's early, middle and last ones."""
    cuts = segments(values.shape[1])
    nothing = np.full(len(values), np.nan)
    named = {f"_{name}": _mean(values[:, slice(*cuts[name])], (1, 2)) for name in cuts if name != "all"}
    return {"": _mean(values, (1, 2)), **{f"_{name}": nothing for name in ("early", "middle", "last")}} | named


def _mad(curves: np.ndarray) -> np.ndarray:
    """(samples, layers) to (samples,); a layer without a matrix is passed over."""
    kept = curves[:, ~np.isnan(curves).all(0)]
    return mean_absolute_difference(kept) if kept.shape[1] else np.full(len(curves), np.nan)


def write_layers(parts: Sequence[Path], scores: pl.DataFrame, facts: Mapping[str, Any], path: Path) -> None:
    """Write statistics over samples of every layer, projection and metric: of all, then of each group."""
    measured = scores.filter(status="ok")
    names = measured["group"].drop_nulls().unique(maintain_order=True).to_list()
    if len(names) > GROUPS:
        progress(f"{len(names)} groups are more than {GROUPS}: statistics by layer are of all samples together")
        names = []
    inside_of = {name: measured["group"].eq_missing(name).to_numpy() for name in names}
    groups = {None: np.ones(len(measured), bool)} | inside_of
    shape = (facts["layers"], len(facts["projections"]), len(METRICS))
    width = max(1, _BYTES // (8 * max(1, len(scores))))
    rows = []
    for start in range(0, int(np.prod(shape)), width):
        tables = (values_of(read_table(MEASURED, part, ["values"]), facts) for part in parts)
        # Copies: a view would keep all of a part in memory.
        flat = [table.reshape(len(table), -1)[:, start : start + width].copy() for table in tables]
        columns = np.concatenate(flat)[(scores["status"] == "ok").to_numpy()]
        for group, inside in groups.items():
            for at, values in enumerate(columns[inside].T, start):
                layer, projection, metric = np.unravel_index(at, shape)
                if summary := _summary(values):
                    place = {"layer": layer, "projection": facts["projections"][projection], "metric": METRICS[metric]}
                    rows.append({"group": group, **place, **summary})
    rows.sort(key=lambda row: list(groups).index(row["group"]))
    write_table(LAYERS, rows, path, facts)


def _summary(values: np.ndarray) -> dict[str, Any]:
    known = values[~np.isnan(values)]
    if not len(known):
        return {}
    low, middle, high = np.quantile(known, [0.1, 0.5, 0.9])
    sd = known.std(ddof=1) if len(known) > 1 else None
    return {"samples": len(known), "mean": known.mean(), "sd": sd, "p10": low, "p50": middle, "p90": high}
