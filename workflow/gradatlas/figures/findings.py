"""What a chart's numbers say, in one careful sentence, and the lines that say what was drawn.

Every number of a title comes from the tables as they stand. A difference is only called one where the two 95 %
intervals lie apart (or, for a relative difference, where the interval leaves out zero).
"""

import math
from collections.abc import Callable, Sequence

import polars as pl

from gradatlas.charts.names import PIPELINE_CHECK, label, projections_in_order, responses_of, variants_in_order
from gradatlas.charts.theme import Heading

CHECK = (
    "PIPELINE CHECK: this model was never meant for these data. The figure shows that the workflow runs, no finding."
)
# What stands over a figure that may not claim anything.
NEUTRAL = {
    "panels": "Nuclear norm of the gradient, by layer",
    "variants": "Nuclear norm of the gradient, variants overlaid",
}
# With fewer samples in any cell a bootstrap interval is no ground to claim a finding on.
FEWEST = 20
# Mean gradients this close are not called one larger than the other.
ALIKE = 0.1
# A larger share reads better as a multiple.
MOST_PERCENT = 9
BAND = "Bands: 95 % bootstrap intervals over samples."
# Why a sample is left out, by the count of the cells table.
LOST = {
    "n_no_response_tokens": "no response tokens",
    "n_nonfinite": "not finite",
    "n_out_of_memory": "out of memory",
}
DRAWN = "Mean over samples, by layer and projection; the size of a gradient is its nuclear norm."
MAD = "MAD: mean absolute difference of neighbouring layers of a mean curve."


def of_panels(curves: pl.DataFrame, mad: pl.DataFrame, dataset: str, own_scales: bool) -> Heading:
    """Where the first variant's mean gradient is largest, and its MAD against the last variant's.

    `curves` and `mad` hold one model, dataset and relation; `own_scales` says that the panels differ in scale.
    """
    title = _peak(curves, mad) if speaks(curves) else NEUTRAL["panels"]
    notes = ["The upper panels differ in scale."] if own_scales else []
    return Heading(title, subtitle_of(curves, dataset, DRAWN, [*notes, *([MAD] if "MAD" in title else [])]))


def of_variants(curves: pl.DataFrame, dataset: str) -> Heading:
    """How many times the first variant's mean gradient is the last one's, averaged over layers."""
    title = ratio_between(curves) if speaks(curves) else NEUTRAL["variants"]
    return Heading(title, subtitle_of(curves, dataset, DRAWN, []))


def of_comparison(
    curves: pl.DataFrame, rd: pl.DataFrame, relation: str, dataset: str, multiples: bool = False
) -> Heading:
    """The signed relative difference of `relation` from the correct responses, by variant.

    `curves` holds the correct rows and those of `relation`, `rd` the rows of `relation`; `multiples` says that the
    differences are drawn as multiples on a log axis.
    """
    below = (
        "multiples of correct responses, on a log axis" if multiples else "the difference as a share of correct ones"
    )
    drawn = f"Mean nuclear norm by layer; below it, {below}."
    against = f"{label(relation)} against correct responses"
    rows = finite(rd).filter(pl.col("measure") == "signed")
    title = clear_differences(rows, against) if speaks(curves) else f"{against}, by layer"
    return Heading(title, subtitle_of(curves, dataset, drawn, [], relation))


def _peak(curves: pl.DataFrame, mad: pl.DataFrame) -> str:
    norms = finite(curves)
    if norms.is_empty():
        return NEUTRAL["panels"]
    variants = variants_in_order(norms["variant"].unique())
    first, last = variants[0], variants[-1]
    # Ties go to the first layer and projection, so that the words do not depend on the row order.
    top = (
        norms.filter(pl.col("variant") == first)
        .sort(["value", "layer", "projection"], descending=[True, False, False])
        .row(0, named=True)
    )
    matrix = label(top["projection"])
    if norms["layer"].n_unique() == 1:
        return f"{label(first)}: {matrix} has the largest mean gradient of the one layer"
    said = f"{label(first)}: largest mean gradient at layer {top['layer']} ({matrix})"
    of_matrix = finite(mad).filter((pl.col("segment") == "all") & (pl.col("projection") == top["projection"]))
    pair = [of_matrix.filter(pl.col("variant") == variant).to_dicts() for variant in (first, last)]
    if first == last or not all(pair):
        return said
    fast, slow = pair[0][0], pair[1][0]
    if not (has_interval(fast) and has_interval(slow)):
        return said
    apart = _apart(fast, slow)
    if apart and fast["value"] > slow["value"] > 0:
        return f"{said}; MAD of {matrix} {times(fast['value'] / slow['value'])} times {label(last)}’s"
    if apart and slow["value"] > fast["value"] > 0:
        return f"{said}; {label(last)}’s MAD of {matrix} {times(slow['value'] / fast['value'])} times as large"
    return f"{said}; MAD of {matrix} not clearly different from {label(last)}’s"


def ratio_between(curves: pl.DataFrame, ends: tuple[str, str] | None = None) -> str:
    """How many times the mean gradients of one variant are another's: of the first and the last, or of `ends`."""
    norms = finite(curves)
    if norms.is_empty():
        return NEUTRAL["variants"]
    alone = norms["layer"].n_unique() == 1
    over, of_all = ("Of the one layer", "of the one layer") if alone else ("Averaged over layers", "over all layers")
    variants = variants_in_order(norms["variant"].unique())
    first, last = ends or (variants[0], variants[-1])
    means = {
        (row["variant"], row["projection"]): row["value"]
        for row in norms.group_by("variant", "projection").agg(pl.col("value").mean()).to_dicts()
    }
    if first == last:
        low, high = ends_of({matrix: value for (_, matrix), value in means.items()})
        return f"{label(first)}: mean gradient {of_all} from {low[1]:.3g} ({low[0]}) to {high[1]:.3g} ({high[0]})"
    ratios = {
        matrix: means[first, matrix] / means[last, matrix]
        for matrix in {matrix for _, matrix in means}
        if means.get((first, matrix), 0) > 0 and means.get((last, matrix), 0) > 0
    }
    if not ratios:
        return NEUTRAL["variants"]
    overlap = _overlap(norms, first, last)
    if all(abs(ratio - 1) <= ALIKE for ratio in ratios.values()):
        most = math.ceil(1000 * max(abs(ratio - 1) for ratio in ratios.values()) - 1e-6) / 10
        return f"{over}, {label(first)}’s mean gradients are within {most:g} % of {label(last)}’s{overlap}"
    if max(ratios.values()) < 1:
        first, last, ratios = last, first, {matrix: 1 / ratio for matrix, ratio in ratios.items()}
    low, high = ends_of(ratios)
    if low[1] >= 1:
        apart = between(times(low[1]), low[0], times(high[1]), high[0])
        return f"{over}, {label(first)}’s mean gradients are {apart} times {label(last)}’s{overlap}"
    return (
        f"{over}, {label(first)}’s mean gradients are {low[1]:.2g} ({low[0]}) to "
        f"{high[1]:.2g} ({high[0]}) times {label(last)}’s{overlap}"
    )


def _overlap(norms: pl.DataFrame, first: str, last: str) -> str:
    """A caution where the two variants' bands overlap at more than half of the points that have both."""
    keys, ends = ["projection", "layer"], ["low", "high"]
    one, other = (norms.filter(pl.col("variant") == variant).select(keys + ends) for variant in (first, last))
    points = one.join(other, on=keys, suffix="_other").to_dicts()
    pairs = [(point, {"low": point["low_other"], "high": point["high_other"]}) for point in points]
    apart = [_apart(*pair) for pair in pairs if all(map(has_interval, pair))]
    return (
        f"; bands overlap at {apart.count(False)} of {len(apart)} points" if 2 * apart.count(True) < len(apart) else ""
    )


def clear_differences(rows: pl.DataFrame, against: str) -> str:
    """What differs, variant by variant, by the relative differences `rows` whose intervals leave out zero."""
    rows = with_interval(rows)
    if rows.is_empty():
        return f"{against}, by layer"
    clear = rows.filter((pl.col("low") > 0) | (pl.col("high") < 0))
    if clear.is_empty():
        return f"{against}: no clear difference of mean gradients"
    said, unclear = [], []
    share = in_one_unit(clear["value"])
    for variant in variants_in_order(rows["variant"].unique()):
        values = dict(clear.filter(pl.col("variant") == variant).select("projection", "value").iter_rows())
        if not values:
            unclear.append(label(variant))
            continue
        low, high = ends_of(values)
        among = rows.filter(pl.col("variant") == variant).height
        part = "" if len(values) == among else f" in {len(values)} of {among} projections"
        said.append(f"{label(variant)} {between(share(low[1]), low[0], share(high[1]), high[0])}{part}")
    if unclear:
        said.append(f"no clear difference for {' and '.join(unclear)}")
    return f"{against}, mean gradients: {'; '.join(said)}"


def subtitle_of(
    curves: pl.DataFrame,
    dataset: str,
    drawn: str,
    notes: Sequence[str],
    relation: str | None = None,
    variants: Sequence[str] = (),
) -> tuple[str, ...]:
    """What was drawn: a line that marks a pipeline check, then cell and n, then statistic, band and notes."""
    model = " and ".join(curves["model"].unique(maintain_order=True))
    shown = relation or curves["relation"][0]
    responses = f"correct and {responses_of(shown)}" if relation else responses_of(shown)
    counts = counted(curves, variants)
    missing = curves.filter(pl.col("value").is_null() | pl.col("value").is_nan()).height
    unsure = finite(curves, statistic=None).filter(pl.col("low").is_null() | pl.col("low").is_nan()).height
    band = BAND
    if unsure:
        sure = unsure < curves.height - missing
        band = f"{BAND} No band where samples are too few." if sure else "Too few samples for intervals."
    if missing:
        notes = [*notes, f"{missing} of {curves.height} means are not finite and are left out."]
    lines = [f"{model} · {dataset} · {responses} · n: {counts}", " ".join([drawn, band, *notes])]
    return tuple([CHECK, *lines] if is_check(curves) else lines)


def left_out(cells: pl.DataFrame, by: Sequence[str] = ("variant",)) -> list[str]:
    """A line that says how many samples were left out of each cell, and why; none where all were used.

    `cells`: rows of the cells table; `by`: the columns that tell these cells apart.
    """
    some, empty = [], []
    for row in cells.to_dicts():
        lost, name = row["n"] - row["n_ok"], " ".join(label(row[key]) for key in by)
        why = ", ".join(f"{row[key]:,} {reason}" for key, reason in LOST.items() if row[key])
        if lost:
            (some if row["n_ok"] else empty).append(f"{name} {lost:,} of {row['n']:,} ({why})")
    parts = [("No usable sample", empty), ("Left out", some)]
    said = [f"{words}: {'; '.join(found)}." for words, found in parts if found]
    return [" ".join(said)] if said else []


def speaks(curves: pl.DataFrame) -> bool:
    """Whether a title may state a finding: not for a pipeline check, and not on a handful of samples."""
    return not is_check(curves) and int(curves["n"].min() or 0) >= FEWEST


def is_check(frame: pl.DataFrame) -> bool:
    """Whether any row comes from a model on data that it was never meant for."""
    return bool((frame["purpose"] == PIPELINE_CHECK).any())


def times(ratio: float) -> str:
    """A ratio to two significant digits, never more exact than it deserves: 27.3 -> 27, 1.62 -> 1.6, 312 -> 310."""
    return _two_digits(ratio, "")


def in_one_unit(shares: pl.Series) -> Callable[[float], str]:
    """How the signed `shares` of one title are told: as percentages, or all as multiples (×310) where one is large."""
    return _multiple if (shares > MOST_PERCENT).any() else percentage


def _multiple(share: float) -> str:
    return f"×{times(1 + share) if share > -1 else 0}"


def percentage(share: float) -> str:
    """A signed share as a percentage to two significant digits, with a true minus and commas at the thousands."""
    if share == 0:
        return "0 %"
    return f"{_two_digits(100 * share, '+')} %".replace("-", "−")


def _two_digits(value: float, sign: str) -> str:
    # Rounded first: 9.96 becomes 10, which then has no digit after the point.
    rounded = float(f"{value:.1e}")
    return f"{rounded:{sign},.{max(0, 1 - math.floor(math.log10(abs(rounded))))}f}"


def finite(frame: pl.DataFrame, statistic: str | None = "nuclear_norm") -> pl.DataFrame:
    """The rows of a statistic (None: of all) whose value is finite."""
    rows = frame if statistic is None else frame.filter(pl.col("statistic") == statistic)
    return rows.filter(pl.col("value").is_finite().fill_null(False))


def has_interval(row: dict) -> bool:
    """Whether both ends of an estimate's interval are known."""
    return all(row[end] is not None and math.isfinite(row[end]) for end in ("low", "high"))


def with_interval(rows: pl.DataFrame) -> pl.DataFrame:
    """The estimates both of whose interval's ends are known: without them there is no clear difference, nor none."""
    return rows.filter(pl.all_horizontal(pl.col("low", "high").is_finite().fill_null(False)))


def _apart(one: dict, other: dict) -> bool:
    return one["low"] > other["high"] or other["low"] > one["high"]


def ends_of(values: dict[str, float]) -> tuple[tuple[str, float], tuple[str, float]]:
    """The smallest and the largest of `values` by projection, with their labels."""
    ranked = sorted(values, key=lambda matrix: (values[matrix], projections_in_order(values).index(matrix)))
    return (label(ranked[0]), values[ranked[0]]), (label(ranked[-1]), values[ranked[-1]])


def between(low: str, low_matrix: str, high: str, high_matrix: str) -> str:
    """Two ends with their projections; one number where they read alike."""
    return f"{low} ({low_matrix}) to {high} ({high_matrix})" if low != high else low


def counted(frame: pl.DataFrame, variants: Sequence[str] = ()) -> str:
    """The samples of each variant, as in ``None 100, Detailed 98 to 100``."""
    return ", ".join(
        f"{label(variant)} {span(frame.filter(pl.col('variant') == variant)['n'])}"
        for variant in variants or variants_in_order(frame["variant"].unique())
    )


def span(counts: pl.Series) -> str:
    """Counts as one number, or as the smallest and the largest."""
    low, high = counts.min(), counts.max()
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
