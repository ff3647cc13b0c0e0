"""Small symmetric matrices whose eigenvalues are the squared singular values of G = D^T X, many at a time.

X is (..., tokens, in) and D (..., tokens, out), padded with zero rows to one number of tokens: a zero row adds nothing
to G, and one zero to the eigenvalues. G itself is never decomposed:

columns <= tokens   G^T G or G G^T, of the smaller side
rows <= tokens      D^T (X X^T) D
else                L^T (D D^T) L with X X^T = L L^T (Cholesky), rows being x_t / |x_t| and |x_t| d_t, which G allows

Squaring loses half of the digits; float64 has enough for factors that were rounded to float32. Where it has too few
(`Core.unsafe`), and for factors in float64, `exact_values` has the other route. Nothing here waits for a GPU. README.md
in this folder has the derivation, the errors and the costs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

import torch
from torch import Tensor

from gradatlas.gradients.symmetric import EPS, acting, congruence, gram, largest, moved, shifted

# A CPU leaves out tokens that add nothing where they are more than this part: L is then not shared.
_IDLE = 1 / 8
# Largest relative error of the nuclear norm, from the shift before Cholesky or from rounding of a square; above it,
# `exact_values` is used.
UNSAFE = 1e-6


class Inputs:
    """X (..., tokens, in), with intermediate results that the projections of one input share, computed on first use."""

    def __init__(self, x: Tensor):
        self.x = x
        self.exact = x.dtype == torch.float64

    @cached_property
    def finite(self) -> Tensor:
        """(...): whether all inputs are finite."""
        return all_finite(self.x)

    @cached_property
    def gram(self) -> Tensor:
        """X X^T in float64."""
        return gram(self.x.double())

    @cached_property
    def lengths(self) -> Tensor:
        """|x_t| of every token, float64."""
        return self.gram.diagonal(dim1=-2, dim2=-1).sqrt()

    @cached_property
    def factor(self) -> tuple[Tensor, Tensor, Tensor, float]:
        """L with L L^T = K + shift, K the Gram matrix of the unit rows; where Cholesky failed (...); K; the shift."""
        inverse = torch.where(self.lengths > 0, 1 / self.lengths, 0.0)
        unit = self.gram * inverse[..., :, None] * inverse[..., None, :]
        # Rounding makes a singular Gram matrix slightly indefinite; for unit rows by at most this.
        shift = unit.shape[-1] * EPS
        unit.diagonal(dim1=-2, dim2=-1).fill_(1 + shift)
        lower, failed = torch.linalg.cholesky_ex(unit)
        return lower, failed != 0, unit, shift


@dataclass
class Core:
    """`square` (..., size, size), and what its eigenvalues may be wrong by.

    `failed` (...): not usable, and zero. `before`, `total`, `error` (...): as in `moved`.
    """

    square: Tensor
    failed: Tensor
    before: Tensor
    total: Tensor
    error: Tensor


def core(x: Inputs, d: Tensor) -> Core:
    """The core of D^T X, for D (..., tokens, out) of the same leading dimensions as X."""
    tokens, rows = d.shape[-2:]
    columns = x.x.shape[-1]
    if len(d) == 1 and not d.is_cuda:
        kept = acting(x.x, d)[0]
        if 0 < kept.sum() < (1 - _IDLE) * tokens:
            return core(Inputs(x.x[:, kept]), d[:, kept])
    failed = ~(x.finite & all_finite(d))
    none = torch.zeros(failed.shape, dtype=torch.float64, device=d.device)
    before, total, error = none + torch.inf, none, none
    if columns <= tokens:
        formed = d.double().mT @ x.x.double()
        square, error = gram(formed if rows <= columns else formed.mT), EPS * formed.square().sum((-2, -1))
    elif rows <= tokens:
        tall = d.double()
        square, error = tall.mT @ (x.gram @ tall), EPS * squares(x, d)
    else:
        lower, broken, unit, shift = x.factor
        weights = gram(d.double() * x.lengths[..., None])
        square, failed = congruence(weights, lower), failed | broken
        before, total, error = shifted(unit, weights, shift)
    # Solvers may not return from NaN.
    return Core(square.masked_fill_(failed[..., None, None], 0), failed, before, total, error)


def unsafe(sigma: Tensor, rank: Tensor, failed: Tensor, *bounds: Tensor) -> Tensor:
    """(n,): where rounding could have changed the nuclear norm of `sigma` (n, size) by more than `UNSAFE` of it.

    `bounds` (n,): `before`, `total` and `error` of `moved`.
    """
    # Also where an eigenvalue is NaN.
    return failed.bool() | ~(moved(sigma, rank, *bounds) <= UNSAFE * sigma.sum(1))


def roots(values: Tensor) -> Tensor:
    """Singular values, largest first, of eigenvalues in ascending order."""
    return values.clamp_min(0).sqrt().flip(-1)


def exact_values(x: Tensor, d: Tensor) -> Tensor:
    """The min(tokens, in, out) singular values of D^T X for X (tokens, in) and D (tokens, out), largest first, float64.

    With X^T = Q_x R_x and D^T = Q_d R_d (thin QR), those of R_d R_x^T: as exact as an SVD of G.
    """
    return torch.linalg.svdvals(reduce(d.double()) @ reduce(x.double()).mT)


def reduce(factor: Tensor) -> Tensor:
    """(tokens, width) to (min(tokens, width), tokens): R of the thin QR of the transpose."""
    transposed = factor.mT
    return torch.linalg.qr(transposed, mode="r").R if factor.shape[0] < factor.shape[1] else transposed


def squares(x: Inputs, d: Tensor) -> Tensor:
    """(...): sum_t |x_t|^2 |d_t|^2. Times the float64 epsilon, the error of a sum over pairs of tokens."""
    return (x.gram.diagonal(dim1=-2, dim2=-1) * d.double().square().sum(-1)).sum(-1)


def all_finite(x: Tensor) -> Tensor:
    """(...): whether all entries of (..., tokens, width) are finite."""
    return largest(x).isfinite().all(-1)


def later(tensor: Tensor) -> Callable[[], Tensor]:
    """A function that returns `tensor` on the CPU. A GPU is not waited for before it is called."""
    if not tensor.is_cuda:
        return lambda: tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    # On a stream of its own, so that what comes next does not wait for the copy.
    stream = _copying(tensor.device)
    stream.wait_stream(torch.cuda.current_stream(tensor.device))
    with torch.cuda.stream(stream):
        host.copy_(tensor, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record(stream)
    tensor.record_stream(stream)

    def wait() -> Tensor:
        copied.synchronize()
        return host

    return wait


@cache
def _copying(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
