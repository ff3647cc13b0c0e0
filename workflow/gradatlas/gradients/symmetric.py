"""Symmetric products and eigenvalues at the least cost on a CPU, and how far a raised diagonal can move a spectrum.

On a CPU NumPy's BLAS (OpenBLAS) has them faster than PyTorch's (MKL), on an AMD EPYC by a fifth to a third
(benchmarks/README.md), if each call has one thread: `one_thread_each`. On a GPU they are PyTorch's.
"""

from contextlib import AbstractContextManager
from functools import cache

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

EPS = torch.finfo(torch.float64).eps
# Rows of a block of L^T W L. Measured: of 32 to 256, this and 48 are the fastest at 128 to 512 tokens.
_BLOCK = 96


def one_thread_each() -> AbstractContextManager:
    """In this context each of NumPy's products and decompositions has one thread; small ones wait for a second."""
    return _libraries().limit(limits=1, user_api="blas")


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


def eigenvalues(square: Tensor) -> Tensor:
    """(..., size): those of symmetric matrices (..., size, size), ascending; only the lower triangle is read."""
    if square.is_cuda:
        return torch.linalg.eigvalsh(square)
    return torch.from_numpy(np.linalg.eigvalsh(square.numpy()))


def gram(x: Tensor) -> Tensor:
    """X X^T (..., tokens, tokens) of X (..., tokens, width)."""
    if x.is_cuda:
        return x @ x.mT
    # Of a matrix and its own transpose, NumPy computes one half (BLAS `syrk`).
    rows = x.numpy()
    return torch.from_numpy(rows @ rows.swapaxes(-1, -2))


def congruence(weights: Tensor, lower: Tensor) -> Tensor:
    """The lower triangle of L^T W L (..., tokens, tokens) for W symmetric and L lower triangular.

    T^3 floating-point operations where two full products take 4 T^3, as in LAPACK's `dsygst`. Above the blocks of the
    diagonal the result is zero, which `torch.linalg.eigvalsh` does not read.
    """
    tokens = weights.shape[-1]
    if weights.is_cuda or tokens <= _BLOCK:
        return lower.mT @ (weights @ lower)
    half, out = torch.empty_like(weights), torch.zeros_like(weights)
    for at in range(0, tokens, _BLOCK):
        # Of W L, rows from `at` on are enough.
        half[..., at:, at : at + _BLOCK] = weights[..., at:, at:] @ lower[..., at:, at : at + _BLOCK]
    for at in range(0, tokens, _BLOCK):
        end = at + _BLOCK
        out[..., at:end, :end] = lower[..., at:, at:end].mT @ half[..., at:, :end]
    return out


def largest(factor: Tensor) -> Tensor:
    """(..., tokens): the largest absolute entry of each row, NaN where one is: one pass tells zero and finite rows."""
    return factor.abs().amax(-1)


def acting(x: Tensor, d: Tensor) -> Tensor:
    """(..., tokens): whether a token adds to G = sum_t d_t x_t^T, for X (..., tokens, in) and D (..., tokens, out).

    The others can be left out, exactly, and G has at most as many nonzero singular values as there are such tokens.
    The last layer's q and o have few: the tokens that predict the response, as no other output of theirs is read.
    """
    return (largest(x) != 0) & (largest(d) != 0)


def added_by(total: Tensor, sigma: Tensor) -> Tensor:
    """(...): at most how much lower the sum of `sigma` (..., size), largest first, was before its squares were raised.

    The squares are eigenvalues of M + P, where P has no negative eigenvalue and the trace `total` (...). By Weyl each
    eigenvalue of M is lower by an amount >= 0, and the amounts add up to `total`. As a root is concave, the sum of
    roots loses most where the smallest eigenvalues lose all they have.
    """
    squares = sigma.flip(-1).square()
    left = total[..., None] - (squares.cumsum(-1) - squares)
    taken = torch.minimum(left.clamp_min(0), squares)
    return (squares.sqrt() - (squares - taken).sqrt()).sum(-1)


def moved(sigma: Tensor, rank: Tensor, before: Tensor, total: Tensor, error: Tensor) -> Tensor:
    """(...): a bound of the absolute error of the sum of `sigma` (..., size), the roots of eigenvalues, largest first.

    `rank` (...): from this place on `sigma` was set to zero, as there are not more `acting` tokens. `before` (...): a
    bound that is known before the spectrum, infinite where there is none. `total` (...): the sum of what a shift has
    added to the eigenvalues. `error` (...): what rounding may have changed each eigenvalue by, which makes a zero the
    root of this and changes a larger root by at most this over the root.
    """
    error = error[..., None]
    rounded = torch.minimum(error.sqrt(), error / sigma.clamp_min(torch.finfo(sigma.dtype).tiny))
    known = torch.arange(sigma.shape[-1], device=sigma.device) >= rank[..., None]
    return torch.minimum(before, added_by(total, sigma) + rounded.masked_fill(known, 0).sum(-1))


def shifted(unit: Tensor, weights: Tensor, shift: float) -> tuple[Tensor, Tensor, Tensor]:
    """`before`, `total` and `error` (...) of `moved` for L^T W L, where L L^T = K + `shift`.

    `unit`: K, the Gram matrix of unit rows. `weights`: W = D D^T. The shift adds at most sqrt(shift) |d_t| per token to
    the sum of roots, and shift trace(W) to that of eigenvalues. Rounding is about 2.2e-16 |K| |W| (Frobenius norms).
    """
    squares = weights.diagonal(dim1=-2, dim2=-1)
    norms = [each.square().sum((-2, -1)).sqrt() for each in (unit, weights)]
    return shift**0.5 * squares.sqrt().sum(-1), shift * squares.sum(-1), EPS * norms[0] * norms[1]
