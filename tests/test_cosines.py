"""Cosines from factors against those of the formed gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow.lib.gradients.capture import Factors
from workflow.lib.gradients.cosines import adjacent_layers, cosine, inner_product, same_layer


def part(seed, tokens=9, rows=6, columns=7, layers=3):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(layers, tokens, columns, generator=generator)
    return Factors(x, torch.randn(layers, tokens, rows, generator=generator))


def formed(factor, layer):
    return factor.d[layer].double().mT @ factor.x[layer].double()


def plainly(one, other):
    return float((one * other).sum() / one.norm() / other.norm())


@settings(max_examples=40, deadline=None)
@given(tokens=st.integers(1, 20), others=st.integers(1, 20), seed=st.integers(0, 99))
def test_inner_products_of_any_two_samples(tokens, others, seed):
    """Samples of different lengths: only the matrix has to be of one shape."""
    one, other = part(seed, tokens), part(seed + 1, others)
    expected = (formed(one, 0) * formed(other, 0)).sum()
    ours = inner_product((one.x[0], one.d[0]), (other.x[0], other.d[0]))
    assert torch.allclose(ours, expected, rtol=1e-10, atol=1e-10)


def test_pairs_and_neighbours():
    factors = {name: part(seed) for seed, name in enumerate("qkvo")}
    for pair, values in same_layer(factors).items():
        first, second = pair.split("-")
        assert values == pytest.approx(
            [plainly(formed(factors[first], i), formed(factors[second], i)) for i in range(3)], rel=1e-10
        )
    assert set(same_layer(factors)) == {"q-o", "k-v"}
    for name, values in adjacent_layers(factors).items():
        expected = [plainly(formed(factors[name], i), formed(factors[name], i + 1)) for i in range(2)]
        assert values == pytest.approx(expected, rel=1e-10)


def test_no_cosine_is_not_a_number_and_none_is_invented():
    wide, zero = part(0, rows=8), part(1)
    assert math.isnan(cosine((wide.x[0], wide.d[0]), (zero.x[0], zero.d[0])))
    assert math.isnan(cosine((zero.x[0], zero.d[0] * 0), (zero.x[0], zero.d[0])))
    assert set(same_layer({"k": part(0), "v": part(1)})) == {"k-v"}
