"""The image classifier along its training: confusion of classes, sizes of kernels, and effects of single steps.

Each statistic of a claim is a function of the tables, so that it needs no new training.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import polars as pl
import torch
from scipy.stats import kendalltau, spearmanr
from torch.nn.functional import cosine_similarity

from gradatlas.toys import classifier, phases
from gradatlas.toys.images import Images

#: Tables of images, without ``toy_``.
TABLES = ("predictions", "kernels", "steps", "changes", "phases", "norms")
#: Epochs after which the classifier is evaluated, and those at which single steps are taken too.
TRACKED_EPOCHS = (0, 1, 2, 3, 5, 8, 13, 20, 30, 50, 75, 100)
STEP_EPOCHS = (1, 20, 100)
#: Rates of the single steps: a large one, then small ones that are halved.
RATES = (0.01, 0.001, 0.0005, 0.00025)
#: Training images at most, as in the reference's notebook, and probes per class.
TRAINING_IMAGES, PROBES_PER_CLASS = 2000, 5
#: End of the phase that the paper calls messy: ranks are compared from here on.
BURN_IN = 30


def track_training(images: Images, seed: int, rate: float) -> dict[str, list[dict]]:
    """Train on `images` and return the rows of the tables of images, by name.

    Probes are test images; predictions are means over all test images.
    """
    train, test = images.split(TRAINING_IMAGES, seed)
    probes = classifier.Probes.of(test, PROBES_PER_CLASS)
    few = classifier.Probes.of(test, phases.PROBES_PER_CLASS)
    tables: dict[str, list[dict]] = {name: [] for name in TABLES}
    before = None
    for epoch, model in classifier.train(train, seed, rate):
        weights = classifier.in_double(model)
        now = phases.state(model, weights, few)
        tables["phases"].append(phases.phase_row(epoch, now, before, few))
        before = now
        if epoch not in TRACKED_EPOCHS:
            continue
        tables["predictions"] += _prediction_rows(epoch, *classifier.mean_predictions(model, test), test)
        kernels = classifier.kernel(classifier.jacobians(model, weights, probes.pixels))
        tables["kernels"] += _kernel_rows(epoch, kernels, probes, images.names)
        if epoch in STEP_EPOCHS:
            tables["norms"] += phases.norm_rows(epoch, now, model, weights, few, images.names, seed)
            log_p = classifier.log_probs(model, weights, probes.pixels)
            direction = classifier.predicted(kernels, log_p, probes.labels)
            for step in RATES:
                true = classifier.measured(model, weights, probes, step)
                at = {"epoch": epoch, "rate": step}
                tables["steps"] += _step_rows(at, true, step * direction, probes, images.names)
                tables["changes"] += _change_rows(at, true, log_p, probes, images.names)
    return {f"toy_{name}": rows for name, rows in tables.items()}


def _prediction_rows(epoch: int, means: np.ndarray, accuracy: float, test: Images) -> Iterator[dict]:
    for observed, row in enumerate(means):
        count = int((test.labels == observed).sum())
        for label, value in enumerate(row):
            names = {"observed": test.names[observed], "label": test.names[label]}
            yield {"epoch": epoch, **names, "value": float(value), "n": count, "accuracy": accuracy}


def _pairs(probes: classifier.Probes, learned: int, observed: int, same: bool = False) -> torch.Tensor:
    """(u, o): a mask of the pairs of these two classes, of distinct images; `same`: of each image with itself."""
    of_classes = (probes.labels == learned)[:, None] & (probes.labels == observed)[None, :]
    itself = torch.eye(len(probes.labels), dtype=torch.bool)
    return of_classes & (itself if same else ~itself)


def _kernel_rows(
    epoch: int, kernels: torch.Tensor, probes: classifier.Probes, names: tuple[str, ...]
) -> Iterator[dict]:
    norms = kernels.flatten(2).norm(dim=2).T
    for u, learned in enumerate(names):
        for o, observed in enumerate(names):
            found = norms[_pairs(probes, u, o)]
            # A class with a single probe has no two distinct images.
            if len(found):
                norm = float(found.mean())
                yield {"epoch": epoch, "learned": learned, "observed": observed, "norm": norm, "n": len(found)}


def _step_rows(
    at: dict, true: torch.Tensor, first: torch.Tensor, probes: classifier.Probes, names: tuple[str, ...]
) -> Iterator[dict]:
    cosines = cosine_similarity(true, first, dim=2, eps=1e-300).tolist()
    norms = [part.norm(dim=2).tolist() for part in (true, first, true - first)]
    labels = probes.labels.tolist()
    # Of the label that is learned.
    measured, predicted = ([each[labels[u]].tolist() for u, each in enumerate(part.mT)] for part in (true, first))
    for u, learned in enumerate(labels):
        for o, observed in enumerate(labels):
            yield {
                **at,
                "learned": names[learned],
                "observed": names[observed],
                "learned_image": u,
                "observed_image": o,
                "measured": measured[u][o],
                "predicted": predicted[u][o],
                "cosine": cosines[u][o],
                **dict(
                    zip(
                        ("measured_norm", "predicted_norm", "residual_norm"),
                        (norm[u][o] for norm in norms),
                        strict=True,
                    )
                ),
            }


def _change_rows(
    at: dict, true: torch.Tensor, log_p: torch.Tensor, probes: classifier.Probes, names: tuple[str, ...]
) -> Iterator[dict]:
    changes = log_p.exp() * torch.expm1(true)
    for u, learned in enumerate(names):
        for o, observed in enumerate(names):
            for same in (False, True):
                found = changes[_pairs(probes, u, o, same)]
                for label, name in enumerate(names if len(found) else ()):
                    classes = {"learned": learned, "observed": observed, "same": same, "label": name}
                    yield {**at, **classes, "change": float(found[:, label].mean()), "n": len(found)}


def matrix(frame: pl.DataFrame, rows: str, columns: str, values: str) -> tuple[list[str], np.ndarray]:
    """(classes, square matrix) of one value for each pair of classes, in the order of the rows."""
    names = frame[rows].unique(maintain_order=True).to_list()
    wide = frame.pivot(on=columns, index=rows, values=values)
    return names, wide.select(names).to_numpy()


def confused_with(predictions: pl.DataFrame, epoch: int) -> dict[str, str]:
    """For each class, the other class with the largest mean prediction on its test images."""
    names, means = matrix(predictions.filter(pl.col("epoch") == epoch), "observed", "label", "value")
    np.fill_diagonal(means, -np.inf)
    return {name: names[int(row.argmax())] for name, row in zip(names, means, strict=True)}


def kernel_follows_confusion(predictions: pl.DataFrame, kernels: pl.DataFrame, epoch: int) -> dict[str, float]:
    """By learned class u: Spearman's correlation over o != u of |K_uo| and the mean prediction of u on images of o."""
    names, means = matrix(predictions.filter(pl.col("epoch") == epoch), "observed", "label", "value")
    _, norms = matrix(kernels.filter(pl.col("epoch") == epoch), "learned", "observed", "norm")
    others = ~np.eye(len(names), dtype=bool)
    return {
        name: float(spearmanr(norms[u][others[u]], means[:, u][others[u]]).statistic) for u, name in enumerate(names)
    }


def rank_stability(kernels: pl.DataFrame) -> pl.DataFrame:
    """Kendall's tau between the rankings of |K_uo| over o != u at an evaluation and at the last and the next one.

    Columns: epoch, learned, last, next; no row for the last evaluation.
    """
    epochs = kernels["epoch"].unique().sort().to_list()
    found = {epoch: matrix(kernels.filter(pl.col("epoch") == epoch), "learned", "observed", "norm") for epoch in epochs}
    rows = []
    for epoch, later in pairwise(epochs):
        names, norms = found[epoch]
        for u, name in enumerate(names):
            others = np.arange(len(names)) != u
            taus = {
                key: float(kendalltau(norms[u][others], found[at][1][u][others]).statistic)
                for key, at in (("last", epochs[-1]), ("next", later))
            }
            rows.append({"epoch": epoch, "learned": name, **taus})
    return pl.DataFrame(rows)


def asymmetry(steps: pl.DataFrame) -> pl.DataFrame:
    """The difference between the influence I of class u on o and that of o on u, by epoch and rate.

    Influence: the mean true change of log pi(u) on images of o. `value`: |I - I^T| / |I + I^T| (Frobenius norm, without
    the diagonal), 0 if symmetric. `rank`: Kendall's tau of I and I^T, 1 for the same order of pairs.
    """
    rows = []
    distinct = steps.filter(pl.col("learned_image") != pl.col("observed_image"))
    for (epoch, rate), part in distinct.group_by("epoch", "rate", maintain_order=True):
        means = part.group_by("learned", "observed", maintain_order=True).agg(pl.col("measured").mean())
        _, influence = matrix(means, "learned", "observed", "measured")
        upper = np.triu_indices(len(influence), 1)
        one, other = influence[upper], influence.T[upper]
        value = float(np.linalg.norm(one - other) / np.linalg.norm(one + other))
        rows.append({"epoch": epoch, "rate": rate, "value": value, "rank": float(kendalltau(one, other).statistic)})
    return pl.DataFrame(rows)


def first_order(steps: pl.DataFrame) -> pl.DataFrame:
    """How well -eta A K G predicts one step, over all pairs of images and labels, by epoch and rate.

    Columns: `slope` of true on predicted changes (through 0); `cosine`, the median over pairs, and its 5 % quantile
    `cosine_low`; `residual`, the norm of the difference over all pairs; `order`, the residual divided by that at half
    the rate (4 for a second-order remainder; null without half the rate).
    """
    product = pl.col("cosine") * pl.col("measured_norm") * pl.col("predicted_norm")
    found = steps.group_by("epoch", "rate", maintain_order=True).agg(
        (product.sum() / (pl.col("predicted_norm") ** 2).sum()).alias("slope"),
        pl.col("cosine").median(),
        pl.col("cosine").quantile(0.05).alias("cosine_low"),
        (pl.col("residual_norm") ** 2).sum().sqrt().alias("residual"),
        pl.len().alias("n"),
    )
    half = found.select("epoch", (pl.col("rate") * 2).alias("rate"), pl.col("residual").alias("half"))
    joined = found.join(half, on=["epoch", "rate"], how="left", maintain_order="left")
    return joined.with_columns((pl.col("residual") / pl.col("half")).alias("order")).drop("half")
