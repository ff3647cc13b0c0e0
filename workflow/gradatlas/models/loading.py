"""Loading a model and its tokenizer from a folder, a card or a pinned hub id, in the requested precision."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradatlas.core.command import progress
from gradatlas.core.errors import InputError
from gradatlas.models.precision import check_scales, dequantising, set_precision
from gradatlas.models.quantised import quantising, use_exact_products
from gradatlas.models.snapshots import check_card, check_links, config_of, model_digest, read_card
from gradatlas.study.sources import is_hub_id


@dataclass(frozen=True)
class Location:
    """The folder of a model's files, their revision (may be empty), and a digest of their content."""

    path: str
    revision: str
    digest: str


def locate(model: str, revision: str = "", *, adapted: bool = False, option: str = "--model") -> Location:
    """Find a model: a folder, a card (JSON) of ``fetch_model``, or a hub id with a pinned `revision`.

    Reads all its files. `adapted`: the caller takes care of a card's adapter. `option`: the one that
    named the model, for errors; only of a `--model` may the revision be given. Raises `InputError` for a missing model,
    for files that differ from the card, for a revision of a folder or card, and for a card with an adapter.
    """
    path = Path(model).expanduser()
    if revision and (path.suffix == ".json" or path.is_dir()):
        what = "folder" if path.is_dir() else "card"
        raise InputError(f"--revision {revision}: --model {model} is a {what}, not a hub id; remove --revision")
    if path.is_dir():
        return Location(str(path), "", model_digest(path))
    if path.suffix == ".json":
        card = read_card(path)
        if "adapter" in card and not adapted:
            raise InputError(
                f"{path}: a model with an adapter, which is only measured and scored; merge the adapter "
                "(merge_and_unload) and give that folder a row of its own"
            )
        check_card(path, card)
        return Location(card["path"], card["revision"], card["digest"])
    if option != "--model":
        raise InputError(f"{option} {model}: no such folder or card; give an existing path")
    if not is_hub_id(model):
        raise InputError(f"--model {model}: no such folder, card or hub id (ORG/NAME); give an existing path")
    if not revision:
        raise InputError(
            f"--model {model}: no such folder; if it is a hub id, give --revision COMMIT, which the result records"
        )
    from gradatlas.models.snapshots import download

    folder = download(model, revision)
    return Location(str(folder), revision, model_digest(folder))


def choose_device(device: str) -> str:
    """``cpu`` or ``cuda``: ``auto`` uses a GPU if PyTorch finds one; ``cuda`` without a GPU is an error."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: PyTorch finds no GPU; give --device auto or cpu (column device of models.tsv)")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


def load(
    path: str, *, dtype: str, device: str, trust_remote_code: bool = False, quantise: str = "", gpus: int = 1
) -> tuple[Any, Any]:
    """Load (model, tokenizer) from a folder, offline, in evaluation mode.

    `dtype`: of every parameter, whatever the checkpoint stores; FP8 and MXFP4 weights are dequantised. `quantise`:
    ``8bit`` or ``4bit`` for weights of linear layers by bitsandbytes (`models.quantised`), as a checkpoint of that
    package has. `gpus`: above 1, the layers are divided among so many GPUs. Raises `InputError` where the files are not
    a causal language model with a tokenizer, or have another quantisation, and where GPUs do not suffice.
    """
    # Without this, loading stalls on a compute node without a network.
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.utils import logging

    logging.disable_progress_bar()
    # Raised for inconsistent sizes, by the config's checks or by the modules.
    contradictions = (StrictDataclassError, TypeError, AttributeError, ArithmeticError, AssertionError, IndexError)
    stored = config_of(path)
    # First, as the tokenizer reads the config too, and its error would be misleading.
    quantisation, packed = check_config(path, trust_remote_code, quantise)
    placed = _placement(device, gpus, packed)
    tokenizer = load_tokenizer(path, trust_remote_code)
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            path,
            # bitsandbytes quantises no float64.
            dtype=torch.float32 if packed and dtype == "float64" else getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            ignore_mismatched_sizes=True,  # reported below, by name
            output_loading_info=True,
            **placed,
            **quantisation,
        )
    except contradictions as error:
        raise _inconsistent(path, stored, error) from error
    except (OSError, ValueError, KeyError, ImportError, SafetensorError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        if own := _of_own_code(path, error, trust_remote_code):
            raise own from None
        if _culprit(stored, error):
            raise _inconsistent(path, stored, error) from error
        raise InputError(
            f"{path}: no causal language model could be loaded ({short(error)}); give a decoder-only model's folder "
            "with config.json and safetensors"
        ) from None
    check_architecture(model, path)
    _check_report(report, model, path)
    set_precision(model, getattr(torch, dtype))
    places = model.hf_device_map if gpus > 1 else {}
    if outside := [part for part, place in places.items() if place in ("cpu", "disk")]:
        raise InputError(
            f"{path}: {len(outside)} parts of the model do not fit on {gpus} GPUs ({outside[0]}, ...); give more "
            "--gpus, --dtype bfloat16 or --quantise 4bit (columns of models.tsv)"
        )
    if packed:
        use_exact_products(model)
    elif quantisation:
        check_scales(path, map(str, report["unexpected_keys"]))
        # Without this the library would quantise the model again on saving.
        model._weight_conversions = get_model_conversion_mapping(model)
        progress(f"{path}: {stored['quantization_config']['quant_method']} weights were dequantised to {dtype}")
    if dtype == "float64":
        model.set_experts_implementation("eager")  # grouped matrix products do not support float64
    return (model if placed else model.to(device)).eval(), tokenizer


def check_config(path: str, trust_remote_code: bool = False, quantise: str = "") -> tuple[dict[str, Any], bool]:
    """Check the config of the model in a folder, and the headers of its weights; nothing else is read.

    Returns the arguments of loading that quantise or dequantise weights, and whether they are in 8 or 4 bits then.
    Raises `InputError` for a config that contradicts itself, needs code that is not trusted, or cannot be quantised so.
    """
    from transformers import AutoConfig

    stored = config_of(path)
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise _of_own_code(path, error, trust_remote_code) or _inconsistent(path, stored, error) from error
    layers = getattr(config.get_text_config(), "num_hidden_layers", None)
    if isinstance(layers, int) and layers < 1:
        raise _inconsistent(path, stored, ValueError(f"num_hidden_layers is {layers}"))
    quantisation = dequantising(path, stored)
    if quantise:
        if "quantization_config" in stored:
            raise InputError(f"{path}: the checkpoint is quantised already; leave --quantise empty (column quantise)")
        quantisation = quantising(quantise)
    return quantisation, bool(quantise) or (not quantisation and "quantization_config" in stored)


def _placement(device: str, gpus: int, packed: bool) -> dict[str, Any]:
    """Arguments of loading that place the weights; none where the model is moved to `device` as a whole afterwards."""
    if gpus <= 1:
        # Quantised weights are made where they stay.
        return {"device_map": {"": device}} if packed else {}
    import torch

    if (found := torch.cuda.device_count() if device == "cuda" else 0) < gpus:
        raise InputError(
            f"--gpus {gpus} (column gpus of models.tsv): PyTorch finds {found} here for --device {device}; ask for a "
            "machine with as many, or give less"
        )
    return {"device_map": "balanced"}


def load_tokenizer(path: str | Path, trust_remote_code: bool = False) -> Any:
    """The tokenizer in a folder, offline; `InputError` where there is none that can be loaded."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import AutoTokenizer

    check_links(Path(path))
    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except Exception as error:  # the library in Rust raises no other kind
        raise _of_own_code(str(path), error, trust_remote_code) or InputError(
            f"{path}: no tokenizer could be loaded ({short(error)}); add tokenizer.json and tokenizer_config.json"
        ) from None


def short(error: Exception) -> str:
    """An error's text on one line, of 240 characters at most."""
    text = " ".join(str(error).split())
    return text if len(text) <= 240 else f"{text[:240]}..."


def check_ids(ids: Iterable[int], model: Any, tokenizer: Any, name: str) -> None:
    """`InputError` for a token of the sample `name` without an embedding in the model.

    A tokenizer may have more tokens than the model, if they do not occur.
    """
    parts = (model.get_input_embeddings(), model.get_output_embeddings())
    known = min(part.weight.shape[0] for part in parts if part is not None)
    if (largest := max(ids, default=-1)) >= known:
        raise InputError(
            f"{name}: token {largest} ('{tokenizer.convert_ids_to_tokens(largest)}') is beyond the model's {known} "
            f"embeddings; use the tokenizer that belongs to '{tokenizer.name_or_path}', or remove this text"
        )


def _inconsistent(path: str, config: Mapping[str, Any], error: Exception) -> InputError:
    key = _culprit(config, error)
    return InputError(
        f"{Path(path) / 'config.json'}: {f'key {key}: ' if key else ''}no model can be built from it "
        f"({type(error).__name__}: {short(error)}); fix it, or fetch the model again"
    )


# Keys of config.json, by their name in the library's messages.
_RENAMED = {"rope_parameters": "rope_scaling", "dtype": "torch_dtype"}


def _culprit(config: Mapping[str, Any], error: Exception) -> str:
    """The key of config.json that an error names, or whose value it quotes; empty if there is none."""
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
    """The error for a checkpoint with custom code, if that is the cause and the code is not trusted."""
    if trusted or "custom code" not in str(error):
        return None
    return InputError(
        f"{path}: the checkpoint contains custom model code; read it, and to run it set trust_remote_code to true in "
        "its row of models.tsv (--trust-remote-code)"
    )


def _check_report(report: dict[str, Any], model: Any, path: str) -> None:
    """`InputError` for weights that are missing, have another shape, or belong to layers that the model does not have.

    The library only warns: it fills missing weights with random numbers and ignores those of further layers.
    """
    layers = {_numberless(name) for name, _ in model.named_parameters()}
    left_out = sorted(map(str, report["unexpected_keys"]))
    problems = {
        "missing": sorted(map(str, report["missing_keys"])),
        "of another shape": sorted(str(each[0]) for each in report["mismatched_keys"]),
        "of a layer that the model does not have": [name for name in left_out if _numberless(name) in layers],
    }
    for problem, names in problems.items():
        if names:
            raise InputError(
                f"{path}: weight {names[0]} is {problem} ({len(names)} in all), so the checkpoint does not belong to "
                "its config.json; fetch both again"
            )
    if left_out:
        progress(f"{path}: {len(left_out)} weights are not part of the language model: {left_out[0]}, ...")


def _numberless(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def check_architecture(model: Any, path: str) -> None:
    """`InputError` for an encoder or a classifier, which the library loads as a decoder without a warning."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    stored = getattr(model.config, "architectures", None) or []
    known = {type(model).__name__, *MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()}
    if stored and known.isdisjoint(stored) and not getattr(model.config, "auto_map", None):
        raise InputError(
            f"{path}: not a causal language model: config.json has {', '.join(map(str, stored))}; give a decoder-only "
            "model"
        )
