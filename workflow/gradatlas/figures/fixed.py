"""Claims on the study's own irrelevant responses beside the corrected ones: paired dots, and a table to read."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import altair as alt
import polars as pl

from gradatlas.charts import theme
from gradatlas.charts.numbers import with_interval
from gradatlas.charts.panel import in_pieces, nothing
from gradatlas.charts.save import save
from gradatlas.charts.tables import Section
from gradatlas.charts.tables import markdown as as_markdown
from gradatlas.claims.fixed import CORRECTED, UNKNOWN, compare, headline, over_seeds
from gradatlas.claims.tables import CLAIMS
from gradatlas.core.files import write_text
from gradatlas.core.spreadsheets import csv_of
from gradatlas.core.tables import read_table
from gradatlas.statistics.tables import CELLS

NAMES = {"published": "As published", "reference": "By the study’s algorithm", CORRECTED: "Corrected (derangement)"}
NOTE = (
    "The study’s irrelevant responses hold right answers among the wrong ones; the corrected ones (another sample’s "
    "response) never do. A conclusion survives where the claim holds on both, and does not where it fails on the "
    "corrected ones, each by its verdict of this run; where one of the two has none, there is no outcome."
)
SHOWN = (
    "Dots: the claim’s number over all projections, with its 95 % interval; line: the threshold (shaded: the margin). "
    "Controls, untrained networks and claims measured on one kind alone are in results/tables/fixed_data.md."
)
SHAPES = {"published": "square", "reference": "square", CORRECTED: "circle"}
# Height of a row, of one among many; where the numbers of a panel differ by more than this, a symmetric log axis.
_ROW, _MANY, _NARROW, _WIDTH, _STRETCH = 22, 16, 15, 430, 20
# No row is further from its axis than this many; a longer panel is cut between datasets.
_DOWN = 40


def write_fixed(
    claims: str | Path,
    cells: Sequence[str | Path],
    output: str | Path,
    tables: str | Path,
    formats: Sequence[str],
    titles: Mapping[str, str],
) -> pl.DataFrame:
    """Draw ``{output}.{format}``, write ``{tables}.csv`` and ``.md``, and return the comparison.

    `claims`: the table of verdicts; `cells`: one table per dataset. `titles`: of models and datasets, by key.
    """
    table = compare(read(claims), pl.concat(map(read_cells, cells)) if cells else None)
    save(chart(table, titles), output, formats)
    write_text(f"{tables}.csv", csv_of(table))
    write_text(f"{tables}.md", markdown(table))
    return table


def read(claims: str | Path) -> pl.DataFrame:
    """The table of verdicts."""
    return pl.from_arrow(read_table(CLAIMS, claims))


def read_cells(path: str | Path) -> pl.DataFrame:
    """A table of what the samples were."""
    return pl.from_arrow(read_table(CELLS, path))


def right_labels(row: Mapping) -> str:
    """How many of the study's responses state the right answer."""
    return "–" if row["labelled"] is None else f"{row['right_labels']:,} of {row['labelled']:,}"


def number(row: Mapping, side: str) -> str:
    """The number of one side with its interval."""
    return with_interval(*(row[f"{side}_{name}"] for name in ("value", "low", "high")))


def markdown(table: pl.DataFrame) -> str:
    """The comparison as Markdown: a section per claim."""
    header = (
        "Model",
        "Dataset",
        "The study’s",
        "Number",
        "Verdict",
        "Right answers",
        "Corrected",
        "Verdict",
        "Outcome",
    )
    sections = []
    for _, rows in table.group_by("claim", maintain_order=True):
        first = rows.row(0, named=True)
        mark = "" if first["claim_status"] == "stands" else f" ({first['claim_status']})"
        lines = [
            [
                f"{row['model']} (untrained: a control)" if row["status"] != row["claim_status"] else row["model"],
                *(row["dataset"], row["study_relation"]),
                *(number(row, "study"), row["study_verdict"] or "–", right_labels(row)),
                *(number(row, "fixed"), row["fixed_verdict"] or "–"),
                f"{row['outcome']}: {row['why']}" if row["why"] else row["outcome"],
            ]
            for row in rows.to_dicts()
        ]
        sections.append(Section(f"{first['title']}{mark}", header, lines, left=len(header)))
    return as_markdown("Which conclusions survive the fixed data", [headline(table), NOTE], sections)


def chart(table: pl.DataFrame, titles: Mapping[str, str]) -> alt.TopLevelMixin:
    """A panel per claim of the study; in it a row per model and dataset, with a dot and interval of either kind.

    Claims that were measured on one kind alone have none.
    """
    both = pl.col("study_value").is_not_null() & pl.col("fixed_value").is_not_null()
    rows = table.filter((pl.col("status") == "stands") & ~over_seeds()).filter(both.any().over("claim"))
    found, _, others = headline(table).rstrip(".").partition("; ")
    heading = theme.Heading(found, (others[:1].upper() + others[1:],), (SHOWN, NOTE))
    if rows.is_empty():
        return nothing(heading)
    panels = [
        part
        for claim in rows["claim"].unique(maintain_order=True)
        for part in _panels(rows.filter(pl.col("claim") == claim), titles)
    ]
    return alt.vconcat(*panels, spacing=16, **theme.headed(heading, 2))


def cuts(rows: pl.DataFrame) -> list[pl.DataFrame]:
    """The rows in pieces of at most `_DOWN`, the rows of a dataset together where they fit."""
    groups = (part["place"].to_list() for part in rows.with_row_index("place").partition_by("dataset"))
    return [rows[piece] for piece in in_pieces(groups, _DOWN)]


def _panels(rows: pl.DataFrame, titles: Mapping[str, str]) -> list[alt.LayerChart]:
    rows = rows.sort("dataset", "model", "study_relation", maintain_order=True)
    # One scale for all pieces of a claim.
    measure = _measure(rows.row(0, named=True), _placed(rows, titles)[1])
    return [_panel(each, titles, *measure, first=at == 0) for at, each in enumerate(cuts(rows))]


def _panel(
    rows: pl.DataFrame, titles: Mapping[str, str], scale: alt.Scale, axis: alt.Axis, *, first: bool
) -> alt.LayerChart:
    """One piece; `first` of its claim."""
    claim = rows.row(0, named=True)
    labels, data, outcomes = _placed(rows, titles)
    y_axis = alt.Axis(title=None, grid=False, domain=False, ticks=False, labelLimit=300)
    y = alt.Y("row:N", sort=labels, scale=alt.Scale(domain=labels), axis=y_axis)
    present = [kind for kind in SHAPES if any(row["kind"] == NAMES[kind] for row in data)]
    domain = [NAMES[kind] for kind in present]
    colour = alt.Color(
        "kind:N", scale=alt.Scale(domain=domain, range=[theme.COLOURS["source"][kind] for kind in present]), title=None
    )
    shape = alt.Shape("kind:N", scale=alt.Scale(domain=domain, range=[SHAPES[kind] for kind in present]), title=None)
    beside = alt.YOffset("kind:N", sort=domain, scale=alt.Scale(paddingOuter=0.6))
    base = theme.Chart(pl.DataFrame(data, infer_schema_length=None)).encode(y=y, yOffset=beside, color=colour)
    value, low = (alt.X(f"{name}:Q", scale=scale, axis=axis) for name in ("value", "low"))
    tooltip = [alt.Tooltip(f"{name}:Q", format=".3~g") for name in ("value", "low", "high")]
    tooltip = ["kind:N", *tooltip, "n:Q", "verdict:N", "reason:N"]
    bounds = theme.Chart(alt.InlineData([dict(zip(("low", "at", "high"), _bounds(claim), strict=True))]))
    band = bounds.mark_rect(style="band", color=theme.RULE).encode(x=low, x2="high:Q")
    parts = [
        *([band] if claim["margin"] is not None else []),
        bounds.mark_rule(style="zero").encode(x=alt.X("at:Q", scale=scale, axis=axis)),
        base.transform_filter("isValid(datum.low)").mark_rule(style="interval").encode(x=low, x2="high:Q"),
        base.mark_point(style="dot-alone", size=38).encode(x=value, shape=shape, tooltip=tooltip),
        theme.Chart(alt.InlineData(outcomes))
        .mark_text(style="number", align="left", dx=8)
        .encode(
            y=y,
            x=alt.value(_WIDTH),
            text="text:N",
            color=alt.condition(f"datum.text === '{UNKNOWN}'", alt.value(theme.QUIET), alt.value(theme.INK)),
        ),
    ]
    height = (_ROW if len(labels) <= _MANY else _NARROW) * len(labels)
    title = claim["title"] if first else f"{claim['title']}, continued"
    return theme.layer(*parts, width=_WIDTH, height=height, title=alt.Title(title, style="panel-title", offset=6))


def _placed(rows: pl.DataFrame, titles: Mapping[str, str]) -> tuple[list[str], list[dict], list[dict]]:
    """Names of the rows, their dots, and what became of each."""
    labels, data, outcomes = [], [], []
    for row in rows.to_dicts():
        where = f"{titles.get(row['model'], row['model'])} · {titles.get(row['dataset'], row['dataset'])}"
        labels.append(where if where not in labels else f"{where} ({row['model']}, {row['study_relation']})")
        outcomes.append({"row": labels[-1], "text": row["outcome"]})
        for side in ("study", "fixed"):
            if row[f"{side}_value"] is not None:
                shown = {name: row[f"{side}_{name}"] for name in ("value", "low", "high", "n", "verdict", "reason")}
                data.append(shown | {"kind": NAMES[row[f"{side}_relation"]], "row": labels[-1]})
    return labels, data, outcomes


def _bounds(row: Mapping) -> tuple[float, float, float]:
    margin = row["margin"] or 0
    return row["threshold"] - margin, row["threshold"], row["threshold"] + margin


def _measure(first: Mapping, data: Sequence[Mapping]) -> tuple[alt.Scale, alt.Axis]:
    """Scale and axis of a panel's numbers: of one that is forty times another both are to be read."""
    ends = [row[name] for row in data for name in ("value", "low", "high") if row[name] is not None]
    low, high = min(*ends, *_bounds(first)), max(*ends, *_bounds(first))
    least = min((abs(row["value"]) for row in data), default=1.0)
    stretched = max(abs(low), abs(high)) > _STRETCH * max(least, 0.01)
    reach = 0.04 * (high - low) if not stretched else 0.0
    ends = [low - reach, high + reach] if not stretched else [_beyond(low), _beyond(high)]
    spread = {"type": "symlog", "constant": 0.1} if stretched else {}
    words = f"{first['statistic']}{', symmetric log' if stretched else ''}"
    steps = [sign * 10.0**power for sign in (-1, 1) for power in range(-1, 5)]
    ticks = sorted(step for step in [0.0, *steps] if ends[0] <= step <= ends[1])
    return (
        alt.Scale(domain=ends, nice=False, zero=False, **spread),
        alt.Axis(
            title=words[:1].upper() + words[1:],
            grid=True,
            format="~r",
            **({"values": ticks} if stretched else {"tickCount": 6}),
        ),
    )


def _beyond(end: float) -> float:
    """A little further out on the symmetric log axis."""
    return end * 1.15 if end else 0.0
