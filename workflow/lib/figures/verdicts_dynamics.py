"""The second study's verdicts as a list: each claim is about few models, so its number fits beside its symbol."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import altair as alt
import polars as pl

from workflow.lib.figures import theme
from workflow.lib.figures.save import save
from workflow.lib.figures.tables import three_digits
from workflow.lib.figures.verdicts import COLOURS, DYNAMICS, NOTE_DYNAMICS, SHAPES, SIZES, counted, scaled
from workflow.lib.tables import read_table

_ROW = 15
# Where the columns beside the symbols begin, and end.
_COLUMNS = {"number": 22, "claimed": 175, "published": 262, "remark": 330}
_HEADS = {"number": "Number, 95 % interval", "claimed": "Claimed", "published": "Published", "remark": "Remark"}
_WIDTH = 600
_TITLES = {"softmax": "Softmax", "classifier": "Image classifier", "losses": "Formulas"}


def draw_verdicts(
    claims: str | Path, output: str | Path, formats: Sequence[str], titles: Mapping[str, str]
) -> dict[str, str]:
    """Draw the second study's rows of the claims table as ``{output}.{format}``; returns the file names by format.

    `titles`: of the models, by key.
    """
    table = pl.from_arrow(read_table("claims", claims)).filter(pl.col("study") == DYNAMICS)
    return save(chart(listed(table, titles), _not_asked(table)), output, formats)


def listed(table: pl.DataFrame, titles: Mapping[str, str]) -> pl.DataFrame:
    """The rows that are counted, with what stands in each: `row`, `number`, `claimed`, `published`, `remark`, `group`.

    One of several seeds is left to the table: its verdict is that over seeds.
    """
    names = {**_TITLES, **titles}
    rows = []
    for row in table.filter(~pl.col("status").is_in(["seed", "not_asked"])).to_dicts():
        model, _, over = row["model"].partition(",")
        number = three_digits(row["value"])
        if row["low"] is not None:
            number += f" [{three_digits(row['low'])}, {three_digits(row['high'])}]"
        bound = f"{row['threshold']:g}".replace("-", "−")
        within = f"{bound} ± {row['margin']:g}" if row["direction"] == "within" else f"{row['direction']} {bound}"
        told = {name: row[name] for name in ("claim", "title", "relation", "verdict", "statement", "reason")}
        rows.append(
            told
            | {
                "group": f"{names.get(model, model)}{over and f',{over}'} · {row['dataset']}",
                "panel": row["status"],
                "number": number,
                "claimed": within,
                "published": "" if row["published"] is None else three_digits(row["published"]),
                "remark": row["reason"].replace("; over its probes alone", ", alone"),
            }
        )
    columns = ("claim", "title", "relation", "verdict", "statement", "reason", "group", "panel", *_COLUMNS)
    frame = pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String))
    several = pl.col("relation").n_unique().over("claim", "group") > 1
    # Of one run alone, the run goes without saying.
    one_run = pl.col("relation").str.split("/").list.first().n_unique().over("claim", "group") == 1
    short = pl.when(one_run).then(pl.col("relation").str.replace(r"^[^/]*/", "")).otherwise("relation")
    short = short.str.replace_all("_", " ").str.replace(":", " against ")
    control = pl.when(pl.col("panel") == "control").then(pl.lit(" (control)")).otherwise(pl.lit(""))
    of = pl.when(several).then(pl.lit(" · ") + short).otherwise(pl.lit(""))
    return frame.with_columns((pl.col("title") + of + control).alias("row"))


def _not_asked(table: pl.DataFrame) -> int:
    return table.filter(pl.col("status") == "not_asked")["claim"].n_unique()


def heading(table: pl.DataFrame, not_asked: int) -> theme.Heading:
    """How many came out how, and how many claims this configuration does not ask for."""
    if table.is_empty():
        return theme.Heading(
            "No claim on learning dynamics was tested", ("No claim is about the runs of this configuration.",)
        )
    lines = ["Disc: holds. Cross: fails. Dash: inconclusive. Published: numbers at the study's scale, on HH."]
    if not_asked:
        lines.append(f"{not_asked} claims more need runs or data that this configuration does not ask for.")
    first, *apart = counted(table)
    return theme.Heading(first, (*([f"{'; '.join(apart)}."] if apart else []), *lines, NOTE_DYNAMICS))


def chart(table: pl.DataFrame, not_asked: int = 0) -> alt.TopLevelMixin:
    """A panel a model and its data; claims in the order of their sheet."""
    title = theme.heading_of(heading(table, not_asked), 2)
    if table.is_empty():
        nothing = alt.Chart(pl.DataFrame({"text": ["nothing to show"]})).mark_text(style="nothing")
        return nothing.encode(text="text:N").properties(title=title, width=theme.WIDTH // 2, height=60)
    panels = []
    for (group,), rows in table.group_by("group", maintain_order=True):
        names = rows["row"].to_list()
        axis = alt.Axis(title=None, ticks=False, domain=False, grid=False, labelLimit=400)
        base = alt.Chart(rows).encode(y=alt.Y("row:N", scale=alt.Scale(domain=names), sort=names, axis=axis))
        symbols = base.mark_point(filled=True, opacity=1, strokeWidth=1.6).encode(
            x=alt.value(8),
            shape=scaled("shape", alt.Shape, SHAPES),
            color=scaled("color", alt.Color, COLOURS),
            size=scaled("size", alt.Size, SIZES),
            tooltip=["statement:N", "verdict:N", "reason:N"],
        )
        texts = [
            base.mark_text(align="left", baseline="middle", fontSize=10, fill=theme.INK).encode(
                x=alt.value(place), text=f"{name}:N"
            )
            for name, place in _COLUMNS.items()
        ]
        heads = alt.Chart(pl.DataFrame({"x": [0]}))
        over = [
            heads.mark_text(align="left", baseline="bottom", fontSize=10, fill=theme.QUIET, text=_HEADS[name]).encode(
                x=alt.value(place), y=alt.value(-3)
            )
            for name, place in _COLUMNS.items()
        ]
        panels.append(
            alt.layer(symbols, *texts, *over).properties(
                width=_WIDTH, height=_ROW * len(names), title=alt.Title(group, style="panel-title", offset=12)
            )
        )
    return alt.vconcat(*panels, title=title, spacing=14)
