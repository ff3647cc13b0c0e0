"""The verdicts as a matrix of symbols and as a table: claims and kinds of responses down, models on datasets across."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import altair as alt
import polars as pl

from workflow.lib.figures import theme
from workflow.lib.figures.ability import OF_TWO
from workflow.lib.figures.save import save
from workflow.lib.figures.tables import escaped, three_digits
from workflow.lib.files import write_text
from workflow.lib.tables import read_table

# Verdicts differ in shape, in lightness and in filling: they stay apart in greyscale and for colour-blind readers.
SYMBOLS = {"holds": "✓", "fails": "✗", "inconclusive": "·"}
SHAPES = {
    "holds": "circle",
    "fails": "M-.8,-1L0,-.25L.8,-1L1,-.8L.25,0L1,.8L.8,1L0,.25L-.8,1L-1,.8L-.25,0L-1,-.8Z",
    "inconclusive": "M-.8,-.18H.8V.18H-.8Z",
}
COLOURS = {"holds": "#1d5f4c", "fails": "#d94a1f", "inconclusive": theme.RULE}
SIZES = {"holds": 90, "fails": 75, "inconclusive": 60}
STATUSES = {
    "stands": "Claims of the study",
    "withdrawn": "Withdrawn by its authors",
    "control": "Controls",
    "untrained": "The same claims on untrained networks: controls",
}
_COUNTED = {
    "stands": "Claims of the study",
    "withdrawn": "Withdrawn",
    "control": "Controls",
    "untrained": "On untrained networks",
}
_ROW, _COLUMN = 17, 22
# So many columns and their names fit beside the claims on a page.
_ACROSS = 30
NOTE = (
    "A claim holds (fails) where the whole 95 % interval lies on the claimed (the other) side of its threshold and the "
    "p-value, corrected by Holm's method for all tests of that claim in this run, is below .05; else it is "
    "inconclusive, and the reason stands beside it. No verdict on a task that the model cannot do with the slowest "
    "variant that the claim uses, on fewer than 20 samples, or on a pipeline check. Thresholds stand in "
    "config/claims.tsv."
)
INTERVALS = (
    "The interval is of a number made of mean curves, as the study’s (a ratio of means), on the scale where it is "
    "symmetric; Wilcoxon’s p-value is of the samples’ own differences, by their signed ranks. The two ask the same "
    "question of different averages, and a verdict needs both. Tokens: mean response length of the two sides. "
    "Untrained: the same number of the network before training. p (Holm): p corrected for all tests of the claim, each "
    "projection too."
)
# By which test a model was found able, or not.
ABILITY_TESTS = {
    "answer": "own answers",
    "recall": "own answers (jobs and cities recalled)",
    OF_TWO: "likelier of two responses",
}
STAND_IN = (
    "the model’s own answers were not counted. Whether it can do the task is judged by which of two responses, the "
    "right and a wrong one, it finds likelier; that asks little of long responses (Simplified, Detailed)."
)


_UNTESTED = "No claim is about what was measured, or no model was measured on data that it is meant for."

# The second study's: what differs in how a verdict is reached.
DYNAMICS = "learning_dynamics"
NOTE_DYNAMICS = (
    "The rule is the first study’s. A claim about training rests on seeds: its interval is Student’s t over three or "
    "more, and with fewer it is inconclusive; what its probes alone would give is its reason. What is mathematics (the "
    "softmax, the formulas, one step) has no interval: the number lies where it is claimed, or does not. Thresholds "
    "stand in config/claims_dynamics.tsv."
)
NOTES = {DYNAMICS: NOTE_DYNAMICS}


def draw_verdicts(
    claims: str | Path, output: str | Path, formats: Sequence[str], titles: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Draw the first study's rows of the claims table (Parquet) as ``{output}.{format}``; returns the file names by
    format.

    `titles`: of the models and datasets, by key. The second study's: `verdicts_dynamics`.
    """
    table = pl.from_arrow(read_table("claims", claims)).filter(pl.col("study") != DYNAMICS)
    return save(chart(overall(table, titles or {})), output, formats)


def overall(table: pl.DataFrame, titles: Mapping[str, str]) -> pl.DataFrame:
    """The rows over all projections, each with its place: `row` a claim and relation, `column` a model and dataset.

    `panel` is the status, or ``untrained`` of a claim of the study on an untrained network; the samples behind a row
    stand in its name. Of a column with a star ability is by the likelier of two responses (`of_two`).
    """
    relation = pl.when(pl.col("relation") != "correct").then(
        pl.lit(" · ") + pl.col("relation").str.replace_all("_", " ")
    )
    # A control's relation is in its name, and the correct one goes without saying.
    only = pl.col("relation").n_unique().over("claim") > 1
    least, most = (
        bound.over("claim", "relation", "panel").cast(pl.String) for bound in (pl.col("n").min(), pl.col("n").max())
    )
    samples = (
        pl.lit(" (n ") + least + pl.when(least != most).then(pl.lit("–") + most).otherwise(pl.lit("")) + pl.lit(")")
    )
    return (
        table.filter(pl.col("projection") == "all")
        .with_columns(
            pl.when((pl.col("status") == "control") & (pl.col("claim_status") != "control"))
            .then(pl.lit("untrained"))
            .otherwise("status")
            .alias("panel"),
            *(pl.col(name).replace(titles).alias(f"{name}_title") for name in ("model", "dataset")),
        )
        .with_columns(
            (pl.col("title") + pl.when(only).then(relation.fill_null("")).otherwise(pl.lit("")) + samples).alias("row"),
            pl.concat_str("dataset_title", "model_title", separator=" · ").alias("column"),
            pl.col("ability_test").replace(ABILITY_TESTS).alias("ability"),
            (pl.col("ability_test") == OF_TWO).any().over("dataset", "model").alias("of_two"),
        )
        .with_columns(
            # Marked as the line in the heading is.
            pl.when("of_two").then(pl.col("column") + " *").otherwise("column").alias("column"),
        )
    )


def heading(table: pl.DataFrame) -> theme.Heading:
    """How many tests of the study's claims came out how; what is withdrawn and the controls are counted apart."""
    if table.is_empty():
        return theme.Heading("No claim was tested", (_UNTESTED,))
    lines = (
        "Disc: holds. Cross: fails. Dash: inconclusive. Empty: does not apply, or was not measured.",
        *([f"* Here {STAND_IN}"] if table["of_two"].any() else []),
        NOTE,
    )
    # The study's claims alone in the title.
    first, *apart = counted(table)
    return theme.Heading(first, (*([f"{'; '.join(apart)}."] if apart else []), *lines))


def counted(table: pl.DataFrame) -> list[str]:
    """How many tests came out how, panel by panel."""
    said = []
    for panel, title in _COUNTED.items():
        rows = table.filter(pl.col("panel") == panel)
        counts = [(rows["verdict"] == verdict).sum() for verdict in SYMBOLS]
        if sum(counts):
            said.append(f"{title}: {counts[0]} hold, {counts[1]} fail, {counts[2]} inconclusive")
    return said


def chart(table: pl.DataFrame) -> alt.TopLevelMixin:
    """A panel a status; claims in the order of their sheet, columns by dataset, model and relation.

    More columns than fit a page stand in blocks below one another, the models of a dataset together.
    """
    title = theme.heading_of(heading(table), 2)
    if table.is_empty():
        nothing = alt.Chart(pl.DataFrame({"text": ["nothing to show"]})).mark_text(style="nothing")
        return nothing.encode(text="text:N").properties(title=title, width=theme.WIDTH // 2, height=60)
    parts = [_block(table.filter(pl.col("column").is_in(columns)), columns) for columns in blocks(table)]
    return alt.vconcat(*parts, title=title, spacing=40)


def blocks(table: pl.DataFrame) -> list[list[str]]:
    """The columns of each block: whole datasets, as many as fit; one with too many models is cut."""
    columns = table.select("dataset", "model", "column").unique().sort("dataset", "model")
    found: list[list[str]] = []
    for _, rows in columns.group_by("dataset", maintain_order=True):
        names = rows["column"].to_list()
        if found and len(found[-1]) + len(names) <= _ACROSS:
            found[-1] += names
        else:
            found += [names[at : at + _ACROSS] for at in range(0, len(names), _ACROSS)]
    return found


def _block(table: pl.DataFrame, order: Sequence[str]) -> alt.VConcatChart:
    panels = []
    # As wide as the heading above it, if that leaves no gaps.
    column = max(_COLUMN, min(2 * _COLUMN, 2 * theme.panel_width(2) // len(order)))
    statuses = [status for status in STATUSES if status in set(table["panel"])]
    for status in statuses:
        rows = table.filter(pl.col("panel") == status)
        names = rows["row"].unique(maintain_order=True).to_list()
        last = status == statuses[-1]
        axis = alt.Axis(labels=last, ticks=False, domain=False, grid=True, labelAngle=-60, labelLimit=330, title=None)
        rows = rows.select("row", "column", "verdict", "statement", "reason", "n", "ability")
        panels.append(
            alt.Chart(rows)
            .mark_point(filled=True, opacity=1, strokeWidth=1.6)
            .encode(
                x=alt.X("column:N", scale=alt.Scale(domain=order), sort=order, axis=axis),
                y=alt.Y(
                    "row:N", scale=alt.Scale(domain=names), sort=names,
                    axis=alt.Axis(title=None, ticks=False, domain=False, grid=True, labelLimit=400),
                ),
                shape=scaled("shape", alt.Shape, SHAPES),
                color=scaled("color", alt.Color, COLOURS),
                size=scaled("size", alt.Size, SIZES),
                tooltip=["statement:N", "verdict:N", "reason:N", "column:N", "n:Q", "ability:N"],
            )
            .properties(
                width=column * len(order),
                height=_ROW * len(names),
                title=alt.Title(STATUSES[status], style="panel-title", offset=6),
            )
        )  # fmt: skip
    return alt.vconcat(*panels, spacing=12)


def scaled(channel: str, kind, values: dict):
    """A verdict's shape, colour or size."""
    scale = alt.Scale(domain=list(values), range=list(values.values()))
    return kind("verdict:N", scale=scale, legend=alt.Legend(title=None))


def write_verdicts(claims: str | Path, output: str | Path) -> None:
    """The claims table as Markdown, over all projections: a section a claim, a row a test."""
    table = pl.from_arrow(read_table("claims", claims)).filter(pl.col("projection") == "all")
    parts = ["# Claims", NOTE, INTERVALS]
    if (table["ability_test"] == OF_TWO).any():
        parts.append(f"Where ability is by the *{ABILITY_TESTS[OF_TWO]}*, {STAND_IN}")
    if table.is_empty():
        parts.append(f"No claim was tested. {_UNTESTED}")
    skipped = table.filter(pl.col("status") == "not_asked").unique(["claim", "reason"], maintain_order=True)
    studies = set()
    for _, rows in table.filter(pl.col("status") != "not_asked").group_by("claim", maintain_order=True):
        first = rows.row(0, named=True)
        if first["study"] in set(NOTES) - studies:
            parts += ["# Learning dynamics", NOTES[first["study"]]]
        studies.add(first["study"])
        mark = "" if first["claim_status"] == "stands" else f" ({first['claim_status']})"
        bound = f"within {first['margin']:g} of {first['threshold']:g}" if first["direction"] == "within" else (
            f"{first['direction']} {first['threshold']:g}"
        )  # fmt: skip
        parts.append(f"## {first['title']}{mark}")
        parts.append(f"{first['source']}. The number: {first['statistic']}, claimed to lie {bound}.")
        cells = [_cells(row) for row in rows.to_dicts()]
        header = [name for name in cells[0] if first["study"] not in NOTES or name not in _FIRST_STUDY]
        lines = [header, ["---"] * len(header), *([cell[name] for name in header] for cell in cells)]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    if skipped.height:
        parts += ["# Not asked", "Claims whose runs or data this configuration does not make; they are not counted."]
        parts.append("\n".join(f"- {row['title']}: {escaped(row['reason'])}" for row in skipped.to_dicts()))
    write_text(output, "\n\n".join(parts) + "\n")


# Columns that only the first study fills.
_FIRST_STUDY = ("Untrained", "Tokens", "Accuracy", "Ability by")


def _cells(row: dict) -> dict[str, str]:
    number = three_digits(row["value"])
    if row["low"] is not None:
        number += f" [{three_digits(row['low'])}, {three_digits(row['high'])}]"
    if row["published"] is not None:
        number += f" (published {row['published']:g})"
    against = [f"against {row[name]}" for name in ("reference_model", "reference_dataset") if row[name]]
    accuracy = f"{row['accuracies']} (chance {row['chance']:.2f})" if row["accuracies"] else "–"
    verdict = f"{SYMBOLS[row['verdict']]} {row['verdict']}"
    verdict += " (control)" if row["status"] == "control" else ""
    untrained = "–" if row["untrained"] is None else three_digits(row["untrained"])
    lengths = [f"{row[name]:.1f}" for name in ("tokens", "reference_tokens") if row[name] is not None]
    p, adjusted = ("–" if row[name] is None else f"{row[name]:.2g}" for name in ("p_value", "p_adjusted"))
    model = " ".join([row["model"], *against])
    shown = {
        "Model": model,
        "Dataset": row["dataset"],
        "Responses": row["relation"] or "–",
        "Verdict": verdict,
        "Number": number,
        "Untrained": untrained,
        "n": str(row["n"]),
        "Tokens": " : ".join(lengths) or "–",
        "p": p,
        "p (Holm)": adjusted,
        "Accuracy": accuracy,
        "Ability by": ABILITY_TESTS.get(row["ability_test"], "–"),
        "Remarks": row["reason"],
    }
    return {name: escaped(cell) for name, cell in shown.items()}
