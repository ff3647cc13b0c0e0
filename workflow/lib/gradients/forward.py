"""A model's forward pass, whatever arguments its code takes."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def evaluating(model: Any, *, frozen: bool = False) -> Iterator[None]:
    """`model` in evaluation mode, and with `frozen` without a weight that takes a gradient; afterwards as it was.

    Both are restored module by module and parameter by parameter, also where the block raises.
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

    No token is masked: padding on the right is seen by no real token of a causal decoder, while a masked one with
    nothing to attend to (a sliding window) would give NaN. Models that cannot keep to the last logits give all.
    """
    accepted = inspect.signature(model.forward).parameters
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    keep: int | Tensor = logits
    if _text_config(model).get("num_kv_shared_layers"):
        # Given a number, Gemma 4 cuts the tokens off before the layers that share keys, so that these see only some.
        keep = torch.arange(ids.shape[1] - logits, ids.shape[1], device=ids.device)
    given = {"attention_mask": torch.ones_like(ids), "use_cache": False, "logits_to_keep": keep}
    output = model(
        input_ids=ids,
        **{name: value for name, value in given.items() if name in accepted or (anything and name == "use_cache")},
    )
    return (output.logits if hasattr(output, "logits") else output[0])[:, -logits:]


# Sequences and tokens of a pass that looks at a model. Every sequence is another draw.
BATCH, TOKENS = 8, 4


def embeddings_of(model: Any) -> int:
    """How many token ids the model has embeddings for."""
    return model.get_input_embeddings().weight.shape[0]


def random_ids(model: Any) -> Tensor:
    """(BATCH, TOKENS) token ids, always the same draw."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, embeddings_of(model), (BATCH, TOKENS), generator=generator).to(model.device)


def _text_config(model: Any) -> dict[str, Any]:
    config = getattr(model, "config", None)
    return vars(config.get_text_config() if hasattr(config, "get_text_config") else config)


def length_regime(config: Any) -> Callable[[int], int]:
    """Which table of rotary frequencies a sample of so many tokens gets: numbers that differ where tables do.

    LongRoPE (Phi-3) has one table up to `original_max_position_embeddings` tokens and another beyond, chosen by the
    padded length of a batch; layer types may have tables of their own. `dynamic` frequencies change beyond
    `max_position_embeddings` alone, which no window exceeds.
    """
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    tables = [rope, *(part for part in rope.values() if isinstance(part, Mapping))]
    borders = {table["original_max_position_embeddings"] for table in tables if table.get("rope_type") == "longrope"}
    return lambda tokens: sum(tokens > border for border in borders)
