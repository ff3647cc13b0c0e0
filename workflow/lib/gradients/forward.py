"""A model's forward pass, whatever arguments its code takes."""

import inspect
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
