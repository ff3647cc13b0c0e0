"""The scope of a study (its Table 1): which tasks, datasets, variants, responses and models were measured, and n."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from gradatlas.charts.names import PIPELINE_CHECK, in_order, label, relations_in_order, variants_in_order
from gradatlas.charts.tables import Section, write_table
from gradatlas.core.tables import read_table
from gradatlas.figures.heading import counted
from gradatlas.figures.jobs import TableSettings
from gradatlas.statistics.tables import CELLS

TITLE = "Scope"
NOTE = (
    "What was measured: for each dataset and kind of responses, the usable samples of each variant (over the models), "
    "and the models by kind. Models that were measured on other datasets and not on this one are named."
)
KINDS = ("base", "instruct", "random")
_COLUMNS = ("task", "dataset", "title", "model", "kind", "variant", "relation", "loss_tokens", "n", "n_ok", "purpose")
# Shares of the line, set ragged: narrow columns of words have no room to be even.
_SHARES = (0.09, 0.19, 0.14, 0.30, 0.20)
_LAYOUT = "".join(rf">{{\raggedright\arraybackslash}}p{{{share:.2f}\linewidth}}" for share in _SHARES)


def write_scope(statistics: Sequence[str | Path], settings: TableSettings, output: str | Path) -> None:
    """Write the scope of all `statistics` folders into the folder `output`, as ``scope`` in each of the formats.

    Parquet and CSV have a row per task, dataset, model, variant, relation and token set: samples requested (`n`)
    and used (`n_ok`). `InputError` where a folder has no cells table.
    """
    cells = pl.concat([pl.from_arrow(read_table(CELLS, Path(folder) / "cells.parquet")) for folder in statistics])
    frame = tidy(cells, settings)
    header, rows = table(frame, settings)
    section = Section("", header, rows, left=len(header), columns=_LAYOUT, caption=f"{TITLE}: what was measured")
    write_table(Path(output) / "scope", frame, TITLE, NOTE, [section])


def tidy(cells: pl.DataFrame, settings: TableSettings) -> pl.DataFrame:
    """The cells with title, task and kind of the sheets, in the sheets' order."""
    kinds = {each.key: each.kind for each in settings.models}
    orders = {
        "dataset": [each.key for each in settings.datasets],
        "model": in_order(cells["model"].unique(), kinds),
        "relation": relations_in_order(cells["relation"].unique()),
        "variant": variants_in_order(cells["variant"].unique()),
    }
    ranks = [pl.col(key).replace_strict(keys, range(len(keys)), return_dtype=pl.Int32) for key, keys in orders.items()]
    about = {name: {each.key: getattr(each, name) for each in settings.datasets} for name in ("title", "task")}
    return (
        cells.with_columns(
            *(
                pl.col("dataset").replace_strict(texts, return_dtype=pl.String).alias(key)
                for key, texts in about.items()
            ),
            pl.col("model").replace_strict(kinds, default="", return_dtype=pl.String).alias("kind"),
        )
        .sort(*ranks, "loss_tokens")
        .select(_COLUMNS)
    )


def table(frame: pl.DataFrame, settings: TableSettings) -> tuple[list[str], list[list[str]]]:
    """Header and rows for a reader: a row per dataset and kind of responses."""
    complete = frame.filter(pl.col("loss_tokens") == "all")
    everyone = complete["model"].unique(maintain_order=True).to_list()
    datasets, rows = {each.key: each for each in settings.datasets}, []
    for (dataset, relation), group in complete.group_by("dataset", "relation", maintain_order=True):
        models = group.select("model", "kind").unique(maintain_order=True)
        kinds = models["kind"].to_list()
        missing = [name for name in everyone if name not in set(models["model"])]
        checks = sorted(group.filter(pl.col("purpose") == PIPELINE_CHECK)["model"].unique())
        text = [
            ", ".join(f"{kinds.count(kind)} {kind}" for kind in KINDS if kind in kinds),
            *([f"not {', '.join(missing)}"] if missing else []),
            *([f"pipeline check: {', '.join(checks)}"] if checks else []),
        ]
        counts = counted(group.with_columns(pl.col("n_ok").alias("n")))
        rows.append([label(datasets[dataset].task), datasets[dataset].title, label(relation), counts, "; ".join(text)])
    return ["Task", "Dataset", "Responses", "Samples by variant", "Models"], rows
