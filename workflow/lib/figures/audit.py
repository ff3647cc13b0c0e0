"""The audit as a figure: what share of each response set states the right answer, or is damaged, set by set."""

from collections.abc import Sequence
from pathlib import Path

import altair as alt
import polars as pl

from workflow.lib.errors import InputError
from workflow.lib.figures import theme
from workflow.lib.figures.names import label, relations_in_order, variants_in_order
from workflow.lib.figures.save import save
from workflow.lib.responses.relations import MEANT_WRONG, TOLERATED
from workflow.lib.tables import read_table

#: Columns of the audit table that are drawn, as shares, and their titles.
SHOWN = {
    "label_equals_gold": "Right labels",
    "missing_final_answer": "No final answer",
    "double_final_answer": "Two final answers",
    "artefacts": "Remains of cutting",
}
_ROW = 15


def draw_audit(audit: str | Path, output: str | Path, formats: Sequence[str]) -> dict[str, str]:
    """Draw the audit table (Parquet) as ``{output}.{format}``; returns the file names by format."""
    frame = shares(pl.from_arrow(read_table("audit", audit)))
    if frame.is_empty():
        raise InputError(f"{audit}: holds no response set; build responses first")
    return save(chart(frame), output, formats)


def shares(table: pl.DataFrame) -> pl.DataFrame:
    """One row per response set and question: `share` of the responses, `count`, `of`, and whether it is `marked`.

    Labels are judged in the sets whose labels should all be wrong.
    """
    ok = pl.col("n") - pl.col("not_constructible")
    table = table.with_columns(ok.alias("ok")).filter(pl.col("ok") > 0)
    parts = []
    for name, title in SHOWN.items():
        of = pl.col("labelled") if name == "label_equals_gold" else pl.col("ok")
        part = table.select(
            "dataset",
            "variant",
            "relation",
            pl.lit(title).alias("question"),
            pl.col(name).cast(pl.Int64).alias("count"),
            of.cast(pl.Int64).alias("of"),
            (pl.col("marked") & pl.lit(name == "label_equals_gold")).alias("marked"),
        )
        if name == "label_equals_gold":
            part = part.filter(pl.col("relation").is_in(MEANT_WRONG))
        parts.append(part)
    rows = pl.concat(parts).filter(pl.col("count").is_not_null() & (pl.col("of") > 0))
    return rows.with_columns((pl.col("count") / pl.col("of")).alias("share"))


def heading(frame: pl.DataFrame) -> theme.Heading:
    """Which sets have labels that should be wrong and are right, counted."""
    judged = frame.filter(pl.col("question") == SHOWN["label_equals_gold"])
    marked = judged.filter("marked")
    if judged.is_empty():
        title = "What the response sets hold; none of them has labels that should be wrong"
    elif marked.is_empty():
        title = "No response set has more than 1 % right labels where all should be wrong"
    else:
        worst = marked.sort("share", "dataset", descending=[True, False]).row(0, named=True)
        title = (
            f"{marked.height} of {judged.height} response sets have right labels where all should be wrong; the worst: "
            f"{worst['dataset']}, {label(worst['variant'])}, {worst['relation']}, {worst['count']:,} of {worst['of']:,}"
        )
    drawn = (
        "Share of the responses of each set, by dataset and variant. Labels are judged where all should be wrong; red: "
        f"more than {TOLERATED:.0%} are right."
    )
    return theme.Heading(title, (drawn,))


def chart(frame: pl.DataFrame) -> alt.HConcatChart:
    """A column of points a question, a row a response set."""
    order = [
        f"{dataset} · {label(variant)} · {relation.replace('_', ' ')}"
        for dataset in sorted(frame["dataset"].unique())
        for variant in variants_in_order(frame.filter(pl.col("dataset") == dataset)["variant"].unique())
        for relation in relations_in_order(frame.filter(pl.col("dataset") == dataset)["relation"].unique())
    ]
    name = pl.concat_str(
        "dataset",
        pl.col("variant").map_elements(label, return_dtype=pl.String),
        pl.col("relation").str.replace_all("_", " "),
        separator=" · ",
    )
    frame = frame.with_columns(name.alias("set"))
    rows = [entry for entry in order if entry in set(frame["set"])]
    questions = [title for title in SHOWN.values() if title in set(frame["question"])]
    panels = []
    for place, question in enumerate(questions):
        axis = alt.Axis(title=None, labelLimit=320, grid=True, ticks=False, labels=place == 0)
        base = alt.Chart(frame.filter(pl.col("question") == question)).encode(
            x=alt.X("share:Q", title=question, scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%", tickCount=3)),
            y=alt.Y("set:N", sort=rows, scale=alt.Scale(domain=rows), axis=axis),
            color=alt.Color(
                "marked:N", legend=None, scale=alt.Scale(domain=[False, True], range=[theme.QUIET, theme.MARKED])
            ),
            tooltip=["dataset:N", "variant:N", "relation:N", "count:Q", "of:Q"],
        )
        panels.append(base.mark_circle(size=45, opacity=1).properties(width=110, height=_ROW * len(rows)))
    return alt.hconcat(*panels, title=theme.heading_of(heading(frame), 2), spacing=theme.GAP)
