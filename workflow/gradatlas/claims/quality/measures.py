"""How the numbers of the data-quality study's claims (arXiv 2504.10766) are made, one function each; no verdict.

A `Pair` is the samples of high and of low quality on one model. `matched` controls compare pairs of samples of like
log tokens, log loss or both (`statistics.effects.matched_pairs`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from typing import Any

import numpy as np
import polars as pl
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
from gradatlas.scores.tables import METRICS
from gradatlas.statistics.bootstrap import resampled_means
from gradatlas.statistics.counts import FEWEST_SAMPLES
from gradatlas.statistics.effects import dominance, matched_pairs
from gradatlas.statistics.groups import Group

Estimates = Iterator[GradientEstimate]
_COVARIATES = ("tokens", "loss")
# Points of relative depth at which curves of models of different depth are compared; orders of families tried at most.
_DEPTHS, _ORDERS = 20, 5000


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


def family_likeness(curves: Mapping[str, Mapping[str, np.ndarray]], claim: QualityClaim, draws: int, seed: int):
    """Mean correlation of the curves of two models of one family, less that of models of two.

    `curves`: by model and set of samples, (layers, projections, metrics) means. Correlations are of logarithms over
    relative depth, for each projection and metric, and averaged over these. The interval is over sets of samples; p:
    by permutation of the models' families, of all orders or of `_ORDERS` random ones.
    """
    families = dict(entry.split("=") for entry in claim.families)
    models = [model for model in curves if model in families]
    kinds = [families[model] for model in models]
    if len(set(kinds)) < 2 or len(set(kinds)) == len(kinds):
        yield not_requested("needs several models of one family, and another family")
        return
    sets = sorted(set.intersection(*(set(curves[model]) for model in models)))
    alike = np.array([_correlations([_on_depths(curves[model][name]) for model in models]) for name in sets])
    value = np.array([_within_less_between(each, kinds) for each in alike])
    drawn = resampled_means(value, draws, seed, "family likeness")
    orders = list(permutations(kinds)) if len(kinds) < 8 else _shuffled(kinds, seed)
    by_chance = np.array([_within_less_between(alike.mean(0), order) for order in orders])
    upper = float((by_chance >= drawn[0] - 1e-12).mean())
    tails = lambda bound: (upper, float((by_chance <= drawn[0] + 1e-12).mean()))  # noqa: E731
    about = {"relation": "", "variants": "", "reference_dataset": ""}
    yield estimate(GradientEstimate, claim, drawn, PLAIN, max(len(sets), 2), tails, "permutation of families", **about)


def cosine(cosines: pl.DataFrame, claim: QualityClaim, draws: int, seed: int) -> Estimates:
    """The mean absolute cosine of a sample's gradients, of each kind: of one layer, and of neighbouring layers."""
    usable = cosines.filter(pl.col("cosine").is_finite().fill_null(False) & (pl.col("loss_tokens") == "all"))
    for (kind,), part in usable.group_by("kind", maintain_order=True):
        keys = ["variant", "relation", "sample_id"]
        own = part.group_by(keys, maintain_order=True).agg(pl.col("cosine").abs().mean())["cosine"].to_numpy()
        drawn = resampled_means(own, draws, seed, f"cosine {kind}")
        yield estimate(GradientEstimate, claim, drawn, PLAIN, len(own), relation=kind)


def correct_ratio(per_sample: pl.DataFrame, claim: QualityClaim, draws: int, seed: int) -> Estimates:
    """The mean of a number in correct over that in irrelevant responses to the same questions, by variant and kind."""
    whole = per_sample.filter(pl.col("loss_tokens") == "all")
    keys = ["variant", "relation", "sample_id"]
    means = whole.group_by(keys, maintain_order=True).agg(
        pl.col(claim.number).mean(), pl.col("response_tokens").first()
    )
    correct = means.filter(pl.col("relation") == "correct")
    for (variant, relation), part in means.group_by("variant", "relation", maintain_order=True):
        if variant not in ("none", "detailed") or relation not in ("published", "derangement"):
            continue
        both = correct.join(part, on=["variant", "sample_id"], how="inner", suffix="_other")
        a, b = both[claim.number].to_numpy(), both[f"{claim.number}_other"].to_numpy()
        tokens = both["response_tokens"].mean(), both["response_tokens_other"].mean()
        about = {"relation": f"{variant}/{relation}", "variants": variant}
        about |= dict(zip(("tokens", "reference_tokens"), tokens, strict=True))
        drawn = resampled_means(np.column_stack([a, b]), draws, seed, f"correct {variant} {relation}")
        tails = paired_tails(np.log(a) - np.log(b), RATIO)
        yield estimate(GradientEstimate, claim, drawn[:, 0] / drawn[:, 1], RATIO, len(a), tails, "Wilcoxon", **about)


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


def _on_depths(curve: np.ndarray) -> np.ndarray:
    """(layers, projections, metrics) to (projections * metrics, depths): logarithms at equal relative depths."""
    layers = np.linspace(0, 1, len(curve))
    flat = np.log(curve[..., [METRICS.index(name) for name in METRICS[:2]]].reshape(len(curve), -1))
    return np.array([np.interp(np.linspace(0, 1, _DEPTHS), layers, column) for column in flat.T])


def _correlations(curves: Sequence[np.ndarray]) -> np.ndarray:
    """(models, models): correlations of their curves over depth, averaged over projections and metrics."""
    found = np.eye(len(curves))
    for one, other in combinations(range(len(curves)), 2):
        pairs = zip(curves[one], curves[other], strict=True)
        found[one, other] = found[other, one] = np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairs])
    return found


def _within_less_between(alike: np.ndarray, kinds: Sequence[str]) -> float:
    places = list(combinations(range(len(kinds)), 2))
    same = [alike[one, other] for one, other in places if kinds[one] == kinds[other]]
    differ = [alike[one, other] for one, other in places if kinds[one] != kinds[other]]
    return float(np.mean(same) - np.mean(differ))


def _shuffled(kinds: Sequence[str], seed: int) -> list[tuple[str, ...]]:
    generator = np.random.default_rng(seed)
    return [tuple(kinds), *(tuple(generator.permutation(kinds)) for _ in range(_ORDERS - 1))]


#: By name in the sheet: of one pair, of all pairs of a model.
OF_PAIR: dict[str, Callable[[Pair, QualityClaim], Estimates]] = {
    "ratio": ratio,
    "partial_correlation": partial_correlation,
    "separation_difference": separation_difference,
}
