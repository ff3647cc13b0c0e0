"""Cosines from factors against those of the formed gradients."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow.lib.gradients.capture import Factors
from workflow.lib.gradients.cosines import cosines, pairs_of


def part(seed, tokens=9, rows=6, columns=7, layers=3):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(layers, tokens, columns, generator=generator)
    return Factors(x, torch.randn(layers, tokens, rows, generator=generator))


def formed(factor, layer):
    return factor.d[layer].double().mT @ factor.x[layer].double()


def plainly(one, other):
    return float((one * other).sum() / one.norm() / other.norm())


@settings(max_examples=30, deadline=None)
@given(tokens=st.integers(1, 20), layers=st.integers(1, 4), seed=st.integers(0, 99))
def test_pairs_and_neighbours(tokens, layers, seed):
    factors = {name: part(seed + place, tokens, layers=layers) for place, name in enumerate("qkvo")}
    # As in a pass: q, k and v read one input.
    factors |= {name: Factors(factors["q"].x, factors[name].d) for name in "kv"}
    gradients = {name: [formed(factors[name], i) for i in range(layers)] for name in factors}
    found = cosines(factors)
    assert list(found) == [("same_layer", "q-o"), ("same_layer", "k-v"), *(("adjacent_layers", n) for n in "qkvo")]
    for (kind, pair), values in found.items():
        if kind == "same_layer":
            ones, others = (gradients[name] for name in pair.split("-"))
        else:
            ones, others = gradients[pair], gradients[pair][1:]
        expected = [plainly(one, other) for one, other in zip(ones, others, strict=False)]
        assert values == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert len(values) == layers - (kind == "adjacent_layers")


def test_grouped_queries_and_missing_projections_have_fewer_pairs():
    """Here K and V are narrower than Q, and O is as wide as tall: a matrix compares with one of its shape alone."""
    one = {"q": (12, 8), "k": (4, 8), "v": (4, 8), "o": (8, 12)}
    shapes = {name: [shape] * 3 for name, shape in one.items()}
    assert pairs_of(shapes)[:2] == [("same_layer", "k-v"), ("adjacent_layers", "q")]
    assert pairs_of({name: shapes[name] for name in "ko"}) == [("adjacent_layers", "k"), ("adjacent_layers", "o")]
    factors = {name: part(1, rows=shape[0], columns=shape[1]) for name, shape in one.items()}
    assert list(cosines(factors)) == pairs_of(shapes)


def test_layers_of_unequal_shape_and_missing_layers_have_no_cosine():
    """Layers 0, 1 and 3 are alike in all but v, which layer 1 has none of; layer 2 is wider."""
    rows = {"q": (8, 8, 12, 8), "o": (8, 8, 12, 8), "k": (4, 4, 6, 4), "v": (4, None, 6, 4)}
    parts = {
        name: [None if high is None else part(10 * place + at, rows=high, columns=8) for at, high in enumerate(each)]
        for place, (name, each) in enumerate(rows.items())
    }
    factors = {
        name: Factors(*(tuple(each and getattr(each, side)[0] for each in layers) for side in ("x", "d")))
        for name, layers in parts.items()
    }
    found = cosines(factors)
    assert list(found) == [("same_layer", "q-o"), ("same_layer", "k-v"), *(("adjacent_layers", n) for n in rows)]
    gradients = {name: [each and formed(each, 0) for each in layers] for name, layers in parts.items()}
    expected = {
        ("same_layer", "q-o"): list(zip(gradients["q"], gradients["o"], strict=True)),
        ("same_layer", "k-v"): list(zip(gradients["k"], gradients["v"], strict=True)),
        **{("adjacent_layers", name): list(pairwise(each)) for name, each in gradients.items()},
    }
    for pair, values in found.items():
        for value, (one, other) in zip(values, expected[pair], strict=True):
            if one is None or other is None or one.shape != other.shape:
                assert math.isnan(value)
            else:
                assert value == pytest.approx(plainly(one, other), rel=1e-9)


def test_a_zero_gradient_has_no_cosine():
    whole = part(0)
    zero = Factors(whole.x, whole.d * torch.tensor([1.0, 0.0, 1.0])[:, None, None])
    found = cosines({"k": zero, "v": whole})
    assert [math.isnan(value) for value in found["same_layer", "k-v"]] == [False, True, False]
    assert found["same_layer", "k-v"][0] == pytest.approx(1)
    assert all(map(math.isnan, found["adjacent_layers", "k"]))
    assert not any(map(math.isnan, found["adjacent_layers", "v"]))
