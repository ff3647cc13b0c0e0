"""How the numbers of the data-quality study's claims (arXiv 2504.10766) on two sides are made, one function each.

A `Pair` is the samples of high and of low quality on one model. `matched` controls compare pairs of samples of like
log tokens, log loss or both (`statistics.effects.matched_pairs`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from gradatlas.claims.estimates import (
    CORRELATION,
    NO_NUMBER,
    NOT_REQUESTED,
    PLAIN,
    RATIO,
    GradientEstimate,
    Scale,
    estimate,
    paired_tails,
    unpaired_tails,
)
from gradatlas.claims.sheet import QualityClaim
from gradatlas.statistics.bootstrap import resampled_means
from gradatlas.statistics.counts import FEWEST_SAMPLES
from gradatlas.statistics.effects import dominance, matched_pairs
from gradatlas.statistics.groups import Group

Estimates = Iterator[GradientEstimate]
_COVARIATES = ("tokens", "loss")


@dataclass(frozen=True)
class Pair:
    """Samples of high and of low quality of one model; `quality`: each one's own measure of it, NaN where unknown."""

    name: str
    high: Group
    low: Group
    high_quality: np.ndarray
    low_quality: np.ndarray
    draws: int
    seed: int

    def matched(self, by: Sequence[str]) -> tuple[Group, Group]:
        """The sides, in pairs of samples matched on these covariates."""
        columns = [_COVARIATES.index(name) for name in by]
        sides = [side.at(np.flatnonzero(np.isfinite(side.covariates).all(1))) for side in (self.high, self.low)]
        if min(len(side.frame) for side in sides) < 2:
            return sides[0].at(np.array([], int)), sides[1].at(np.array([], int))
        places = matched_pairs(*(side.covariates[:, columns] for side in sides), self.seed)
        return sides[0].at(places[0]), sides[1].at(places[1])


def ratio(it: Pair, claim: QualityClaim) -> Estimates:
    """The mean of a number in high over that in low quality."""
    if not claim.matched:
        yield _ratio(claim, it.high, it.low, it, paired=False)
        return
    yield _ratio(claim, *it.matched(claim.matched), it, paired=True)


def partial_correlation(it: Pair, claim: QualityClaim) -> Estimates:
    """Spearman's correlation of a number with the samples' own quality, given log tokens and log loss.

    Of residuals of ranks. Where samples have no measure of their own, high is 1 and low 0.
    """
    quality = np.concatenate([it.high_quality, it.low_quality])
    frames = [it.high.frame, it.low.frame]
    if not np.isfinite(quality).any():
        quality = np.repeat([1.0, 0.0], [len(frame) for frame in frames])
    number = np.concatenate([_values(side, claim.number) for side in (it.high, it.low)])
    data = np.column_stack([number, quality, np.concatenate([it.high.covariates, it.low.covariates])])
    data = data[np.isfinite(data).all(1)]
    if len(data) < FEWEST_SAMPLES:
        yield _nothing(CORRELATION, len(data), False)
        return
    generator = np.random.default_rng(it.seed)
    places = generator.integers(len(data), size=(it.draws, len(data)))
    draws = np.array([partial_rank_correlation(part) for part in (data, *(data[place] for place in places))])
    about = _about(it.high, it.low)
    yield estimate(GradientEstimate, claim, draws, CORRELATION, len(data), **about)


def partial_rank_correlation(data: np.ndarray) -> float:
    """Of the first two columns of (samples, k), given the others: Pearson's of the residuals of their ranks."""
    ranks = stats.rankdata(data, axis=0)
    given = np.column_stack([np.ones(len(data)), ranks[:, 2:]])
    left = ranks[:, :2] - given @ np.linalg.lstsq(given, ranks[:, :2], rcond=None)[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.corrcoef(left.T)[0, 1])


def separation_difference(it: Pair, claim: QualityClaim) -> Estimates:
    """Absolute Cliff's delta of effective rank less that of the nuclear norm."""
    paired = bool(claim.matched)
    high, low = it.matched(claim.matched) if paired else (it.high, it.low)
    n = min(len(high.frame), len(low.frame))
    if n < 2:
        yield _nothing(PLAIN, n, paired)
        return
    rank, norm = ([_values(side, name) for side in (high, low)] for name in ("effective_rank", "nuclear_norm"))
    generator = np.random.default_rng(it.seed)
    first = generator.integers(len(high.frame), size=(it.draws, len(high.frame)))
    second = first if paired else generator.integers(len(low.frame), size=(it.draws, len(low.frame)))
    places = [(slice(None), slice(None)), *zip(first, second, strict=True)]
    draws = np.array(
        [
            abs(_delta(rank[0][one], rank[1][other], paired)) - abs(_delta(norm[0][one], norm[1][other], paired))
            for one, other in places
        ]
    )
    yield estimate(GradientEstimate, claim, draws, PLAIN, n, **_about(high, low))


def largest_rank(it: Mapping[str, Pair], claim: QualityClaim) -> Estimates:
    """The mean of a number in the high side of pair `reasoning` over that in the set of samples that comes nearest.

    It is the largest of all where it is larger than each: the estimate with the lowest lower end counts.
    """
    if "reasoning" not in it:
        yield not_requested("needs the pair reasoning")
        return
    own, found = it["reasoning"], []
    for group in {group.name: group for pair in it.values() for group in (pair.high, pair.low)}.values():
        if group.name == own.high.name:
            continue
        versus = replace(own, low=group)
        sides = versus.matched(claim.matched) if claim.matched else (own.high, group)
        found.append(_ratio(claim, *sides, own, paired=bool(claim.matched), reference_dataset=group.name))
    yield min(found, key=lambda each: (each.low if np.isfinite(each.low) else -np.inf, each.n))


def _ratio(claim: QualityClaim, high: Group, low: Group, it: Pair, paired: bool, **about: Any) -> GradientEstimate:
    a, b = (_values(side, claim.number) for side in (high, low))
    n = min(len(a), len(b))
    if n < 2:
        return _nothing(RATIO, n, paired, **about)
    about |= _about(high, low)
    if paired:
        drawn = resampled_means(np.column_stack([a, b]), it.draws, it.seed, f"{it.name} pairs")
        one, other, test, tails = drawn[:, 0], drawn[:, 1], "Wilcoxon", paired_tails(np.log(a) - np.log(b), RATIO)
    else:
        one, other = (
            resampled_means(side, it.draws, it.seed, f"{it.name} {name}") for side, name in ((a, "high"), (b, "low"))
        )
        test, tails = "Mann-Whitney", unpaired_tails(np.log(a), np.log(b), RATIO)
    return estimate(GradientEstimate, claim, one / other, RATIO, n, tails, test, **about)


def _about(high: Group, low: Group) -> dict[str, Any]:
    tokens = [side.frame["response_tokens"].mean() for side in (high, low)]
    return {"relation": "", "tokens": tokens[0], "reference_tokens": tokens[1]}


def _nothing(scale: Scale, n: int, paired: bool, **about: Any) -> GradientEstimate:
    reason = f"only {n} {'matched pair' if paired else 'sample'}{'s' * (n != 1)}; {FEWEST_SAMPLES} are needed"
    return GradientEstimate(**NO_NUMBER | {"n": n}, scale=scale.name, reason=reason, **about, relation="")


def not_requested(why: str) -> GradientEstimate:
    """The row of a claim whose data this config does not make."""
    numbers = NO_NUMBER | {"test": NOT_REQUESTED}
    return GradientEstimate(**numbers, scale=PLAIN.name, reason=f"not tested: {why}", relation="")


def _values(side: Group, number: str) -> np.ndarray:
    return side.frame[number].to_numpy().astype(float)


def _delta(a: np.ndarray, b: np.ndarray, paired: bool) -> float:
    return float(np.sign(a - b).mean()) if paired else dominance(a, b, paired)[0]


#: By name in the sheet: of one pair, of all pairs of a model.
OF_PAIR: dict[str, Callable[[Pair, QualityClaim], Estimates]] = {
    "ratio": ratio,
    "partial_correlation": partial_correlation,
    "separation_difference": separation_difference,
}
