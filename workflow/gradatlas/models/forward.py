"""A model's forward pass, whatever arguments its code takes."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


def run_forward(model: Any, ids: Tensor, *, logits: int) -> Tensor:
    """Logits (batch, `logits`, vocabulary) of the last tokens of `ids` (batch, tokens), without a cache.

    No token is masked: padding on the right is seen by no real token of a causal decoder, while a masked one with
    nothing to attend to (a sliding window) would give NaN. Models that cannot keep to the last logits give all.
    """
    accepted = inspect.signature(model.forward).parameters
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    given = {"attention_mask": torch.ones_like(ids), "use_cache": False, "logits_to_keep": logits}
    output = model(
        input_ids=ids,
        **{name: value for name, value in given.items() if name in accepted or (anything and name == "use_cache")},
    )
    return (output.logits if hasattr(output, "logits") else output[0])[:, -logits:]


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
