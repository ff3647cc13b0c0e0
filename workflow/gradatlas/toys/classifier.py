"""A small image classifier, and the effect of learning one image on the log-probabilities of another.

One step of SGD on (x_u, y_u) changes the log-probabilities of another image x_o by ("Learning Dynamics of LLM
Finetuning", Ren and Sutherland, ICLR 2025, proposition 1)

    d log pi(. | x_o) = -eta A(x_o) K(x_o, x_u) G(x_u, y_u) + O(eta^2)

with A = I - 1 pi^T, the empirical tangent kernel of the logits K = J_o J_u^T from exact Jacobians J (classes x
weights), and G = pi(. | x_u) - e_{y_u}. |K(o, u)|_F is symmetric in the two images by definition, their influence is
not.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap

from gradatlas.toys.images import Images

#: Training: momentum and weight decay of the reference's notebook for MNIST.
BATCH, MOMENTUM, DECAY = 64, 0.9, 5e-4
EPOCHS = 100

Weights = dict[str, Tensor]


def lenet(side: int, classes: int) -> nn.Sequential:
    """LeNet with tanh for images of `side` x `side` pixels; below 16 its convolutions are 3 wide and pooled once."""
    small = side < 16
    kernel, second = (3, nn.Identity()) if small else (5, nn.AvgPool2d(2))
    end = (side // 2 - kernel + 1) // (1 if small else 2)
    return nn.Sequential(
        nn.Conv2d(1, 6, kernel, padding=kernel // 2),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 16, kernel),
        nn.Tanh(),
        second,
        nn.Flatten(),
        nn.Linear(16 * end * end, 60),
        nn.Tanh(),
        nn.Linear(60, 42),
        nn.Tanh(),
        nn.Linear(42, classes),
    )


@dataclass(frozen=True)
class Probes:
    """Images (n, 1, side, side) in float64 and their labels (n,), the same number of every class, in order of class."""

    pixels: Tensor
    labels: Tensor

    @classmethod
    def of(cls, images: Images, each: int) -> "Probes":
        """The first `each` images of every class, or as many as the rarest class has."""
        each = min(each, int(np.bincount(images.labels).min()))
        chosen = np.concatenate([np.flatnonzero(images.labels == c)[:each] for c in range(len(images.names))])
        return cls(_pixels(images)[chosen].double(), torch.from_numpy(images.labels[chosen]))


def _pixels(images: Images) -> Tensor:
    return torch.from_numpy(images.pixels).float()[:, None]


def train(images: Images, seed: int, rate: float, epochs: int = EPOCHS) -> Iterator[tuple[int, nn.Module]]:
    """Train a classifier on `images` by SGD with momentum and a cosine schedule; yields (epoch, model) from epoch 0 on.

    The model changes with the next step of the iterator.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = lenet(images.pixels.shape[1], len(images.names))
    pixels, labels = _pixels(images), torch.from_numpy(images.labels)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=MOMENTUM, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    yield 0, model
    for epoch in range(1, epochs + 1):
        for batch in torch.randperm(len(labels), generator=generator).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(pixels[batch]), labels[batch]).backward()
            optimizer.step()
        schedule.step()
        yield epoch, model


def mean_predictions(model: nn.Module, images: Images) -> tuple[np.ndarray, float]:
    """Mean softmax output by true class (classes, classes; rows sum to 1), and the accuracy, on `images`."""
    with torch.no_grad():
        outputs = model(_pixels(images)).double().softmax(-1).numpy()
    rows = np.stack([outputs[images.labels == c].mean(0) for c in range(len(images.names))])
    return rows, float((outputs.argmax(1) == images.labels).mean())


def in_double(model: nn.Module) -> Weights:
    """The model's weights as float64 copies."""
    return {name: weight.detach().double() for name, weight in model.named_parameters()}


def log_probs(model: nn.Module, weights: Weights, pixels: Tensor) -> Tensor:
    """log pi (n, classes) of images under `weights`."""
    return functional_call(model, weights, (pixels,)).log_softmax(-1)


def jacobians(model: nn.Module, weights: Weights, pixels: Tensor) -> Tensor:
    """J = dz/dtheta (n, classes, weights) of every image, exact."""

    def logits(given: Weights, image: Tensor) -> Tensor:
        return functional_call(model, given, (image[None],))[0]

    parts = vmap(jacrev(logits), in_dims=(None, 0))(weights, pixels)
    return torch.cat([part.flatten(2) for part in parts.values()], dim=-1)


def projected(model: nn.Module, weights: Weights, pixels: Tensor, vectors: Tensor) -> Tensor:
    """J^T w (n, draws, weights) of every image and each of its `vectors` w (n, draws, classes), without J."""

    def along(given: Weights, image: Tensor, vector: Tensor) -> Tensor:
        return functional_call(model, given, (image[None],))[0] @ vector

    of_image = vmap(grad(along), in_dims=(None, None, 0))
    parts = vmap(of_image, in_dims=(None, 0, 0))(weights, pixels, vectors)
    return torch.cat([part.flatten(2) for part in parts.values()], dim=-1)


def kernel(jacobian: Tensor) -> Tensor:
    """K (o, u, classes, classes) of all pairs of images from their Jacobians (n, classes, weights)."""
    n, classes, _ = jacobian.shape
    flat = jacobian.flatten(0, 1)
    return (flat @ flat.T).view(n, classes, n, classes).transpose(1, 2)


def predicted(kernels: Tensor, log_p: Tensor, labels: Tensor) -> Tensor:
    """-A K G (u, o, classes): the change of log pi(. | x_o) per unit of rate when (x_u, y_u) is learned.

    `kernels` (o, u, classes, classes), `log_p` (n, classes) and `labels` (n,) are of the same images.
    """
    p = log_p.exp()
    residual = p - nn.functional.one_hot(labels, p.shape[1])
    moved = torch.einsum("ouij,uj->uoi", kernels, residual)
    return -(moved - (p * moved).sum(-1, keepdim=True))


def measured(model: nn.Module, weights: Weights, probes: Probes, rate: float) -> Tensor:
    """The true change (u, o, classes) of log pi(. | x_o) by one SGD step of `rate` on each probe u."""

    def loss(given: Weights, image: Tensor, label: Tensor) -> Tensor:
        return nn.functional.cross_entropy(functional_call(model, given, (image[None],)), label[None])

    gradients = vmap(grad(loss), in_dims=(None, 0, 0))(weights, probes.pixels, probes.labels)

    def after(gradient: Weights) -> Tensor:
        moved = {name: weights[name] - rate * gradient[name] for name in weights}
        return log_probs(model, moved, probes.pixels)

    return vmap(after)(gradients) - log_probs(model, weights, probes.pixels)
