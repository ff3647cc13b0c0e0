"""Cosines between weight gradients of one sample, from their factors: no gradient is formed.

The inner product of G = D^T X and G' = D'^T X' (of one shape) is the sum over pairs of tokens of
(D D'^T) * (X X'^T), so a cosine costs two products of tokens x tokens; projections that read one input share X X'^T.
The follow-up study of the layer gradients (arXiv 2504.10766) reports these.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from gradatlas.gradients.capture import Factors, place_of

# Within a layer. Matrices are compared entry by entry: two of different shapes have no cosine.
PAIRS = (("q", "o"), ("k", "v"))
SAME, ADJACENT = "same_layer", "adjacent_layers"


Shape = Sequence[int] | None


def pairs_of(shapes: Mapping[str, Sequence[Shape]]) -> list[tuple[str, str]]:
    """The (kind, pair) of all cosines: (same_layer, q-o), (adjacent_layers, q), ...

    `shapes`: by projection, each layer's (rows, columns), None where it has none. Pairs within a layer need equal
    shapes in at least one layer.
    """
    same = [(SAME, f"{one}-{other}") for one, other in PAIRS if {one, other} <= set(shapes)]
    same = [
        (kind, pair)
        for kind, pair in same
        if any(one and other and tuple(one) == tuple(other) for one, other in zip(*_of(pair, shapes), strict=True))
    ]
    return same + [(ADJACENT, name) for name in shapes]


def _of(pair: str, shapes: Mapping[str, Sequence[Shape]]) -> list[Sequence[Shape]]:
    return [shapes[name] for name in pair.split("-")]


def cosines(factors: Mapping[str, Factors]) -> dict[tuple[str, str], list[float]]:
    """By (kind, pair), the cosine in every layer; for adjacent layers, of its gradient and the next layer's.

    NaN where a gradient is zero or missing, or where shapes differ. Products are in float64.
    """
    layers = len(next(iter(factors.values())).x)
    shapes = {
        name: [None if x is None else (d.shape[1], x.shape[1]) for x, d in zip(part.x, part.d, strict=True)]
        for name, part in factors.items()
    }
    pairs = pairs_of(shapes)
    inner: dict[tuple[str, str], list[float]] = {pair: [] for pair in pairs}
    squares: dict[str, list[float]] = {name: [] for name in factors}
    for layer in range(layers):
        shared: dict[tuple, Tensor] = {}

        def product(one: str, other: str, ahead: int, at: int = layer, shared: dict = shared) -> float:
            """<G, G'> of layers `at` and `at + ahead`; NaN where shapes differ."""
            if shapes[one][at] is None or shapes[one][at] != shapes[other][at + ahead]:
                return float("nan")
            g, h = factors[one], factors[other]
            x, y = g.x[at], h.x[at + ahead]
            place = place_of(x), place_of(y)
            if place not in shared:
                shared[place] = x.double() @ y.to(x.device).double().mT
            return float(((g.d[at].double() @ h.d[at + ahead].to(x.device).double().mT) * shared[place]).sum())

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
