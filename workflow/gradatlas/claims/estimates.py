"""The numbers that claims are about: each with its interval, and how likely chance alone would make it.

Every p-value is two-sided, the smaller tail doubled, so that it goes with the two-sided interval beside it. Where
samples pair it is Wilcoxon's signed-rank test of their own differences; where two groups of samples do not, the
Mann-Whitney test; a count has the binomial test. What is not a mean over samples (a MAD, a correlation, a regression)
is compared with its bootstrap standard error by Student's t, as are all intervals but those of counts: a bootstrap's
own shares end at 1 / draws, and hundreds of tests, corrected for their number, need smaller ones.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from scipy import stats

from gradatlas.claims.sheet import OVERALL, Claim
from gradatlas.claims.tables import EVIDENCE
from gradatlas.statistics.bootstrap import LEVEL, resampled_means

# In the column `test`: of a number that nothing random is in; of one training without an interval of its own; of a
# number whose table or runs this config does not make.
EXACT, ONE_TRAINING, NOT_REQUESTED = "exact", "none", "not asked"
# The standard normal quantile of a 95 % interval.
Z = float(stats.norm.ppf((1 + LEVEL) / 2))


@dataclass(frozen=True)
class Scale:
    """How a number is made symmetric before it is compared with its standard error, and back.

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


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its 95 % interval, the samples behind it, and the p-value of lying on this side of the bound.

    `reason`: why it supports no verdict, whatever its value.
    """

    value: float
    low: float
    high: float
    n: int
    p_value: float
    test: str
    scale: str
    reason: str = ""

    def row(self, **about: Any) -> dict[str, Any]:
        """The row of the evidence table; `about`: its other columns, empty or null where nothing is given."""
        return _EMPTY | about | asdict(self)


@dataclass(frozen=True, kw_only=True)
class GradientEstimate(Estimate):
    """A number of the first study: of one kind of responses and projection, perhaps against another model or dataset.

    `variants` that it is made of, separated by spaces; `tokens` and `reference_tokens`: mean response tokens of the two
    sides of a comparison.
    """

    relation: str = "correct"
    projection: str = OVERALL
    reference_model: str = ""
    reference_dataset: str = ""
    variants: str = ""
    tokens: float = np.nan
    reference_tokens: float = np.nan


@dataclass(frozen=True, kw_only=True)
class DynamicsEstimate(Estimate):
    """A number of the second study, `of` RUN[:RUN][/TYPE][@PLACE], a loss or a case; the column `relation` holds that.

    `headroom`, and of free answers `answers_of` to `chance`: columns of the evidence table.
    """

    of: str = ""
    headroom: float | None = None
    answers_of: str = ""
    answers: int | None = None
    accuracy: float | None = None
    chance: float | None = None

    def row(self, **about: Any) -> dict[str, Any]:
        row = super().row(**about, projection=OVERALL)
        return row | {"relation": row.pop("of")}


# What a row of the evidence table holds where an estimate has no such fact.
_EMPTY: Mapping[str, Any] = {
    field.name: "" if str(field.type) == "string" else None for field in EVIDENCE.schema
} | dict.fromkeys(("tokens", "reference_tokens"), np.nan)
# The numbers of an estimate that could not be made.
NO_NUMBER: Mapping[str, Any] = dict.fromkeys(("value", "low", "high", "p_value"), np.nan) | {"n": 0, "test": ""}


Kind = TypeVar("Kind", bound=Estimate)
Tail = Callable[[float], tuple[float, float]]


def p_value(claim: Claim, value: float, tails: Tail) -> float:
    """Two-sided, of the side that `value` lies on; `tails`: one-sided p-values of lying above and below a bound."""
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
    kind: type[Kind],
    claim: Claim,
    draws: np.ndarray,
    scale: Scale,
    n: int,
    tails: Tail | None = None,
    test: str = "",
    **about: Any,
) -> Kind:
    """One number from its bootstrap `draws`, (1 + draws,), the plain one in front.

    `tails` of a `test` on the samples themselves; without, the bootstrap's standard error. `about`: what else this
    kind of estimate holds.
    """
    value, student = float(draws[0]), Student.of_draws(draws, scale, n)
    low, high = student.interval
    found = p_value(claim, value, tails or student.tails)
    test = test if tails else "bootstrap t"
    return kind(value=value, low=low, high=high, n=n, p_value=found, test=test, scale=scale.name, **about)


def resampled(values: Sequence[np.ndarray], dataset: str, draws: int, seed: int) -> list[np.ndarray]:
    """Means over samples of arrays (samples, ...) under the same bootstrap draws: (1 + draws, ...) each.

    All claims on as many samples of a dataset share their draws, so that models pair, and none is drawn twice.
    """
    weights = _weights(len(values[0]), draws, seed, f"claims {dataset}")
    return [np.tensordot(weights, array, axes=1) for array in values]


@lru_cache(maxsize=16)
def _weights(count: int, draws: int, seed: int, name: str) -> np.ndarray:
    """Each sample's share in the plain mean and in each resample: (1 + draws, samples)."""
    return resampled_means(np.eye(count), draws, seed, name)
