"""The model that a job measures: its files, with an adapter, in fewer bits, or on several GPUs."""

import warnings
from dataclasses import dataclass
from typing import Any

import torch

from gradatlas.core.command import progress
from gradatlas.core.errors import InputError
from gradatlas.models.adapter_files import card_of_adapter, download_adapter, files_of
from gradatlas.models.forward import TOKENS, evaluating, random_ids, run_forward
from gradatlas.models.loading import Location, load, locate, short
from gradatlas.models.precision import set_precision
from gradatlas.models.quantised import is_quantised
from gradatlas.models.snapshots import check_card, read_card
from gradatlas.study.sheets import Weights
from gradatlas.study.sources import is_hub_id


@dataclass(frozen=True)
class AdapterLocation(Location):
    """Of an adapter. `adapter_base`: as `card_of_adapter`."""

    adapter_base: str


def locate_adapted(
    model: str, revision: str = "", adapter: str = "", adapter_revision: str = ""
) -> tuple[Location, AdapterLocation | None]:
    """Find a model, and its adapter where it has one: of its card, or `adapter`, a folder or a pinned hub id.

    Raises `InputError` as `locate`, for an adapter of another model, and for a second adapter.
    """
    where = locate(model, revision, adapted=True)
    card = read_card(model) if model.endswith(".json") else {"source": model}
    if known := card.get("adapter"):
        if adapter:
            raise InputError(f"--adapter {adapter}: the card {model} has an adapter; leave this option out")
        check_card(model, known, files_of)
        return where, AdapterLocation(known["path"], known["revision"], known["digest"], known["adapter_base"])
    if adapter_revision and not (adapter and is_hub_id(adapter)):
        raise InputError(f"--adapter-revision {adapter_revision}: --adapter is not a hub id; leave this option out")
    if not adapter:
        return where, None
    folder = str(download_adapter(adapter, adapter_revision)) if is_hub_id(adapter) else adapter
    found = card_of_adapter(folder, adapter_revision, card["source"])
    return where, AdapterLocation(found["path"], adapter_revision, found["digest"], found["adapter_base"])


def load_adapted(
    where: Location, adapter: Location | None, weights: Weights, *, device: str, gpus: int = 1
) -> tuple[Any, Any]:
    """Load (model, tokenizer) as `load` does, with the `adapter` merged, or attached (`lora` is ``separate``)."""
    separate = weights.lora == "separate"
    if separate and adapter is None:
        raise InputError("--lora separate: the model has no adapter; give one with --adapter, or leave --lora out")
    if weights.quantise and adapter and not separate:
        raise _no_merging(where.path)
    model, tokenizer = load(
        where.path,
        dtype=weights.dtype,
        device=device,
        trust_remote_code=weights.trust_remote_code,
        quantise=weights.quantise,
        gpus=gpus,
    )
    if adapter is None:
        return model, tokenizer
    return attach(model, adapter.path, dtype=getattr(torch, weights.dtype), separate=separate), tokenizer


def read_config(folder: str, *, separate: bool) -> tuple[Any, str]:
    """PEFT's config of the adapter in `folder`, and its kind; `InputError` for a kind that cannot be measured so."""
    from peft import PeftConfig

    try:
        config = PeftConfig.from_pretrained(folder)
    except Exception as error:
        raise InputError(f"{folder}: PEFT cannot read adapter_config.json ({short(error)}); save it again") from None
    kind = getattr(config.peft_type, "value", config.peft_type)
    if config.is_prompt_learning:
        raise InputError(f"{folder}: an adapter of kind {kind} adds tokens in front of a sample; it cannot be measured")
    if separate and kind != "LORA":
        raise InputError(f"{folder}: an adapter of kind {kind} has no matrices A and B; leave --lora at merged")
    return config, kind


def attach(model: Any, folder: str, *, dtype: torch.dtype, separate: bool) -> Any:
    """`model` with the PEFT adapter in `folder`: merged into its weights, or (`separate`) in its layers.

    Raises `InputError` for an adapter that does not fit the model, one that cannot be merged, and one that is no LoRA
    where it is to be separate.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from peft.utils.save_and_load import load_peft_weights

    _, kind = read_config(folder, separate=separate)
    if not separate and any(map(is_quantised, model.modules())):
        raise _no_merging(folder)
    base = model.config._name_or_path
    try:
        with warnings.catch_warnings():
            # Of missing and unknown weights, which are reported below.
            warnings.simplefilter("ignore")
            adapted = PeftModel.from_pretrained(model, folder)
        # PEFT reads the vocabulary size of this base, which may be a name on the hub.
        adapted.active_peft_config.base_model_name_or_path = base
        stored, own = {*load_peft_weights(folder, device="cpu")}, {*get_peft_model_state_dict(adapted)}
    except (ValueError, RuntimeError, KeyError, TypeError, AttributeError, NotImplementedError, ImportError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise no_fit(folder, base, error) from None
    check_names(folder, base, stored, own)
    set_precision(adapted, dtype)
    if separate:
        return adapted.base_model.model.eval()
    return _merged(adapted.eval(), folder, kind)


def _merged(adapted: Any, folder: str, kind: str) -> Any:
    """The base model with the adapter merged; `InputError` where that changes its outputs."""
    try:
        before = _outputs(adapted)
        merged = adapted.merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError, TypeError, AttributeError, NotImplementedError) as error:
        raise InputError(
            f"{folder}: an adapter of kind {kind} cannot be merged ({short(error)}), and so not be measured"
        ) from None
    after = _outputs(merged)
    if (after - before).abs().max() > torch.finfo(merged.dtype).eps ** 0.5 * before.abs().max():
        raise InputError(
            f"{folder}: merging this adapter of kind {kind} changes the model's outputs, as it does where embeddings "
            "are tied to the output layer; untie them (tie_word_embeddings) in a copy of the base model"
        )
    progress(f"{folder}: adapter of kind {kind} merged")
    return merged


def _outputs(model: Any) -> torch.Tensor:
    with evaluating(model), torch.no_grad():
        return run_forward(model, random_ids(model), logits=TOKENS).double()


def no_fit(folder: str, base: str, error: Exception) -> InputError:
    """The error for an adapter that PEFT cannot put into the model `base`."""
    return InputError(f"{folder}: the adapter does not fit the model {base} ({short(error)}); give its own base model")


def check_names(folder: str, base: str, stored: set[str], own: set[str]) -> None:
    """`InputError` where the `stored` weights of an adapter are not its `own` in the model `base`."""
    for names, what in ((stored - own, "has no place in"), (own - stored, "is missing for")):
        if names:
            raise InputError(
                f"{folder}: weight {min(names)} {what} the model {base} ({len(names)} in all); give the adapter's own "
                "base model"
            )


def _no_merging(place: str) -> InputError:
    return InputError(
        f"{place}: an adapter is not merged into quantised weights, which would round it; give --lora separate, or "
        "leave --quantise out"
    )
