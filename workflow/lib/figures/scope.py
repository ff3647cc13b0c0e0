"""The scope of a study (its Table 1): which tasks, datasets, variants, responses and models were measured, and n."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from workflow.lib.figures import findings, latex
from workflow.lib.figures.names import PIPELINE_CHECK, in_order, label, relations_in_order, variants_in_order
from workflow.lib.figures.tables import escaped, write_files
from workflow.lib.tables import read_table

TITLE = "Scope"
NOTE = (
    "What was measured: for each dataset and kind of responses, the usable samples of each variant (over the models), "
    "and the models by kind. Models that were measured on other datasets and not on this one are named."
)
KINDS = ("base", "instruct", "random")
_COLUMNS = ("task", "dataset", "title", "model", "kind", "variant", "relation", "loss_tokens", "n", "n_ok", "purpose")
# Shares of the line, set ragged: narrow columns of words have no room to be even.
_SHARES = (0.09, 0.19, 0.14, 0.30, 0.20)
_COLUMNS_OF_TEXT = "".join(rf">{{\raggedright\arraybackslash}}p{{{share:.2f}\linewidth}}" for share in _SHARES)


@dataclass(frozen=True)
class Sheets:
    """Of each dataset its (title, task), of each model its kind, by key and in order."""

    datasets: Mapping[str, tuple[str, str]]
    models: Mapping[str, str]


def write_scope(statistics: Sequence[str | Path], sheets: Sheets, output: str | Path) -> None:
    """Write the scope of all `statistics` folders into the folder `output`, as ``scope`` in each of the formats.

    Parquet and CSV have a row a task, dataset, model, variant, relation and token set, with the samples asked for (`n`)
    and used (`n_ok`). `InputError` where a folder lacks its cells table.
    """
    cells = pl.concat([pl.from_arrow(read_table("cells", Path(folder) / "cells.parquet")) for folder in statistics])
    frame = tidy(cells, sheets)
    header, rows = table(frame, sheets)
    rule = ["---"] * len(header)
    lines = [f"| {' | '.join(map(escaped, line))} |" for line in (header, rule, *rows)]
    markdown = "\n\n".join([f"# {TITLE}", NOTE, "\n".join(lines)]) + "\n"
    tex = latex.preamble(NOTE) + latex.longtable(f"{TITLE}: what was measured", _COLUMNS_OF_TEXT, header, rows)
    write_files(Path(output) / "scope", frame, markdown, tex)


def tidy(cells: pl.DataFrame, sheets: Sheets) -> pl.DataFrame:
    """The cells with what the sheets say of them, in the sheets' order."""
    orders = {
        "dataset": list(sheets.datasets),
        "model": in_order(cells["model"].unique(), sheets.models),
        "relation": relations_in_order(cells["relation"].unique()),
        "variant": variants_in_order(cells["variant"].unique()),
    }
    ranks = [pl.col(key).replace_strict(keys, range(len(keys)), return_dtype=pl.Int32) for key, keys in orders.items()]
    said = {key: [sheets.datasets[name][i] for name in sheets.datasets] for i, key in enumerate(("title", "task"))}
    names = list(sheets.datasets)
    return (
        cells.with_columns(
            *(
                pl.col("dataset").replace_strict(names, texts, return_dtype=pl.String).alias(key)
                for key, texts in said.items()
            ),
            pl.col("model").replace_strict(sheets.models, default="", return_dtype=pl.String).alias("kind"),
        )
        .sort(*ranks, "loss_tokens")
        .select(_COLUMNS)
    )


def table(frame: pl.DataFrame, sheets: Sheets) -> tuple[list[str], list[list[str]]]:
    """Header and rows for a reader: a row a dataset and kind of responses."""
    whole = frame.filter(pl.col("loss_tokens") == "all")
    everyone = whole["model"].unique(maintain_order=True).to_list()
    rows = []
    for (dataset, relation), group in whole.group_by("dataset", "relation", maintain_order=True):
        title, task = sheets.datasets[dataset]
        models = group.select("model", "kind").unique(maintain_order=True)
        kinds = models["kind"].to_list()
        missing = [name for name in everyone if name not in set(models["model"])]
        checks = sorted(group.filter(pl.col("purpose") == PIPELINE_CHECK)["model"].unique())
        said = [
            ", ".join(f"{kinds.count(kind)} {kind}" for kind in KINDS if kind in kinds),
            *([f"not {', '.join(missing)}"] if missing else []),
            *([f"pipeline check: {', '.join(checks)}"] if checks else []),
        ]
        counts = findings.counted(group.with_columns(pl.col("n_ok").alias("n")))
        rows.append([label(task), title, label(relation), counts, "; ".join(said)])
    return ["Task", "Dataset", "Responses", "Samples by variant", "Models"], rows
