"""Squared Frobenius norms from products with Gaussian vectors.

For independent w and v, all entries normal with mean 0 and variance 1, E[(w^T K v)^2] = ||K||_F^2.
"""

from typing import NamedTuple

from torch import Tensor


class SquaredNorm(NamedTuple):
    """Estimates of ||K||_F^2, and their standard errors, of one shape."""

    value: Tensor
    error: Tensor


def of_products(products: Tensor) -> SquaredNorm:
    """Estimates (...) from `products` w_i^T K v_j (..., draws, draws).

    Squares that share w or v are correlated: with the variances s_w, s_v of their means over the other vector, and s of
    the rest, the estimate's variance is (s_w + s_v) / draws + s / draws^2 (two-way analysis of variance).
    """
    draws = products.shape[-1]
    squares = products.square()
    mean = squares.mean((-1, -2))
    of_w, of_v = squares.mean(-1), squares.mean(-2)
    rest = squares - of_w[..., :, None] - of_v[..., None, :] + mean[..., None, None]
    rest = rest.square().sum((-1, -2)) / (draws - 1) ** 2 / draws**2
    own = [(means.var(-1) / draws - rest).clamp(min=0) for means in (of_w, of_v)]
    return SquaredNorm(mean, (own[0] + own[1] + rest).sqrt())
