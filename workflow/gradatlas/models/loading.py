"""A model and its tokenizer from a folder, a card or a pinned hub id, always in the precision that was asked for."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from gradatlas.core.command import progress
from gradatlas.core.errors import InputError, check_choice
from gradatlas.models.precision import check_scales, dequantising, set_precision
from gradatlas.models.snapshots import check_card, config_of, model_digest, read_card
from gradatlas.study.sheets import Device, Dtype
from gradatlas.study.sources import is_hub_id

DTYPES, DEVICES = get_args(Dtype), get_args(Device)


@dataclass(frozen=True)
class Location:
    """Where a model's files are, and what is known of them: `revision` may be empty, `digest` names their content."""

    path: str
    revision: str
    digest: str


def locate(model: str, revision: str = "") -> Location:
    """Find a model: a folder, the card (JSON) that ``fetch_model`` wrote, or a hub id with a pinned `revision`.

    Reads every byte of its weights. Raises `InputError` where there is none, where the files are no longer those of
    the card, and for a revision of what is no hub id.
    """
    path = Path(model).expanduser()
    if revision and (path.suffix == ".json" or path.is_dir()):
        what = "folder" if path.is_dir() else "card"
        raise InputError(f"--revision {revision}: of a hub id, but --model {model} is a {what}; leave --revision out")
    if path.is_dir():
        return Location(str(path), "", model_digest(path))
    if path.suffix == ".json":
        card = read_card(path)
        check_card(path, card)
        return Location(card["path"], card["revision"], card["digest"])
    if not is_hub_id(model):
        raise InputError(f"--model {model}: no such folder, card or hub id (ORG/NAME); give an existing path")
    if not revision:
        raise InputError(
            f"--model {model}: no such folder; if it is a hub id, it needs --revision COMMIT, so that the result names "
            "what was measured"
        )
    from gradatlas.models.snapshots import download

    folder = download(model, revision)
    return Location(str(folder), revision, model_digest(folder))


def choose_device(device: str) -> str:
    """``cpu`` or ``cuda``: `auto` takes a GPU where PyTorch sees one; `cuda` without one is an error."""
    import torch

    check_choice("--device", device, DEVICES)
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: PyTorch sees no GPU; give --device auto or cpu (column device of models.tsv)")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


def load(path: str, *, dtype: str, device: str, trust_remote_code: bool = False) -> tuple[Any, Any]:
    """Load (model, tokenizer) from a folder, offline, in evaluation mode.

    `dtype` is that of every parameter, whatever the checkpoint stores; FP8 and MXFP4 weights are dequantised. Raises
    `InputError` where the files cannot be read as a causal language model with a tokenizer, or are quantised otherwise.
    """
    check_choice("--dtype", dtype, DTYPES)
    # A compute node has no network; a load that asks for one would stall instead of failing.
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.utils import logging

    logging.disable_progress_bar()
    # Sizes that contradict each other end in any of these, in the config's own checks or where modules are made.
    contradictions = (StrictDataclassError, TypeError, AttributeError, ArithmeticError, AssertionError, IndexError)
    stored = config_of(path)
    try:
        # Read first, as the tokenizer reads it too and is not to be blamed.
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise _of_own_code(path, error, trust_remote_code) or _inconsistent(path, stored, error) from error
    layers = getattr(config.get_text_config(), "num_hidden_layers", None)
    if isinstance(layers, int) and layers < 1:
        raise _inconsistent(path, stored, ValueError(f"num_hidden_layers is {layers}"))
    quantisation = dequantising(path, stored)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError, *contradictions) as error:
        raise InputError(
            f"{path}: no tokenizer could be loaded ({_short(error)}); add tokenizer.json and tokenizer_config.json"
        ) from None
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            ignore_mismatched_sizes=True,  # reported below, by name
            output_loading_info=True,
            **quantisation,
        )
    except contradictions as error:
        raise _inconsistent(path, stored, error) from error
    except (OSError, ValueError, KeyError, ImportError, SafetensorError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        _check_weights(path)
        if own := _of_own_code(path, error, trust_remote_code):
            raise own from None
        if _culprit(stored, error):
            raise _inconsistent(path, stored, error) from error
        raise InputError(
            f"{path}: no causal language model could be loaded ({_short(error)}); take a decoder-only model's folder "
            "with config.json and safetensors"
        ) from None
    _check_architecture(model, path)
    _check_report(report, model, path)
    set_precision(model, getattr(torch, dtype))
    if quantisation:
        check_scales(path, map(str, report["unexpected_keys"]))
        # Else a saved model would be quantised again, as the library turns all conversions of loading back.
        model._weight_conversions = get_model_conversion_mapping(model)
        progress(f"{path}: {stored['quantization_config']['quant_method']} weights were dequantised to {dtype}")
    if dtype == "float64":
        model.set_experts_implementation("eager")  # grouped matrix products know no float64
    return model.to(device).eval(), tokenizer


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 240 else f"{text[:240]}..."


def check_ids(ids: Iterable[int], model: Any, tokenizer: Any, name: str) -> None:
    """`InputError` for a token of the sample `name` that the model has no embedding for.

    A tokenizer may have more tokens than the model, as long as none of them occurs.
    """
    parts = (model.get_input_embeddings(), model.get_output_embeddings())
    known = min(part.weight.shape[0] for part in parts if part is not None)
    if (largest := max(ids, default=-1)) >= known:
        raise InputError(
            f"{name}: token {largest} ('{tokenizer.convert_ids_to_tokens(largest)}') is beyond the model's {known} "
            f"embeddings; take the tokenizer that belongs to '{tokenizer.name_or_path}', or leave this text out"
        )


def _inconsistent(path: str, config: Mapping[str, Any], error: Exception) -> InputError:
    key = _culprit(config, error)
    return InputError(
        f"{Path(path) / 'config.json'}: {f'key {key}: ' if key else ''}no model can be made of it "
        f"({type(error).__name__}: {_short(error)}); correct it, or fetch the model again"
    )


# Keys of the file by the names that the library's messages use.
_RENAMED = {"rope_parameters": "rope_scaling", "dtype": "torch_dtype"}


def _culprit(config: Mapping[str, Any], error: Exception) -> str:
    """The key of config.json that an error names, or whose value it quotes; empty where that is not clear."""
    text = str(error)
    named = [key for key in config if re.search(rf"\b{re.escape(key)}\b", text)]
    named += [old for new, old in _RENAMED.items() if old in config and re.search(rf"\b{new}\b", text)]
    quoted = {key: value for key, value in _texts(config) if re.search(rf"['`\"]{re.escape(value)}['`\"]", text)}
    return next(iter([*quoted, *named]), "")


def _texts(config: Mapping[str, Any], front: str = "") -> Iterator[tuple[str, str]]:
    """The texts in a config by their dotted keys."""
    for key, value in config.items():
        if isinstance(value, str) and value:
            yield f"{front}{key}", value
        elif isinstance(value, Mapping):
            yield from _texts(value, f"{front}{key}.")


def _of_own_code(path: str, error: Exception, trusted: bool) -> InputError | None:
    """The error of a checkpoint with code of its own that was not to be run."""
    if trusted or "custom code" not in str(error):
        return None
    return InputError(
        f"{path}: its model is code of its own; read it, and set trust_remote_code to true in its row of "
        "models.tsv (--trust-remote-code) to run it"
    )


def _check_weights(path: str) -> None:
    """`InputError` naming the first safetensors file of the folder that is cut or corrupt."""
    from safetensors import SafetensorError, safe_open

    for file in sorted(Path(path).glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{file}: not a whole safetensors file ({_short(error)}); fetch or copy it again"
            ) from None


def _check_report(report: dict[str, Any], model: Any, path: str) -> None:
    """`InputError` for weights that are missing, of another shape, or of layers that config.json does not have.

    The library fills a gap with random numbers, leaves the rest of a deeper model out, and goes on.
    """
    layers = {_numberless(name) for name, _ in model.named_parameters()}
    left_out = sorted(map(str, report["unexpected_keys"]))
    problems = {
        "missing": sorted(map(str, report["missing_keys"])),
        "of another shape": sorted(str(each[0]) for each in report["mismatched_keys"]),
        "of a layer that the model has not": [name for name in left_out if _numberless(name) in layers],
    }
    for problem, names in problems.items():
        if names:
            raise InputError(
                f"{path}: weight {names[0]} is {problem} ({len(names)} in all); the checkpoint does not belong to its "
                "config.json"
            )
    if left_out:
        progress(f"{path}: {len(left_out)} weights are no part of the language model: {left_out[0]}, ...")


def _numberless(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def _check_architecture(model: Any, path: str) -> None:
    """`InputError` for a checkpoint of another kind: an encoder or a classifier loads as a decoder without a word."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    stored = getattr(model.config, "architectures", None) or []
    known = {type(model).__name__, *MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()}
    if stored and known.isdisjoint(stored) and not getattr(model.config, "auto_map", None):
        raise InputError(
            f"{path}: not a causal language model: config.json says {', '.join(map(str, stored))}; take a "
            "decoder-only model"
        )
