"""Per-sample gradients of one block by their factors, for all samples of a batch.

Of log pi(y|x), summed over the response's tokens, the gradient of a weight W (out x in) with inputs X (tokens x in) and
output gradients D (tokens x out) is G = D^T X. An embedding has rows of D instead, added to the row of each token's id;
gains and biases have a vector. No class forms G unless `gradient` is called. Tokens with D = 0, such as padding, add
nothing.
"""

from dataclasses import dataclass

from torch import Tensor


class _OfTokens:
    """Factors of every token: `d` (samples, tokens, width)."""

    d: Tensor

    @property
    def samples(self) -> int:
        return len(self.d)

    @property
    def tokens(self) -> int:
        """Tokens of all samples, with padding."""
        return self.d.shape[:2].numel()


@dataclass(frozen=True)
class Product(_OfTokens):
    """G = D^T X of a weight (out, in): `x` (samples, tokens, in) and `d` (samples, tokens, out)."""

    x: Tensor
    d: Tensor

    def along(self, change: Tensor) -> Tensor:
        """(samples,): <G, `change`> = sum_t d_t^T (change x_t), for `change` (out, in)."""
        rows, columns = change.shape
        parts = (self.x @ change.mT) * self.d if rows < columns else (self.d @ change) * self.x
        return parts.sum((1, 2))

    def inner(self, other: "Factor") -> Tensor:
        """(samples, other samples): <G, G'> = sum((X X'^T) * (D D'^T)), over pairs of tokens."""
        if isinstance(other, Rows):
            return other.inner(self).mT
        return _summed((_flat(self.x) @ _flat(other.x).mT) * (_flat(self.d) @ _flat(other.d).mT), self.d, other.d)

    def gradient(self, rows: slice) -> Tensor:
        """(samples, rows, in): these rows of every G."""
        return self.d[..., rows].mT @ self.x

    @property
    def size(self) -> tuple[int, int]:
        """(out, in)."""
        return self.d.shape[-1], self.x.shape[-1]

    @property
    def pair_cost(self) -> int:
        """Multiplications of `inner` for a pair of tokens."""
        return sum(self.size)


@dataclass(frozen=True)
class Rows(_OfTokens):
    """G of an embedding (`out`, in): `d` (samples, tokens, in), added to the rows `ids` (samples, tokens)."""

    ids: Tensor
    d: Tensor
    out: int

    def along(self, change: Tensor) -> Tensor:
        """As of `Product`: sum_t <d_t, change[id_t]>."""
        return (change[self.ids] * self.d).sum((1, 2))

    def inner(self, other: "Factor") -> Tensor:
        """As of `Product`: the sum of <d_t, d'_s> over equal tokens.

        With the output layer's `Product`, for tied weights: the sum of <d_t, x'_s> d'_s[id_t].
        """
        ids = self.ids.flatten()
        if isinstance(other, Rows):
            return _summed((_flat(self.d) @ _flat(other.d).mT) * (ids[:, None] == other.ids.flatten()), self.d, other.d)
        return _summed((_flat(self.d) @ _flat(other.x).mT) * _flat(other.d)[:, ids].mT, self.d, other.d)

    def gradient(self, rows: slice) -> Tensor:
        """As of `Product`."""
        first, last, _ = rows.indices(self.out)
        # Of a large vocabulary few tokens have one of these rows.
        sample, token = ((self.ids >= first) & (self.ids < last)).nonzero(as_tuple=True)
        formed = self.d.new_zeros(len(self.d) * (last - first), self.d.shape[-1])
        places = sample * (last - first) + self.ids[sample, token] - first
        return formed.index_add_(0, places, self.d[sample, token]).view(len(self.d), last - first, -1)

    @property
    def size(self) -> tuple[int, int]:
        """(out, in)."""
        return self.out, self.d.shape[-1]

    @property
    def pair_cost(self) -> int:
        """As of `Product`."""
        return self.d.shape[-1]


@dataclass(frozen=True)
class Vector:
    """G of a gain or a bias, `g` (samples, width), summed over tokens."""

    g: Tensor

    def along(self, change: Tensor) -> Tensor:
        """As of `Product`, for `change` (width,)."""
        return self.g @ change

    def inner(self, other: "Vector") -> Tensor:
        """As of `Product`."""
        return self.g @ other.g.mT

    def gradient(self, rows: slice) -> Tensor:
        """As of `Product`, with one column."""
        return self.g[:, rows, None]

    @property
    def size(self) -> tuple[int, int]:
        """(width, 1)."""
        return self.g.shape[-1], 1

    @property
    def samples(self) -> int:
        return len(self.g)

    @property
    def tokens(self) -> int:
        """As of `Product`: one for each sample."""
        return len(self.g)

    @property
    def pair_cost(self) -> int:
        """As of `Product`."""
        return self.g.shape[-1]


Factor = Product | Rows | Vector


def _flat(tokens: Tensor) -> Tensor:
    return tokens.flatten(0, 1)


def _summed(products: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """(samples, other samples) from products of all tokens with all other tokens."""
    return products.view(*one.shape[:2], *other.shape[:2]).sum((1, 3))
