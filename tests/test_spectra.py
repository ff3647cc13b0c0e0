"""The engine against the slow plain way: autograd's own weight gradient and its full SVD, in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from gradatlas.gradients.capture import ATTENTION, Capture, Factors
from gradatlas.gradients.spectra import METRICS, spectra
from gradatlas.models.tokens import Encoded


def tiny_llama(layers=3, dtype=torch.float64, bias=True):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=6,
        max_position_embeddings=64,
        initializer_range=0.3,
        attention_bias=bias,
    )
    model = LlamaForCausalLM(config).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def sample(tokens, response, seed=1):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 97, (tokens,), generator=generator).tolist()
    return Encoded(tuple(ids), tuple(i >= tokens - response for i in range(tokens)), False)


def plainly(model, one):
    """Loss and metrics of one sample from autograd's weight gradient and a full SVD."""
    model.zero_grad()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    ids = torch.tensor([one.ids])
    # Not the model's own loss: it rounds the logits to float32.
    log_probs = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    counted = torch.tensor(one.response[1:])
    loss = -log_probs.gather(1, ids[0, 1:, None])[counted].mean()
    loss.backward()
    rows = []
    for layer in model.model.layers:
        for name in ATTENTION:
            gradient = getattr(layer.self_attn, f"{name}_proj").weight.grad
            sigma = torch.linalg.svdvals(gradient)
            share = sigma / sigma.sum()
            rank = (-torch.special.xlogy(share, share).sum()).exp()
            rows.append(
                [
                    sigma.sum(),
                    sigma[0],
                    sigma[-1],
                    gradient.norm(),
                    gradient.mean(),
                    gradient.max(),
                    gradient.min(),
                    rank,
                    sigma[0] / sigma.sum(),
                ]
            )
    return loss.item(), torch.tensor(rows).view(len(model.model.layers), len(ATTENTION), len(METRICS))


LENGTHS = [(30, 20), (9, 1), (2, 1), (50, 49), (17, 5)]


def test_batch_equals_autograd_and_full_svd():
    model = tiny_llama()
    batch = [sample(tokens, response, seed) for seed, (tokens, response) in enumerate(LENGTHS)]
    expected = [plainly(model, one) for one in batch]
    for one, (loss, metrics) in zip(Capture(model).run(batch), expected, strict=True):
        assert one.loss == pytest.approx(loss, rel=1e-12)
        assert_equal_metrics(spectra(one.factors), metrics, 1e-9)


def test_wrong_projection_order_is_noticed():
    """The comparison can fail: with K and V swapped it does."""
    model = tiny_llama()
    batch = [sample(20, 10)]
    _, metrics = plainly(model, batch[0])
    swapped = metrics[:, [0, 2, 1, 3]]
    with pytest.raises(AssertionError):
        assert_equal_metrics(spectra(Capture(model).run(batch)[0].factors), swapped, 1e-3)


def test_float32_is_within_a_thousandth():
    model = tiny_llama(dtype=torch.float32)
    batch = [sample(tokens, response, seed) for seed, (tokens, response) in enumerate(LENGTHS)]
    exact = tiny_llama()
    exact.load_state_dict(model.state_dict())
    for one, sample_ in zip(Capture(model).run(batch), batch, strict=True):
        assert_equal_metrics(spectra(one.factors), plainly(exact.double(), sample_)[1], 1e-3)


def test_a_mean_over_many_tokens_does_not_vanish_in_float16():
    """Its gradients come near the smallest numbers that float16 has; D is scaled back exactly."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2000, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4
    )
    model = LlamaForCausalLM(config).half()
    exact = LlamaForCausalLM(config)
    exact.load_state_dict(model.state_dict())
    batch = [sample(500, 480), sample(9, 3)]
    captures = Capture(model), Capture(exact)
    for normalise in ("mean", "sum"):
        for ours, theirs in zip(*(capture.run(batch, normalise) for capture in captures), strict=True):
            assert ours.loss == pytest.approx(theirs.loss, rel=1e-3)
            error = spectra(ours.factors, ["nuclear_norm"]) / spectra(theirs.factors, ["nuclear_norm"]) - 1
            assert error.abs().max() < 5e-3, normalise


def assert_equal_metrics(ours, expected, tolerance):
    index = {name: i for i, name in enumerate(METRICS)}
    sigma_max = expected[..., index["sigma_max"]]
    entry = torch.maximum(expected[..., index["max"]].abs(), expected[..., index["min"]].abs())
    # Q and K see no choice between one token: their gradient is zero but for rounding, and rounding has no rank.
    real = expected[..., index["nuclear_norm"]] > 1e-6
    assert (ours[..., index["nuclear_norm"]] > 1e-6).equal(real)
    for name in METRICS:
        scale = {"sigma_min": sigma_max, "mean": entry, "max": entry, "min": entry}.get(
            name, expected[..., index[name]]
        )
        error = ((ours - expected)[..., index[name]].abs() / scale)[real].max()
        assert error <= tolerance, f"{name}: relative error {error:.1e}"


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.integers(1, 40),
    rows=st.integers(1, 20),
    columns=st.integers(1, 24),
    rank=st.integers(0, 5),
    scale=st.floats(-6, 6),
    seed=st.integers(0, 999),
)
def test_any_factors(tokens, rows, columns, rank, scale, seed):
    """Few and many tokens, zero and repeated rows, wide scales: equal to the SVD of D^T X itself."""
    generator = torch.Generator().manual_seed(seed)
    d = torch.randn(2, tokens, rows, generator=generator, dtype=torch.float64) * 10**scale
    x = torch.randn(2, tokens, columns, generator=generator, dtype=torch.float64)
    # Repeat tokens, so that the rank falls below every dimension.
    d, x = (f[:, [min(i, rank) for i in range(tokens)]] for f in (d, x))
    gradient = d.mT @ x
    ours = spectra({"q": Factors(x, d)})[:, 0]
    sigma = torch.linalg.svdvals(gradient)
    top = sigma[:, 0]
    assert torch.allclose(ours[:, METRICS.index("nuclear_norm")], sigma.sum(1), rtol=1e-10)
    assert torch.allclose(ours[:, METRICS.index("sigma_max")], top, rtol=1e-11)
    assert ((ours[:, METRICS.index("sigma_min")] - sigma[:, -1]).abs() <= 1e-11 * top).all()
    assert torch.allclose(ours[:, METRICS.index("frobenius_norm")], gradient.norm(dim=(1, 2)), rtol=1e-11)
    assert torch.allclose(ours[:, METRICS.index("max")], gradient.amax((1, 2)), rtol=1e-9)
    assert torch.allclose(ours[:, METRICS.index("min")], gradient.amin((1, 2)), rtol=1e-9)
    assert torch.allclose(
        ours[:, METRICS.index("mean")] * rows * columns, gradient.sum((1, 2)), atol=float(top.max()) * 1e-9
    )
    if tokens < min(rows, columns):
        assert (ours[:, METRICS.index("sigma_min")] == 0).all()


def test_zero_gradient_has_rank_zero():
    zeros = Factors(torch.ones(1, 4, 3, dtype=torch.float64), torch.zeros(1, 4, 5, dtype=torch.float64))
    values = dict(zip(METRICS, spectra({"q": zeros})[0, 0].tolist(), strict=True))
    assert math.isnan(values.pop("sigma_ratio")) and set(values.values()) == {0}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("tokens", "zero"), [(24, "qkvo"), (25, "q"), (26, "")])
def test_the_smallest_singular_value_is_zero_where_the_rank_is_too_low(tokens, zero, dtype):
    """The last token never has a gradient, and the first none that reaches q: its softmax is over one key."""
    model = tiny_llama(dtype=dtype)
    smallest = spectra(Capture(model).run([sample(tokens, 10)])[0].factors, ["sigma_min"])
    for place, name in ((0, "q"), (3, "o")):
        # The middle layer's matrices of 24 x 24: the first reads repeated tokens, the last acts on the response alone.
        assert (smallest[1, place, 0] == 0) == (name in zero), name
