"""A model's forward pass, for any signature of its code."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def evaluating(model: Any, *, frozen: bool = False) -> Iterator[None]:
    """`model` in evaluation mode, and with `frozen` without trainable weights.

    Afterwards, also after an error, each module's mode and each parameter's `requires_grad` are restored.
    """
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval()
        if frozen:
            model.requires_grad_(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def run_forward(model: Any, ids: Tensor, *, logits: int) -> Tensor:
    """Logits (batch, `logits`, vocabulary) of the last tokens of `ids` (batch, tokens), without a cache.

    No token is masked: no token of a causal decoder attends to padding on the right, and masked tokens with nothing to
    attend to (in a sliding window) would give NaN. A model without `logits_to_keep` computes all logits.
    """
    accepted = inspect.signature(model.forward).parameters
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    keep: int | Tensor = logits
    if _text_config(model).get("num_kv_shared_layers"):
        # With a number, Gemma 4 drops tokens before the layers that share keys.
        keep = torch.arange(ids.shape[1] - logits, ids.shape[1], device=ids.device)
    given = {"attention_mask": torch.ones_like(ids), "use_cache": False, "logits_to_keep": keep}
    output = model(
        input_ids=ids,
        **{name: value for name, value in given.items() if name in accepted or (anything and name == "use_cache")},
    )
    return (output.logits if hasattr(output, "logits") else output[0])[:, -logits:]


def device_of(model: Any) -> torch.device:
    """The device of the token embeddings: of a model on several devices, where token ids go."""
    return model.get_input_embeddings().weight.device


# Sequences and tokens of a test pass.
BATCH, TOKENS = 8, 4


def embeddings_of(model: Any) -> int:
    """The number of token embeddings of the model."""
    return model.get_input_embeddings().weight.shape[0]


def random_ids(model: Any) -> Tensor:
    """(BATCH, TOKENS) random token ids, the same in every call."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, embeddings_of(model), (BATCH, TOKENS), generator=generator).to(device_of(model))


def _text_config(model: Any) -> dict[str, Any]:
    config = getattr(model, "config", None)
    return vars(config.get_text_config() if hasattr(config, "get_text_config") else config)


def length_regime(config: Any) -> Callable[[int], int]:
    """A function from a sample's length in tokens to the number of its table of rotary frequencies.

    LongRoPE (Phi-3) has one table up to `original_max_position_embeddings` tokens and another beyond, chosen by the
    padded length of a batch; layer types may have different tables. `dynamic` frequencies change only beyond
    `max_position_embeddings`, which no window exceeds.
    """
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    tables = [rope, *(part for part in rope.values() if isinstance(part, Mapping))]
    borders = {table["original_max_position_embeddings"] for table in tables if table.get("rope_type") == "longrope"}
    return lambda tokens: sum(tokens > border for border in borders)
