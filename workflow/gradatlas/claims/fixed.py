"""Which conclusions survive the fixed data: each claim on the study's irrelevant responses beside the corrected ones.

The study's own are `published`, or `reference` (made by its algorithm, with its faults); `derangement` never states the
right answer. Nothing is tested again: the verdicts are those of the run.
"""

from collections.abc import Iterator
from typing import Any

import polars as pl

from gradatlas.claims.sheet import OVERALL

STUDYS, CORRECTED = ("published", "reference"), "derangement"
SURVIVES, FALLS, FAILS, ALONE, UNKNOWN = OUTCOMES = (
    "survives",
    "does not survive",
    "fails on both",
    "only on the corrected",
    "cannot say",
)
_JUDGED = {
    ("holds", "holds"): SURVIVES,
    ("holds", "fails"): FALLS,
    ("fails", "fails"): FAILS,
    ("fails", "holds"): ALONE,
}
_KEY = ("claim", "model", "reference_model", "dataset", "reference_dataset")
_SIDE = ("value", "low", "high", "n", "verdict", "reason")
_ABOUT = ("title", "statistic", "status", "claim_status", "direction", "threshold", "margin", "seed")

_TEXTS = ("title", "statistic", "status", "claim_status", "direction")
_NUMBERS = ("value", "low", "high")
SCHEMA: dict[str, Any] = {
    **dict.fromkeys((*_KEY, *_TEXTS), pl.String),
    **dict.fromkeys(("threshold", "margin"), pl.Float64),
    "seed": pl.Int32,
}
for _side in ("study", "fixed"):
    SCHEMA |= dict.fromkeys((f"{_side}_{_name}" for _name in ("relation", "verdict", "reason")), pl.String)
    SCHEMA |= dict.fromkeys((f"{_side}_{_name}" for _name in _NUMBERS), pl.Float64) | {f"{_side}_n": pl.Int32}
SCHEMA |= dict.fromkeys(("right_labels", "labelled"), pl.Int64) | dict.fromkeys(("outcome", "why"), pl.String)


def compare(claims: pl.DataFrame, cells: pl.DataFrame | None = None) -> pl.DataFrame:
    """A row per claim, model, dataset and kind of the study's own responses, over all projections; none without them.

    `claims`: the table of verdicts. `study_*` and `fixed_*` are the numbers and verdicts of the two sides, `outcome`
    one of `OUTCOMES`, `why` its reason where that is `cannot say`. `cells`: tables of what the samples were; with them
    `right_labels` counts the study's responses that state the right answer, of those whose answer is known, `labelled`.
    """
    frame = claims.filter(pl.col("projection") == OVERALL)
    measured = [name for name in STUDYS if name in set(frame["relation"])]
    paired = set(frame.filter(pl.col("relation").is_in([*STUDYS, CORRECTED]))["claim"])
    rows = frame.filter(pl.col("claim").is_in(list(paired))).to_dicts() if measured else []
    found: dict[tuple, dict[str, dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in _KEY), {})[row["relation"]] = row
    labels = _labels(cells) if cells is not None else {}
    table = [
        _row(key, sides, relation, labels)
        for key, sides in found.items()
        for relation in [name for name in measured if name in sides] or measured[:1]
        if relation in sides or CORRECTED in sides
    ]
    return pl.DataFrame(table, schema=SCHEMA)


def headline(table: pl.DataFrame) -> str:
    """What became of the conclusions that the study's claims reach on its own responses, in one or two sentences."""
    rows = table.filter((pl.col("status") == "stands") & ~over_seeds())
    if not rows["study_verdict"].count():
        return "No claim of the study was measured on its own irrelevant responses."
    held = rows.filter((pl.col("study_verdict") == "holds") & pl.col("fixed_verdict").is_not_null())
    after = [(held["fixed_verdict"] == verdict).sum() for verdict in ("holds", "fails")]
    of_held = f"{after[0]} of {held.height} survive the corrected ones, {after[1]} {_do(after[1])} not"
    unsure = held.height - sum(after)
    of_held += f", and of {unsure} the corrected ones cannot say" if unsure else ""
    alone = (rows["study_verdict"] == "holds").sum()
    text = "None of the study’s claims holds on its own irrelevant responses"
    if held.height:
        text = f"Of the study’s claims that hold on its own irrelevant responses, {of_held}"
    elif alone:
        text = (
            f"Of the study’s claims, {alone} hold on its own irrelevant responses, and none of these was measured on "
            "the corrected ones"
        )
    others = [
        (FAILS, "fail on both"),
        (ALONE, "hold on the corrected alone"),
    ]
    counts = [((rows["outcome"] == outcome).sum(), words) for outcome, words in others]
    missing = rows.filter(pl.any_horizontal(pl.col("study_verdict", "fixed_verdict").is_null())).height
    blind = rows.height - held.height - missing - sum(count for count, _ in counts)
    counts += [(blind, "have no verdict on one side or both"), (missing, "were measured on one side alone")]
    rest = ", ".join(f"{count} {words}" for count, words in counts if count)
    return f"{text}{f'; of the others {rest}' if rest else ''}."


def over_seeds() -> pl.Expr:
    """Whether a row is the mean over models that differ in their seed."""
    return pl.col("model").str.ends_with(", over seeds")


def _do(count: int) -> str:
    return "does" if count == 1 else "do"


def _row(key: tuple, sides: dict[str, dict[str, Any]], relation: str, labels: dict[tuple, tuple]) -> dict[str, Any]:
    study, fixed = sides.get(relation), sides.get(CORRECTED)
    either = study or fixed
    outcome, why = _outcome(study, fixed, relation)
    row = dict(zip(_KEY, key, strict=True)) | {name: either[name] for name in _ABOUT}
    for side, name, of in (("study", relation, study), ("fixed", CORRECTED, fixed)):
        row[f"{side}_relation"] = name
        row |= {f"{side}_{column}": of and of[column] for column in _SIDE}
    counts = [
        labels.get((row["model"], row["dataset"], variant, relation)) for variant in (either["variants"] or "").split()
    ]
    known = [count for count in counts if count is not None]
    row["right_labels"], row["labelled"] = map(sum, zip(*known, strict=True)) if known else (None, None)
    return row | {"outcome": outcome, "why": why}


def _outcome(study: dict[str, Any] | None, fixed: dict[str, Any] | None, relation: str) -> tuple[str, str]:
    verdicts = tuple(side["verdict"] if side else None for side in (study, fixed))
    if verdicts in _JUDGED:
        return _JUDGED[verdicts], ""
    return UNKNOWN, "; ".join(dict.fromkeys(_doubts((relation, study), (CORRECTED, fixed))))


def _doubts(*sides: tuple[str, dict[str, Any] | None]) -> Iterator[str]:
    for relation, row in sides:
        if row is None:
            yield f"{relation}: not measured"
        elif row["verdict"] == "inconclusive":
            yield f"{relation}: {row['reason']}"


def _labels(cells: pl.DataFrame) -> dict[tuple, tuple[int, int]]:
    """Right labels and labels that can be read, by model, dataset, variant and relation."""
    known = cells.filter((pl.col("loss_tokens") == "all") & (pl.col("n_labelled") > 0))
    columns = ("model", "dataset", "variant", "relation", "n_label_equals_gold", "n_labelled")
    return {tuple(row[:4]): row[4:] for row in known.select(columns).iter_rows()}
