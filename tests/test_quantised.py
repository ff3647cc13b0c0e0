"""Weights of bitsandbytes: the gradients are those of the dequantised weights in a plain model, in float64."""

import importlib.util
import json

import peft
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from conftest import call
from gradatlas.core.errors import InputError
from gradatlas.gradients.capture import Capture
from gradatlas.models import quantised
from gradatlas.models.adapted import load_adapted
from gradatlas.models.loading import load, locate
from gradatlas.models.quantised import is_quantised, weight_of
from gradatlas.study.sheets import Weights
from test_adapter_rows import KINDS, loaded, saved
from test_decoders import BATCH
from test_precision import write

ALL = ("q", "k", "v", "o", "gate", "up", "down")
needs_package = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes, an optional package"
)


@pytest.fixture(scope="module")
def folder(miniature, tmp_path_factory):
    # Blocks of 4-bit weights have 64 numbers.
    return write(tmp_path_factory.mktemp("model"), AutoTokenizer.from_pretrained(miniature), attention_bias=True)


def plain_of(model, folder):
    """A plain model in float64 with the dequantised weights of `model`, which are not the folder's own."""
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    moved = 0
    with torch.no_grad():
        for path, module in model.named_modules():
            if is_quantised(module):
                own = plain.get_submodule(path).weight
                moved += bool((weight_of(module).double() - own).abs().max() > 1e-4)
                own.copy_(weight_of(module))
    assert moved == 2 * len(ALL)
    return plain


def assert_same_factors(passes, expected):
    for one, other in zip(passes, expected, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-9)
        for name, part in other.factors.items():
            for ours, theirs in ((one.factors[name].x, part.x), (one.factors[name].d, part.d)):
                assert (ours - theirs).norm() <= 1e-9 * theirs.norm(), name


@needs_package
@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_gradients_are_those_of_the_dequantised_weights(folder, bits):
    model, _ = load(str(folder), dtype="float64", device="cpu", quantise=bits)
    capture = Capture(model, ALL)
    assert [part.shape for part in capture.layers[0].values()][:4] == [(32, 32), (16, 32), (16, 32), (32, 32)]
    plain = plain_of(model, folder)
    assert_same_factors(capture.run(BATCH), Capture(plain, ALL).run(BATCH))


@needs_package
@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_a_checkpoint_that_bitsandbytes_has_quantised(folder, tmp_path, bits):
    given = BitsAndBytesConfig(**{f"load_in_{bits}": True}, bnb_4bit_use_double_quant=True)
    stored = AutoModelForCausalLM.from_pretrained(folder, quantization_config=given, device_map={"": "cpu"})
    stored.save_pretrained(tmp_path / "stored")
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "stored")
    model, _ = load(str(tmp_path / "stored"), dtype="float64", device="cpu")
    assert_same_factors(Capture(model, ALL).run(BATCH[:2]), Capture(plain_of(model, folder), ALL).run(BATCH[:2]))
    with pytest.raises(InputError, match=r"the checkpoint is quantised already; leave --quantise empty"):
        load(str(tmp_path / "stored"), dtype="float32", device="cpu", quantise="4bit")


@needs_package
def test_lora_over_quantised_weights_is_measured_apart_and_not_merged(folder, tmp_path):
    adapter, _ = saved(folder, KINDS["lora"], tmp_path / "adapter")
    model = loaded(folder, adapter, lora="separate", quantise="4bit")
    names = ("q", "k", "v")
    plain = peft.PeftModel.from_pretrained(plain_of_adapted(model, folder), adapter).double().eval()
    passes = (Capture(each, names, lora="separate").run(BATCH[:2]) for each in (model, plain))
    assert_same_factors(*passes)
    with pytest.raises(InputError, match=r"an adapter is not merged into quantised weights.*--lora separate"):
        loaded(folder, adapter, quantise="4bit")
    dora, _ = saved(folder, KINDS["dora"], tmp_path / "dora")
    with pytest.raises(InputError, match=r"is not a plain LoRA, and the weight is quantised"):
        Capture(loaded(folder, dora, lora="separate", quantise="4bit"))


def plain_of_adapted(model, folder):
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    with torch.no_grad():
        for path, module in model.named_modules():
            if is_quantised(module):
                plain.get_submodule(path.removesuffix(".base_layer")).weight.copy_(weight_of(module))
    return plain


@needs_package
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bit_passes_over_quantised_weights(folder, dtype):
    exact, _ = load(str(folder), dtype="float64", device="cpu", quantise="4bit")
    model, _ = load(str(folder), dtype=dtype, device="cpu", quantise="4bit")
    one, other = (Capture(each).run(BATCH[:1])[0].factors["q"] for each in (model, exact))
    formed, expected = (part.d[1].double().mT @ part.x[1].double() for part in (one, other))
    assert (formed - expected).norm() <= 0.1 * expected.norm()


@needs_package
def test_tables_name_the_quantisation(miniature, tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps([{"instruction": "1 + 2 =", "input": "", "output": "3"}]))
    norms = {}
    for bits in ("", "8bit", "4bit"):
        out = [part for name in ("samples", "spectra") for part in (f"--{name}", tmp_path / f"{bits}.{name}.parquet")]
        given = ["--model", miniature, "--responses", tmp_path / "rows.json", "--journal", tmp_path / "journal"]
        done = call("measure_gradients", *given, *out, *(["--quantise", bits] if bits else []))
        assert done.returncode == 0 and "1 computed" in done.stdout + done.stderr, done.stderr
        table = pq.read_table(tmp_path / f"{bits}.spectra.parquet")
        assert json.loads(table.schema.metadata[b"gradatlas"])["quantise"] == bits
        norms[bits] = table["nuclear_norm"].to_pylist()[0]
    assert len(set(norms.values())) == 3
    assert norms["8bit"] == pytest.approx(norms[""], rel=0.1)


def test_without_the_package_it_is_one_line(folder, monkeypatch):
    monkeypatch.setattr(quantised, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"--quantise 4bit: package bitsandbytes is not installed; pip install"):
        load_adapted(locate(str(folder)), None, Weights(quantise="4bit"), device="cpu")
