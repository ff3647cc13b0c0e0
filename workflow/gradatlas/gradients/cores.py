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
from functools import cached_property

import torch
from torch import Tensor

# Below this many tokens, computing half of a symmetric product in blocks saves no time.
_BLOCK = 128
# Largest relative error of the nuclear norm, from the shift before Cholesky or from rounding of a square; above it,
# `exact_values` is used.
UNSAFE = 1e-6
EPS = torch.finfo(torch.float64).eps


class Inputs:
    """X (..., tokens, in), with intermediate results that the projections of one input share, computed on first use."""

    def __init__(self, x: Tensor):
        self.x = x
        self.exact = x.dtype == torch.float64

    @cached_property
    def nonzero(self) -> Tensor:
        """(..., tokens): whether the input is nonzero."""
        return (self.x != 0).any(-1)

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
    def factor(self) -> tuple[Tensor, Tensor, float]:
        """L with L L^T = Gram matrix of the unit rows + shift; where Cholesky failed (...); and the shift."""
        inverse = torch.where(self.lengths > 0, 1 / self.lengths, 0.0)
        unit = self.gram * inverse[..., :, None] * inverse[..., None, :]
        # Rounding makes a singular Gram matrix slightly indefinite; for unit rows by at most this.
        shift = unit.shape[-1] * EPS
        unit.diagonal(dim1=-2, dim2=-1).fill_(1 + shift)
        lower, failed = torch.linalg.cholesky_ex(unit)
        return lower, failed != 0, shift


@dataclass
class Core:
    """`square` (..., size, size), and what its eigenvalues may be wrong by.

    `failed` (...): not usable, and zero. `added` (...): absolute error of the nuclear norm. `error` (...): absolute
    error of each eigenvalue.
    """

    square: Tensor
    failed: Tensor
    added: Tensor
    error: Tensor


def core(x: Inputs, d: Tensor) -> Core:
    """The core of D^T X, for D (..., tokens, out) of the same leading dimensions as X."""
    tokens, rows = d.shape[-2:]
    columns = x.x.shape[-1]
    failed = ~(x.finite & all_finite(d))
    none = torch.zeros(failed.shape, dtype=torch.float64, device=d.device)
    added = error = none
    if columns <= tokens:
        formed = d.double().mT @ x.x.double()
        square, error = gram(formed if rows <= columns else formed.mT), EPS * formed.square().sum((-2, -1))
    elif rows <= tokens:
        tall = d.double()
        square, error = tall.mT @ (x.gram @ tall), EPS * squares(x, d)
    else:
        lower, broken, shift = x.factor
        weights = gram(d.double() * x.lengths[..., None])
        square = lower.mT @ (weights @ lower)
        failed = failed | broken
        # The shift adds at most sqrt(shift) |x_t| |d_t| per token.
        added = shift**0.5 * weights.diagonal(dim1=-2, dim2=-1).sqrt().sum(-1)
    # Solvers may not return from NaN.
    return Core(square.masked_fill_(failed[..., None, None], 0), failed, added, error)


def unsafe(sigma: Tensor, failed: Tensor, added: Tensor, error: Tensor) -> Tensor:
    """(n,): where rounding could have changed the nuclear norm of `sigma` (n, size) by more than `UNSAFE` of it."""
    error = error[:, None]
    # A zero becomes the root of the error; a larger value changes by at most error / value.
    moved = added + torch.minimum(error.sqrt(), error / sigma.clamp_min(torch.finfo(sigma.dtype).tiny)).sum(1)
    # Also where an eigenvalue is NaN.
    return failed.bool() | ~(moved <= UNSAFE * sigma.sum(1))


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


def gram(x: Tensor) -> Tensor:
    """X X^T (..., tokens, tokens); half of it is copied by symmetry where that saves time."""
    tokens = x.shape[-2]
    if tokens < 2 * _BLOCK or x.is_cuda:
        return x @ x.mT
    out = x.new_empty(*x.shape[:-1], tokens)
    for start in range(0, tokens, _BLOCK):
        block = x[..., start:, :] @ x[..., start : start + _BLOCK, :].mT
        out[..., start:, start : start + _BLOCK] = block
        out[..., start : start + _BLOCK, start:] = block.mT
    return out


def all_finite(x: Tensor) -> Tensor:
    """(...): whether all entries of (..., tokens, width) are finite."""
    return x.isfinite().flatten(-2).all(-1)


def later(tensor: Tensor) -> Callable[[], Tensor]:
    """A function that returns `tensor` on the CPU. A GPU is not waited for before it is called."""
    if not tensor.is_cuda:
        return lambda: tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(tensor.device))

    def wait() -> Tensor:
        copied.synchronize()
        return host

    return wait
