"""The factors of the first-order change -eta A K G along the classifier's training, and K by Gaussian vectors.

The paper assumes that K changes little: in phases of training, the kernels' norm, their change over an epoch, and the
norms of A and G beside them.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch.nn.functional import cosine_similarity, one_hot

from gradatlas.kernels.gaussian import of_products
from gradatlas.toys import classifier

#: By name, the first epoch of a phase. The paper trains for 1,000 epochs: it calls the first 30 messy, and compares the
#: last fifth with finetuning.
PHASES = {"early": 0, "middle": 30, "late": 80}
#: Every epoch is evaluated: with fewer images than single steps are taken on.
PROBES_PER_CLASS = 2
#: Gaussian vectors w of each image, and as many v.
DRAWS = 16


class State(NamedTuple):
    """Kernels (o, u, classes, classes) of all pairs of images, and log pi (n, classes) of each."""

    kernels: torch.Tensor
    log_p: torch.Tensor


def state(model: torch.nn.Module, weights: classifier.Weights, probes: classifier.Probes) -> State:
    """The state of a model on `probes`."""
    kernels = classifier.kernel(classifier.jacobians(model, weights, probes.pixels))
    return State(kernels, classifier.log_probs(model, weights, probes.pixels))


def phase_row(epoch: int, now: State, before: State | None, probes: classifier.Probes) -> dict:
    """The row of `toy_phases` of an epoch: means over pairs of distinct images; `before`: the state an epoch before."""
    distinct = ~torch.eye(len(probes.labels), dtype=torch.bool)

    def mean(norms: torch.Tensor) -> float:
        return float(norms[distinct].mean())

    kernels, p = now.kernels.flatten(2), now.log_p.exp()
    old = None if before is None else before.kernels.flatten(2)
    return {
        "epoch": epoch,
        "phase": [name for name, first in PHASES.items() if first <= epoch][-1],
        "kernel": mean(kernels.norm(dim=2)),
        "change": None if old is None else mean((kernels - old).norm(dim=2)),
        "cosine": None if old is None else mean(cosine_similarity(kernels, old, dim=2)),
        # A = I - 1 pi^T, and G = pi - e_y.
        "a": float((p.shape[1] - 2 + p.shape[1] * p.square().sum(1)).sqrt().mean()),
        "g": float((p - one_hot(probes.labels, p.shape[1])).norm(dim=1).mean()),
        "influence": mean(classifier.predicted(now.kernels, now.log_p, probes.labels).norm(dim=2)),
        "n": int(distinct.sum()),
    }


def norm_rows(
    epoch: int,
    now: State,
    model: torch.nn.Module,
    weights: classifier.Weights,
    probes: classifier.Probes,
    names: tuple[str, ...],
    seed: int,
) -> Iterator[dict]:
    """The rows of `toy_norms` at an epoch: estimates from gradients of <w, logits>, without a Jacobian."""
    generator = torch.Generator().manual_seed(seed)
    n, classes = now.log_p.shape
    vectors = torch.randn(n, 2 * DRAWS, classes, generator=generator, dtype=now.log_p.dtype)
    flat = classifier.projected(model, weights, probes.pixels, vectors).flatten(0, 1)
    products = (flat @ flat.T).view(n, 2 * DRAWS, n, 2 * DRAWS)[:, :DRAWS, :, DRAWS:].transpose(1, 2)
    value, error = of_products(products)
    estimates, norms = value.sqrt(), now.kernels.flatten(2).norm(dim=2)
    # The error of a square root, to first order.
    errors = error / (2 * estimates)
    for o, observed in enumerate(probes.labels.tolist()):
        for u, learned in enumerate(probes.labels.tolist()):
            numbers = {"norm": norms[o, u], "estimate": estimates[o, u], "error": errors[o, u]}
            yield {
                "epoch": epoch,
                "learned": names[learned],
                "observed": names[observed],
                **{name: float(number) for name, number in numbers.items()},
            }
