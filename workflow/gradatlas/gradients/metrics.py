"""What the metrics are of a gradient G = D^T X: from its singular values, and from its factors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gradatlas.gradients.cores import EPS

# Entries of G formed at once for max and min: 64 MiB of float32.
_TILE = 1 << 24
#: Metrics that need no singular values.
FROM_FACTORS = {"frobenius_norm", "mean", "max", "min"}


@dataclass(frozen=True)
class Gradients:
    """n gradients G = D^T X of matrices of one `shape` (rows, columns), as metrics read them; on the CPU, in float64.

    `exact`: whether the factors are float64. `sigma` (n, size): singular values, largest first, zeros behind each
    one's own; (n, 0) where no metric needs them. `norm` (n,): the Frobenius norm from the factors, None where `sigma`
    gives it. `facts` (n,) by name: `nonzero`, the tokens with a nonzero input and output gradient; the entries' `mean`,
    `min` and `max`.
    """

    shape: tuple[int, int]
    exact: bool
    sigma: Tensor
    norm: Tensor | None
    facts: Mapping[str, Tensor]


def _effective_rank(of: Gradients) -> Tensor:
    total = of.sigma.sum(1)
    share = of.sigma / total.clamp_min(torch.finfo(of.sigma.dtype).tiny)[:, None]
    # The rank of a zero matrix is 0, not exp(0).
    return torch.where(total > 0, torch.exp(-torch.special.xlogy(share, share).sum(1)), 0.0)


def _smallest(of: Gradients) -> Tensor:
    """The smallest singular value of the matrix; exactly 0 where the matrix does not have full rank.

    That is where too few tokens have a nonzero input and output gradient, and where the value is below the tolerance of
    `torch.linalg.matrix_rank` (its root, where squares are taken).
    """
    full = min(of.shape)
    if of.sigma.shape[1] < full:
        return torch.zeros(len(of.sigma), dtype=torch.float64)
    tolerance = (EPS * max(of.shape)) ** (1 if of.exact else 0.5)
    last = of.sigma[:, full - 1]
    return torch.where((of.facts["nonzero"] < full) | (last <= tolerance * of.sigma[:, 0]), 0.0, last)


#: By name (`Metric` of `study.settings`), what a metric is of n gradients: (n,) numbers.
OF_MATRIX: dict[str, Callable[[Gradients], Tensor]] = {
    "nuclear_norm": lambda of: of.sigma.sum(1),
    "sigma_max": lambda of: of.sigma[:, 0],
    "sigma_min": _smallest,
    "frobenius_norm": lambda of: of.sigma.square().sum(1).sqrt() if of.norm is None else of.norm,
    "mean": lambda of: of.facts["mean"],
    "max": lambda of: of.facts["max"],
    "min": lambda of: of.facts["min"],
    "effective_rank": _effective_rank,
    # NaN for a zero gradient.
    "sigma_ratio": lambda of: of.sigma[:, 0] / of.sigma.sum(1),
}


def extremes(x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) smallest and (n,) largest entry of D^T X for X (n, tokens, in) and D (n, tokens, out), formed in tiles."""
    step = max(1, _TILE // (len(x) * x.shape[2]))
    tiles = [torch.aminmax((d[..., at : at + step].mT @ x).flatten(1), dim=1) for at in range(0, d.shape[2], step)]
    return torch.stack([tile.min for tile in tiles]).amin(0), torch.stack([tile.max for tile in tiles]).amax(0)
