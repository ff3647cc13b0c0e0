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
from gradatlas.scores.columns import as_json
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
    left = scores.filter(status="ok").height
    progress(
        f"--select {select} --by {by}: {len(reasons)} rows, of {left} samples with status ok; the other "
        f"{scores.height - left} are never selected"
    )
    path, last = folder / "selected.jsonl", -1
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", errors="replace", newline="\n") as file:
        for row in rows:
            if row.number in reasons and row.number != last:
                file.write(as_json({**row.own, REASON: reasons[row.number]}) + "\n")
                last = row.number
    _write_folder(path, folder / "selected")
    return reasons


def _write_folder(lines: Path, folder: Path) -> None:
    """The same rows as `datasets` keeps them, where one type fits each column."""
    import datasets
    from datasets.exceptions import DatasetGenerationError

    made, cache = folder.with_name(".selected.new"), folder.with_name(".selected.cache")
    datasets.disable_progress_bars()
    try:
        if lines.stat().st_size:
            datasets.Dataset.from_json(str(lines), cache_dir=str(cache)).save_to_disk(str(made))
    except DatasetGenerationError as error:
        cause = error.__cause__
        progress(f"{folder}: not written, a column has values of several types ({cause}); {lines} has all rows")
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    if made.exists():
        made.rename(folder)
