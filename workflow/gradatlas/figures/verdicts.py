"""The verdicts laid out: a matrix of symbols (layer gradients), a list with numbers (learning dynamics), and a table.

All from `gradatlas.claims.rows`. In the matrix claims stand down and models on datasets across; a claim of the second
study is about few models, so its number fits beside its symbol.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import altair as alt
import polars as pl

from gradatlas.charts import theme
from gradatlas.charts.panel import in_pieces, nothing
from gradatlas.charts.save import save
from gradatlas.charts.tables import Section, markdown
from gradatlas.claims import rows as claim_rows
from gradatlas.claims.rows import COLUMNS, DYNAMICS, GRADIENTS, GROUPS, NOTES, QUALITY, STUDIES, UNTESTED
from gradatlas.core.files import write_text

# Verdicts differ in shape, in lightness and in filling: they stay apart in greyscale and for colour-blind readers.
SHAPES = {
    "holds": "circle",
    "fails": "M-.8,-1L0,-.25L.8,-1L1,-.8L.25,0L1,.8L.8,1L0,.25L-.8,1L-1,.8L-.25,0L-1,-.8Z",
    "inconclusive": "M-.8,-.18H.8V.18H-.8Z",
}
COLOURS = {"holds": "#1d5f4c", "fails": "#d94a1f", "inconclusive": theme.RULE}
SIZES = {"holds": 90, "fails": 75, "inconclusive": 60}
_LEGEND = "Disc: holds. Cross: fails. Dash: inconclusive."
_TOOLTIP = ("statement", "verdict", "remark")
# Height of a row and width of a column of the matrix; so many columns and their names fit beside the claims on a page.
_ROW, _COLUMN, _ACROSS = 17, 22, 30
# Of the list: height of a row, width, and where the columns beside the symbols begin.
_LISTED, _WIDTH = 15, 600
_PLACES = {"number": 22, "claimed": 170, "headroom": 245, "published": 305, "remark": 365}


def draw_verdicts(
    claims: str | Path,
    matrix: str | Path,
    listed: str | Path,
    quality: str | Path,
    formats: Sequence[str],
    titles: Mapping[str, str],
) -> None:
    """Draw the claims table (Parquet) as ``{matrix}.{format}`` and, of the second and the third study, as
    ``{listed}.{format}`` and ``{quality}.{format}``.

    `titles`: of the models and datasets, by key.
    """
    rows = claim_rows.read_rows(claims, titles)
    charts = (
        (matrix, matrix_chart(rows.filter(pl.col("study") == GRADIENTS))),
        (listed, list_chart(rows.filter(pl.col("study") == DYNAMICS))),
        (quality, matrix_chart(rows.filter(pl.col("study") == QUALITY), QUALITY)),
    )
    for output, chart in charts:
        save(chart, output, formats)


def heading(rows: pl.DataFrame, study: str) -> theme.Heading:
    """How many tests of the study's claims have which verdict; what is withdrawn and the controls are counted apart."""
    counts = claim_rows.counts(rows)
    if not counts:
        return theme.Heading(f"No claim on {STUDIES[study].lower()} was tested", (UNTESTED[study],))
    missing = len(claim_rows.not_requested(rows))
    lines = [
        f"{'; '.join(counts[1:])}." if counts[1:] else "",
        _LEGEND + (" Empty: does not apply, or was not measured." if study != DYNAMICS else ""),
        f"* Here {claim_rows.STAND_IN}" if rows["of_two"].any() else "",
        "Published: numbers at the study's scale, on HH." if study == DYNAMICS else "",
        f"{missing} claims more need runs or data that this configuration does not make." if missing else "",
        NOTES[study],
    ]
    return theme.Heading(counts[0], tuple(filter(None, lines)))


def matrix_chart(rows: pl.DataFrame, study: str = GRADIENTS) -> alt.TopLevelMixin:
    """A panel per group; claims in the order of their sheet, columns by dataset, model and relation.

    More columns than fit a page are in blocks below one another, the models of a dataset together. The samples
    behind a row are in its name; a star marks ability by the likelier of two responses.
    """
    title = theme.heading_of(heading(rows, study), 2)
    rows = columns_of(rows.filter(pl.col("group") != ""))
    if rows.is_empty():
        return nothing(title)
    parts = [_block(rows.filter(pl.col("column").is_in(columns)), columns) for columns in blocks(rows)]
    return alt.vconcat(*parts, title=title, spacing=40)


def columns_of(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with their place in the matrix: `column`, and `line` with the number of samples."""
    least, most = (bound.over("row", "group") for bound in (pl.col("samples").min(), pl.col("samples").max()))
    span = pl.when(least != most).then(pl.format("{}–{}", least, most)).otherwise(pl.format("{}", least))
    star = pl.when("of_two").then(pl.lit(" *")).otherwise(pl.lit(""))
    return rows.with_columns(
        pl.format("{} · {}{}", "dataset_title", "model_title", star).alias("column"),
        pl.format("{} (n {})", "row", span).alias("line"),
    )


def blocks(rows: pl.DataFrame) -> list[list[str]]:
    """The columns of each block: whole datasets, as many as fit; one with too many models is cut."""
    columns = rows.select("dataset", "model", "column").unique().sort("dataset", "model")
    return in_pieces((group["column"].to_list() for group in columns.partition_by("dataset")), _ACROSS)


def _block(rows: pl.DataFrame, order: Sequence[str]) -> alt.VConcatChart:
    # As wide as the heading above it, if that leaves no gaps.
    column = max(_COLUMN, min(2 * _COLUMN, 2 * theme.panel_width(2) // len(order)))
    groups = [group for group in GROUPS if group in set(rows["group"])]
    panels = []
    for group in groups:
        part = rows.filter(pl.col("group") == group)
        names = part["line"].unique(maintain_order=True).to_list()
        plain = {"title": None, "ticks": False, "domain": False, "grid": True}
        across = alt.Axis(labels=group == groups[-1], labelAngle=-60, labelLimit=330, **plain)
        down = alt.Axis(labelLimit=400, **plain)
        symbols = _symbols(alt.Chart(part.select("line", "column", "n", "ability_by", *_TOOLTIP))).encode(
            x=alt.X("column:N", scale=alt.Scale(domain=order), sort=order, axis=across),
            y=alt.Y("line:N", scale=alt.Scale(domain=names), sort=names, axis=down),
            tooltip=[*_TOOLTIP, "column", "n", "ability_by"],
        )
        title = alt.Title(GROUPS[group], style="panel-title", offset=6)
        panels.append(symbols.properties(width=column * len(order), height=_ROW * len(names), title=title))
    return alt.vconcat(*panels, spacing=12)


def list_chart(rows: pl.DataFrame) -> alt.TopLevelMixin:
    """A panel per model and its data; claims in the order of their sheet, each with its number."""
    title = theme.heading_of(heading(rows, DYNAMICS), 2)
    control = pl.when(pl.col("group") == "control").then(pl.lit(" (control)")).otherwise(pl.lit(""))
    rows = rows.filter(pl.col("group") != "").with_columns(
        pl.format("{} · {}", "model_title", "dataset_title").alias("panel"),
        (pl.col("row") + control).alias("line"),
        pl.col("remark").str.replace("; over its probes alone", ", alone"),
    )
    panels = []
    for (panel,), part in rows.group_by("panel", maintain_order=True):
        names = part["line"].to_list()
        axis = alt.Axis(title=None, ticks=False, domain=False, grid=False, labelLimit=400)
        base = alt.Chart(part.select("line", *_PLACES, "statement", "verdict")).encode(
            y=alt.Y("line:N", scale=alt.Scale(domain=names), sort=names, axis=axis)
        )
        parts = [_symbols(base).encode(x=alt.value(8), tooltip=list(_TOOLTIP))]
        head = alt.Chart(pl.DataFrame({"x": [0]}))
        for name, place in _PLACES.items():
            text = {"align": "left", "fontSize": 10}
            parts.append(
                base.mark_text(baseline="middle", fill=theme.INK, **text).encode(x=alt.value(place), text=f"{name}:N")
            )
            parts.append(
                head.mark_text(baseline="bottom", fill=theme.QUIET, text=COLUMNS[name], **text).encode(
                    x=alt.value(place), y=alt.value(-3)
                )
            )
        head_line = alt.Title(panel, style="panel-title", offset=12)
        panels.append(alt.layer(*parts).properties(width=_WIDTH, height=_LISTED * len(names), title=head_line))
    return alt.vconcat(*panels, title=title, spacing=14) if panels else nothing(title)


def _symbols(chart: alt.Chart) -> alt.Chart:
    """Marks whose shape, colour and size are the verdict's."""

    def scaled(kind, values: dict):
        scale = alt.Scale(domain=list(values), range=list(values.values()))
        return kind("verdict:N", scale=scale, legend=alt.Legend(title=None))

    return chart.mark_point(filled=True, opacity=1, strokeWidth=1.6).encode(
        shape=scaled(alt.Shape, SHAPES), color=scaled(alt.Color, COLOURS), size=scaled(alt.Size, SIZES)
    )


def write_verdicts(claims: str | Path, output: str | Path) -> None:
    """The claims table as Markdown: a section per claim, a row per number."""
    rows = claim_rows.read_rows(claims)
    parts = ["# Claims\n", "" if claim_rows.counts(rows) else f"No claim was tested. {UNTESTED[GRADIENTS]}\n"]
    for study, title in STUDIES.items():
        own = rows.filter((pl.col("study") == study) & pl.col("requested"))
        if own.is_empty():
            continue
        notes = [NOTES[study], *([claim_rows.INTERVALS, claim_rows.stand_in(own)] if study == GRADIENTS else [])]
        names = [name for name in claim_rows.columns(own) if name != "claimed"]
        sections = [
            Section(
                first["title"] + (f" ({first['mark']})" if first["mark"] else ""),
                [COLUMNS[name] for name in names],
                [[row[name] or "–" for name in names] for row in group],
                left=len(names),
                lead=f"{first['source']}. The number: {first['statistic']}, claimed: {first['claimed']}",
            )
            for first, group in claim_rows.by_claim(own)
        ]
        parts.append(markdown(title, filter(None, notes), sections))
    missing = claim_rows.not_requested(rows)
    if missing:
        notes = ["Claims whose runs or data this configuration does not make; they are not counted."]
        rows = list(missing.items())
        parts.append(markdown("Not tested", notes, [Section("", ("Claim", "Needs"), rows, left=2)]))
    write_text(output, "\n".join(filter(None, parts)))
