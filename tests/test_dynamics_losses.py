"""The losses' residuals G = dL/dz in closed form, against autograd in float64; what of the paper's holds."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatlas.finetuning.losses import LOSSES, Scores, divergence_of, residual

VOCABULARY = 11


def drawn(seed, pairs=3, tokens=(5, 4), scale=2.0):
    """Logits and targets of chosen and rejected responses, and reference log-probabilities."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)

    logits = [normal(pairs, n, VOCABULARY).requires_grad_() for n in tokens]
    targets = [torch.randint(VOCABULARY, (pairs, n), generator=generator) for n in tokens]
    sums = [summed(z, y) for z, y in zip(logits, targets, strict=True)]
    references = [s.detach() + normal(pairs) for s in sums]
    lengths = [torch.full((pairs,), float(n), dtype=torch.float64) for n in tokens]
    return logits, targets, Scores(*sums, *references, *lengths, divergence=normal(1).abs()[0])


def summed(logits, targets):
    return torch.log_softmax(logits, -1).gather(-1, targets[..., None])[..., 0].sum(-1)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000), beta=st.sampled_from([0.05, 0.1, 1.0, 2.5]), margin=st.sampled_from([0.0, 0.5, 3.0])
)
@pytest.mark.parametrize("name", LOSSES)
def test_g_is_the_gradient_of_the_loss_at_the_logits(name, seed, beta, margin):
    (chosen, rejected), (up, down), scores = drawn(seed)
    outcome = LOSSES[name].of(scores, beta, margin)
    made = torch.autograd.grad(outcome.loss.sum(), (chosen, rejected), allow_unused=True, materialize_grads=True)
    torch.testing.assert_close(residual(chosen.detach(), up, outcome.chosen), made[0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(residual(rejected.detach(), down, outcome.rejected), made[1], rtol=1e-9, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), beta=st.sampled_from([0.05, 0.1, 2.5]), smoothing=st.sampled_from([0.1, 0.3, 0.49]))
@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.optional])
def test_g_with_label_smoothing_and_without_a_reference(name, free, seed, beta, smoothing):
    (chosen, rejected), (up, down), scores = drawn(seed)
    if free:
        zero = torch.zeros_like(scores.chosen_reference)
        scores = replace(scores, chosen_reference=zero, rejected_reference=zero)
    outcome = LOSSES[name].smoothed(scores, beta, 0.0, smoothing)
    made = torch.autograd.grad(outcome.loss.sum(), (chosen, rejected))
    torch.testing.assert_close(residual(chosen.detach(), up, outcome.chosen), made[0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(residual(rejected.detach(), down, outcome.rejected), made[1], rtol=1e-9, atol=1e-12)
    # The loss as the study's code has it, of h = h+ - h-.
    margin = scores.chosen - scores.rejected - (scores.chosen_reference - scores.rejected_reference)

    def plain(h):
        return (h - 1 / (2 * beta)) ** 2 if name == "ipo" else -torch.log(torch.sigmoid(beta * h))

    torch.testing.assert_close(outcome.loss, (1 - smoothing) * plain(margin) + smoothing * plain(-margin))


def at(name, chosen, rejected, beta, margin=0.0):
    """c+ and c- by autograd where the log-ratios to the reference are `chosen` and `rejected`."""
    zero = torch.zeros(1, dtype=torch.float64)
    s = [torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (chosen, rejected)]
    loss = LOSSES[name].of(Scores(*s, zero, zero, zero + 1, zero + 1, zero[0]), beta, margin).loss
    return [-float(each) for each in torch.autograd.grad(loss.sum(), s, materialize_grads=True)]


def test_the_papers_ipo_has_the_right_direction_and_a_wrong_number():
    beta = 0.1

    def paper(margin):
        return beta * (1 - (margin - 1 / (2 * beta)))

    up, down = at("ipo", 0.0, 0.0, beta)
    assert up == pytest.approx(1 / beta) and down == -up
    assert paper(0.0) == pytest.approx(beta + 0.5) and paper(0.0) != pytest.approx(up)
    # Right while the margin is below its aim; past it the true one turns round, the paper's goes on for 1 more.
    assert all(math.copysign(1, at("ipo", m, 0.0, beta)[0]) == math.copysign(1, paper(m)) for m in (-3, 0, 2, 4.9))
    assert at("ipo", 5.5, 0.0, beta)[0] < 0 < paper(5.5)
    # No scale makes the one the other.
    ratios = [at("ipo", m, 0.0, beta)[0] / paper(m) for m in (0.0, 2.0)]
    assert ratios[0] != pytest.approx(ratios[1], rel=0.05)


def test_sppo_pushes_the_rejected_response_down_against_the_papers_sign():
    eta = 2.0
    up, down = at("sppo", 0.0, 0.0, 1 / eta)
    assert (up, down) == pytest.approx((eta, -eta))
    # Bounded: the push ends where the ratio has fallen to -eta/2, and turns below.
    assert at("sppo", 0.0, -eta / 2, 1 / eta)[1] == pytest.approx(0.0, abs=1e-12)
    assert at("sppo", 0.0, -eta, 1 / eta)[1] > 0


def test_dpo_lets_go_as_the_margin_grows_and_slic_stops_dead():
    pulls = [at("dpo", margin, 0.0, 0.1)[0] for margin in (0.0, 10.0, 100.0)]
    assert pulls[0] == pytest.approx(0.05) and pulls[0] > pulls[1] > pulls[2] > 0
    assert at("slic", 0.5, 0.0, 0.0, margin=1.0) == [1.0, -1.0]
    assert at("slic", 1.5, 0.0, 0.0, margin=1.0) == [0.0, 0.0]


def test_large_ratios_give_no_nan():
    for name in LOSSES:
        assert all(math.isfinite(value) for far in (-1e4, 1e4) for value in at(name, far, -far, 0.1, 1.0)), name


def test_the_divergence_of_kto_is_not_negative_and_carries_no_gradient():
    policy = torch.tensor([1.0, 2.0], requires_grad=True)
    assert float(divergence_of(policy, torch.zeros(2))) == 1.5
    assert float(divergence_of(-policy, torch.zeros(2))) == 0.0
    assert not divergence_of(policy, torch.zeros(2)).requires_grad
