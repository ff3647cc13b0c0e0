"""The claims table as readers meet it: a row per number over all projections, with all texts that are beside it.

The figures, the Markdown table and the page lay these rows out. What is counted, and with what, is decided here.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from gradatlas.charts.numbers import as_given, three_digits, with_interval
from gradatlas.claims.ability import OF_TWO
from gradatlas.claims.sheet import OVERALL, DynamicsClaim, GradientClaim, QualityClaim
from gradatlas.claims.tables import CLAIMS, TOY
from gradatlas.core.tables import read_table

GRADIENTS, DYNAMICS, QUALITY = GradientClaim.study, DynamicsClaim.study, QualityClaim.study
STUDIES = {GRADIENTS: "Layer gradients", DYNAMICS: "Learning dynamics", QUALITY: "Data quality"}
# Verdicts differ in their symbol too, not in colour alone.
SYMBOLS = {"holds": "✓", "fails": "✗", "inconclusive": "?"}
# What is counted apart: a verdict on what the study claims now is not one on what it withdrew, nor a control, nor one
# on an untrained network. Rows in no group (one of several seeds, what this run does not make) are not counted.
GROUPS = {
    "stands": "Claims of the study",
    "toys": "Toys and formulas of the study",
    "withdrawn": "Withdrawn by its authors",
    "control": "Controls",
    "untrained": "On untrained networks (controls)",
}
# The columns of a table of rows, with their headers; one that is empty in all rows is left out.
COLUMNS = {
    "model_title": "Model",
    "against": "Against",
    "dataset_title": "Dataset",
    "responses": "Responses",
    "seed": "Seed",
    "symbol": "Verdict",
    "number": "Number, 95 % interval",
    "claimed": "Claimed",
    "headroom": "Headroom",
    "published": "Published",
    "untrained": "Untrained",
    "n": "n",
    "tokens": "Tokens",
    "p": "p",
    "p_adjusted": "p (Holm)",
    "accuracies": "Accuracy",
    "ability_by": "Ability by",
    "remark": "Remarks",
}
_TEXTS = ("claim", "study", "title", "source", "statistic", "model", "kind", "dataset")
_TEXTS += ("verdict", "statement", "group", "of")
_SCHEMA = {
    **dict.fromkeys((*_TEXTS, "mark", *COLUMNS), pl.String),
    "place": pl.Int64,
    "samples": pl.Int64,
    "of_two": pl.Boolean,
    "requested": pl.Boolean,
}
# Names of what has no row in a sheet of models.
_TITLES = {
    "softmax": "Softmax",
    "classifier": "Image classifier",
    "losses": "Formulas",
    "toys": "random cases",
    "mini_qa": "Miniature questions",
}
# By which test a model was found able, or not.
ABILITY_TESTS = {
    "answer": "own answers",
    "recall": "own answers (jobs and cities recalled)",
    OF_TWO: "likelier of two responses",
}
UNTESTED = {
    GRADIENTS: "No claim is about what was measured, or no model was measured on data that it is meant for.",
    DYNAMICS: "No claim is about the runs of this configuration.",
    QUALITY: "No data of this configuration have samples of high and of low quality.",
}
STAND_IN = (
    "the model’s own answers were not counted. Whether it can do the task is judged by which of two responses, the "
    "right and a wrong one, it finds likelier; that asks little of long responses (Simplified, Detailed)."
)
INTERVALS = (
    "The interval is of the study’s own number, which is made of mean curves (a ratio of means), on the scale where it "
    "is symmetric. The p-value (Wilcoxon’s, of signed ranks) is of the differences sample by sample. The two ask the "
    "same question of different averages, and a verdict needs both. Tokens: mean response length of the two sides. "
    "Untrained: the same number of the network before training. p (Holm): p corrected for all tests of the claim, each "
    "projection too."
)
# How verdicts are reached, by study.
NOTES = {
    GRADIENTS: (
        "A claim holds (fails) where the whole 95 % interval lies on the claimed (the other) side of its threshold and "
        "the p-value, corrected by Holm's method for all tests of that claim in this run, is below .05; else it is "
        "inconclusive, and the reason is beside it. No verdict on a task that the model cannot do with the slowest "
        "variant that the claim uses, on fewer than 20 samples, or on a pipeline check. Thresholds are in "
        "config/claims.tsv."
    ),
    DYNAMICS: (
        "The rule is the first study’s. A claim about training needs seeds: its interval is Student’s t over three or "
        "more, and with fewer it is inconclusive; the reason states what its probes alone would give. What is "
        "mathematics (the softmax, the formulas, one step) has no interval: the number lies where it is claimed, or "
        "does not. Curves are compared where the margin of chosen over rejected responses has grown as far, at their "
        "peak (each half of the probes by the other half’s), and at the end. Headroom: how far a number could move at "
        "all in the claimed direction; no verdict where that is less than half its interval. A claim about good "
        "answers needs a model that gives some before the run. Thresholds are in config/claims_dynamics.tsv."
    ),
    QUALITY: (
        "The rule is the first study’s. Samples of high and low quality differ in length and loss first, and an "
        "effective rank cannot exceed the number of tokens: the controls compare samples matched on either or both, "
        "and correlate ranks given both. A difference that a control does not show is one of length or loss. Graded "
        "data of the miniature have planted faults, and say nothing of the study’s own data. Thresholds are in "
        "config/claims_quality.tsv."
    ),
}


def read_rows(claims: str | Path, titles: Mapping[str, str] | None = None) -> pl.DataFrame:
    """The rows of a claims table (Parquet), as by `rows`."""
    return rows(pl.from_arrow(read_table(CLAIMS, claims)), titles or {})


def rows(claims: pl.DataFrame, titles: Mapping[str, str]) -> pl.DataFrame:
    """A row per number over all projections, in the order of the table: its `place` there, and texts.

    `titles`: of models and datasets, by key. `group`: a key of `GROUPS`, or empty where the row is not counted.
    `requested`: whether this run makes what the claim is about. `of`: the responses, or the run and type, where the
    claim has several; `row`: the claim's title with that. `mark`: withdrawn or control. `samples`: n as a number.
    `of_two`: whether any row of the model and dataset has its ability by the likelier of two responses. The others:
    `COLUMNS`.
    """
    overall = claims.filter(pl.col("projection") == OVERALL).to_dicts()
    frame = pl.DataFrame([_row(row, place, {**_TITLES, **titles}) for place, row in enumerate(overall)], schema=_SCHEMA)
    # Of one run alone only the types differ.
    one_run = pl.col("responses").str.split(", ").list.first().n_unique().over("claim") == 1
    is_type = one_run & (pl.col("study") == DYNAMICS)
    short = pl.when(is_type).then(pl.col("responses").str.replace(r"^[^,]*, ", "")).otherwise("responses")
    several = (pl.col("responses").n_unique().over("claim") > 1) & (short != "")
    frame = frame.with_columns(pl.when(several).then(short).otherwise(pl.lit("")).alias("of"))
    of = pl.when(pl.col("of") != "").then(pl.lit(" · ") + pl.col("of")).otherwise(pl.lit(""))
    return frame.with_columns(
        (pl.col("title") + of).alias("row"),
        (pl.col("ability_by") == ABILITY_TESTS[OF_TWO]).any().over("dataset", "model").alias("of_two"),
    )


def _row(row: Mapping[str, Any], place: int, titles: Mapping[str, str]) -> dict[str, Any]:
    model, comma, over = row["model"].partition(",")
    against = [titles.get(row[name], row[name]) for name in ("reference_model", "reference_dataset") if row[name]]
    bound = as_given(row["threshold"])
    within = row["direction"] == "within"
    lengths = [f"{row[name]:.1f}" for name in ("tokens", "reference_tokens") if row[name] is not None]
    group = row["status"] if row["status"] in GROUPS else ""
    if row["status"] == "control" != row["claim_status"]:
        group = "untrained"
    elif group == "stands" and row["kind"] == TOY:
        group = "toys"
    return {name: row[name] for name in ("claim", "study", "title", "source", "statistic", "verdict", "statement")} | {
        "place": place,
        "group": group,
        "requested": row["status"] != "not_asked",
        "kind": row["kind"] or "",
        "mark": "" if row["claim_status"] == "stands" else row["claim_status"],
        "model": row["model"],
        "dataset": row["dataset"],
        "model_title": f"{titles.get(model, model)}{comma}{over}",
        "dataset_title": titles.get(row["dataset"], row["dataset"]),
        "against": " ".join(against),
        "responses": _responses(row),
        "seed": _text(row["seed"], str),
        "symbol": f"{SYMBOLS[row['verdict']]} {row['verdict']}{' (control)' * (row['status'] == 'control')}",
        "number": with_interval(row["value"], row["low"], row["high"]),
        "claimed": f"{bound} ± {as_given(row['margin'])}" if within else f"{row['direction']} {bound}",
        "headroom": _text(row["headroom"], three_digits),
        "published": _text(row["published"], as_given),
        "untrained": _text(row["untrained"], three_digits),
        "n": f"{row['n']:,}",
        "samples": row["n"],
        "tokens": " : ".join(lengths),
        "p": _text(row["p_value"], three_digits),
        "p_adjusted": _text(row["p_adjusted"], three_digits),
        "accuracies": f"{row['accuracies']} (chance {row['chance']:.2f})" if row["accuracies"] else "",
        "ability_by": ABILITY_TESTS.get(row["ability_test"], ""),
        "remark": _reason(row, titles),
    }


def _reason(row: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """Why there is no verdict; a reason that begins with a model's key, with its title."""
    key = next((key for key in (row["model"], row["reference_model"]) if row["reason"].startswith(f"{key} ")), "")
    return titles.get(key, key) + row["reason"].removeprefix(key)


def _responses(row: Mapping[str, Any]) -> str:
    """Responses; of the second study a run (against another), a type of probe and a place, a loss or a case."""
    return row["relation"].replace("_", " ").replace(":", " against ").replace("/", ", ").replace("@", ", ")


def _text(value: Any, write: Any) -> str:
    return "" if value is None else write(value)


def counted(rows: pl.DataFrame) -> list[tuple[str, dict[str, int]]]:
    """How many rows have which verdict, group by group; a group without a row is left out."""
    counts = [
        (title, {verdict: ((rows["group"] == group) & (rows["verdict"] == verdict)).sum() for verdict in SYMBOLS})
        for group, title in GROUPS.items()
    ]
    return [(title, of) for title, of in counts if sum(of.values())]


def counts(rows: pl.DataFrame) -> list[str]:
    """The same in words, a sentence without its full stop each."""
    return [
        f"{title}: {of['holds']} hold, {of['fails']} fail, {of['inconclusive']} inconclusive"
        for title, of in counted(rows)
    ]


def stand_in(rows: pl.DataFrame) -> str:
    """What to know of abilities that are no answers of the model's own, where any row has one; else nothing."""
    return f"Where ability is by the {ABILITY_TESTS[OF_TWO]}, {STAND_IN}" if rows["of_two"].any() else ""


def not_requested(rows: pl.DataFrame) -> dict[str, str]:
    """The titles of the claims whose runs or data this run does not make, each with what it needs."""
    return dict(rows.filter(~pl.col("requested")).unique("claim", maintain_order=True).select("title", "remark").rows())


def columns(rows: pl.DataFrame) -> list[str]:
    """The columns of `COLUMNS` that any of these rows fills."""
    return [name for name in COLUMNS if (rows[name] != "").any()]


def by_claim(rows: pl.DataFrame) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The rows claim by claim: the first, which holds what is common to all, and all."""
    for _, group in rows.group_by("study", "claim", maintain_order=True):
        yield group.row(0, named=True), group.to_dicts()
