"""Every family of decoders against autograd's own weight gradient, sliced by hand as its code splits it."""

import pytest
import torch
import transformers
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, LlamaConfig, PretrainedConfig

from gradatlas.core.errors import InputError
from gradatlas.gradients.capture import Capture, place_of
from gradatlas.gradients.spectra import METRICS, spectra
from gradatlas.models.decoders import find_layers
from gradatlas.models.tokens import Encoded
from tiny_decoders import RECURRENT, SIZES

HIDDEN, HEADS, GROUPS, HEAD, INNER = 24, 4, 2, 6, 40

COMMON = {
    "vocab_size": 97,
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "num_key_value_heads": GROUPS,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2 = {"vocab_size": 97, "n_embd": HIDDEN, "n_layer": 2, "n_head": HEADS, "n_positions": 64}
FALCON = {"parallel_attn": True, "bias": True, "alibi": False, "ffn_hidden_size": INNER}


def separate(layer, block="self_attn", out="o_proj"):
    """Three modules and one: most families."""
    attention = getattr(layer, block)
    names = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": out}
    return {name: getattr(attention, path).weight.grad for name, path in names.items()}


def llama_mlp(layer):
    return {name: getattr(layer.mlp, f"{name}_proj").weight.grad for name in ("gate", "up", "down")}


def gpt2(layer):
    """Transposed weights (in, out), three blocks of columns."""
    q, k, v = layer.attn.c_attn.weight.grad.T.split(HIDDEN)
    return {"q": q, "k": k, "v": v, "o": layer.attn.c_proj.weight.grad.T}


def gpt2_mlp(layer):
    return {"up": layer.mlp.c_fc.weight.grad.T, "down": layer.mlp.c_proj.weight.grad.T}


def phi3(layer):
    """Queries of all heads, then keys of all groups, then values."""
    q, k, v = layer.self_attn.qkv_proj.weight.grad.split([HEADS * HEAD, GROUPS * HEAD, GROUPS * HEAD])
    return {"q": q, "k": k, "v": v, "o": layer.self_attn.o_proj.weight.grad}


def phi3_mlp(layer):
    gate, up = layer.mlp.gate_up_proj.weight.grad.chunk(2)
    return {"gate": gate, "up": up, "down": layer.mlp.down_proj.weight.grad}


def neox(layer):
    """Head by head its query, key and value."""
    fused = layer.attention.query_key_value.weight.grad.view(HEADS, 3, HEAD, HIDDEN)
    q, k, v = (fused[:, i].reshape(-1, HIDDEN) for i in range(3))
    return {"q": q, "k": k, "v": v, "o": layer.attention.dense.weight.grad}


def neox_as_blocks(layer):
    """The mistake: three blocks."""
    q, k, v = layer.attention.query_key_value.weight.grad.chunk(3)
    return {"q": q, "k": k, "v": v, "o": layer.attention.dense.weight.grad}


def neox_mlp(layer):
    return {"up": layer.mlp.dense_h_to_4h.weight.grad, "down": layer.mlp.dense_4h_to_h.weight.grad}


def falcon(layer):
    """Multi-query: queries of all heads, then one key, one value."""
    q, k, v = layer.self_attention.query_key_value.weight.grad.split([HIDDEN, HEAD, HEAD])
    return {"q": q, "k": k, "v": v, "o": layer.self_attention.dense.weight.grad}


def falcon_new(layer):
    """Group by group its queries, its key and its value."""
    per = HEADS // GROUPS
    fused = layer.self_attention.query_key_value.weight.grad.view(GROUPS, per + 2, HEAD, HIDDEN)
    q, k, v = fused[:, :per], fused[:, per], fused[:, per + 1]
    q, k, v = (part.reshape(-1, HIDDEN) for part in (q, k, v))
    return {"q": q, "k": k, "v": v, "o": layer.self_attention.dense.weight.grad}


def opt(layer):
    return separate(layer, out="out_proj")


def opt_mlp(layer):
    return {"up": layer.fc1.weight.grad, "down": layer.fc2.weight.grad}


# Family: configuration class, its keys, hand-written slices of attention and of the feed-forward part.
FAMILIES = {
    "llama": ("Llama", {**COMMON, "attention_bias": True}, separate, llama_mlp),
    "llama_tied": ("Llama", {**COMMON, "tie_word_embeddings": True}, separate, llama_mlp),
    "qwen2": ("Qwen2", COMMON, separate, llama_mlp),
    "qwen3": ("Qwen3", {**COMMON, "head_dim": HEAD}, separate, llama_mlp),
    "mistral": ("Mistral", {**COMMON, "sliding_window": 5, "head_dim": HEAD}, separate, llama_mlp),
    "gemma": ("Gemma", {**COMMON, "head_dim": HEAD}, separate, llama_mlp),
    "gemma2": (
        "Gemma2",
        {**COMMON, "head_dim": HEAD, "sliding_window": 5, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": HEAD},
        separate,
        llama_mlp,
    ),
    "gemma3": (
        "Gemma3Text",
        {**COMMON, "head_dim": HEAD, "sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]},
        separate,
        llama_mlp,
    ),
    "phi3": ("Phi3", COMMON, phi3, phi3_mlp),
    "gpt2": ("GPT2", {**GPT2, "n_inner": INNER}, gpt2, gpt2_mlp),
    "gpt2_untied": ("GPT2", {**GPT2, "tie_word_embeddings": False}, gpt2, gpt2_mlp),
    "neox": ("GPTNeoX", {**COMMON, "use_parallel_residual": True}, neox, neox_mlp),
    "neox_sequential": ("GPTNeoX", {**COMMON, "use_parallel_residual": False}, neox, neox_mlp),
    "opt": ("OPT", {**COMMON, "ffn_dim": INNER, "word_embed_proj_dim": HIDDEN}, opt, opt_mlp),
    "opt_projected": (
        "OPT",
        {**COMMON, "ffn_dim": INNER, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
        opt,
        opt_mlp,
    ),
    "olmo2": ("Olmo2", COMMON, separate, llama_mlp),
    "falcon": ("Falcon", {**COMMON, **FALCON, "multi_query": True}, falcon, neox_mlp),
    "falcon_new": (
        "Falcon",
        {**COMMON, **FALCON, "new_decoder_architecture": True, "num_kv_heads": GROUPS},
        falcon_new,
        neox_mlp,
    ),
    "mixtral": ("Mixtral", {**COMMON, "num_local_experts": 3, "num_experts_per_tok": 2}, separate, None),
    "qwen2_moe": (
        "Qwen2Moe",
        {
            **COMMON, "num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 8,
            "shared_expert_intermediate_size": 16, "decoder_sparse_step": 1,
        },
        separate,
        None,
    ),
    "qwen3_moe": (
        "Qwen3Moe",
        {
            **COMMON, "head_dim": 8, "num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 8,
            "decoder_sparse_step": 1, "norm_topk_prob": True,
        },
        separate,
        None,
    ),
}  # fmt: skip


def build(family, dtype=torch.float64):
    """A random model with random biases and norms."""
    kind, keys, *_ = FAMILIES[family]
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**keys)
    # Grouped matrix products know no float64.
    experts = {"experts_implementation": "eager"} if "num_experts_per_tok" in keys else {}
    model = transformers.AutoModelForCausalLM.from_config(config, **experts).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            else:
                parameter.normal_(std=0.3)
    return model


def layers_of(model):
    body = model.base_model
    body = getattr(body, "decoder", body)
    return body.layers if hasattr(body, "layers") else body.h


def sample(tokens, response, seed=1):
    ids = torch.randint(3, 97, (tokens,), generator=torch.Generator().manual_seed(seed)).tolist()
    return Encoded(tuple(ids), tuple(i >= tokens - response for i in range(tokens)), False)


LENGTHS = [(30, 20), (9, 1), (2, 1), (45, 44), (17, 5)]
BATCH = [sample(tokens, response, seed) for seed, (tokens, response) in enumerate(LENGTHS)]


def weight_gradients(model, one, slices):
    """By layer and projection, autograd's own gradient of one sample's mean response cross-entropy."""
    model.zero_grad()
    model.requires_grad_(True)
    ids = torch.tensor([one.ids])
    log_probs = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, :-1].log_softmax(-1)
    (-log_probs.gather(1, ids[0, 1:, None])[torch.tensor(one.response[1:])].mean()).backward()
    return [{name: part.clone() for name, part in slices(layer).items()} for layer in layers_of(model)]


def errors(gradients, passed):
    """Largest relative error of nuclear norm, sigma_max and Frobenius norm over layers and projections."""
    ours = spectra(passed.factors)
    worst = dict.fromkeys(("nuclear_norm", "sigma_max", "frobenius_norm"), 0.0)
    for index, layer in enumerate(gradients):
        assert list(layer) == list(passed.factors)
        for place, gradient in enumerate(layer.values()):
            sigma = torch.linalg.svdvals(gradient.double())
            # Q and K see no choice between one token: their gradient is zero but for rounding.
            if sigma.sum() < 1e-6:
                assert ours[index, place, METRICS.index("nuclear_norm")] < 1e-5
                continue
            expected = {"nuclear_norm": sigma.sum(), "sigma_max": sigma[0], "frobenius_norm": sigma.norm()}
            for name, value in expected.items():
                error = abs(float(ours[index, place, METRICS.index(name)] / value) - 1)
                worst[name] = max(worst[name], error)
    return worst


def compare(family, slices, projections, dtype=torch.float64):
    """Largest errors over a batch of unequal lengths."""
    model = build(family, dtype)
    exact = build(family, dtype).double()
    gradients = [weight_gradients(exact, one, slices) for one in BATCH]
    worst = dict.fromkeys(("nuclear_norm", "sigma_max", "frobenius_norm"), 0.0)
    for expected, passed in zip(gradients, Capture(model, projections).run(BATCH), strict=True):
        worst = {name: max(worst[name], value) for name, value in errors(expected, passed).items()}
    return worst


def assert_exact(worst):
    assert worst["nuclear_norm"] <= 1e-5 and worst["sigma_max"] <= 1e-6 and worst["frobenius_norm"] <= 1e-6, worst


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_equals_autograd(family):
    assert_exact(compare(family, FAMILIES[family][2], ("q", "k", "v", "o")))


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_is_within_a_thousandth(family):
    worst = compare(family, FAMILIES[family][2], ("q", "k", "v", "o"), torch.float32)
    assert max(worst.values()) <= 1e-3, worst


@pytest.mark.parametrize("family", [name for name, row in FAMILIES.items() if row[3]])
def test_feed_forward_equals_autograd(family):
    slices = FAMILIES[family][3]
    names = ("gate", "up", "down") if slices in (llama_mlp, phi3_mlp) else ("up", "down")
    assert_exact(compare(family, slices, names))


def test_a_wrong_permutation_of_heads_is_noticed():
    """The comparison can fail: interleaved heads taken as three blocks."""
    with pytest.raises(AssertionError):
        assert_exact(compare("neox", neox_as_blocks, ("q", "k", "v", "o")))


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_contributes_nothing(family, monkeypatch):
    # Eager attention rounds its scores to float32 whatever the model's precision, and so on the number of keys.
    softmax = nn.functional.softmax
    monkeypatch.setattr(nn.functional, "softmax", lambda x, dim=None, dtype=None: softmax(x, dim))
    capture = Capture(build(family))
    for one, together in zip(BATCH, capture.run(BATCH), strict=True):
        alone = capture.run([one])[0]
        assert together.loss == pytest.approx(alone.loss, rel=1e-12)
        for name, factors in alone.factors.items():
            for mine, other in ((factors.x, together.factors[name].x), (factors.d, together.factors[name].d)):
                assert mine.shape == other.shape
                assert (mine - other).norm() <= 1e-12 * mine.norm() + 1e-14


def state_of(model):
    """All that a pass could change of a model: modes, flags, gradients, hooks, settings and weights."""
    return (
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [parameter.grad is not None for parameter in model.parameters()],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        [getattr(module, "gradient_checkpointing", None) for module in model.modules()],
        model.config.to_dict(),
        model.generation_config.to_dict(),
        [float(tensor.double().sum()) for tensor in model.state_dict().values()],
    )


def generated(model):
    torch.manual_seed(0)
    return model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=5, do_sample=False, use_cache=False).tolist()


def train_step(model):
    """The loss of one step and the weights after it, in training mode as it is."""
    torch.manual_seed(0)
    ids = torch.tensor([BATCH[0].ids])
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    optimiser.step()
    return loss.item(), [float(parameter.detach().sum()) for parameter in model.parameters()]


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_a_capture_leaves_the_model_as_it_was(family):
    """Modes and flags mixed, gradient checkpointing on: generation and a step of training are those of before."""
    model, untouched = build(family), build(family)
    for each in (model, untouched):
        each.gradient_checkpointing_enable()
        each.train()
        layers_of(each)[1].eval()
        each.get_input_embeddings().weight.requires_grad_(False)
    before, text = state_of(model), generated(model)
    with Capture(model) as capture:
        assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())
        inside = capture.run(BATCH)
        assert generated(model) == generated(build(family))
        with Capture(model, ("o",)) as other:
            other.run(BATCH[:1])
            with torch.no_grad():
                again = capture.run(BATCH)
        assert capture.run(BATCH)[0].loss == inside[0].loss == again[0].loss
    assert state_of(model) == before and generated(model) == text
    with pytest.raises(ZeroDivisionError), Capture(model):
        raise ZeroDivisionError
    assert Capture(model).run(BATCH)[0].loss == inside[0].loss  # a second one, without a block
    assert state_of(model) == before
    assert train_step(model) == train_step(untouched)


def test_a_pass_that_fails_leaves_the_model_as_it_was():
    model = build("llama").train()
    before = state_of(model)
    capture = Capture(model)
    with pytest.raises(IndexError):
        capture.run([Encoded((1, 2, 5000), (False, False, True), False)])
    assert state_of(model) == before and not capture._x and not capture._d


def test_a_graph_that_is_cut_is_one_line_with_the_module():
    class Cut(ToyLayer):
        def forward(self, x):
            q, k, v = self.fused(x).chunk(3, -1)
            return x + self.out((q @ k.mT / 5).sigmoid().tril() @ v).detach()

    model = toy()
    model.blocks[0] = Cut(24).double()
    with pytest.raises(InputError, match=r"model 'toy': no gradient reaches fused \(2 modules in all\)"):
        Capture(model, mapping=MAPPING).run(BATCH)


UNEVEN = {
    **COMMON, "num_hidden_layers": 6, "head_dim": HEAD, "global_head_dim": 10, "sliding_window": 5,
    "layer_types": ["sliding_attention", "full_attention"] * 3, "vocab_size_per_layer_input": 97,
    "hidden_size_per_layer_input": 8,
}  # fmt: skip
GEMMA3N = {
    **{name: UNEVEN[name] for name in UNEVEN if name != "global_head_dim"}, "intermediate_size": [INNER] * 6,
    "num_kv_shared_layers": 2, "laurel_rank": 4, "activation_sparsity_pattern": [0.0] * 6, "altup_num_inputs": 2,
}  # fmt: skip


def uneven(**more):
    """A tiny Gemma 4: full attention has wider heads than sliding attention."""
    return built(transformers.Gemma4TextConfig(**{**UNEVEN, **more}))


def built(config):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def assert_equals_autograd(model, capture, passes, batch, tolerance=1e-6):
    """D^T X of every layer and projection is autograd's gradient of the weight."""
    for one, done in zip(batch, passes, strict=True):
        model.zero_grad()
        model.requires_grad_(True)
        ids = torch.tensor([one.ids])
        log_probs = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        (-log_probs.gather(1, ids[0, 1:, None])[torch.tensor(one.response[1:])].mean()).backward()
        for index, layer in enumerate(capture.layers):
            for name, projection in layer.items():
                formed = done.factors[name].d[index].mT @ done.factors[name].x[index]
                gradient = projection.module.weight.grad
                gradient = gradient.T if type(projection.module).__name__ == "Conv1D" else gradient
                gradient = gradient if projection.columns is None else gradient[projection.columns]
                assert (formed - gradient).norm() <= tolerance * gradient.norm() + 1e-12, (index, name)
    model.zero_grad()


ALL = [set("qkvo")] * 6


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({}, ALL),
        ({"num_kv_shared_layers": 2}, ALL[:4] + [set("qo")] * 2),
        ({"attention_k_eq_v": True, "num_global_key_value_heads": 1}, [set("qkvo"), set("qko")] * 3),
    ],
)
def test_layers_of_unequal_width_equal_autograd(keys, found):
    """Also where layers use another's keys and values, or keys as values: those have none of their own."""
    model = uneven(**keys)
    capture = Capture(model)
    assert [set(layer) for layer in capture.layers] == found
    passes = capture.run(BATCH[:2])
    assert passes[0].factors["q"].d[0].shape == (30, 24) and passes[0].factors["q"].d[1].shape == (30, 40)
    assert_equals_autograd(model, capture, passes, BATCH[:2])
    values = spectra(passes[0].factors)
    there = torch.tensor([[name in layer for name in "qkvo"] for layer in found])
    assert values.shape == (6, 4, len(METRICS)) and torch.equal(values[..., 0].isfinite(), there)


def test_gemma_3n_with_shared_keys_equals_autograd():
    model = built(transformers.Gemma3nTextConfig(**GEMMA3N))
    capture = Capture(model)
    assert [set(layer) for layer in capture.layers] == ALL[:4] + [set("qo")] * 2
    assert_equals_autograd(model, capture, capture.run(BATCH[:2]), BATCH[:2])


def test_layers_of_unequal_width_by_a_mapping():
    torch.manual_seed(0)
    model = Toy((24, 12)).double()
    capture = Capture(model, mapping="q=fused[0:12] k=fused[12:24] v=fused[24:36] o=out")
    factors = capture.run(BATCH[:1])[0].factors
    assert [tuple(each.shape) for each in factors["o"].x] == [(30, 24), (30, 12)]
    assert factors["q"].x[1].data_ptr() == factors["k"].x[1].data_ptr()


def test_projections_of_one_input_share_one_stack():
    for family in ("llama", "phi3", "neox"):
        factors = Capture(build(family)).run(BATCH[:1])[0].factors
        places = [place_of(factors[name].x) for name in "qkvo"]
        assert places[0] == places[1] == places[2] != places[3]


def test_the_model_is_left_as_it_was():
    model = build("neox").train()
    model.gpt_neox.layers[0].eval()
    before = state_of(model)
    rng = torch.get_rng_state()
    find_layers(model)
    assert state_of(model) == before and torch.equal(rng, torch.get_rng_state())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_found_alike_at_any_precision_and_with_dead_weights(family, dtype):
    """Neither rounding nor weights of zero nor saturated scores change what is found."""
    wanted = ("q", "k", "v", "o", *(("up", "down") if FAMILIES[family][3] else ()))
    expected = find_layers(build(family), wanted)
    model = build(family, dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0 if parameter.ndim > 1 else 8)
    for ours, theirs in zip(find_layers(model, wanted), expected, strict=True):
        for name in wanted:
            assert ours[name].path == theirs[name].path and ours[name].shape == theirs[name].shape
            assert (ours[name].columns is None) == (theirs[name].columns is None)
            assert ours[name].columns is None or ours[name].columns.equal(theirs[name].columns)


@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe", "qwen3_moe"])
def test_experts_are_refused_and_attention_is_not(family):
    model = build(family)
    assert [set(layer) for layer in find_layers(model)] == [{"q", "k", "v", "o"}] * 2
    with pytest.raises(InputError, match=r"layer 0 .* mixture of experts .* only q, k, v and o"):
        find_layers(model, ("q", "down"))


def test_a_plain_feed_forward_part_has_no_gate():
    with pytest.raises(InputError, match=r"GPT2LMHeadModel.* layer 0 .*: nothing acts as gate; .*c_fc"):
        find_layers(build("gpt2"), ("gate", "up"))


def test_layers_without_softmax_attention_are_refused():
    config = transformers.MambaConfig(vocab_size=97, hidden_size=24, num_hidden_layers=2, state_size=4)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(InputError, match=r"MambaForCausalLM.* layer 0 .*in_proj .*column projections of models.tsv"):
        find_layers(model)


def test_an_unknown_projection_is_one_line():
    with pytest.raises(InputError, match="unknown projection 'quary'"):
        find_layers(build("llama"), ("quary",))


class ToyLayer(nn.Module):
    """Attention by a sigmoid of the scores, in one fused module: nothing that can be identified by its effects."""

    def __init__(self, width):
        super().__init__()
        self.fused, self.out = nn.Linear(24, 3 * width), nn.Linear(width, 24)

    def forward(self, x):
        q, k, v = self.fused(x).chunk(3, -1)
        scores = (q @ k.mT / 5).sigmoid().tril()
        return x + self.out(scores @ v)


class Toy(nn.Module):
    """A decoder with a forward of its own: no mask, no logits to keep, a tuple as the result."""

    def __init__(self, widths=(24, 24)):
        super().__init__()
        self.config = PretrainedConfig(num_hidden_layers=2, name_or_path="toy")
        self.embed, self.head = nn.Embedding(97, 24), nn.Linear(24, 97)
        self.blocks = nn.ModuleList(ToyLayer(width) for width in widths)

    device = torch.device("cpu")

    def get_input_embeddings(self):
        return self.embed

    def forward(self, input_ids):
        x = self.embed(input_ids)
        for block in self.blocks:
            x = block(x)
        return (self.head(x),)


MAPPING = "q=fused[0:24] k=fused[24:48] v=fused[48:72] o=out"


def toy():
    torch.manual_seed(0)
    return Toy().double()


class Anticausal(ToyLayer):
    def forward(self, x):
        q, k, v = self.fused(x).chunk(3, -1)
        return x + self.out((q @ k.mT / 5).sigmoid() @ v)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_that_reads_ahead_is_refused_with_a_mapping_too(dtype):
    model = toy()
    model.blocks[1] = Anticausal(24).double()
    model = model.to(dtype)
    for mapping in (None, MAPPING):
        with pytest.raises(InputError, match=r"'toy' \(Toy\): not a causal decoder.*row from models.tsv"):
            find_layers(model, mapping=mapping)


def test_a_forward_pass_that_fails_is_one_line_with_its_reason():
    model = toy()
    model.blocks[1].out = nn.Linear(23, 24).double()
    for mapping in (None, MAPPING):
        with pytest.raises(
            InputError, match=r"'toy' \(Toy\): a forward pass .* fails \(RuntimeError: .*; check that"
        ) as caught:
            find_layers(model, mapping=mapping)
        assert isinstance(caught.value.__cause__, RuntimeError)


def test_an_unknown_structure_is_refused_and_a_mapping_describes_it():
    with pytest.raises(InputError) as refused:
        Capture(toy())
    text = str(refused.value)
    assert "'toy' (Toy), layer 0 (ToyLayer)" in text and "fused (72x24), out (24x24)" in text and "\n" not in text
    exact = toy()
    one = BATCH[0]
    ids = torch.tensor([one.ids])
    log_probs = exact(ids)[0][0, :-1].log_softmax(-1)
    (-log_probs.gather(1, ids[0, 1:, None])[torch.tensor(one.response[1:])].mean()).backward()
    gradients = []
    for block in exact.blocks:
        q, k, v = block.fused.weight.grad.chunk(3)
        gradients.append({"q": q, "k": k, "v": v, "o": block.out.weight.grad})
    assert_exact(errors(gradients, Capture(toy(), mapping=MAPPING).run(BATCH)[0]))


def test_a_mapping_of_interleaved_heads_finds_what_the_probe_finds():
    pieces = {
        name: [(18 * head + 6 * i, 18 * head + 6 * i + 6) for head in range(HEADS)] for i, name in enumerate("qkv")
    }
    entries = [
        f"{name}=attention.query_key_value[{','.join(f'{a}:{b}' for a, b in bounds)}]"
        for name, bounds in pieces.items()
    ]
    model = build("neox")
    mapped = find_layers(model, mapping=" ".join([*entries, "o=attention.dense"]))
    for ours, theirs in zip(mapped, find_layers(model), strict=True):
        assert all(ours[name].columns.equal(theirs[name].columns) for name in "qkv") and ours["o"].columns is None


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (MAPPING.replace("o=out", ""), "o missing from"),
        (
            MAPPING.replace("out", "outer"),
            "layer 0 has no linear module 'outer'.*among fused .72x24., out .24x24.",
        ),
        (MAPPING.replace("48:72", "48:73"), "'48:73' is not a slice of 72 output features"),
        (MAPPING.replace("48:72", "72:48"), "'72:48' is not a slice"),
        (MAPPING.replace("48:72", "60:72,48:60"), "'48:60' is not a slice"),
        (MAPPING.replace("48:72", "48"), "'48' is not a slice"),
        (MAPPING.replace("48:72", "47:72"), "'v' and another projection have the same features of fused"),
        (MAPPING.replace("v=", "w="), "unknown projection 'w'"),
        (MAPPING + " o=out", "'o' is given twice"),
        ("q", "cannot read 'q'; write NAME=PATH"),
        ("q=fused[0:24", "cannot read"),
    ],
)
def test_a_wrong_mapping_is_one_line(mapping, message):
    with pytest.raises(InputError, match=f"model 'toy' .Toy.: --mapping .column projections of models.tsv.*{message}"):
        Capture(toy(), mapping=mapping)


def test_a_module_that_is_not_used_or_used_twice_is_refused():
    model = toy()
    for block in model.blocks:
        block.spare = nn.Linear(24, 24)
    with pytest.raises(InputError, match=r"spare .o. of layer 0 does not map every token exactly once"):
        Capture(model, mapping=MAPPING.replace("o=out", "o=spare"))
    model = toy()
    model.blocks[1].out = model.blocks[0].out
    with pytest.raises(InputError, match=r"out .o. of layer 0 does not map every token exactly once"):
        Capture(model, mapping=MAPPING)


@pytest.mark.parametrize("name", ["lfm2", "recurrent_gemma", "bamba", "mamba2", "qwen3_next"])
def test_layers_of_another_kind_are_no_attention_at_a_width_of_256_either(name):
    """At this width a few features of a convolution or a state lie below the threshold of queries and keys."""
    own = {key: value for key, value in RECURRENT[name].items() if value is not None}
    own |= {"hidden_size": 256, "head_dim": 64, "initializer_range": 0.05, "vocab_size": 300}
    own |= {"mamba_d_head": 64} if "mamba_d_head" in own else {}
    own |= {"lru_width": 256} if "lru_width" in own else {}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[name](**{**SIZES, **own})).eval()
    with pytest.raises(InputError, match="layer 0"):
        find_layers(model)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_capture_can_be_made_where_gradients_are_off(mode):
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES, vocab_size=64)).eval()
    wanted = [{name: part.path for name, part in layer.items()} for layer in find_layers(model)]
    with mode():
        found = [{name: part.path for name, part in layer.items()} for layer in Capture(model).layers]
    assert found == wanted
