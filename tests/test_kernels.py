"""Kernels and budgets by block: inner products of per-sample gradients, and real steps, against autograd in float64."""

import pytest
import torch
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from gradatlas.core.errors import InputError
from gradatlas.finetuning.sequences import EncodedResponse, log_probs
from gradatlas.gradients.capture import Capture
from gradatlas.gradients.spectra import spectra
from gradatlas.kernels.blocks import Block, Blocks
from gradatlas.kernels.budget import RULES, budget
from gradatlas.kernels.factors import Product, Rows
from gradatlas.kernels.matrices import cost, kernels
from gradatlas.study.settings import PROJECTIONS
from tiny_decoders import ATTENTION, RECURRENT, SIZES

# Of three lengths, with repeated tokens, and with token 0, which pads in some of the models.
RESPONSES = [
    EncodedResponse((5, 6, 7, 8, 9, 5), 3),
    EncodedResponse((5, 6, 7, 11), 3),
    EncodedResponse((1, 2, 3, 4, 5, 0, 7, 0, 5), 1),
]
#: By name, options of the configuration, and the blocks of layer 0 besides those of the linear layers.
DECODERS = {
    "llama": ({}, set()),
    "llama, tied": ({"tie_word_embeddings": True}, set()),
    "gpt_neox": ({"num_key_value_heads": None}, {"q.bias", "k.bias", "v.bias", "o.bias", "up.bias", "down.bias"}),
    "gpt2": (ATTENTION["gpt2"], {"q.bias", "up.bias", "ln_1.bias"}),
    "qwen2": ({}, {"q.bias", "k.bias", "v.bias"}),
    "qwen3": ({}, {"self_attn.q_norm.weight"}),
    "gemma": ({}, set()),
    "gemma3_text": (ATTENTION["gemma3_text"], {"self_attn.q_norm.weight"}),
    "opt": (ATTENTION["opt"], {"q.bias", "up.bias"}),
    "phi3": ({"eos_token_id": 1, "bos_token_id": 1}, set()),
}


def exact(monkeypatch):
    """Float64 throughout: some norms and rotary angles are in float32 in any model."""
    to = torch.Tensor.to

    def widened(tensor, *args, **options):
        wide = {torch.float32: torch.float64}
        args = [wide.get(each, each) if isinstance(each, torch.dtype) else each for each in args]
        options = {name: wide.get(each, each) if name == "dtype" else each for name, each in options.items()}
        return to(tensor, *args, **options)

    monkeypatch.setattr(torch.Tensor, "to", widened)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


def decoder(name, dtype=torch.float64):
    """A tiny decoder; its gains and biases are random too."""
    options = {**SIZES, "vocab_size": 60, **DECODERS.get(name, (RECURRENT.get(name, {}),))[0]}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[name.split(",")[0]](**options)).to(dtype).eval()
    for weight in model.parameters():
        if weight.ndim == 1:
            weight.data += 0.2 * torch.randn_like(weight)
    return model


def gradients(model, encoded):
    """By parameter, the gradient of log pi by autograd, of a response on its own."""
    named = dict(model.named_parameters())
    for weight in named.values():
        weight.requires_grad_(True)
    found = torch.autograd.grad(log_probs(model, [encoded]).sum(), list(named.values()), allow_unused=True)
    return {name: torch.zeros_like(named[name]) if g is None else g for name, g in zip(named, found, strict=True)}


def plain(formed, name):
    """<g, g'> of one parameter, of all pairs of responses."""
    rows = torch.stack([each[name].flatten() for each in formed])
    return rows @ rows.mT


def close(found, expected, tolerance=1e-9):
    assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())


@pytest.mark.parametrize("name", DECODERS)
def test_every_block_is_that_of_autograd(name, monkeypatch):
    exact(monkeypatch)
    model = decoder(name)
    blocks, factors = Blocks(model), {}
    scores = blocks.run(RESPONSES, factors.__setitem__)
    with torch.no_grad():
        torch.testing.assert_close(scores, torch.cat([log_probs(model, [each]) for each in RESPONSES]))
    assert set(factors) == set(blocks.blocks)
    names = {block.name for block in blocks.blocks if block.layer == 0}
    assert names >= {"q", "k", "v", "o", "up", "down"} | DECODERS[name][1]
    assert {"embedding", "output"} <= {block.name for block in blocks.blocks if block.layer is None}
    formed = [gradients(model, encoded) for encoded in RESPONSES]
    for parameter, weight in model.named_parameters():
        mine = [block for block in blocks.blocks if blocks.parameter(block) == parameter]
        kernel = sum(factors[block].inner(factors[block]) for block in mine)
        for one, other in blocks.shared if weight is model.get_output_embeddings().weight else []:
            cross = factors[one].inner(factors[other])
            torch.testing.assert_close(cross, factors[other].inner(factors[one]).mT)
            kernel = kernel + cross + cross.mT
        expected = plain(formed, parameter)
        # A bias of keys adds the same to all scores of a query: its gradient is zero.
        if expected.abs().max() > 1e-20:
            close(kernel, expected)
        change = torch.randn_like(weight)
        along = sum(factors[block].along(blocks.change(block, {parameter: change})) for block in mine)
        by_hand = torch.stack([(each[parameter] * change).sum() for each in formed])
        torch.testing.assert_close(along, by_hand, rtol=1e-9, atol=1e-12)


def test_parts_of_a_fused_module_are_its_rows(monkeypatch):
    """Of GPT-NeoX, heads by turns: each head's queries, keys and values."""
    exact(monkeypatch)
    model, factors = decoder("gpt_neox"), {}
    Blocks(model).run(RESPONSES, factors.__setitem__)
    formed = [gradients(model, each)["gpt_neox.layers.1.attention.query_key_value.weight"] for each in RESPONSES]
    for place, name in enumerate("qkv"):
        rows = torch.stack([each.view(4, 3, 8, 32)[:, place].flatten() for each in formed])
        close(factors[Block(1, name)].inner(factors[Block(1, name)]), rows @ rows.mT)


# From pairs, from formed gradients, and from those a few rows at a time, in several passes.
@pytest.mark.parametrize(("memory", "pair_cost"), [(2**31, 0), (2**31, 10**9), (200_000, 10**9)])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_kernel_of_all_parameters_is_the_sum_over_blocks(name, memory, pair_cost, monkeypatch):
    exact(monkeypatch)
    model = decoder(name)
    many = [*RESPONSES, EncodedResponse((9, 8, 7), 1), EncodedResponse((5, 6, 7, 12, 12), 3)]
    for kind in (Product, Rows):
        monkeypatch.setattr(kind, "pair_cost", pair_cost)
    found = kernels(Blocks(model), many, memory=memory, batch_tokens=18)
    formed = [gradients(model, encoded) for encoded in many]
    close(sum(found.values()), sum(plain(formed, parameter) for parameter, _ in model.named_parameters()))
    for block, kernel in found.items():
        assert torch.equal(kernel, kernel.mT)
        if block.name != "embedding x output":
            assert torch.linalg.eigvalsh(kernel)[0] >= -1e-12 * kernel.abs().max()
    assert (Block(None, "embedding x output") in found) == (name == "gpt2")


def test_the_diagonal_is_the_squared_norm_of_the_spectra():
    """Of a mean over n tokens there, of a sum here."""
    model = decoder("llama")
    found = kernels(Blocks(model), RESPONSES)
    passes = Capture(model, PROJECTIONS).run([each.sample for each in RESPONSES])
    for at, (encoded, done) in enumerate(zip(RESPONSES, passes, strict=True)):
        norms = spectra(done.factors, ["frobenius_norm"])[..., 0]
        expected = (encoded.tokens * norms) ** 2
        diagonal = [[found[Block(layer, name)][at, at] for name in PROJECTIONS] for layer in range(2)]
        torch.testing.assert_close(torch.tensor(diagonal).reshape(expected.shape), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("name", "parameter"),
    [("mamba", "A_log"), ("qwen3_next", "dt_bias|A_log|conv1d|experts"), ("rwkv", "time_decay")],
)
def test_other_parameters_are_refused_by_name(name, parameter):
    with pytest.raises(InputError, match=parameter):
        Blocks(decoder(name, torch.float32))


@pytest.mark.parametrize("name", ["module", "weight"])
def test_a_module_or_weight_that_is_used_twice_is_refused(name):
    model = decoder("llama")
    one, other = (layer.mlp for layer in model.model.layers)
    if name == "module":
        other.up_proj = one.up_proj
    else:
        other.up_proj.weight = one.up_proj.weight
    with pytest.raises(InputError, match="up_proj"):
        Blocks(model)


def test_the_model_is_as_before():
    model = decoder("llama", torch.float32)
    model.train().model.embed_tokens.requires_grad_(False)
    Blocks(model).run(RESPONSES, lambda block, factor: None)
    assert model.training and not model.model.embed_tokens.weight.requires_grad and model.lm_head.weight.requires_grad
    assert not any(module._forward_hooks for module in model.modules())
    assert all(weight.grad is None for weight in model.parameters())


OPTIMISERS = {
    "sgd": lambda weights, size: torch.optim.SGD(weights, lr=2e-3 * size),
    "rmsprop": lambda weights, size: torch.optim.RMSprop(weights, lr=1e-5 * size),
    "adamw": lambda weights, size: torch.optim.AdamW(weights, lr=1e-4 * size, weight_decay=0.1),
}


def stepped(model, optimiser, size=1.0, steps=2, clip=1.0):
    """The weights after steps on a batch of two responses, with clipping; the model is as before."""
    weights = dict(model.requires_grad_(True).named_parameters())
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    made = OPTIMISERS[optimiser](list(weights.values()), size)
    for _ in range(steps):
        made.zero_grad()
        (-log_probs(model, RESPONSES[:2]).sum()).backward()
        assert nn.utils.clip_grad_norm_(weights.values(), clip) > clip
        made.step()
    model.zero_grad()
    after = {name: weight.detach().clone() for name, weight in weights.items()}
    model.load_state_dict(before, strict=False)
    return after


def test_factors_of_float32_take_half_of_the_memory():
    wide, narrow = (Blocks(decoder("llama", dtype)) for dtype in (torch.float64, torch.float32))
    for memory in (5e3, 2e4, 8e4):
        many = cost(wide, RESPONSES, memory=memory)[0]
        assert many == cost(narrow, RESPONSES, memory=memory / 2)[0]
    assert cost(wide, RESPONSES, memory=2e4)[0] > cost(narrow, RESPONSES, memory=2e4)[0]


@pytest.fixture(scope="module")
def watched():
    """A tied, fused, transposed model, its blocks, and the responses by key: the last one is not trained on."""
    with pytest.MonkeyPatch.context() as patch:
        exact(patch)
        model = decoder("gpt2")
        yield model, Blocks(model), {str(place): each for place, each in enumerate(RESPONSES)}


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_the_budget_of_a_real_step_closes(optimiser, watched):
    model, blocks, responses = watched
    kept = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    after = stepped(model, optimiser)
    found = {rule: budget(blocks, after, responses, rule=rule, batch_tokens=12) for rule in RULES}
    with torch.no_grad():
        before = log_probs(model, RESPONSES)
        model.load_state_dict(after, strict=False)
        measured = (log_probs(model, RESPONSES) - before).numpy()
        model.load_state_dict(kept, strict=False)
    for each in found.values():
        assert each.measured == pytest.approx(measured, rel=1e-9)
    assert found["trapezoid"].gap < 0.05 and found["midpoint"].gap < found["trapezoid"].gap
    assert found["trapezoid"].gap < found["first_order"].gap / 3
    known = dict(zip(responses, measured.tolist(), strict=True))
    spared = budget(blocks, after, responses, rule="midpoint", measured=known)
    assert spared.gap == pytest.approx(found["midpoint"].gap, rel=1e-6)
    rows = list(found["trapezoid"].rows())
    assert len(rows) == 3 * len(blocks.blocks) and {row["measured"] for row in rows} == set(
        found["trapezoid"].measured.tolist()
    )
    total = sum(row["predicted"] for row in rows if row["probe_id"] == "2")
    assert total == pytest.approx(found["trapezoid"].predicted[2], rel=1e-12)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_errors_fall_with_the_step_as_stated(optimiser, watched):
    """Relative errors: of the first order in the step for one gradient, of the second for both rules."""
    model, blocks, responses = watched
    gaps = {
        size: {rule: budget(blocks, stepped(model, optimiser, size, 1), responses, rule=rule).gap for rule in RULES}
        for size in (0.2, 0.1)
    }
    order = {rule: gaps[0.2][rule] / gaps[0.1][rule] for rule in RULES}
    assert order["first_order"] == pytest.approx(2, abs=0.3)
    assert order["trapezoid"] == pytest.approx(4, abs=0.5) and order["midpoint"] == pytest.approx(4, abs=0.5)
    # Of a step so small its error is rounding.
    assert order["simpson"] > 10 or gaps[0.2]["simpson"] < 1e-6


def test_each_part_is_the_slope_when_only_its_block_moves(watched):
    """Central differences along one block's change, at both ends of the step."""
    model, blocks, responses = watched
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    after = stepped(model, "adamw")
    found = budget(blocks, after, responses).parts
    width = 1e-4
    for block in (Block(0, "q"), Block(1, "down"), Block(1, "up.bias"), Block(1, "ln_1.weight")):
        name = blocks.parameter(block)
        change = after[name] - before[name]
        if block.name == "q":  # of a fused module, (in, out)
            change[:, 32:] = 0
        slopes = []
        for end in (before, after):
            values = []
            for sign in (1, -1):
                model.load_state_dict(end | {name: end[name] + sign * width * change}, strict=False)
                with torch.no_grad():
                    values.append(log_probs(model, RESPONSES))
            slopes.append((values[0] - values[1]) / (2 * width))
        model.load_state_dict(before, strict=False)
        assert found[block] == pytest.approx((sum(slopes) / 2).numpy(), rel=1e-5, abs=1e-9)


def test_unchanged_blocks_have_no_part_and_other_weights_are_refused(watched):
    model, blocks, responses = watched
    after = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    after["transformer.h.0.attn.c_attn.weight"] += 0.01
    assert set(budget(blocks, after, responses).parts) == {Block(0, name) for name in "qkv"}
    for wrong in (after | {"transformer.ln_f.bias": torch.zeros(3)}, {}):
        with pytest.raises(InputError, match=r"the weights after the change: transformer\."):
            budget(blocks, wrong, responses)


def test_rows_of_an_embedding_are_those_of_its_gradient():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 11, (3, 7), generator=generator)
    rows = Rows(ids, torch.randn(3, 7, 4, generator=generator, dtype=torch.float64), 11)
    whole = torch.nn.functional.one_hot(ids, 11).double().mT @ rows.d
    for step in (1, 4, 11, 20):
        parts = [rows.gradient(slice(first, first + step)) for first in range(0, 11, step)]
        torch.testing.assert_close(torch.cat(parts, 1), whole)
