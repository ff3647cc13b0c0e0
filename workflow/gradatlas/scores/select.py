"""Some rows of a scored file, by rank, as JSON Lines in the file's own form and as a folder for `datasets`."""

import math
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import polars as pl

from gradatlas.core.command import progress
from gradatlas.core.errors import InputError, nearest
from gradatlas.core.files import replacing
from gradatlas.data.training.rows import TrainingRow
from gradatlas.scores.columns import as_json, clean, plain
from gradatlas.scores.tables import SCORES

FORMS = "top:K, bottom:K, quantile:LOW:HIGH (0 to 1, from the smallest value) or balanced:K (K of each group)"
REASON = "gradatlas_reason"


def check_selection(select: str, by: str) -> None:
    """`InputError` for a selection or a column that is not known."""
    parts = select.split(":")
    counts = re.fullmatch(r"(top|bottom|balanced):[1-9][0-9]*", select)
    shares = re.fullmatch(r"quantile:[0-9.]+:[0-9.]+", select)
    if not (counts or (shares and 0 <= float(parts[1]) < float(parts[2]) <= 1)):
        raise InputError(f"--select '{select}': not known; give {FORMS}")
    numbers = [field.name for field in SCORES.schema if field.type in ("double", "int32")]
    if by not in numbers:
        raise InputError(f"--by '{by}': no number of the scores: {nearest(by, numbers)}")


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
        reasons[row["row"]] = f"{which}{by} {row[by]:.3g}{detail}: rank {row['place']:,} of {ranked.height:,}"
    return reasons


def write_selected(
    rows: Iterable[TrainingRow], scores: pl.DataFrame, select: str, by: str, folder: Path
) -> Mapping[int, str]:
    """Write the selected rows, in the file's order, to ``selected.jsonl`` and the folder ``selected``."""
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


def _write_folder(lines: Path, folder: Path) -> None:
    """The same rows as `datasets` keeps them."""
    import datasets

    made, cache = folder.with_name(".selected.new"), folder.with_name(".selected.cache")
    datasets.disable_progress_bars()
    try:
        datasets.Dataset.from_json(str(lines), cache_dir=str(cache)).save_to_disk(str(made))
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
    finally:
        for left in (made, cache):
            shutil.rmtree(left, ignore_errors=True)
