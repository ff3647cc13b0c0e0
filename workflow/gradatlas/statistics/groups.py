"""Groups of scored samples compared: raw, and matched on length and loss.

High and low quality differ in length first: an effective rank cannot exceed the number of tokens, and a loss scales the
whole gradient. What is left between samples of like length and loss is what the spectrum adds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gradatlas.core.command import progress
from gradatlas.core.errors import InputError, nearest
from gradatlas.core.tables import read_metadata, read_table
from gradatlas.scores.tables import MEASURED, METRICS, SCORES
from gradatlas.statistics.bootstrap import interval, resampled_means
from gradatlas.statistics.corrections import holm
from gradatlas.statistics.counts import FEWEST_SAMPLES
from gradatlas.statistics.effects import compare, matched_pairs, near_pairs, standardised_difference
from gradatlas.statistics.score_tables import values_of

#: The numbers that are compared, in the order of tables and figures.
NUMBERS = (
    "response_tokens", "loss", "ifd",
    *(f"{name}{part}" for name in METRICS[:2] for part in ("", "_early", "_middle", "_last")),
    "gradient_norm", "self_influence", "sigma_ratio", "mad", "largest_layer_share", "outlier",
)  # fmt: skip
ALL, MATCHED = "all", "matched"
_KEY = ["row", "response"]
#: Statistics whose curves over layers are compared.
CURVES = METRICS[:2]


@dataclass(frozen=True)
class Group:
    """The usable samples of one group. `values`: (samples, layers, projections, metrics), NaN where no matrix is."""

    name: str
    frame: pl.DataFrame
    values: np.ndarray
    projections: tuple[str, ...]

    @property
    def covariates(self) -> np.ndarray:
        """Log tokens and log loss, (samples, 2); -inf for a loss of 0."""
        with np.errstate(divide="ignore"):
            return np.log(self.frame.select("response_tokens", "loss").to_numpy().astype(float))

    def of(self, groups: Sequence[str], name: str = "") -> "Group":
        """The samples of these groups of the table, called `name` or by the groups."""
        part = self.at(np.flatnonzero(self.frame["group"].is_in(list(groups)).fill_null(False).to_numpy()))
        return replace(part, name=name or ", ".join(groups))

    def at(self, places: np.ndarray) -> "Group":
        """The samples at these positions, in this order."""
        return Group(self.name, self.frame[places], self.values[places], self.projections)


@dataclass(frozen=True)
class Compared:
    """Two groups over the same kind of `samples`; `paired`: the samples of `a` and `b` pair by their places.

    `status`: why nothing is compared.
    """

    a: Group
    b: Group
    samples: str
    paired: bool
    status: str = "ok"


def read_groups(
    scores: Path,
    other: Path | None,
    paired: bool,
    group_a: Sequence[str] = (),
    group_b: Sequence[str] = (),
    names: tuple[str, str] = ("", ""),
) -> list[tuple[Group, Group, bool]]:
    """The groups to compare, called by `names` where these are not empty, and whether their samples pair by place.

    Of one table the groups `group_a` (else the first one there) with those of `group_b` together (else with each of
    the others); of two tables all samples of each. Samples pair by row if `paired`, and always where the groups are the
    two responses of the same rows; then those with status ok on both sides are kept. Raises `InputError` for a table
    without groups, for two sides of one name, and for rows that do not pair.
    """
    if other:
        both = zip((scores, other), names, _labels(scores, other), strict=True)
        sides = [read_group(path, name or label) for path, name, label in both]
    else:
        sides = _sides(scores, group_a, group_b, names)
    called = [side.name for side in sides]
    if twice := next((name for name in called if called.count(name) > 1), None):
        raise InputError(f"{scores}: two sides are called '{twice}'; give different groups, each its own name")
    found = []
    for a, b in [(sides[0], side) for side in sides[1:]]:
        if pairs := paired or (not other and not a.frame.join(b.frame, on="row", how="semi").is_empty()):
            a, b = _same_rows(a, b, _KEY if other else ["row"], other or scores)
        found.append((a, b, pairs))
    return found


def _sides(scores: Path, group_a: Sequence[str], group_b: Sequence[str], names: tuple[str, str]) -> list[Group]:
    """The first side and the others, of one table."""
    if shared := [name for name in group_a if name in group_b]:
        raise InputError(f"--group-a and --group-b: group '{shared[0]}' is on both sides; compare different groups")
    whole = read_group(scores, "")
    there = whole.frame["group"].drop_nulls().unique(maintain_order=True).to_list()
    for name in (*group_a, *group_b):
        if name not in there:
            raise InputError(f"{scores}: no sample with status ok is in group '{name}'; {nearest(name, there)}")
    if len(there) < 2:
        raise InputError(
            f"{scores}: {len(there)} group{'s' * (len(there) != 1)} among its samples with status ok; score the data "
            "with a column of groups, or give a second table with --other"
        )
    first = group_a or there[:1]
    others = [group_b] if group_b else [[name] for name in there if name not in first]
    return [whole.of(first, names[0]), *(whole.of(each, names[1]) for each in others)]


def comparisons(a: Group, b: Group, paired: bool, seed: int) -> Iterator[Compared]:
    """All samples, and those matched on log tokens and log loss; of samples that pair already, the pairs that match."""
    yield Compared(a, b, ALL, paired)
    finite = [np.isfinite(each.covariates).all(1) for each in (a, b)]
    if paired:
        finite = [finite[0] & finite[1]] * 2
    usable = [each.at(np.flatnonzero(kept)) for each, kept in zip((a, b), finite, strict=True)]
    covariates, places = [each.covariates for each in usable], ([], [])
    if all(len(side) > 1 for side in covariates):
        places = [near_pairs(*covariates)] * 2 if paired else matched_pairs(*covariates, seed)
    pairs = [each.at(place) for each, place in zip(usable, places, strict=True)]
    n = len(pairs[0].frame)
    few = f"too few: {n} matched pair{'s' * (n != 1)}; {FEWEST_SAMPLES} are needed" if n < FEWEST_SAMPLES else "ok"
    yield Compared(*pairs, MATCHED, True, few)


def rows(it: Compared, draws: int, seed: int) -> list[dict[str, Any]]:
    """The rows of the ``comparison`` table, one a number, corrected by Holm."""
    about = {"group_a": it.a.name, "group_b": it.b.name, "samples": it.samples, "paired": it.paired}
    covariates = [each.covariates[np.isfinite(each.covariates).all(1)] for each in (it.a, it.b)]
    if all(len(each) > 1 for each in covariates):
        smd = standardised_difference(*covariates).tolist()
        about |= dict(zip(("smd_log_tokens", "smd_log_loss"), smd, strict=True))
    found = []
    for number in NUMBERS:
        sides = [each.frame[number].cast(pl.Float64).fill_null(np.nan).to_numpy() for each in (it.a, it.b)]
        kept = [np.isfinite(side) for side in sides]
        if it.paired:
            kept = [kept[0] & kept[1]] * 2
        a, b = (side[place] for side, place in zip(sides, kept, strict=True))
        if it.status != "ok":
            found.append(about | {"number": number, "status": it.status, "samples_a": len(a), "samples_b": len(b)})
            continue
        found.append(about | {"number": number} | compare(a, b, it.paired, draws, seed, f"{it.samples} {number}"))
    tested = [row for row in found if row.get("p_value") is not None]
    for row, adjusted in zip(tested, holm([row["p_value"] for row in tested]), strict=True):
        row["p_adjusted"] = adjusted
    return found


def curve_rows(it: Compared, draws: int, seed: int) -> Iterator[dict[str, Any]]:
    """The rows of the ``group_curves`` table: mean curves with percentile bootstrap intervals over samples."""
    about = {"group_a": it.a.name, "group_b": it.b.name, "samples": it.samples}
    for group in (it.a, it.b) if it.status == "ok" else ():
        n = len(group.frame)
        if not n:
            continue
        values = group.values[..., [METRICS.index(name) for name in CURVES]].astype(float)
        value, low, high = interval(resampled_means(values, draws, seed, f"curves {it.samples} {group.name}"))
        for layer, projection, metric in np.ndindex(value.shape):
            ends = {"value": value, "low": low, "high": high} if n > 1 else {"value": value}
            yield (
                about
                | {"group": group.name, "projection": group.projections[projection], "statistic": CURVES[metric]}
                | {"layer": layer, "n": n}
                | {name: float(each[layer, projection, metric]) for name, each in ends.items()}
            )


def read_group(path: str | Path, name: str) -> Group:
    """The samples of one scores table with status ok, with their curves from the parts beside it."""
    frame = pl.from_arrow(read_table(SCORES, path))
    usable = frame.filter(pl.col("status") == "ok")
    if usable.height < frame.height:
        progress(f"{path}: {frame.height - usable.height} of {frame.height} samples are left out by their status")
    parts = sorted((Path(path).parent / "measured").glob("*.parquet"))
    if not parts or usable.is_empty():
        missing = "no sample with status ok" if parts else "no folder 'measured' with parts beside it"
        raise InputError(f"{path}: {missing}; give the scores.parquet of a folder that gradatlas score wrote")
    facts = read_metadata(parts[0], MEASURED)
    if tuple(facts["metrics"]) != METRICS:
        raise InputError(f"{parts[0]}: metrics {', '.join(facts['metrics'])}, not {', '.join(METRICS)}; score again")
    tables = [read_table(MEASURED, part, [*_KEY, "values"]) for part in parts]
    values = np.concatenate([values_of(table, facts) for table in tables])
    # Parts are in the order of the scores.
    keys = pl.concat([pl.from_arrow(table.select(_KEY)) for table in tables])
    if keys.rows() != frame.select(_KEY).rows():
        raise InputError(f"{parts[0].parent}: its rows are not those of {path}; score again")
    values = values[(frame["status"] == "ok").to_numpy()]
    return Group(name, usable, values, tuple(facts["projections"]))


def _same_rows(a: Group, b: Group, keys: Sequence[str], where: Path) -> tuple[Group, Group]:
    """The samples of rows that both groups have, in one order."""
    both = a.frame.with_row_index("a").join(b.frame.with_row_index("b"), on=keys, how="inner", maintain_order="left")
    differ = both.filter(pl.col("id") != pl.col("id_right"))
    if both.is_empty() or differ.height:
        why = "no row is in both"
        if differ.height:
            why = f"row {differ['row'][0]} has id '{differ['id'][0]}' and '{differ['id_right'][0]}'"
        raise InputError(
            f"{where}: {a.name} and {b.name} do not pair, {why}; pair scores of one file by two models, or the chosen "
            "and the rejected response of each row"
        )
    left = len(a.frame) + len(b.frame) - 2 * both.height
    progress(
        f"{where}: {a.name} and {b.name} are paired by row, {both.height} pairs"
        + (f"; rows left out, with status ok on one side alone: {left}" if left else "")
    )
    return a.at(both["a"].to_numpy()), b.at(both["b"].to_numpy())


def _labels(scores: Path, other: Path) -> tuple[str, str]:
    """The folders' names, or the paths where these are alike."""
    names = [Path(path).resolve().parent.name for path in (scores, other)]
    return (names[0], names[1]) if names[0] != names[1] else (str(scores), str(other))
