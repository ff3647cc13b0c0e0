"""The numbers of claims that are about more than one pair: families of models, and the first study's data."""

from collections.abc import Mapping, Sequence
from itertools import combinations, permutations

import numpy as np
import polars as pl

from gradatlas.claims.estimates import PLAIN, RATIO, GradientEstimate, estimate, paired_tails
from gradatlas.claims.quality.measures import Estimates, not_requested
from gradatlas.claims.sheet import QualityClaim
from gradatlas.scores.tables import METRICS
from gradatlas.statistics.bootstrap import resampled_means

# Points of relative depth at which curves of models of different depth are compared; orders of families tried at most.
_DEPTHS, _ORDERS = 20, 5000


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
