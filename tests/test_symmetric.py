"""Symmetric products against plain ones, and the bound of the error of a nuclear norm against the error, in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatlas.gradients.symmetric import EPS, acting, added_by, congruence, eigenvalues, gram, moved, shifted

UNSAFE = 1e-6
IN, OUT = 150, 160
SIZES = [(1,), (95,), (96,), (97,), (200,), (3, 200), (2, 2, 130)]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", SIZES)
def test_gram_is_the_plain_product(shape):
    x = normal(*shape, 30)
    assert torch.allclose(gram(x), x @ x.mT, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SIZES)
def test_congruence_is_the_plain_product(shape):
    weights, lower = gram(normal(*shape, 30)), normal(*shape, shape[-1], seed=1).tril()
    expected = lower.mT @ weights @ lower
    found = congruence(weights, lower)
    assert torch.allclose(found.tril(), expected.tril(), rtol=0, atol=1e-13 * float(expected.abs().max()))
    values = torch.linalg.eigvalsh(expected)
    assert torch.allclose(eigenvalues(found), values, rtol=0, atol=1e-13 * float(values.max()))


def test_tokens_without_input_or_gradient_are_left_out():
    x, d = normal(6, 5).float(), normal(6, 7, seed=1).float()
    x[1], d[3], d[4] = 0, 0, 1e-40
    kept = acting(x, d)
    assert kept.tolist() == [True, False, True, False, True, True]
    assert (d[kept].mT @ x[kept]).equal(d.mT @ x)
    # Not dropped in silence.
    d[0, 0] = torch.nan
    assert acting(x, d)[0]


@settings(max_examples=100, deadline=None)
@given(size=st.integers(1, 30), rank=st.integers(0, 30), decay=st.floats(0, 8), scale=st.floats(-9, 0))
def test_added_by_is_at_least_what_was_added(size, rank, decay, scale):
    root = normal(size, min(size, rank)) * 10 ** (-decay * torch.linspace(0, 1, size, dtype=torch.float64))[:, None]
    before = torch.cat([torch.linalg.svdvals(root), torch.zeros(size - min(size, rank), dtype=torch.float64)])
    raised = 10**scale * normal(size, size, seed=1)
    after = torch.linalg.svdvals(torch.cat([root, raised], 1))
    lost = float((after - before).sum())
    # A zero that is left by rounding has a root of 1e-8 of the largest.
    assert lost <= float(added_by(raised.square().sum(), after)) + 1e-7 * float(after.sum())
    assert float(added_by(torch.tensor(0.0, dtype=torch.float64), after)) == 0


def test_added_by_is_reached_where_a_zero_is_raised():
    after = torch.tensor([[3.0, 2.0, 1e-4], [3.0, 2.0, 1.0]], dtype=torch.float64)
    found = added_by(torch.tensor([1e-8, 1e-8], dtype=torch.float64), after)
    assert found[0] == pytest.approx(1e-4) and found[1] == pytest.approx(5e-9, rel=1e-6)


def factors(kind, tokens, strength, seed):
    """X and D that are hard for a squared spectrum; `strength` from 0 to 1: none, to at the limit of the digits."""
    x, d = normal(tokens, IN, seed=seed), normal(tokens, OUT, seed=seed + 1)
    small = 10 ** (-8 * strength)
    if kind == "low rank":
        x = x[:, :3] @ normal(3, IN, seed=2) + small * x
    elif kind == "ill-conditioned":
        x, d = (
            small ** torch.linspace(0, 1, tokens, dtype=torch.float64)[:, None] * normal(tokens, tokens) @ f
            for f in (x, d)
        )
    elif kind == "cancelling":
        x, d = x[:1] + small * x, d - d.mean(0)
    elif kind == "repeated":
        x = x[torch.arange(tokens) // 2]
    elif kind == "sink":
        x[0], d[0] = x[0] / small, d[0] * small
    elif kind == "prompt":
        d[: tokens // 2] = 0
    return x.float(), d.float()


def found_by(x, d):
    """Nuclear norm by Gram matrices, its bound, and the exact one from QR of both factors."""
    lengths = x.double().square().sum(1).sqrt()
    unit, weights = gram(x.double() / lengths[:, None]), gram(d.double() * lengths[:, None])
    shift = len(x) * EPS
    unit.diagonal().fill_(1)
    lower, failed = torch.linalg.cholesky_ex(unit + shift * torch.eye(len(x), dtype=torch.float64))
    assert not int(failed)
    sigma = eigenvalues(congruence(weights, lower)).clamp_min(0).sqrt().flip(-1)
    rank = acting(x, d).sum()
    sigma[rank:] = 0
    reduced = [torch.linalg.qr(factor.double().mT, mode="r").R for factor in (d, x)]
    return (
        float(sigma.sum()),
        float(moved(sigma, rank, *shifted(unit, weights, shift))),
        float(torch.linalg.svdvals(reduced[0] @ reduced[1].mT).sum()),
    )


KINDS = ["plain", "low rank", "ill-conditioned", "cancelling", "repeated", "sink", "prompt"]


@settings(max_examples=80, deadline=None)
@given(kind=st.sampled_from(KINDS), tokens=st.integers(1, 140), strength=st.floats(0, 1), seed=st.integers(0, 99))
def test_no_accepted_norm_is_wrong(kind, tokens, strength, seed):
    norm, bound, exact = found_by(*factors(kind, tokens, strength, seed))
    if bound <= UNSAFE * norm:
        assert abs(norm - exact) <= UNSAFE * norm, f"{kind}: bound {bound / norm:.1e}"


@pytest.mark.parametrize("kind", ["plain", "repeated", "prompt", "sink"])
def test_usual_factors_are_accepted(kind):
    norm, bound, _ = found_by(*factors(kind, 130, 0.5, 5))
    assert bound <= UNSAFE * norm


def test_gradients_that_cancel_are_not_accepted():
    norm, bound, _ = found_by(*factors("cancelling", 130, 1, 5))
    assert bound > UNSAFE * norm
