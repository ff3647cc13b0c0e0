"""Checkpoints in other precisions than asked for, keys of config.json that no model can be made of, and odd tokens."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from conftest import call, user_error
from gradatlas.core.errors import InputError
from gradatlas.models.decoders import find_layers
from gradatlas.models.loading import check_ids, load

SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
}  # fmt: skip
BLOCK = 16


@pytest.fixture(scope="module")
def tokenizer(miniature):
    return AutoTokenizer.from_pretrained(miniature)


def write(folder, tokenizer, kind="Llama", **keys):
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(vocab_size=len(tokenizer), **{**SIZES, **keys})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def change(folder, edit=None, **keys):
    """Keys of config.json and weights changed; a key of None is removed."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **keys}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    if edit:
        weights = load_file(folder / "model.safetensors")
        save_file(edit(weights), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


FP8 = {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK], "activation_scheme": "dynamic", "fmt": "e4m3"}


def as_fp8(weights, scale="weight_scale_inv"):
    """Projections as FP8 numbers with a scale for every block, all else as bfloat16."""
    stored = {}
    for name, weight in weights.items():
        if "_proj" not in name:
            stored[name] = weight.to(torch.bfloat16)
            continue
        blocks = weight.view(weight.shape[0] // BLOCK, BLOCK, weight.shape[1] // BLOCK, BLOCK)
        scales = blocks.abs().amax((1, 3)) / 448
        stored[name] = (blocks / scales[:, None, :, None]).view_as(weight).to(torch.float8_e4m3fn)
        if scale:
            stored[name.replace("weight", scale)] = scales
    return stored


def plain(stored):
    """What such weights are as float64."""
    found = {}
    for name, weight in stored.items():
        if "scale" not in name:
            scales = stored.get(name.replace("weight", "weight_scale_inv"))
            found[name] = weight.double()
            if scales is not None:
                found[name] *= scales.double().repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
    return found


@pytest.mark.parametrize(
    ("dtype", "error"), [("float32", 1e-7), ("float64", 1e-7), ("bfloat16", 4e-3), ("float16", 5e-4)]
)
def test_fp8_is_dequantised_to_the_precision_asked_for(tokenizer, tmp_path, dtype, error):
    folder = change(write(tmp_path / "fp8", tokenizer), as_fp8, quantization_config=FP8)
    expected = plain(load_file(folder / "model.safetensors"))
    model, _ = load(str(folder), dtype=dtype, device="cpu")
    assert {str(parameter.dtype) for parameter in model.parameters()} == {f"torch.{dtype}"}
    for name, weight in model.state_dict().items():
        assert (weight.double() - expected[name]).abs().max() <= error * expected[name].abs().max(), name
    find_layers(model)
    # A model that is saved again is a plain one, with the same weights.
    model.save_pretrained(tmp_path / "again")
    tokenizer.save_pretrained(tmp_path / "again")
    again, _ = load(str(tmp_path / "again"), dtype=dtype, device="cpu")
    assert all(one.equal(other) for one, other in zip(model.parameters(), again.parameters(), strict=True))


def without_scales(weights):
    return as_fp8(weights, scale="")


def integers(weights):
    return {n: (w * 100).to(torch.int8) if "_proj" in n else w for n, w in weights.items()}


@pytest.mark.parametrize(
    ("edit", "quantisation", "message"),
    [
        (without_scales, FP8, r"down_proj.weight: an FP8 weight's scale is missing"),
        (lambda w: as_fp8(w, "weight_scale"), FP8, r"weight_scale: an FP8 weight's scale is missing, or not named"),
        (as_fp8, None, r"down_proj.weight is stored as F8_E4M3, but config.json has no quantization_config"),
        (integers, None, r"down_proj.weight is stored as I8, but config.json has no quantization_config"),
        (None, {"quant_method": "gptq", "bits": 4}, "quantised by 'gptq'"),
        (None, {"quant_method": "awq", "bits": 4}, "quantised by 'awq'"),
        (None, {"quant_method": "compressed-tensors"}, "quantised by 'compressed-tensors'"),
        (None, {"quant_method": "unheard-of"}, "quantised by 'unheard-of'"),
        (None, {"bits": 4}, "quantised by 'an unnamed method'"),
    ],
)  # fmt: skip
def test_what_cannot_be_dequantised_is_one_line(tokenizer, tmp_path, edit, quantisation, message):
    folder = change(write(tmp_path / "model", tokenizer), edit, quantization_config=quantisation)
    with pytest.raises(InputError, match=f"{message}.*use the original checkpoint in 16 or 32 bits"):
        load(str(folder), dtype="float32", device="cpu")


def test_mxfp4_experts_are_dequantised(tokenizer, tmp_path):
    """Two 4-bit numbers a byte, the first in its low half, and a power of two for every 32."""
    values = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])
    folder = write(
        tmp_path / "model", tokenizer, "GptOss", num_local_experts=2, num_experts_per_tok=1, intermediate_size=32
    )
    expected = {}

    def pack(weights):
        generator = torch.Generator().manual_seed(0)
        for name in [name for name in weights if name.endswith(("gate_up_proj", "down_proj"))]:
            experts, columns, rows = weights.pop(name).shape
            blocks = torch.randint(0, 256, (experts, rows, columns // 32, 16), generator=generator).to(torch.uint8)
            scales = torch.randint(120, 130, (experts, rows, columns // 32), generator=generator).to(torch.uint8)
            weights |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
            pairs = torch.stack([values[(blocks & 15).long()], values[(blocks >> 4).long()]], -1)
            formed = pairs.flatten(-2) * torch.exp2(scales.float() - 127)[..., None]
            expected[name] = formed.view(experts, rows, columns).mT
        return weights

    change(folder, pack, quantization_config={"quant_method": "mxfp4", "modules_to_not_convert": []})
    model, _ = load(str(folder), dtype="float32", device="cpu")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32} and len(expected) == 4
    for name, weight in expected.items():
        assert model.state_dict()[name].equal(weight), name


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_what_the_library_keeps_in_float32_is_in_the_precision_asked_for(tokenizer, tmp_path, dtype):
    experts = {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 32, "moe_layer_start_index": 1}
    folder = write(tmp_path / "model", tokenizer, "Ernie4_5_Moe", **experts)
    library = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    assert len({parameter.dtype for parameter in library.parameters()}) == 2
    model, _ = load(str(folder), dtype=dtype, device="cpu")
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}
    assert len(find_layers(model)) == 2


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({"rope_scaling": {"type": "su", "short_factor": [1.0] * 4, "long_factor": [1.0] * 4}}, "rope_scaling.type"),
        ({"rope_scaling": {"type": "yarn"}}, "rope_scaling.type"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling.rope_type"),
        ({"rope_scaling": {"rope_type": "unheard-of", "factor": 2.0}}, "rope_scaling.rope_type"),
        ({"rope_scaling": "linear"}, "rope_scaling"),
        ({"model_type": "llamma"}, "model_type"),
        ({"hidden_act": "swishy"}, "hidden_act"),
        ({"dtype": "floaty"}, "dtype"),
        ({"layer_types": ["unheard-of"] * 2}, "layer_types"),
        ({"hidden_size": "32"}, "hidden_size"),
        ({"num_hidden_layers": -1}, "num_hidden_layers"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps"),
    ],
)
def test_a_key_that_no_model_can_be_made_of_is_named(tokenizer, tmp_path, keys, key):
    folder = change(write(tmp_path / "model", tokenizer), rope_parameters=None, **keys)
    with pytest.raises(InputError) as caught:
        load(str(folder), dtype="float32", device="cpu")
    assert f"{folder / 'config.json'}: key {key}: no model can be built from it" in str(caught.value)
    assert "tokenizer.json" not in str(caught.value)


def test_a_broken_tokenizer_is_still_named(tokenizer, tmp_path):
    folder = write(tmp_path / "model", tokenizer)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="no tokenizer could be loaded"):
        load(str(folder), dtype="float32", device="cpu")


@pytest.fixture
def grown(miniature, tmp_path):
    """The miniature with one token more in its tokenizer than embeddings."""
    folder = shutil.copytree(miniature, tmp_path / "grown")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]}) == 1
    tokenizer.save_pretrained(folder)
    return folder


def measured(model, text, tmp_path):
    rows = [{"instruction": "1 + 2 =", "input": "", "output": out} for out in ("3", text)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    return call(
        "measure_gradients", "--model", model, "--responses", tmp_path / "rows.json",
        "--samples", tmp_path / "samples.parquet", "--spectra", tmp_path / "spectra.parquet",
    )  # fmt: skip


def test_a_token_without_an_embedding_may_be_there_unused(grown, tmp_path):
    done = measured(grown, "4", tmp_path)
    assert done.returncode == 0, done.stderr
    assert pq.read_table(tmp_path / "samples.parquet")["status"].to_pylist() == ["ok", "ok"]


def test_a_sample_with_a_token_beyond_the_embeddings_is_named_before_any_pass(grown, tmp_path):
    error = user_error(measured(grown, "3<image>", tmp_path))
    assert "rows.json: rows 1 natural correct: token " in error and "('<image>')" in error and "embeddings" in error
    assert not (tmp_path / "samples.parquet").exists()


def test_ids_are_checked_against_the_model(grown):
    model, tokenizer = load(str(grown), dtype="float32", device="cpu")
    check_ids([0, len(tokenizer) - 2], model, tokenizer, "sample")
    check_ids([], model, tokenizer, "sample")
    with pytest.raises(InputError, match=r"sample: token \d+ \('<image>'\) is beyond the model's \d+ embeddings"):
        check_ids([0, len(tokenizer) - 1], model, tokenizer, "sample")


def test_a_prompt_with_a_token_beyond_the_embeddings_is_one_line(grown):
    from gradatlas.models.local_writer import LocalModel

    writer = LocalModel(str(grown), "grown", device="cpu", dtype="float32", max_tokens=2)
    assert writer.complete("1 + 2 =")
    with pytest.raises(InputError, match=r"prompt '1 \+ 2 = <image>\.\.\.': token"):
        writer.complete("1 + 2 = <image>")
