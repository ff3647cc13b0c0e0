"""The audit as a figure: what share of each response set states the right answer, or is damaged, set by set."""

from collections.abc import Sequence
from pathlib import Path

import altair as alt
import polars as pl

from gradatlas.charts import theme
from gradatlas.charts.names import label, relations_in_order, variants_in_order
from gradatlas.charts.save import save
from gradatlas.core.errors import InputError
from gradatlas.core.tables import read_table
from gradatlas.data.tables import AUDIT
from gradatlas.study.relations import MEANT_WRONG, TOLERATED

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
    frame = shares(pl.from_arrow(read_table(AUDIT, audit)))
    if frame.is_empty():
        raise InputError(f"{audit}: holds no response set; build responses first")
    return save(chart(frame), output, formats)


def shares(table: pl.DataFrame) -> pl.DataFrame:
    """One row per response set and question: `share` of the responses, `count`, `of`, and whether it is `marked`.

    Labels are judged in the sets whose labels should all be wrong.
    """
    table = table.with_columns((pl.col("n") - pl.col("not_constructible")).alias("ok"))
    parts = []
    for name, title in SHOWN.items():
        labels = name == "label_equals_gold"
        part = table.filter(pl.col("relation").is_in(MEANT_WRONG)) if labels else table
        parts.append(
            part.filter(pl.col("ok") > 0).select(
                "dataset",
                "variant",
                "relation",
                pl.lit(title).alias("question"),
                pl.col(name).cast(pl.Int64).alias("count"),
                pl.col("labelled" if labels else "ok").cast(pl.Int64).alias("of"),
                (pl.col("marked") & labels).alias("marked"),
            )
        )
    rows = pl.concat(parts).filter(pl.col("count").is_not_null() & (pl.col("of") > 0))
    return rows.with_columns((pl.col("count") / pl.col("of")).alias("share"))


def heading(frame: pl.DataFrame) -> theme.Heading:
    """How many sets have labels that should be wrong and are right."""
    judged = frame.filter(pl.col("question") == SHOWN["label_equals_gold"])
    title = "What the response sets hold"
    if not judged.is_empty():
        marked = judged.filter("marked").height
        title = f"{marked} of {judged.height} response sets have right labels where all should be wrong"
    facts = ("share of the responses of each set", f"red: more than {TOLERATED:.0%} of the wrong labels are right")
    drawn = "By dataset and variant. Labels are judged where all should be wrong."
    return theme.Heading(title, facts, (drawn,))


def chart(frame: pl.DataFrame) -> alt.HConcatChart:
    """A column of points per question, a row per response set."""
    relation = pl.col("relation").str.replace_all("_", " ")
    name = pl.format("{} · {} · {}", "dataset", pl.col("variant").map_elements(label, pl.String), relation)
    frame = frame.with_columns(name.alias("set"))
    variants, relations = (order(frame[key].unique()) for key, order in
                           (("variant", variants_in_order), ("relation", relations_in_order)))  # fmt: skip
    sets = sorted(
        frame.select("dataset", "variant", "relation", "set").unique().rows(),
        key=lambda row: (row[0], variants.index(row[1]), relations.index(row[2])),
    )
    rows = [row[3] for row in sets]
    colour = alt.Scale(domain=[False, True], range=[theme.QUIET, theme.COLOURS["mark"]["fault"]])
    panels = []
    for question in (title for title in SHOWN.values() if title in set(frame["question"])):
        axis = alt.Axis(title=None, labelLimit=320, grid=True, ticks=False, labels=not panels)
        base = theme.Chart(frame.filter(pl.col("question") == question)).encode(
            x=alt.X("share:Q", title=question, scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%", tickCount=3)),
            y=alt.Y("set:N", sort=rows, scale=alt.Scale(domain=rows), axis=axis),
            color=alt.Color("marked:N", legend=None, scale=colour),
            tooltip=["dataset:N", "variant:N", "relation:N", "count:Q", "of:Q"],
        )
        panels.append(base.mark_circle(size=45, opacity=1).properties(width=110, height=_ROW * len(rows)))
    return alt.hconcat(*panels, spacing=theme.GAP, **theme.headed(heading(frame), 2))
