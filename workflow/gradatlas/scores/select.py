"""Some rows of a scored file, by rank, as JSON Lines in the file's own form and as a folder for `datasets`."""

import json
import math
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from gradatlas.core.command import progress
from gradatlas.core.errors import InputError, nearest
from gradatlas.core.files import replacing
from gradatlas.core.tables import read_table
from gradatlas.data.formats import plain
from gradatlas.data.training.rows import TrainingRow
from gradatlas.scores.columns import as_json, clean
from gradatlas.scores.tables import SCORES

FORMS = "top:K, bottom:K, quantile:LOW:HIGH (0 to 1, from the smallest value) or balanced:K (K of each group)"
REASON = "gradatlas_reason"
NUMBERS = [field.name for field in SCORES.schema if field.type in ("double", "int32")]
_ROWS = 1000  # in memory at one time


def check_selection(select: str) -> None:
    """`InputError` for a selection of another form."""
    parts = select.split(":")
    counts = re.fullmatch(r"(top|bottom|balanced):[1-9][0-9]*", select)
    shares = re.fullmatch(r"quantile(:([0-9]+\.?[0-9]*|\.[0-9]+)){2}", select)
    if not (counts or (shares and 0 <= float(parts[1]) < float(parts[2]) <= 1)):
        raise InputError(f"--select '{select}': not known; give {FORMS}")


def check_by(by: str, own: Iterable[pa.Field]) -> None:
    """`InputError` where `by` is neither a number of the scores nor one of the file's `own` columns."""
    numbers = [*NUMBERS, *(field.name for field in own if field.type in ("double", "int64"))]
    if by not in numbers:
        raise InputError(f"--by '{by}': no number of the scores or of the file: {nearest(by, numbers)}")


def chosen(scores: pl.DataFrame, select: str, by: str) -> dict[int, str]:
    """By row of the file, the reason why it is selected. Of a row with two responses, the one ranked first counts.

    Samples are ranked by their number, largest first. Those without one are never selected.
    """
    kind, *numbers = select.split(":")
    if kind == "balanced" and scores["group"].is_null().all():
        raise InputError("--select balanced: no row has a group; name the column of groups with --group")
    known = scores.filter(pl.col("status") == "ok", pl.col(by).is_not_null(), ~pl.col(by).cast(pl.Float64).is_nan())
    ranked = known.sort(by, descending=True, maintain_order=True).with_row_index("place", 1)
    reasons: dict[int, str] = {}
    of_group: dict[str | None, int] = {}
    candidates = ranked.reverse() if kind == "bottom" else ranked
    if kind == "quantile":
        low, high = (float(number) * ranked.height for number in numbers)
        # By place from the smallest value.
        candidates = ranked.filter((ranked.height - pl.col("place")).is_between(math.ceil(low), math.ceil(high) - 1))
    for row in candidates.iter_rows(named=True):
        if row["row"] in reasons:
            continue
        if kind in ("top", "bottom") and len(reasons) == int(numbers[0]):
            break
        if kind == "balanced":
            if of_group.get(row["group"], 0) == int(numbers[0]):
                continue
            of_group[row["group"]] = of_group.get(row["group"], 0) + 1
        detail = f" (by {row['outlier_of']})" if by == "outlier" else ""
        which = f"{row['response']}: " if row["response"] else ""
        value = f"{row[by]:,}" if isinstance(row[by], int) else f"{row[by]:.3g}"
        reasons[row["row"]] = f"{which}{by} {value}{detail}: rank {row['place']:,} of {ranked.height:,}"
    return reasons


def write_selected(
    rows: Iterable[TrainingRow], scores: pl.DataFrame, select: str, by: str, folder: Path
) -> Mapping[int, str]:
    """Write the selected rows, in the file's order, to ``selected.jsonl`` and the folder ``selected``."""
    if by not in scores.columns:
        scores = scores.hstack(pl.from_arrow(read_table(SCORES, folder / "scores.parquet", [by])))
    reasons = chosen(scores, select, by)
    if not reasons:
        raise InputError(f"--select {select}: selects no row by {by}, since no sample has this number")
    left = scores.filter(status="ok").height
    progress(
        f"--select {select} --by {by}: {len(reasons)} rows, of {left} samples with status ok; the other "
        f"{scores.height - left} are never selected"
    )
    path, last = folder / "selected.jsonl", -1
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            if row.number in reasons and row.number != last:
                file.write(clean(as_json({**plain(row.own), REASON: reasons[row.number]})) + "\n")
                last = row.number
    _write_folder(path, folder / "selected")
    return reasons


def remove_selected(folder: Path) -> None:
    """Remove the selection of an earlier run."""
    (folder / "selected.jsonl").unlink(missing_ok=True)
    shutil.rmtree(folder / "selected", ignore_errors=True)


def _write_folder(lines: Path, folder: Path) -> None:
    """The same rows as `datasets` keeps them. It would infer types itself, and dates from texts."""
    import datasets

    def batches() -> Iterator[list[dict[str, Any]]]:
        with open(lines, encoding="utf-8") as file:
            while batch := [json.loads(line) for line in islice(file, _ROWS)]:
                yield batch

    types: dict[str, pa.DataType] = {}
    before = None
    # Until all batches have been converted to the final types.
    while types != before:
        before = dict(types)
        for batch in batches():
            for name in dict.fromkeys(name for row in batch for name in row):
                types[name] = _holding(types.get(name, pa.null()), [row.get(name) for row in batch])
    schema = pa.schema(list(types.items()))
    made, table = folder.with_name(".selected.new"), folder.with_name(".selected.arrow")
    datasets.disable_progress_bars()
    try:
        with pa.ipc.new_stream(str(table), schema) as stream:
            for batch in batches():
                columns = [_array([row.get(name) for row in batch], kind) for name, kind in types.items()]
                stream.write_batch(pa.record_batch(columns, schema=schema))
        datasets.Dataset.from_file(str(table)).save_to_disk(str(made))
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
    finally:
        table.unlink(missing_ok=True)
        shutil.rmtree(made, ignore_errors=True)


def _holding(kind: pa.DataType, values: Sequence[Any]) -> pa.DataType:
    """The Arrow type that holds values of `kind` and these `values`; text where there is none."""
    # Arrow takes a truth value among numbers as 1 or 0.
    if len({isinstance(each, bool) for each in values if each is not None}) > 1:
        return pa.string()
    try:
        pair = [pa.schema([("values", each)]) for each in (kind, pa.array(values).type)]
        found = pa.unify_schemas(pair, promote_options="permissive").field(0).type
        pa.array(values, found)
    except (pa.ArrowException, OverflowError):
        return pa.string()
    return found


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_string(kind):
        values = [each if each is None or isinstance(each, str) else as_json(each) for each in values]
    return pa.array(values, kind)
