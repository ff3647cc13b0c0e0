"""Cosines between weight gradients of one sample, from their factors: no gradient is formed.

The inner product of G = D^T X and G' = D'^T X' (of one shape) is the sum over pairs of tokens of
(D D'^T) * (X X'^T), so a cosine costs two products of tokens x tokens; with one input for both, X X^T is shared. The
follow-up study of the layer gradients reports these.
"""

from torch import Tensor

from workflow.lib.gradients.capture import Factors

# Same-layer pairs; a pair whose shapes differ (grouped queries: Q and K; here Q-O, K-V) has no cosine.
PAIRS = (("q", "o"), ("k", "v"))


def inner_product(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    """<D^T X, D'^T X'> in float64, a scalar; each argument is (x, d) with x (tokens, in) and d (tokens, out)."""
    (x, d), (y, e) = one, other
    return ((d.double() @ e.double().mT) * (x.double() @ y.double().mT)).sum()


def cosine(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> float:
    """The cosine of two gradients; NaN where one is zero or their shapes differ."""
    if (one[0].shape[1], one[1].shape[1]) != (other[0].shape[1], other[1].shape[1]):
        return float("nan")
    squares = inner_product(one, one) * inner_product(other, other)
    return float(inner_product(one, other) / squares.sqrt()) if float(squares) > 0 else float("nan")


def same_layer(factors: dict[str, Factors]) -> dict[str, list[float]]:
    """By pair (``q-o``, ``k-v``), the cosine in every layer. Q-O compares Q's gradient with O's as matrices."""
    found = {}
    for first, second in PAIRS:
        if first in factors and second in factors:
            one, other = factors[first], factors[second]
            layers = range(one.x.shape[0])
            found[f"{first}-{second}"] = [cosine((one.x[i], one.d[i]), (other.x[i], other.d[i])) for i in layers]
    return found


def adjacent_layers(factors: dict[str, Factors]) -> dict[str, list[float]]:
    """By projection, the cosine of every layer's gradient with the next layer's (layers - 1 of them)."""
    return {
        name: [cosine((part.x[i], part.d[i]), (part.x[i + 1], part.d[i + 1])) for i in range(part.x.shape[0] - 1)]
        for name, part in factors.items()
    }
