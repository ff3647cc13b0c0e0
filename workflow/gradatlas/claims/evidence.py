"""What a claim looks at, and what it finds there: a number, its interval, and how likely chance alone would make it.

Every p-value is two-sided, the smaller tail doubled, so that it goes with the two-sided interval beside it. Where
samples pair it is Wilcoxon's signed-rank test of their own differences; where two groups of samples do not, the
Mann-Whitney test; a count has the binomial test. What is not a mean over samples (a MAD, a correlation, a regression)
is held against its bootstrap standard error with Student's t, as are all intervals but those of counts: a bootstrap's
own shares end at 1 / draws, and hundreds of tests, corrected for their number, need smaller ones.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from gradatlas.core.sheets import read_sheet
from gradatlas.statistics.bootstrap import LEVEL, resampled_means
from gradatlas.statistics.cells import Cell, cut

OVERALL = "all"


@dataclass(frozen=True)
class Claim:
    """A row of config/claims.tsv; workflow/schemas/claims.schema.yaml says what each column is.

    `rests`, of the second study: on ``seeds`` of a training, without which there is no verdict, or on an ``exact``
    number. `published_of`: what the published numbers are of, where it is not the row's own model.
    """

    claim: str
    study: str
    status: str
    source: str
    title: str
    statement: str
    statistic: str
    direction: str
    threshold: float
    margin: float | None
    relations: Sequence[str]
    kinds: Sequence[str]
    models: Sequence[str]
    between: Sequence[str]
    ability: str
    published: Sequence[str]
    rests: str = field(default="samples", kw_only=True)
    published_of: str = field(default="", kw_only=True)

    def stated(self, row: Mapping[str, Any]) -> str | None:
        """The number that the study has published of a row's model and dataset."""
        stated = dict(entry.split("=") for entry in self.published)
        return stated.get(f"{row['model']}/{row['dataset']}") if row["projection"] == OVERALL else None

    def claimed(self, value: float) -> bool:
        """Whether a number lies where it is claimed to lie."""
        if self.direction == "within":
            return abs(value - self.threshold) < self.margin
        return value > self.threshold if self.direction == "above" else value < self.threshold

    @property
    def bounds(self) -> tuple[float, ...]:
        """The numbers between what is claimed and what is not."""
        if self.direction == "within":
            return self.threshold - self.margin, self.threshold + self.margin
        return (self.threshold,)


def read_claims(sheet: str | Path, schema: str | Path) -> list[Claim]:
    """The claims' sheet; `InputError` names the line and column of what is wrong in it."""
    return [Claim(**row) for row in read_sheet(Path(sheet), Path(schema), "claim").values()]


@dataclass(frozen=True)
class View:
    """One model on one dataset: its cells by (variant, relation, loss_tokens), and what it is compared with.

    `base` is an instructed model's base model, `untrained` the network before training, `others` the same
    model on other datasets, `concentration` each cell's evenness of the loss over its tokens, where that was measured;
    `lost` the keys of cells that were asked for and hold no usable sample; `task` the dataset's.
    """

    dataset: str
    model: str
    kind: str
    cells: Mapping[tuple[str, str, str], Cell]
    draws: int
    seed: int
    base: "View | None" = None
    untrained: "View | None" = None
    others: Mapping[str, "View"] = field(default_factory=dict)
    concentration: Mapping[tuple[str, str, str], np.ndarray] = field(default_factory=dict)
    loss_norm: str = "mean"
    lost: frozenset[tuple[str, str, str]] = frozenset()
    task: str = "other"

    def cell(self, variant: str, relation: str = "correct") -> Cell | None:
        """The cell of whole responses, where it was measured."""
        return self.cells.get((variant, relation, "all"))


@dataclass(frozen=True)
class Scale:
    """How a number is made symmetric before it is held against its standard error, and back.

    `combine` takes the last axis, projections, together: a geometric mean of ratios, else a plain one.
    """

    name: str
    to: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray], np.ndarray]
    combine: Callable[[np.ndarray], np.ndarray]


def _geometric(values: np.ndarray) -> np.ndarray:
    return np.exp(np.log(values).mean(-1))


def _mean(values: np.ndarray) -> np.ndarray:
    return values.mean(-1)


def _fisher(values: np.ndarray) -> np.ndarray:
    return np.arctanh(np.clip(values, -1 + 1e-12, 1 - 1e-12))


RATIO = Scale("ratio", np.log, np.exp, _geometric)
RELATIVE = Scale("relative", np.log1p, np.expm1, _mean)
PLAIN = Scale("plain", np.asarray, np.asarray, _mean)
CORRELATION = Scale("correlation", _fisher, np.tanh, _mean)
SHARE = Scale("share", lambda values: _fisher(2 * values - 1), lambda values: (1 + np.tanh(values)) / 2, _mean)
SCALES = {scale.name: scale for scale in (RATIO, RELATIVE, PLAIN, CORRELATION, SHARE)}


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, the samples behind it, and the p-value of lying on this side of the bound.

    `variants` that it is made of, separated by spaces; `tokens` and `reference_tokens`: mean response tokens of the two
    sides of a comparison; `reason`: why it is no ground for a verdict, whatever it says.
    """

    relation: str
    projection: str
    value: float
    low: float
    high: float
    n: int
    p_value: float
    test: str
    scale: str
    reference_model: str = ""
    reference_dataset: str = ""
    variants: str = ""
    tokens: float = np.nan
    reference_tokens: float = np.nan
    reason: str = ""


Tail = Callable[[float], tuple[float, float]]


def p_value(claim: Claim, value: float, tails: Tail) -> float:
    """Of the side that `value` lies on; `tails` gives the one-sided p-values of lying above and below a bound."""
    if not np.isfinite(value):
        return np.nan
    if claim.direction != "within":
        one_sided = tails(claim.threshold)[0 if value > claim.threshold else 1]
    else:
        low, high = claim.bounds
        # Two one-sided tests, of which the weaker counts.
        one_sided = max(tails(low)[0], tails(high)[1]) if claim.claimed(value) else min(tails(high)[0], tails(low)[1])
    return float(min(1.0, 2 * one_sided))


@dataclass(frozen=True)
class Student:
    """A number on its symmetric scale: less the bootstrap's bias, with its standard error and degrees of freedom."""

    centre: float
    error: float
    freedom: int
    scale: Scale

    @classmethod
    def of_draws(cls, draws: np.ndarray, scale: Scale, n: int) -> "Student":
        """From the plain number in front of its bootstrap draws over `n` samples.

        Noise makes a MAD too large, and noise on noise makes the draws larger still: by as much, to first order.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            moved = scale.to(draws)
        return cls(2 * moved[0] - moved[1:].mean(), moved[1:].std(ddof=1), max(n - 1, 1), scale)

    @classmethod
    def of_values(cls, values: np.ndarray, scale: Scale) -> "Student":
        """From independent numbers, already on the scale."""
        return cls(values.mean(), values.std(ddof=1) / np.sqrt(len(values)), len(values) - 1, scale)

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, back on the number's own scale."""
        reach = stats.t.ppf((1 + LEVEL) / 2, self.freedom) * self.error
        return float(self.scale.back(self.centre - reach)), float(self.scale.back(self.centre + reach))

    def tails(self, bound: float) -> tuple[float, float]:
        """One-sided p-values of lying above and below a bound."""
        distance = self.centre - self.scale.to(np.float64(bound))
        z = distance / self.error if self.error > 0 else np.sign(distance) * np.inf if distance else 0.0
        return float(stats.t.sf(z, self.freedom)), float(stats.t.cdf(z, self.freedom))


def paired_tails(differences: np.ndarray, scale: Scale) -> Tail:
    """Of the samples' own differences, on the scale."""

    def tails(bound: float) -> tuple[float, float]:
        moved = differences - scale.to(np.float64(bound))
        if not moved.any():
            return 1.0, 1.0
        return tuple(float(stats.wilcoxon(moved, alternative=side).pvalue) for side in ("greater", "less"))

    return tails


def unpaired_tails(one: np.ndarray, other: np.ndarray, scale: Scale) -> Tail:
    """Of two groups of samples, both on the scale."""

    def tails(bound: float) -> tuple[float, float]:
        moved = one - scale.to(np.float64(bound))
        return tuple(
            float(stats.mannwhitneyu(moved, other, alternative=side, method="asymptotic").pvalue)
            for side in ("greater", "less")
        )

    return tails


def estimate(
    claim: Claim,
    draws: np.ndarray,
    scale: Scale,
    n: int,
    *,
    relation: str = "correct",
    projection: str = OVERALL,
    tails: Tail | None = None,
    test: str = "",
    **about: Any,
) -> Estimate:
    """One number from its bootstrap `draws`, (1 + draws,), the plain one in front.

    `tails` of a `test` on the samples themselves; without, the bootstrap's standard error. `about`: the fields of
    `Estimate` that say what it is of.
    """
    value, student = float(draws[0]), Student.of_draws(draws, scale, n)
    found = p_value(claim, value, tails or student.tails)
    numbers = (relation, projection, value, *student.interval, n, found, test if tails else "bootstrap t", scale.name)
    return Estimate(*numbers, **about)


def by_projection(
    claim: Claim,
    draws: np.ndarray,
    scale: Scale,
    n: int,
    projections: Sequence[str],
    differences: np.ndarray | None = None,
    **about: Any,
) -> Iterator[Estimate]:
    """One estimate over all projections, then one for each.

    `draws`: (1 + draws, projections). `differences`: (samples, projections), the samples' own on the scale, for
    Wilcoxon's test; a sample whose gradient is zero has none, and then the bootstrap's standard error serves.
    """
    paired = differences is not None and bool(np.isfinite(differences).all())
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = {OVERALL: scale.combine(draws), **dict(zip(projections, draws.T, strict=True))}
    for place, (projection, column) in enumerate(columns.items()):
        tails = None
        if paired:
            tails = paired_tails(differences.mean(1) if place == 0 else differences[:, place - 1], scale)
        yield estimate(claim, column, scale, n, projection=projection, tails=tails, test="Wilcoxon", **about)


def sides(one: Sequence[Cell], other: Sequence[Cell] = ()) -> dict[str, Any]:
    """What an estimate says of the cells of its two sides: their variants and mean response tokens."""
    variants = dict.fromkeys(cell.variant for cell in (*one, *other))
    lengths = [
        float(np.mean([cell.response_tokens.mean() for cell in each])) if each else np.nan for each in (one, other)
    ]
    return {"variants": " ".join(variants), "tokens": lengths[0], "reference_tokens": lengths[1]}


def together(view: View, *cells: Cell | None) -> tuple[list[Cell], list[np.ndarray]] | None:
    """The cells cut to the samples that all have, and their mean curves under the same bootstrap draws.

    Curves: (1 + draws, projections, layers) each. None where a cell was not measured or no sample is in all.
    """
    if any(cell is None for cell in cells):
        return None
    common = set(cells[0].sample_ids).intersection(*(cell.sample_ids for cell in cells))
    ids = [sample_id for sample_id in cells[0].sample_ids if sample_id in common]
    if not ids:
        return None
    alike = [cut(cell, ids) for cell in cells]
    return alike, resampled(view, [cell.values["nuclear_norm"] for cell in alike])


def resampled(view: View, values: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Means over samples of arrays (samples, ...) under the same bootstrap draws: (1 + draws, ...) each.

    All claims on as many samples of a dataset share their draws, so that models pair, and none is drawn twice.
    """
    weights = _weights(len(values[0]), view.draws, view.seed, f"claims {view.dataset}")
    return [np.tensordot(weights, array, axes=1) for array in values]


@lru_cache(maxsize=16)
def _weights(count: int, draws: int, seed: int, name: str) -> np.ndarray:
    """Each sample's share in the plain mean and in each resample: (1 + draws, samples)."""
    return resampled_means(np.eye(count), draws, seed, name)


def log_sizes(cell: Cell) -> np.ndarray:
    """Each sample's log nuclear norm, averaged over layers before the logarithm: (samples, projections)."""
    with np.errstate(divide="ignore"):
        return np.log(cell.values["nuclear_norm"].mean(2))
