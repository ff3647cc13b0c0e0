"""PEFT adapters in memory: base layers against autograd, in float64; and folders of adapters."""

import json
import shutil

import peft
import pytest
import torch
import transformers

from conftest import call, user_error
from gradatlas.core.errors import InputError
from gradatlas.gradients.capture import Capture
from gradatlas.models.decoders import find_layers
from gradatlas.models.loading import locate
from test_decoders import BATCH, COMMON, GPT2, assert_equals_autograd, built, state_of

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LORA = {"r": 4, "target_modules": LINEAR, "init_lora_weights": False}
KINDS = {
    "lora": peft.LoraConfig(**LORA, lora_dropout=0.1),
    "lora_of_one_layer": peft.LoraConfig(**{**LORA, "target_modules": ["q_proj", "v_proj"]}, layers_to_transform=[1]),
    "embeddings": peft.LoraConfig(**{**LORA, "target_modules": ["embed_tokens", "k_proj"]}, modules_to_save=["q_proj"]),
    "dora": peft.LoraConfig(**LORA, use_dora=True),
    "ia3": peft.IA3Config(
        target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"], init_ia3_weights=False
    ),
    "oft": peft.OFTConfig(oft_block_size=4, r=0, target_modules=LINEAR, init_weights=False),
    "lokr": peft.LoKrConfig(r=4, target_modules=LINEAR, init_weights=False),
}


def llama():
    return built(transformers.LlamaConfig(**COMMON))


def adapted(base, config):
    torch.manual_seed(1)
    return peft.get_peft_model(base, config).double().eval()


@pytest.mark.parametrize("kind", KINDS)
def test_base_layers_equal_autograd_with_the_adapter_in_the_pass(kind):
    names = (*"qkvo", *(("gate", "up", "down") if kind != "embeddings" else ()))
    model = adapted(llama(), KINDS[kind])
    before = state_of(model)
    capture = Capture(model, names)
    assert capture.layers[1]["q"].path.startswith("self_attn.q_proj")
    passes = capture.run(BATCH[:2])
    assert state_of(model) == before
    assert passes[0].loss != pytest.approx(Capture(llama()).run(BATCH[:1])[0].loss, rel=1e-6)
    assert_equals_autograd(model, capture, passes, BATCH[:2])


def test_fused_and_transposed_modules_equal_autograd():
    config = peft.LoraConfig(
        r=4, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True, init_lora_weights=False
    )
    model = adapted(built(transformers.GPT2Config(**GPT2)), config)
    capture = Capture(model, ("q", "k", "v", "o", "up", "down"))
    assert_equals_autograd(model, capture, capture.run(BATCH[:2]), BATCH[:2])


def test_the_active_one_of_several_adapters_and_a_merged_one():
    model = adapted(llama(), KINDS["lora"])
    model.add_adapter("other", peft.LoraConfig(**LORA))
    model = model.double()
    losses = set()
    for name in ("default", "other"):
        model.set_adapter(name)
        capture = Capture(model)
        passes = capture.run(BATCH[:1])
        assert_equals_autograd(model, capture, passes, BATCH[:1])
        losses.add(passes[0].loss)
    assert len(losses) == 2
    model.merge_adapter()
    weight = model.base_model.model.model.layers[0].self_attn.q_proj.base_layer.weight
    held = weight.detach().clone()
    capture = Capture(model)
    merged = capture.run(BATCH[:1])
    assert weight.equal(held) and merged[0].loss == pytest.approx(passes[0].loss, rel=1e-6)
    assert_equals_autograd(model, capture, merged, BATCH[:1])


def test_an_adapter_that_uses_the_weight_elsewhere_is_one_line():
    model = adapted(llama(), peft.HRAConfig(r=4, target_modules=["q_proj"], init_weights=False))
    with pytest.raises(InputError, match=r"HRALinear of self_attn.q_proj.base_layer .* merge_and_unload"):
        find_layers(model)


def test_an_adapter_of_virtual_tokens_is_one_line():
    config = peft.PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    with pytest.raises(InputError, match=r"PREFIX_TUNING.* adds tokens in front of a sample"):
        find_layers(adapted(llama(), config))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """A folder as save_pretrained of a PEFT model leaves it."""
    folder = tmp_path_factory.mktemp("adapter")
    adapted(llama(), KINDS["lora"]).save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "org/base"}))
    return folder


SAID = "a PEFT adapter (LORA), not a model; to measure, give it as --adapter (column adapter of models.tsv) of org/base"


def test_an_adapter_folder_says_what_it_is_and_what_to_do(adapter, responses, tmp_path):
    out = {"--samples": tmp_path / "s.parquet", "--spectra": tmp_path / "g.parquet"}
    commands = [
        ("fetch_model", "--model", "mine", "--source", adapter, "--output", tmp_path / "card.json"),
        (
            "measure_gradients",
            "--model",
            adapter,
            "--responses",
            responses,
            *(each for pair in out.items() for each in pair),
        ),
    ]
    for command in commands:
        error = user_error(call(*command))
        assert SAID in error and "merge_and_unload()" in error and str(adapter) in error
    # The judge and finetuning find their models here.
    with pytest.raises(InputError, match="PEFT adapter"):
        locate(str(adapter))


def test_an_adapter_beside_a_whole_model_is_refused(adapter, miniature, tmp_path):
    """transformers would load the adapter's base model in place of the folder's weights."""
    folder = shutil.copytree(miniature, tmp_path / "both")
    shutil.copy(adapter / "adapter_config.json", folder)
    error = user_error(call("fetch_model", "--model", "m", "--source", folder, "--output", tmp_path / "card.json"))
    assert "holds a model and an adapter" in error and "move adapter_config.json" in error
