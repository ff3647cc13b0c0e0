"""The claims that are mathematics: a softmax, a classifier of images, the losses' formulas, one step of finetuning.

One function each; it is given its tables by name and yields estimates. Where nothing is random the number is its own
interval, and its tolerance is in the sheet. A classifier's training is random, and one training is one seed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import polars as pl
import torch

from gradatlas.claims.dynamics.runs import exactly
from gradatlas.claims.estimates import CORRELATION, ONE_TRAINING, DynamicsEstimate, Student, estimate
from gradatlas.claims.sheet import DynamicsClaim
from gradatlas.finetuning.losses import LOSSES, Scores
from gradatlas.kernels.first_order import summary
from gradatlas.statistics.bootstrap import resampled_means
from gradatlas.toys import clip, influence, squeeze

# Random softmaxes, labels and steps on which the exact statements are tried; pairs of scores for the formulas.
TRIED, PAIRS = 5000, 1000
_DRAWS = 2000

Tables = Mapping[str, pl.DataFrame]
Exact = Callable[[Tables, DynamicsClaim], Iterator[DynamicsEstimate]]


@lru_cache(maxsize=1)
def _violations() -> dict[str, int]:
    return squeeze.violations(TRIED, seed=0)


def _violated(name: str) -> Exact:
    def measured(tables: Tables, claim: DynamicsClaim) -> Iterator[DynamicsEstimate]:
        yield exactly(float(_violations()[name]), TRIED)

    return measured


def squeeze_published(tables: Tables, claim: DynamicsClaim) -> Iterator[DynamicsEstimate]:
    """How many published numbers differ from ours, rounded to as many digits."""
    found = {row["case"]: row for row in tables["squeeze_cases"].to_dicts()}
    stated = [(case, name, value) for case, row in squeeze.PUBLISHED.items() for name, value in row.items()]
    wrong = sum(not _same_digits(found[case][name], value) for case, name, value in stated)
    yield exactly(float(wrong), len(stated))


def _same_digits(ours: float, published: float) -> bool:
    """Within one unit of the last published digit: how a number was rounded is not known."""
    mantissa, _, exponent = f"{published!r}".partition("e")
    unit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return abs(ours - published) <= unit


def _trend(sweep: str) -> Exact:
    """Mean over random softmaxes of Spearman's correlation of what is varied and the share of labels that fall."""

    def measured(tables: Tables, claim: DynamicsClaim) -> Iterator[DynamicsEstimate]:
        values = np.array(squeeze.trends(tables["squeeze_sweeps"].to_dicts())[sweep])
        draws = resampled_means(values, _DRAWS, 0, f"claims {sweep}")
        yield estimate(DynamicsEstimate, claim, draws, CORRELATION, len(values))

    return measured


def squeeze_control(tables: Tables, claim: DynamicsClaim) -> Iterator[DynamicsEstimate]:
    """The spread of the other labels' log-ratios where chosen and rejected share a context."""
    (row,) = tables["squeeze_cases"].filter(pl.col("case") == "control").to_dicts()
    yield exactly(row["ratio_spread"], row["labels"])


def clipped_squeezes_less(tables: Tables, claim: DynamicsClaim) -> Iterator[DynamicsEstimate]:
    """By softmax, what the likeliest other label gains over all steps, clipped over DPO."""
    found = clip.squeezed(tables["clip"].to_dicts())
    for case in clip.SOFTMAXES:
        gains = [found[case, objective]["winner_gain"] for objective in ("clipped", "dpo")]
        yield exactly(gains[0] / gains[1], clip.STEPS, f"case_{case}")


def confused_4_9(tables: Tables, claim: DynamicsClaim) -> Iterator[DynamicsEstimate]:
    """Whether images of 4 are given 9 most of all other classes, and of 9, 4."""
    predictions = tables["predictions"]
    likest = influence.confused_with(predictions, predictions["epoch"].max())
    images = predictions.filter((pl.col("epoch") == pl.col("epoch").max()) & (pl.col("observed") == pl.col("label")))
    n = int(images.filter(pl.col("observed").is_in(["4", "9"]))["n"].sum())
    yield _one_training(float((likest.get("4") == "9") + (likest.get("9") == "4")), n)


def kernel_follows_confusion(tables: Tables, claim: DynamicsClaim) -> Iterator[DynamicsEstimate]:
    """Mean over learned classes; its interval is over classes."""
    predictions = tables["predictions"]
    found = influence.kernel_follows_confusion(predictions, tables["kernels"], predictions["epoch"].max())
    yield _over_classes(claim, np.array(list(found.values())))


def classifier_first_order(tables: Tables, claim: DynamicsClaim) -> Iterator[DynamicsEstimate]:
    """The worst epoch's median cosine at the smallest rate."""
    found = influence.first_order(tables["steps"])
    worst = found.filter(pl.col("rate") == pl.col("rate").min()).sort("cosine").row(0, named=True)
    yield exactly(worst["cosine"], worst["n"])


def kernel_ranks_stable(tables: Tables, claim: DynamicsClaim) -> Iterator[DynamicsEstimate]:
    """Mean over epochs after burn-in of Kendall's tau with the last epoch; its interval is over classes."""
    found = influence.rank_stability(tables["kernels"]).filter(pl.col("epoch") >= influence.BURN_IN)
    yield _over_classes(claim, found.group_by("learned").agg(pl.col("last").mean()).sort("learned")["last"].to_numpy())


def influence_asymmetric(tables: Tables, claim: DynamicsClaim) -> Iterator[DynamicsEstimate]:
    """|I - I^T| / |I + I^T| at the last epoch and the smallest rate."""
    steps = tables["steps"]
    last = influence.asymmetry(steps).filter(pl.col("epoch") == pl.col("epoch").max())
    classes = steps["learned"].n_unique()
    yield _one_training(last.sort("rate")["value"][0], classes * (classes - 1))


def _over_classes(claim: DynamicsClaim, values: np.ndarray) -> DynamicsEstimate:
    """A mean of correlations, one a learned class; `n` are the pairs of classes behind it."""
    moved = Student.of_values(CORRELATION.to(values), CORRELATION)
    n = len(values) * (len(values) - 1)
    low, high = moved.interval
    found = min(1.0, 2 * min(moved.tails(claim.threshold)))
    return DynamicsEstimate(
        value=float(values.mean()),
        low=low,
        high=high,
        n=n,
        p_value=found,
        test="t over classes",
        scale=CORRELATION.name,
    )


def _one_training(value: float, n: int) -> DynamicsEstimate:
    """A number of one training without an interval of its own."""
    return replace(exactly(value, n), test=ONE_TRAINING)


def formula_paper(tables: Tables, claim: DynamicsClaim) -> Iterator[DynamicsEstimate]:
    """By loss, how far the paper's coefficient lies from autograd's, as a share of the latter."""
    for loss in claim.types:
        scores, true = _by_autograd(loss)
        yield _deviation(loss, _PAPER[loss](scores), true)


def formula_ours(tables: Tables, claim: DynamicsClaim) -> Iterator[DynamicsEstimate]:
    """The same of `gradatlas.finetuning.losses`: the largest with and without label smoothing, if a loss has it."""
    for loss in claim.types:
        found = []
        for smoothing in (0.0, SMOOTHING) if LOSSES[loss].optional else (0.0,):
            scores, true = _by_autograd(loss, smoothing)
            outcome = LOSSES[loss].smoothed(scores, BETA, MARGIN, smoothing)
            found.append(_deviation(loss, (outcome.chosen, outcome.rejected), true))
        yield max(found, key=lambda estimate: estimate.value)


def sppo_no_squeeze(tables: Tables, claim: DynamicsClaim) -> Iterator[DynamicsEstimate]:
    """What SPPO pulls a rejected response by where the model still is the reference, in units of its eta."""
    at_start = [torch.zeros(1, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    fixed = [torch.zeros(1, dtype=torch.float64) for _ in range(2)]
    loss = LOSSES["sppo"].of(Scores(*at_start, *fixed), BETA, MARGIN).loss
    (_, rejected) = torch.autograd.grad(loss.sum(), at_start)
    yield exactly(float(-rejected) * BETA, 1, "sppo")


BETA, MARGIN, SMOOTHING = 0.1, 1.0, 0.2


@lru_cache
def _by_autograd(loss: str, smoothing: float = 0.0) -> tuple[Scores, tuple[torch.Tensor, torch.Tensor]]:
    """Random scores, and c = -dL/ds of both responses: what multiplies pi - e_y in G."""
    draw = torch.Generator().manual_seed(0)

    def normal(scale: float) -> torch.Tensor:
        return scale * torch.randn(PAIRS, generator=draw, dtype=torch.float64)

    reference = [-60 + normal(10), -60 + normal(10)]
    trained = [(each + normal(5)).requires_grad_() for each in reference]
    lengths = [torch.full((PAIRS,), 20.0, dtype=torch.float64), torch.full((PAIRS,), 30.0, dtype=torch.float64)]
    scores = Scores(*trained, *reference, *lengths, torch.full((PAIRS,), 0.5, dtype=torch.float64))
    outcome = LOSSES[loss].smoothed(scores, BETA, MARGIN, smoothing)
    found = torch.autograd.grad(outcome.loss.sum(), trained, allow_unused=True)
    return scores, tuple(torch.zeros(PAIRS, dtype=torch.float64) if each is None else -each for each in found)


def _deviation(loss: str, ours: Sequence[torch.Tensor], true: Sequence[torch.Tensor]) -> DynamicsEstimate:
    """The largest, over pairs and both responses, as a share of the loss's largest true coefficient."""
    scale = max(float(each.abs().max()) for each in true)
    worst = max(float((one - two).detach().abs().max()) for one, two in zip(ours, true, strict=True))
    return exactly(worst / scale, PAIRS, loss)


def _paper_dpo(scores: Scores) -> tuple[torch.Tensor, torch.Tensor]:
    chosen, rejected = scores.ratios
    pull = BETA * (1 - torch.sigmoid(BETA * (chosen - rejected)))
    return pull, -pull


def _paper_slic(scores: Scores) -> tuple[torch.Tensor, torch.Tensor]:
    hinge = (scores.chosen - scores.rejected < MARGIN).double()
    return hinge + BETA, -hinge


def _paper_ipo(scores: Scores) -> tuple[torch.Tensor, torch.Tensor]:
    chosen, rejected = scores.ratios
    pull = BETA * (1 - (chosen - rejected - 1 / (2 * BETA)))
    return pull, -pull


def _paper_sppo(scores: Scores) -> tuple[torch.Tensor, torch.Tensor]:
    chosen, rejected = scores.ratios
    return 2 * (1 / (2 * BETA) - chosen), 2 * (1 / (2 * BETA) + rejected)


# The paper's coefficients of -(pi - e_y): section 3, appendix B, equations 7, 17, 21 and 22. Of SPPO's two "positive
# vectors" the sign is taken as stated, the size as differentiated.
_PAPER = {
    "sft": lambda scores: (torch.ones_like(scores.chosen), torch.zeros_like(scores.chosen)),
    "dpo": _paper_dpo,
    "slic": _paper_slic,
    "ipo": _paper_ipo,
    "sppo": _paper_sppo,
}


def one_step_slope(tables: Tables, claim: DynamicsClaim) -> Iterator[DynamicsEstimate]:
    """By trained weights and loss, of all updates and seeds the slope that is furthest from 1."""
    return _worst(tables["one_step"], claim, "slope")


def one_step_order(tables: Tables, claim: DynamicsClaim) -> Iterator[DynamicsEstimate]:
    """By trained weights and loss, of all updates and seeds the ratio that is furthest from 4."""
    return _worst(tables["one_step"], claim, "order")


def _worst(table: pl.DataFrame, claim: DynamicsClaim, name: str) -> Iterator[DynamicsEstimate]:
    found = [row for _, part in table.group_by("seed", maintain_order=True) for row in summary(part.to_dicts())]
    for trained, loss in sorted({(row["trained"], row["loss"]) for row in found}):
        own = [row for row in found if (row["trained"], row["loss"]) == (trained, loss)]
        worst = max((row[name] for row in own), key=lambda value: abs(value - claim.threshold))
        yield exactly(worst, sum(row["n"] for row in own), f"{trained}/{loss}")


EXACT: dict[str, Exact] = {
    "squeeze_own": _violated("own"),
    "squeeze_winner": _violated("winner"),
    "squeeze_monotone": _violated("monotone"),
    "squeeze_threshold": _violated("threshold"),
    "squeeze_published": squeeze_published,
    "squeeze_peaky": _trend("peakiness"),
    "squeeze_valley": _trend("probability"),
    "squeeze_step": _trend("size"),
    "squeeze_control": squeeze_control,
    "clipped_squeezes_less": clipped_squeezes_less,
    "confused_4_9": confused_4_9,
    "kernel_follows_confusion": kernel_follows_confusion,
    "classifier_first_order": classifier_first_order,
    "kernel_ranks_stable": kernel_ranks_stable,
    "influence_asymmetric": influence_asymmetric,
    "formula_paper": formula_paper,
    "formula_ours": formula_ours,
    "sppo_no_squeeze": sppo_no_squeeze,
    "one_step_slope": one_step_slope,
    "one_step_order": one_step_order,
}
