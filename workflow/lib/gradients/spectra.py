"""The exact spectrum and entries of G = D^T X from its two factors.

G is never decomposed as a matrix of its own size. Two routes, chosen by the precision of the factors:

float64   QR of both factors, then the singular values of the small core R_d R_x^T: as exact as an SVD of G.
lower     token Gram matrices, in float64. With unit rows x_t / |x_t| and rows |x_t| d_t, which leave G as it is,
          X X^T = L L^T (Cholesky), and the squares of the singular values are the eigenvalues of
          L^T (D D^T) L, a matrix of tokens x tokens, or of D^T (X X^T) D where D has fewer columns than tokens. A
          square costs half of the digits, of which float64 has enough for factors that were rounded to float32.
          Where they do not suffice (see `_UNSAFE`) the first route is taken.

README.md beside this file has the derivation, the errors and the costs.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import Tensor

from workflow.lib.gradients.capture import Factors

METRICS = ("nuclear_norm", "sigma_max", "sigma_min", "frobenius_norm", "mean", "max", "min", "effective_rank")

# Entries of G formed at once for max and min: 64 MiB of float32.
_TILE = 1 << 24
# Below this many tokens one product is as fast as half of it in blocks.
_BLOCK = 128
# The largest share of the nuclear norm that the shift before Cholesky may add before the SVD is asked instead.
_UNSAFE = 1e-6


def spectra(factors: dict[str, Factors], metrics: Sequence[str] = METRICS) -> Tensor:
    """The `metrics` of every layer and projection of one sample: (layers, projections, metrics), as in `decompose`."""
    return decompose(factors, metrics)[0]


def decompose(factors: dict[str, Factors], metrics: Sequence[str] = METRICS) -> tuple[Tensor, list[list[Tensor]]]:
    """The `metrics` of every layer and projection of one sample, and the singular values that they come from.

    `factors`: by projection, `x` (layers, tokens, in) and `d` (layers, tokens, out). Returns (layers, projections,
    metrics), projections in the order of `factors`, and by layer and projection min(tokens, in, out) singular values,
    largest first; all in float64 on the CPU. Layers are shared out among as many threads as PyTorch has, one each:
    small decompositions gain nothing from two.
    """
    layers = next(iter(factors.values())).x.shape[0]
    names = tuple(metrics)

    def of_layer(layer: int) -> tuple[Tensor, list[Tensor]]:
        shared: dict[int, Tokens] = {}
        rows, values = [], []
        for factor in factors.values():
            x, d = shared.setdefault(id(factor.x), Tokens(factor.x[layer])), factor.d[layer]
            sigma = singular_values(x, d)
            rows.append(_metrics(x, d, sigma, names))
            values.append(sigma.cpu())
        return torch.stack(rows), values

    with _one_thread_each() as share_out:
        found = list(share_out(of_layer, range(layers)))
    return torch.stack([rows for rows, _ in found]), [values for _, values in found]


@contextmanager
def _one_thread_each() -> Iterator[Callable]:
    """A `map` over as many threads as PyTorch has, inside of which PyTorch's own operations take one thread."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield map
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(threads)


class Tokens:
    """One layer's X (tokens, in), with what all projections that read it share, computed when first asked for."""

    def __init__(self, x: Tensor):
        self.x = x
        self.exact = x.dtype == torch.float64

    @cached_property
    def reduced(self) -> Tensor:
        """R of the QR of X^T, or X^T itself where it has no more columns than rows; float64."""
        return reduce(self.x.double())

    @cached_property
    def gram(self) -> Tensor:
        """X X^T in float64."""
        return gram(self.x.double())

    @cached_property
    def lengths(self) -> Tensor:
        """|x_t| of every token, float64."""
        return self.gram.diagonal().sqrt()

    @cached_property
    def factor(self) -> tuple[Tensor | None, float]:
        """L with L L^T the Gram matrix of the unit rows, shifted by the number; None where it cannot be factored."""
        inverse = torch.where(self.lengths > 0, 1 / self.lengths, 0.0)
        unit = self.gram * inverse[:, None] * inverse
        # Rounding makes a singular Gram matrix slightly indefinite; unit rows bound by how much.
        shift = len(unit) * torch.finfo(torch.float64).eps
        unit.diagonal().copy_(1 + shift)
        lower, failed = torch.linalg.cholesky_ex(unit)
        return None if int(failed) else lower, shift


def singular_values(x: Tokens, d: Tensor) -> Tensor:
    """Singular values of D^T X, largest first, float64: min(tokens, in, out) of them. `d` (tokens, out)."""
    found = None if x.exact else _from_grams(x, d)
    return torch.linalg.svdvals(reduce(d.double()) @ x.reduced.mT) if found is None else found


def _from_grams(x: Tokens, d: Tensor) -> Tensor | None:
    tokens, rows = d.shape
    columns = x.x.shape[1]
    if columns <= tokens:
        formed = d.double().mT @ x.x.double()
        return _roots(gram(formed if rows <= columns else formed.mT))
    if rows <= tokens:
        tall = d.double()
        return _roots(tall.mT @ (x.gram @ tall))
    lower, shift = x.factor
    if lower is None:
        return None
    scaled = d.double() * x.lengths[:, None]
    weights = gram(scaled)
    sigma = _roots(lower.mT @ (weights @ lower))
    # The shift adds at most sqrt(shift) |x_t| |d_t| for a token, all told.
    added = shift**0.5 * float(weights.diagonal().sqrt().sum())
    return sigma if added <= _UNSAFE * float(sigma.sum()) or added == 0 else None


def _roots(square: Tensor) -> Tensor:
    return torch.linalg.eigvalsh(square).clamp_min(0).sqrt().flip(-1)


def gram(x: Tensor) -> Tensor:
    """X X^T (tokens, tokens), the half above the diagonal by symmetry where that saves time."""
    tokens = len(x)
    if tokens < 2 * _BLOCK or x.is_cuda:
        return x @ x.mT
    out = x.new_empty(tokens, tokens)
    for start in range(0, tokens, _BLOCK):
        block = x[start:] @ x[start : start + _BLOCK].mT
        out[start:, start : start + _BLOCK] = block
        out[start : start + _BLOCK, start:] = block.mT
    return out


def reduce(factor: Tensor) -> Tensor:
    """(tokens, width) to (min(tokens, width), tokens): R of the thin QR of the transpose."""
    transposed = factor.mT
    return torch.linalg.qr(transposed, mode="r").R if factor.shape[0] < factor.shape[1] else transposed


def _metrics(x: Tokens, d: Tensor, sigma: Tensor, names: Sequence[str]) -> Tensor:
    tokens, rows = d.shape
    columns = x.x.shape[1]
    total = sigma.sum()
    found: dict[str, Tensor] = {
        "nuclear_norm": total,
        "sigma_max": sigma[0],
        # A rank below both dimensions leaves a singular value of exactly zero.
        "sigma_min": sigma[-1] if tokens >= min(rows, columns) else torch.zeros_like(total),
        "frobenius_norm": sigma.square().sum().sqrt(),
    }
    if "mean" in names:
        # The sum of an outer product's entries is the product of the two sums.
        found["mean"] = (d.double().sum(1) * x.x.double().sum(1)).sum() / (rows * columns)
    if "max" in names or "min" in names:
        found["min"], found["max"] = extremes(x.x, d)
    if "effective_rank" in names:
        share = sigma / total.clamp_min(torch.finfo(sigma.dtype).tiny)
        # No gradient, no direction: the rank of a zero matrix is 0, not exp(0).
        rank = torch.exp(-torch.special.xlogy(share, share).sum())
        found["effective_rank"] = torch.where(total > 0, rank, torch.zeros_like(rank))
    return torch.stack([found[name].cpu().double() for name in names])


def extremes(x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest entry of D^T X, formed tile by tile and never kept."""
    step = max(1, _TILE // x.shape[1])
    bounds = []
    for start in range(0, d.shape[1], step):
        bounds.append(torch.stack(torch.aminmax(d[:, start : start + step].mT @ x)))
    bounds = torch.stack(bounds)
    return bounds[:, 0].min(), bounds[:, 1].max()
