"""Titles, the line below them and captions: which is larger and whether its interval shows it, or what is drawn; n,
what is left out, and whether the data carry a finding."""

from collections.abc import Mapping, Sequence

import polars as pl

from gradatlas.charts.names import TERMS, label, responses_of, variants_in_order
from gradatlas.charts.numbers import span
from gradatlas.charts.panel import of
from gradatlas.charts.theme import Heading
from gradatlas.figures.data import Data
from gradatlas.statistics.counts import FEWEST_SAMPLES, LEFT_OUT, has_check
from gradatlas.study.relations import is_marked

CHECK = (
    "PIPELINE CHECK: this model was never meant for these data. The figure shows that the workflow runs, no finding."
)
BAND = "Bands: 95 % bootstrap intervals over samples."
DRAWN = "Mean over samples, by layer and projection; the size of a gradient is its nuclear norm."
RIGHT_LABELS = "RIGHT LABELS AMONG THE WRONG"


def larger(one: str, other: str, differences: pl.DataFrame, places: str) -> str:
    """In how many `places` one is larger than the other, and smaller: where the interval of the difference excludes 0.

    `differences`: columns low and high; empty where no interval is known.
    """
    rows = known_intervals(differences)
    above, below = rows.filter(pl.col("low") > 0).height, rows.filter(pl.col("high") < 0).height
    if not above and not below:
        return f"{one} and {other}: no clear difference"
    found = [f"{word} in {count}" for word, count in (("larger", above), ("smaller", below)) if count]
    return f"{one} against {other}: {', '.join(found)} of {rows.height} {places}"


def clear_differences(one: pl.DataFrame, other: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """The differences of two frames' intervals: low and high exclude 0 where the two do not overlap."""
    both = one.select(*keys, "low", "high").join(other.select(*keys, "low", "high"), on=keys, suffix="_other")
    ends = pl.col("low") - pl.col("high_other"), pl.col("high") - pl.col("low_other")
    return both.select(*keys, ends[0].alias("low"), ends[1].alias("high"))


def known_intervals(rows: pl.DataFrame) -> pl.DataFrame:
    """The estimates both of whose interval's ends are known: without them there is no clear difference, nor none."""
    return rows.filter(pl.all_horizontal(pl.col("low", "high").is_finite().fill_null(False)))


def states_findings(frame: pl.DataFrame) -> bool:
    """Whether a title may state a finding: not for a pipeline check, and not on a handful of samples."""
    return not has_check(frame) and int(frame["n"].min() or 0) >= FEWEST_SAMPLES


def finite(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows whose value is finite."""
    return frame.filter(pl.col("value").is_finite().fill_null(False))


def with_lines(title: str, frame: pl.DataFrame, dataset: str, responses: str, counts: str, drawn: str) -> Heading:
    """A heading: model, dataset, responses and n below the title, after the mark of a pipeline check; what is drawn.

    `counts`: of the samples, variant by variant, which the caption names.
    """
    model = " and ".join(frame["model"].unique(maintain_order=True))
    facts = (model, dataset, responses, f"n = {span(frame['n'].min(), frame['n'].max())}")
    return Heading(title, facts, (*([CHECK] if has_check(frame) else []), f"{drawn} Samples: {counts}."))


def of_curves(
    title: str,
    curves: pl.DataFrame,
    dataset: str,
    drawn: str,
    *,
    relation: str | None = None,
    order: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Heading:
    """The heading of curves with bands, of correct responses and those of another `relation`, or of one alone."""
    responses = f"correct and {responses_of(relation)}" if relation else responses_of(curves["relation"][0])
    known = finite(curves)
    missing, unsure = curves.height - known.height, known.height - known_intervals(known).height
    band = BAND
    if unsure:
        band = "Too few samples for intervals." if unsure == known.height else f"{BAND} None where samples are too few."
    lost = [f"{missing} of {curves.height} means are not finite and are left out."] if missing else []
    text = " ".join([drawn, band, *notes, *lost])
    return with_lines(title, curves, dataset, responses, counted(curves, order), text)


def lines_of(data: Data, *, reference: bool = False) -> list[str]:
    """The paragraphs of every figure of one relation: samples left out, the notes of the data, labels that are right.

    `reference`: the figure shows the correct responses beside the relation's.
    """
    by = ("relation", "variant") if reference else ("variant",)
    return [*left_out(data.of("cells", reference=reference), by), *data.notes, *right_labels(data.of("cells"))]


def left_out(cells: pl.DataFrame, by: Sequence[str] = ("variant",)) -> list[str]:
    """A paragraph on how many samples were left out of each cell, and why; none where all were used.

    `cells`: rows of the cells table; `by`: the columns in which these cells differ.
    """
    some, empty = [], []
    for row in cells.to_dicts():
        lost, name = row["n"] - row["n_ok"], " ".join(label(row[key]) for key in by)
        why = ", ".join(f"{row[key]:,} {reason}" for key, reason in LEFT_OUT.items() if row[key])
        if lost:
            (some if row["n_ok"] else empty).append(f"{name} {lost:,} of {row['n']:,} ({why})")
    parts = [
        f"{words}: {'; '.join(found)}." for words, found in (("No usable sample", empty), ("Left out", some)) if found
    ]
    return [" ".join(parts)] if parts else []


def right_labels(cells: pl.DataFrame, titles: Mapping[str, str] | None = None) -> list[str]:
    """A paragraph where labels that should be wrong are right, by relation and variant; none where few enough are.

    `titles`: of datasets, which are named in place of the counts.
    """
    rows = [
        row for row in cells.to_dicts() if is_marked(row["relation"], row["n_label_equals_gold"], row["n_labelled"])
    ]
    if not rows:
        return []
    if titles is not None:
        return [
            f"{RIGHT_LABELS} of {', '.join(dict.fromkeys(titles.get(row['dataset'], row['dataset']) for row in rows))}."
        ]
    several = len({row["relation"] for row in cells.to_dicts()}) > 1
    parts = [
        " ".join([*([label(row["relation"])] if several else []), label(row["variant"]),
                  f"{row['n_label_equals_gold']:,} of {row['n_labelled']:,}"])
        for row in rows
    ]  # fmt: skip
    return [f"{RIGHT_LABELS}: {', '.join(parts)}. They are no wrong responses."]


def counted(frame: pl.DataFrame, variants: Sequence[str] = ()) -> str:
    """The samples of each variant, as in ``None 100, Detailed 98 to 100``."""
    counts = {key: of(frame, variant=key)["n"] for key in variants or variants_in_order(frame["variant"].unique())}
    return ", ".join(f"{TERMS.get(key, label(key))} {span(n.min(), n.max())}" for key, n in counts.items())
