"""Text generation with a local model. Only the caller's settings count, not the checkpoint's generation_config.json.

Prompts share a batch only where that changes no response.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, LogitsProcessor
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from gradatlas.core.command import progress
from gradatlas.models.forward import length_regime

# Found once for each model in memory.
_attention_throughout: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
_batching: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
_KEYS: dict[str, Callable[[int, int], int]] = {
    "any": lambda place, length: 0,
    "length": lambda place, length: length,
    "none": lambda place, length: place,
}
#: Largest difference of logits, as a share of the largest one, that a batch may make by rounding alone.
_ROUNDING = {torch.float64: 1e-5, torch.float32: 1e-3}


def continue_prompts(
    model: Any, prompts: Sequence[Sequence[int]], ends: Sequence[int], max_new_tokens: int, **config: Any
) -> list[list[int]]:
    """Token ids generated after every prompt, at most `max_new_tokens`; what follows one of `ends` is padding.

    `config`: fields of `GenerationConfig`, and `logits_processor`. All other fields have the library's defaults,
    whatever the checkpoint's generation_config.json states.
    """
    generated = _generate(model, prompts, ends, max_new_tokens, **config)
    return generated[:, max(map(len, prompts)) :].tolist()


def _generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    ends: Sequence[int],
    max_new_tokens: int,
    logits_processor: Any = None,
    **config: Any,
) -> Any:
    longest, pad = max(map(len, prompts)), ends[0] if ends else prompts[0][0]
    # Padded on the left, hidden by the mask, so that all responses begin at one position.
    ids = torch.tensor([[pad] * (longest - len(ids)) + list(ids) for ids in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts], device=model.device)
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens, pad_token_id=pad, eos_token_id=list(ends) or None, **config
    )
    with _generation_config(model, settings), torch.inference_mode():
        return model.generate(
            input_ids=ids, attention_mask=mask, generation_config=settings, logits_processor=logits_processor
        )


@contextmanager
def _generation_config(model: Any, settings: GenerationConfig) -> Iterator[None]:
    # The library fills unset fields of a passed config from the model's own config.
    own, model.generation_config = model.generation_config, settings
    try:
        yield
    finally:
        model.generation_config = own


def batch_key(model: Any, window: int) -> Callable[[int, int], int]:
    """A function of a prompt's index and its length in tokens; prompts with the same key may share a batch.

    - One key for all prompts, where a padded batch changes no response.
    - One key for each length, where padding changes responses or positions depend on the longest sequence.
    - One key for each prompt, where any batch changes responses.

    Tested once for each model, by `attention_throughout` and by comparing logits of batched and single prompts. The
    log gives the reason.
    """
    regime = length_regime(model.config)
    if regime(1) != regime(window):
        return _KEYS["length"]
    if model not in _batching:
        _batching[model] = _find_batching(model, window)
    return _KEYS[_batching[model]]


def _find_batching(model: Any, window: int) -> str:
    longest = max(2, min(40, window - 3))
    size = model.get_input_embeddings().num_embeddings
    row = [7919 * place % size for place in range(1, 2 * longest)]
    prompts = [row[:longest], row[: max(1, longest // 2)], row[: max(1, longest // 10)]]
    if attention_throughout(model):
        off = _difference(model, prompts)
        if off <= _ROUNDING.get(model.dtype, 0.05):
            return "any"
        reason = f"padding on the left changes its logits by {off:.2g} of the largest"
    else:
        reason = "it has no cache, or its cache holds more than keys and values"
    off = _difference(model, [row[:longest], [row[0], *row[longest:]]])
    if off <= _ROUNDING.get(model.dtype, 0.05):
        progress(f"free responses: this model gets prompts of one length at a time: {reason}")
        return "length"
    progress(f"free responses: this model gets one prompt at a time: batches change its logits by {off:.2g}")
    return "none"


def _difference(model: Any, prompts: Sequence[Sequence[int]]) -> float:
    """Largest difference of the next logits between batched and single prompts, as a share of the largest logit.

    Logits that are NaN both ways do not count; the row gets its status later.
    """
    together, alone = _next_logits(model, prompts), torch.cat([_next_logits(model, [ids]) for ids in prompts])
    seen = ~(together.isnan() & alone.isnan())
    if not seen.any():
        return 0.0
    off = (together - alone)[seen].abs().nan_to_num(float("inf")).amax()
    return float(off / (alone - alone.mean(-1, keepdim=True))[seen].abs().amax().clamp(min=1e-30))


def _next_logits(model: Any, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Logits (prompts, 3, vocabulary) after every prompt, and after two more tokens that are the same for all."""
    config = {"output_logits": True, "return_dict_in_generate": True}
    generated = _generate(model, prompts, (), 3, logits_processor=[_ForcedToken(prompts[0][0])], **config)
    logits = torch.stack(generated.logits, dim=1)
    return logits if logits.dtype == torch.float64 else logits.float()


class _ForcedToken(LogitsProcessor):
    """Allows one token only."""

    def __init__(self, token: int):
        self.token = token

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        only = torch.full_like(scores, float("-inf"))
        only[:, self.token] = 0
        return only


@torch.no_grad()
def attention_throughout(model: Any) -> bool:
    """Whether the model's only state is keys and values of attention, in the library's `DynamicCache`.

    Only then can a cache be shared and padding be masked: a recurrent or convolutional state includes padding.
    """
    if model not in _attention_throughout:
        found = False
        if "past_key_values" in signature(model.forward).parameters:
            ids = torch.zeros(1, 2, dtype=torch.long, device=model.device)
            cache = getattr(model(input_ids=ids, use_cache=True), "past_key_values", None)
            # Derived classes hold other states too, such as MiniMax's and the hybrids'.
            kinds = {type(layer) for layer in cache.layers} if type(cache) is DynamicCache else {None}
            found = kinds <= {DynamicLayer, DynamicSlidingWindowLayer}
        _attention_throughout[model] = found
    return _attention_throughout[model]
