"""The exact spectrum and entries of G = D^T X from its two factors.

With X^T = Q_x R_x and D^T = Q_d R_d (thin QR), G = Q_d (R_d R_x^T) Q_x^T, so the singular values of G are those of
the small core R_d R_x^T, exactly. A factor with at least as many tokens as columns is its own R. The core has at
most tokens x tokens entries.
"""

import torch
from torch import Tensor

from workflow.lib.gradients.capture import Factors

METRICS = ("nuclear_norm", "sigma_max", "sigma_min", "frobenius_norm", "mean", "max", "min", "effective_rank")

# Entries of G formed at once for max and min: 64 MiB of float32.
_TILE = 1 << 24


def spectra(factors: dict[str, Factors]) -> Tensor:
    """All `METRICS` of every layer and projection of one sample.

    `factors`: by projection, `x` (layers, tokens, in) and `d` (layers, tokens, out). Returns (layers, projections,
    metrics) in float64 on the CPU, projections in the order of `factors`.
    """
    reduced: dict[int, Tensor] = {}
    rows = []
    for factor in factors.values():
        if id(factor.x) not in reduced:
            reduced[id(factor.x)] = _reduce(factor.x)
        rows.append(_metrics(factor, singular_values(_reduce(factor.d), reduced[id(factor.x)])))
    return torch.stack(rows, dim=1)


def singular_values(d: Tensor, x: Tensor) -> Tensor:
    """Singular values of D^T X, in float64, from reduced factors (layers, out', tokens) and (layers, in', tokens)."""
    return torch.linalg.svdvals(d.double() @ x.double().mT)


def _reduce(factor: Tensor) -> Tensor:
    """(layers, tokens, width) to (layers, min(tokens, width), tokens): R of the thin QR of the transpose."""
    transposed = factor.mT
    return torch.linalg.qr(transposed, mode="r").R if factor.shape[1] < factor.shape[2] else transposed


def _metrics(factor: Factors, sigma: Tensor) -> Tensor:
    tokens, rows = factor.d.shape[1:]
    columns = factor.x.shape[2]
    total = sigma.sum(1)
    share = sigma / total.clamp_min(torch.finfo(sigma.dtype).tiny)[:, None]
    # A rank below both dimensions leaves a singular value of exactly zero.
    smallest = sigma[:, -1] if tokens >= min(rows, columns) else torch.zeros_like(total)
    # The sum of an outer product's entries is the product of the two sums.
    mean = (factor.d.double().sum(2) * factor.x.double().sum(2)).sum(1) / (rows * columns)
    largest, lowest = _extremes(factor)
    # No gradient, no direction: the rank of a zero matrix is 0, not exp(0).
    rank = torch.where(total > 0, torch.exp(-torch.special.xlogy(share, share).sum(1)), 0.0)
    columns_of = (total, sigma[:, 0], smallest, sigma.square().sum(1).sqrt(), mean, largest, lowest, rank)
    return torch.stack([column.cpu().double() for column in columns_of], dim=1)


def _extremes(factor: Factors) -> tuple[Tensor, Tensor]:
    """Largest and smallest entry of each layer's D^T X, formed tile by tile and never kept."""
    layers, _, rows = factor.d.shape
    step = max(1, _TILE // factor.x.shape[2])
    largest, lowest = [], []
    for layer in range(layers):
        bounds = []
        for start in range(0, rows, step):
            tile = factor.d[layer, :, start : start + step].mT @ factor.x[layer]
            bounds.append(torch.stack(tile.aminmax()))
        lowest.append(torch.stack(bounds)[:, 0].min())
        largest.append(torch.stack(bounds)[:, 1].max())
    return torch.stack(largest), torch.stack(lowest)
