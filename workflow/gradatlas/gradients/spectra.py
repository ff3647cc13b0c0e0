"""The exact spectrum and entries of G = D^T X from its two factors.

G itself is never decomposed. The method depends on the precision of the factors:

float64   QR of both factors, then the singular values of the small core R_d R_x^T: as exact as an SVD of G.
lower     token Gram matrices, in float64. With rows x_t / |x_t| and |x_t| d_t, which do not change G,
          X X^T = L L^T (Cholesky), and the squares of the singular values are the eigenvalues of
          L^T (D D^T) L, a matrix of tokens x tokens, or of D^T (X X^T) D where D has fewer columns than tokens.
          Squaring loses half of the digits; float64 has enough for factors that were rounded to float32. Where
          it has too few (see `_UNSAFE`), the first method is used.

README.md in this folder has the derivation, the errors and the costs.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gradatlas.gradients.capture import Factors, place_of
from gradatlas.study.settings import METRICS

# Metrics that need no singular values.
_FROM_FACTORS = {"frobenius_norm", "mean", "max", "min"}

# Entries of G formed at once for max and min: 64 MiB of float32.
_TILE = 1 << 24
# Below this many tokens, computing half of a symmetric product in blocks saves no time.
_BLOCK = 128
# Largest relative error of the nuclear norm, from the shift before Cholesky or from rounding of a square; above it, the
# SVD is used.
_UNSAFE = 1e-6
# Largest relative error of the squared Frobenius norm as a sum over pairs of tokens; above it, the singular values are
# used.
_CANCELLED = 1e-9
_EPS = torch.finfo(torch.float64).eps


def spectra(factors: dict[str, Factors], metrics: Sequence[str] = METRICS) -> Tensor:
    """The `metrics` of every layer and projection of one sample: (layers, projections, metrics), as in `decompose`."""
    return decompose(factors, metrics, with_values=False)[0]


def decompose(
    factors: dict[str, Factors], metrics: Sequence[str] = METRICS, *, with_values: bool = True
) -> tuple[Tensor, list[list[Tensor]]]:
    """The `metrics` and singular values of every layer and projection of one sample.

    `factors`: by projection, `x` (tokens, in) and `d` (tokens, out) of each layer. Returns (layers, projections,
    metrics), projections in the order of `factors`, and by layer and projection min(tokens, in, out) singular values,
    largest first (`with_values=False`: none where no metric needs them); all float64 on the CPU. A layer without the
    projection has NaN metrics and no singular value. Layers are computed in parallel, in as many threads as PyTorch
    has: a small decomposition gains nothing from two threads.
    """
    layers = len(next(iter(factors.values())).x)
    names = tuple(metrics)
    spectral = with_values or not _FROM_FACTORS.issuperset(names)

    def of_layer(layer: int) -> tuple[Tensor, list[Tensor]]:
        shared: dict[tuple, LayerInput] = {}
        rows, values = [], []
        for factor in factors.values():
            x, d = factor.x[layer], factor.d[layer]
            if x is None:
                rows.append(torch.full((len(names),), torch.nan, dtype=torch.float64))
                values.append(torch.empty(0, dtype=torch.float64))
                continue
            x = shared.setdefault(place_of(x), LayerInput(x))
            norm = None if spectral or "frobenius_norm" not in names else _frobenius(x, d)
            needed = spectral or ("frobenius_norm" in names and norm is None)
            sigma = singular_values(x, d) if needed else x.x.new_empty(0, dtype=torch.float64)
            gradient = Gradient(x, d, sigma, norm)
            rows.append(torch.stack([OF_MATRIX[name](gradient).cpu().double() for name in names]))
            values.append(sigma.cpu())
        return torch.stack(rows), values

    with _one_thread_each() as share_out:
        found = list(share_out(of_layer, range(layers)))
    return torch.stack([rows for rows, _ in found]), [values for _, values in found]


@contextmanager
def _one_thread_each() -> Iterator[Callable]:
    """A `map` over as many threads as PyTorch has, in which each PyTorch operation uses one thread."""
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


class LayerInput:
    """One layer's X (tokens, in), with intermediate results that its projections share, computed on first use."""

    def __init__(self, x: Tensor):
        self.x = x
        self.exact = x.dtype == torch.float64

    @cached_property
    def reduced(self) -> Tensor:
        """R of the QR of X^T, or X^T itself where it has no more columns than rows; float64."""
        return reduce(self.x.double())

    @cached_property
    def nonzero(self) -> Tensor:
        """(tokens,): whether the input is nonzero."""
        return (self.x != 0).any(1)

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
        """L with L L^T = Gram matrix of the unit rows + shift, and the shift; None where Cholesky fails."""
        inverse = torch.where(self.lengths > 0, 1 / self.lengths, 0.0)
        unit = self.gram * inverse[:, None] * inverse
        # Rounding makes a singular Gram matrix slightly indefinite; for unit rows by at most this.
        shift = len(unit) * _EPS
        unit.diagonal().copy_(1 + shift)
        lower, failed = torch.linalg.cholesky_ex(unit)
        return None if int(failed) else lower, shift


def singular_values(x: LayerInput, d: Tensor) -> Tensor:
    """Singular values of D^T X, largest first, float64: min(tokens, in, out) of them. `d` (tokens, out)."""
    found = None if x.exact else _from_grams(x, d)
    return torch.linalg.svdvals(reduce(d.double()) @ x.reduced.mT) if found is None else found


def _from_grams(x: LayerInput, d: Tensor) -> Tensor | None:
    tokens, rows = d.shape
    columns = x.x.shape[1]
    if columns <= tokens:
        formed = d.double().mT @ x.x.double()
        return _safe_roots(gram(formed if rows <= columns else formed.mT), formed.square().sum())
    if rows <= tokens:
        tall = d.double()
        return _safe_roots(tall.mT @ (x.gram @ tall), _squares(x, d))
    lower, shift = x.factor
    if lower is None:
        return None
    scaled = d.double() * x.lengths[:, None]
    weights = gram(scaled)
    sigma = _roots(lower.mT @ (weights @ lower))
    # The shift adds at most sqrt(shift) |x_t| |d_t| per token.
    added = shift**0.5 * float(weights.diagonal().sqrt().sum())
    return sigma if added <= _UNSAFE * float(sigma.sum()) or added == 0 else None


def _squares(x: LayerInput, d: Tensor) -> Tensor:
    """sum_t |x_t|^2 |d_t|^2: times the float64 epsilon, the error of a sum over pairs of tokens."""
    return (x.gram.diagonal() * d.double().square().sum(1)).sum()


def _safe_roots(square: Tensor, size: Tensor) -> Tensor | None:
    """Roots of the eigenvalues; None where rounding of the square, about 2.2e-16 `size`, could change them too much."""
    sigma = _roots(square)
    error = _EPS * size
    # A zero becomes the root of the error; a larger value changes by at most error / value.
    moved = torch.minimum(error.sqrt(), error / sigma.clamp_min(torch.finfo(sigma.dtype).tiny))
    return sigma if float(moved.sum()) <= _UNSAFE * float(sigma.sum()) else None


def _frobenius(x: LayerInput, d: Tensor) -> Tensor | None:
    """The Frobenius norm as <G, G> = sum((X X^T) * (D D^T)); None where the terms cancel."""
    found = (x.gram * gram(d.double())).sum()
    return found.sqrt() if _EPS * float(_squares(x, d)) <= _CANCELLED * float(found) else None


def _roots(square: Tensor) -> Tensor:
    return torch.linalg.eigvalsh(square).clamp_min(0).sqrt().flip(-1)


def gram(x: Tensor) -> Tensor:
    """X X^T (tokens, tokens); half of it is copied by symmetry where that saves time."""
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


@dataclass(frozen=True)
class Gradient:
    """The gradient G = D^T X of one matrix (rows, columns), as metrics read it.

    `d` (tokens, rows); `sigma`: its singular values, largest first, empty where no metric needs them; `norm`: the
    Frobenius norm from the factors, None where `sigma` gives it.
    """

    x: LayerInput
    d: Tensor
    sigma: Tensor
    norm: Tensor | None

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.d.shape[1], self.x.x.shape[1]

    @cached_property
    def extremes(self) -> tuple[Tensor, Tensor]:
        """The smallest and the largest entry."""
        return extremes(self.x.x, self.d)


def _frobenius_norm(of: Gradient) -> Tensor:
    return of.sigma.square().sum().sqrt() if of.norm is None else of.norm


def _mean(of: Gradient) -> Tensor:
    # The sum of an outer product's entries is the product of the two sums.
    rows, columns = of.shape
    return (of.d.double().sum(1) * of.x.x.double().sum(1)).sum() / (rows * columns)


def _effective_rank(of: Gradient) -> Tensor:
    total = of.sigma.sum()
    share = of.sigma / total.clamp_min(torch.finfo(of.sigma.dtype).tiny)
    # The rank of a zero matrix is 0, not exp(0).
    rank = torch.exp(-torch.special.xlogy(share, share).sum())
    return torch.where(total > 0, rank, torch.zeros_like(rank))


def _smallest(of: Gradient) -> Tensor:
    """The smallest singular value of the matrix; exactly 0 where the matrix does not have full rank.

    That is where too few tokens have a nonzero input and output gradient, and where the value is below the tolerance of
    `torch.linalg.matrix_rank` (its root, where squares are taken).
    """
    x, d, sigma, full = of.x, of.d, of.sigma, min(of.shape)
    tolerance = (_EPS * max(of.shape)) ** (1 if x.exact else 0.5)
    nonzero = int((x.nonzero & (d != 0).any(1)).sum())
    if len(d) < full or nonzero < full or float(sigma[-1]) <= tolerance * float(sigma[0]):
        return torch.zeros_like(sigma[0])
    return sigma[-1]


def extremes(x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest entry of D^T X, which is formed in tiles."""
    step = max(1, _TILE // x.shape[1])
    bounds = []
    for start in range(0, d.shape[1], step):
        bounds.append(torch.stack(torch.aminmax(d[:, start : start + step].mT @ x)))
    bounds = torch.stack(bounds)
    return bounds[:, 0].min(), bounds[:, 1].max()


#: By name (`Metric` of `study.settings`), what a metric is of a matrix's gradient: one number.
OF_MATRIX: dict[str, Callable[[Gradient], Tensor]] = {
    "nuclear_norm": lambda of: of.sigma.sum(),
    "sigma_max": lambda of: of.sigma[0],
    "sigma_min": _smallest,
    "frobenius_norm": _frobenius_norm,
    "mean": _mean,
    "max": lambda of: of.extremes[1],
    "min": lambda of: of.extremes[0],
    "effective_rank": _effective_rank,
    # NaN for a zero gradient.
    "sigma_ratio": lambda of: of.sigma[0] / of.sigma.sum(),
}
