"""Cosines between weight gradients of one sample, from their factors: no gradient is formed.

The inner product of G = D^T X and G' = D'^T X' (of one shape) is the sum over pairs of tokens of
(D D'^T) * (X X'^T), so a cosine costs two products of tokens x tokens; projections that read one input share X X'^T.
The follow-up study of the layer gradients (arXiv 2504.10766) reports these.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from gradatlas.gradients.capture import Factors

# Within a layer. Gradients are compared entry by entry, as matrices: a pair of unequal shapes has no cosine.
PAIRS = (("q", "o"), ("k", "v"))
SAME, ADJACENT = "same_layer", "adjacent_layers"


def pairs_of(shapes: Mapping[str, Sequence[int]]) -> list[tuple[str, str]]:
    """The (kind, pair) that projections of these (rows, columns) have: (same_layer, q-o), (adjacent_layers, q), ..."""
    same = [(SAME, f"{one}-{other}") for one, other in PAIRS if {one, other} <= set(shapes)]
    same = [(kind, pair) for kind, pair in same if len({tuple(shapes[name]) for name in pair.split("-")}) == 1]
    return same + [(ADJACENT, name) for name in shapes]


def cosines(factors: Mapping[str, Factors]) -> dict[tuple[str, str], list[float]]:
    """By (kind, pair), the cosine in every layer; adjacent layers: of a layer's gradient with the next layer's.

    NaN where a gradient is zero. Products are in float64.
    """
    layers = next(iter(factors.values())).x.shape[0]
    pairs = pairs_of({name: (part.d.shape[2], part.x.shape[2]) for name, part in factors.items()})
    inner: dict[tuple[str, str], list[float]] = {pair: [] for pair in pairs}
    squares: dict[str, list[float]] = {name: [] for name in factors}
    for layer in range(layers):
        shared: dict[tuple[int, int, int], Tensor] = {}

        def product(one: str, other: str, ahead: int, at: int = layer, shared: dict = shared) -> float:
            """<G, G'> of layers `at` and `at + ahead`."""
            g, h = factors[one], factors[other]
            place = (id(g.x), id(h.x), ahead)
            if place not in shared:
                shared[place] = g.x[at].double() @ h.x[at + ahead].double().mT
            return float(((g.d[at].double() @ h.d[at + ahead].double().mT) * shared[place]).sum())

        for name in factors:
            squares[name].append(product(name, name, 0))
        for kind, pair in pairs:
            if kind == SAME:
                inner[kind, pair].append(product(*pair.split("-"), 0))
            elif layer + 1 < layers:
                inner[kind, pair].append(product(pair, pair, 1))
    found = {}
    for (kind, pair), products in inner.items():
        ones, others = (squares[name] for name in (pair.split("-") if kind == SAME else (pair, pair)))
        scales = zip(ones, others if kind == SAME else others[1:], strict=False)
        found[kind, pair] = [
            value / (one * other) ** 0.5 if one > 0 and other > 0 else float("nan")
            for value, (one, other) in zip(products, scales, strict=False)
        ]
    return found
