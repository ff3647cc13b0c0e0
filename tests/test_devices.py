"""A model whose layers lie on several devices: accelerate moves activations; the numbers are those of one device."""

import numpy as np
import pytest
import torch
from accelerate import dispatch_model
from accelerate.hooks import AlignDevicesHook, add_hook_to_module

from conftest import call, user_error
from gradatlas.core.device import lease
from gradatlas.core.errors import InputError
from gradatlas.gradients.capture import Capture
from gradatlas.gradients.cosines import cosines
from gradatlas.gradients.spectra import spectra
from gradatlas.models.loading import load
from gradatlas.scores.measure import token_terms
from test_decoders import BATCH, build, layers_of

FAMILIES = ("llama", "gpt2", "gemma2", "mixtral")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU beside the CPU")


def assert_same(model, expected, tolerance):
    capture, plain = Capture(model), Capture(expected)
    for one, other in zip(capture.run(BATCH), plain.run(BATCH), strict=True):
        assert one.loss == pytest.approx(other.loss, rel=tolerance)
        ours, theirs = (spectra(each.factors, ["nuclear_norm", "frobenius_norm"]) for each in (one, other))
        assert torch.allclose(ours, theirs, rtol=tolerance)
        assert torch.allclose(token_terms(one.factors), token_terms(other.factors), rtol=tolerance)
        for key, values in cosines(other.factors).items():
            assert np.allclose(cosines(one.factors)[key], values, atol=tolerance, equal_nan=True)
    return capture


@pytest.mark.parametrize("family", FAMILIES)
def test_a_dispatched_model_gives_the_same_numbers(family):
    """With accelerate's hooks in every block: all parts on the one device that is here."""
    model = build(family)
    blocks = {name: "cpu" for name, module in model.named_modules() if module in [*layers_of(model)]}
    rest = {
        name: "cpu"
        for name, _ in model.named_parameters(remove_duplicate=False)
        if not any(name.startswith(f"{b}.") for b in blocks)
    }
    dispatch_model(model, blocks | rest, force_hooks=True, main_device="cpu")
    assert all(hasattr(layer, "_hf_hook") for layer in layers_of(model))
    assert_same(model, build(family), 1e-9)


@needs_gpu
@pytest.mark.parametrize("family", FAMILIES)
def test_factors_stay_where_their_layers_are(family):
    model = build(family).cuda()
    first, second = layers_of(model)
    second.cpu()
    add_hook_to_module(first, AlignDevicesHook("cuda:0"))
    add_hook_to_module(second, AlignDevicesHook("cpu", io_same_device=True))
    capture = assert_same(model, build(family), 1e-6)
    factor = capture.run(BATCH[:1])[0].factors["q"]
    assert [each.device.type for each in factor.x] == [each.device.type for each in factor.d] == ["cuda", "cpu"]


def test_fewer_gpus_than_asked_for_are_one_line(miniature, responses, tmp_path):
    asked = torch.cuda.device_count() + 1
    with pytest.raises(InputError, match=rf"--gpus {asked + 1} .*PyTorch finds {asked - 1} here for --device cuda"):
        load(str(miniature), dtype="float32", device="cuda", gpus=asked + 1)
    out = ["--samples", tmp_path / "s.parquet", "--spectra", tmp_path / "g.parquet"]
    given = ["--model", miniature, "--responses", responses, *out, "--device", "cpu", "--gpus", "2"]
    assert "--gpus 2 (column gpus of models.tsv): PyTorch finds 0 here" in user_error(call("measure_gradients", *given))


def test_no_gpu_is_a_count_and_fewer_are_not():
    # Snakemake lowers what a job asks for to what a machine without GPUs has.
    with lease("auto", 0) as held:
        assert not held
    with pytest.raises(InputError, match="--gpus -1"), lease("cpu", -1):
        pass
