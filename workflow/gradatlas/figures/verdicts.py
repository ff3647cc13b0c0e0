"""The verdicts laid out: a matrix of symbols (layer gradients), a list with numbers (learning dynamics), and a table.

All from `gradatlas.claims.rows`. In the matrix claims stand down and models on datasets across; a claim of the second
study is about few models, so its number fits beside its symbol.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import altair as alt
import polars as pl

from gradatlas.charts import theme
from gradatlas.charts.names import TERMS
from gradatlas.charts.panel import nothing
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
SIZES = {"holds": 80, "fails": 65, "inconclusive": 55}
_LEGEND = "Disc: holds. Cross: fails. Dash: inconclusive."
_TOOLTIP = ("statement", "verdict", "remark")
# Of the matrix, in pixels: height of a row, widths of a model and at least of a dataset, and of all columns of a block.
_ROW, _MODEL, _DATASET, _ACROSS = 17, 16, 78, 430
# Size of the type of headers.
_HEAD = 10
# Labels of rows are cut beyond this many pixels.
_LABEL = 340
# Between a line's key and its text.
_APART = "\u2502"
# Of the list: height of a row, width, and where the columns beside the symbols begin.
_LISTED, _WIDTH = 16, 430
_PLACES = {"number": 22, "claimed": 190, "headroom": 265, "published": 325, "remark": 380}


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
        return theme.Heading(f"No claim on {STUDIES[study].lower()} was tested", (), (UNTESTED[study],))
    missing = len(claim_rows.not_requested(rows))
    lines = [
        _LEGEND + (" Empty: does not apply, or was not measured." if study != DYNAMICS else ""),
        f"* Here {claim_rows.STAND_IN}" if rows["of_two"].any() else "",
        "Published: numbers at the study’s scale, on HH." if study == DYNAMICS else "",
        f"{missing} claims more need runs or data that this configuration does not make." if missing else "",
        NOTES[study],
    ]
    return theme.Heading(counts[0], tuple(counts[1:]), tuple(filter(None, lines)))


def matrix_chart(rows: pl.DataFrame, study: str = GRADIENTS) -> alt.TopLevelMixin:
    """A panel per group, claims in the order of their sheet; columns by dataset, in each a place per model.

    An untrained network is one of the models: whether it shows the same is in the same row. More datasets than fit a
    page are in blocks below one another. The models' numbers are explained below the title; a star marks ability by
    the likelier of two responses.
    """
    made = heading(rows, study)
    rows = rows.filter(pl.col("group") != "").with_columns(
        pl.when(pl.col("mark") == "").then(pl.lit("stands")).otherwise("mark").alias("part")
    )
    if rows.is_empty():
        return nothing(made)
    models = models_of(rows)
    key = ", ".join(f"{place} {name}" for name, place in models.items())
    made = theme.Heading(made.title, (key, *made.subtitle), made.caption)
    parts = [_block(rows.filter(pl.col("dataset").is_in(keys)), models) for keys in blocks(rows)]
    return alt.vconcat(*parts, spacing=30, **theme.headed(made, 2))


def models_of(rows: pl.DataFrame) -> dict[str, int]:
    """The models by title, each with its number."""
    return {name: place + 1 for place, name in enumerate(rows.sort("model")["model_title"].unique(maintain_order=True))}


def columns_of(rows: pl.DataFrame) -> dict[str, list[str]]:
    """The datasets, by key in the order of the table, each with the titles of the models that have a verdict there."""
    ordered = rows.sort("place")["dataset"].unique(maintain_order=True)
    parts = {key: rows.filter(pl.col("dataset") == key).sort("model") for key in ordered}
    return {key: part["model_title"].unique(maintain_order=True).to_list() for key, part in parts.items()}


def blocks(rows: pl.DataFrame) -> list[list[str]]:
    """The datasets of each block: those that share a claim, as many as fit beside one another, and one at least.

    Datasets of different claims beside one another would be mostly empty.
    """
    columns, claims = columns_of(rows), dict(rows.group_by("dataset").agg(pl.col("claim").unique()).iter_rows())
    joined: list[tuple[list[str], set[str]]] = []
    for key in columns:
        touched = [group for group in joined if group[1].intersection(claims[key])]
        joined = [group for group in joined if group not in touched]
        names = [other for group in touched for other in group[0]]
        joined.append(([*names, key], set(claims[key]).union(*(group[1] for group in touched))))
    found = []
    for names, _ in joined:
        room = 0
        for key in names:
            room -= _across(columns[key])
            if room < 0:
                found.append([])
                room = _ACROSS - _across(columns[key])
            found[-1].append(key)
    return found


def lines_of(part: pl.DataFrame) -> list[str]:
    """The lines of a group: a claim of several kinds of responses has a line of its own above theirs.

    Each is a claim's key and, behind `_APART`, what readers see.
    """
    lines: dict[str, None] = {}
    for row in part.to_dicts():
        if row["of"]:
            lines[f"{row['claim']}{_APART}{row['title']}:"] = None
        lines[row["line"]] = None
    return list(lines)


def _line(claim: str, title: str, of: str) -> str:
    """The line of a row: the claim's title, or the kind of responses by the name that readers know."""
    names = {key: name[:1].lower() + name[1:] for key, name in TERMS.items()} | {"none": "None"}
    # Two kinds of one name stay apart by their keys.
    return f"{claim} {of}{_APART}{', '.join(names.get(part, part) for part in of.split(', ')) if of else title}"


def _across(models: Sequence[str]) -> int:
    """The width of a dataset's columns."""
    return max(_DATASET, _MODEL * len(models) + 8)


def _block(rows: pl.DataFrame, models: Mapping[str, int]) -> alt.VConcatChart:
    centres, heads, numbers, width = {}, [], [], 0
    titles = dict(rows.select("dataset", "dataset_title").unique(maintain_order=True).rows())
    for key, names in columns_of(rows).items():
        across = _across(names)
        start = width + (across - _MODEL * (len(names) - 1)) / 2
        places = {name: start + _MODEL * place for place, name in enumerate(names)}
        centres |= {(key, name): place for name, place in places.items()}
        stars = set(rows.filter((pl.col("dataset") == key) & pl.col("of_two"))["model_title"])
        lines = theme.wrapped(titles[key], across - 4, _HEAD)[::-1]
        heads += [{"x": width + across / 2, "y": -16 - 12 * up, "text": text} for up, text in enumerate(lines)]
        numbers += [{"x": place, "text": f"{models[name]}{'*' * (name in stars)}"} for name, place in places.items()]
        width += across
    keys = rows.select("dataset", "model_title").rows()
    lines = [_line(*each) for each in rows.select("claim", "title", "of").rows()]
    shown = rows.with_columns(pl.Series("x", [centres[key] for key in keys]), pl.Series("line", lines))
    scale = alt.Scale(domain=[0, width], nice=False, zero=False)
    x = alt.X("x:Q", scale=scale, axis=None)
    panels = []
    for group in (name for name in GROUPS if name in set(rows["part"])):
        part = shown.filter(pl.col("part") == group)
        names = lines_of(part)
        down = alt.Axis(
            labelLimit=_LABEL, title=None, ticks=False, domain=False, grid=True,
            labelExpr=f"split(datum.label, '{_APART}')[1]",
        )  # fmt: skip
        y = alt.Y("line:N", scale=alt.Scale(domain=names), sort=names, axis=down)
        tooltip = [*_TOOLTIP, "model_title", "dataset_title", "n", "ability_by"]
        layers = [_symbols(theme.Chart(part.select("line", "x", *tooltip))).encode(x=x, y=y, tooltip=tooltip)]
        if not panels:
            over = {"baseline": "bottom", "fontSize": _HEAD, "fill": theme.INK}
            text = theme.Chart(alt.InlineData(numbers)).mark_text(**over | {"fill": theme.QUIET})
            layers.append(text.encode(x=x, y=alt.value(-2), text="text:N"))
            for head in heads:
                text = theme.Chart(alt.InlineData([head])).mark_text(**over)
                layers.append(text.encode(x=x, y=alt.value(head["y"]), text="text:N"))
        title = alt.Title(GROUPS[group], style="panel-title", offset=6)
        panels.append(theme.layer(*layers).properties(width=width, height=_ROW * len(names), title=title))
    return alt.vconcat(*panels, spacing=10)


def can_conclude() -> pl.Expr:
    """Whether a row has a verdict, or a test of its own: one seed of a training has neither, nor a missing number."""
    return (pl.col("verdict") != "inconclusive") | (pl.col("p_adjusted") != "")


def list_chart(rows: pl.DataFrame) -> alt.TopLevelMixin:
    """A panel per model and its data; claims in the order of their sheet, each with its number.

    Rows that cannot conclude are left out, and counted in the caption.
    """
    made, counted = heading(rows, DYNAMICS), pl.col("group") != ""
    lost = rows.filter(counted & ~can_conclude()).height
    if lost:
        line = (
            f"Left out: {lost} rows that cannot conclude, since they are of fewer seeds than three, have no number or "
            "are about a model that cannot do the task; results/tables/claims.md has them."
        )
        made = theme.Heading(made.title, (*made.subtitle, f"not shown: {lost} that cannot conclude"), made.caption)
        made = made.with_lines([line])
    control = pl.when(pl.col("group") == "control").then(pl.lit(" (control)")).otherwise(pl.lit(""))
    rows = rows.filter(counted & can_conclude()).with_columns(
        pl.format("{} · {}", "model_title", "dataset_title").alias("panel"),
        (pl.col("row") + control).alias("line"),
    )
    places = {name: place for name, place in _PLACES.items() if (rows[name] != "").any()}
    panels = []
    for (panel,), part in rows.group_by("panel", maintain_order=True):
        names = part["line"].to_list()
        axis = alt.Axis(title=None, ticks=False, domain=False, grid=False, labelLimit=_LABEL)
        base = theme.Chart(part.select("line", *places, *_TOOLTIP[:2])).encode(
            y=alt.Y("line:N", scale=alt.Scale(domain=names), sort=names, axis=axis)
        )
        parts = [_symbols(base).encode(x=alt.value(8), tooltip=list(_TOOLTIP[:2]))]
        head = theme.Chart(pl.DataFrame({"x": [0]}))
        for name, place in places.items():
            text = {"align": "left", "fontSize": _HEAD}
            parts.append(
                base.mark_text(baseline="middle", fill=theme.INK, **text).encode(x=alt.value(place), text=f"{name}:N")
            )
            parts.append(
                head.mark_text(baseline="bottom", fill=theme.QUIET, text=COLUMNS[name], **text).encode(
                    x=alt.value(place), y=alt.value(-3)
                )
            )
        head_line = alt.Title(panel, style="panel-title", offset=12)
        panels.append(theme.layer(*parts).properties(width=_WIDTH, height=_LISTED * len(names), title=head_line))
    return alt.vconcat(*panels, spacing=14, **theme.headed(made, 2)) if panels else nothing(made)


def _symbols(chart: alt.Chart) -> alt.Chart:
    """Marks whose shape, colour and size are the verdict's."""

    def scaled(kind, values: dict):
        scale = alt.Scale(domain=list(values), range=list(values.values()))
        return kind("verdict:N", scale=scale, legend=alt.Legend(title=None))

    return chart.mark_point(filled=True, opacity=1, strokeWidth=1.6).encode(
        shape=scaled(alt.Shape, SHAPES), color=scaled(alt.Color, theme.COLOURS["verdict"]), size=scaled(alt.Size, SIZES)
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
