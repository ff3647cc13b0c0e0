"""Texts continued by a local model, as the caller says and not as the checkpoint's own generation settings do; in one
batch only where that changes nothing.
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

from workflow.lib.command import progress
from workflow.lib.gradients.forward import length_regime

# What a model was found to be, for as long as it lives.
_attention_throughout: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
_company: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
_KEYS: dict[str, Callable[[int, int], int]] = {
    "any": lambda place, length: 0,
    "length": lambda place, length: length,
    "none": lambda place, length: place,
}
#: Largest difference of logits, as a share of the largest one, that a batch may make by rounding alone.
_ROUNDING = {torch.float64: 1e-5, torch.float32: 1e-3}


def continued(
    model: Any, heads: Sequence[Sequence[int]], ends: Sequence[int], room: int, **how: Any
) -> list[list[int]]:
    """The tokens after every prompt, at most `room`, those after one of `ends` among them.

    `how`: fields of `GenerationConfig`, and `logits_processor`. Everything else is the library's default, whatever the
    checkpoint's generation_config.json says.
    """
    made = _generate(model, heads, ends, room, **how)
    return made[:, max(map(len, heads)) :].tolist()


def _generate(
    model: Any, heads: Sequence[Sequence[int]], ends: Sequence[int], room: int, logits_processor: Any = None, **how: Any
) -> Any:
    longest, pad = max(map(len, heads)), ends[0] if ends else heads[0][0]
    # Padding on the left, where the mask hides it, so that all responses begin at one place.
    ids = torch.tensor([[pad] * (longest - len(head)) + list(head) for head in heads], device=model.device)
    mask = torch.tensor([[0] * (longest - len(head)) + [1] * len(head) for head in heads], device=model.device)
    asked = GenerationConfig(max_new_tokens=room, pad_token_id=pad, eos_token_id=list(ends) or None, **how)
    with _settings(model, asked), torch.inference_mode():
        return model.generate(
            input_ids=ids, attention_mask=mask, generation_config=asked, logits_processor=logits_processor
        )


@contextmanager
def _settings(model: Any, asked: GenerationConfig) -> Iterator[None]:
    # What is not set in a config that is passed, the library takes from the model's own.
    own, model.generation_config = model.generation_config, asked
    try:
        yield
    finally:
        model.generation_config = own


def batch_key(model: Any, window: int) -> Callable[[int, int], int]:
    """From a prompt's place and its length in tokens, a key: prompts of one key can be continued in one batch.

    All prompts have one key where each is continued in a padded batch as it is alone. Prompts of one length have one
    where positions depend on the batch's longest sequence, or padding on the left changes what follows. No two prompts
    have, where a batch changes it whatever the lengths. Found once for a model, by `attention_throughout` and by
    prompts in a batch against the same ones alone; the log gives the reason.
    """
    regime = length_regime(model.config)
    if regime(1) != regime(window):
        return _KEYS["length"]
    if model not in _company:
        _company[model] = _find_company(model, window)
    return _KEYS[_company[model]]


def _find_company(model: Any, window: int) -> str:
    longest = max(2, min(40, window - 3))
    size = model.get_input_embeddings().num_embeddings
    row = [7919 * place % size for place in range(1, 2 * longest)]
    heads = [row[:longest], row[: max(1, longest // 2)], row[: max(1, longest // 10)]]
    if attention_throughout(model):
        off = _difference(model, heads)
        if off <= _ROUNDING.get(model.dtype, 0.05):
            return "any"
        reason = f"padding on the left moves its logits by {off:.2g} of the largest"
    else:
        reason = "it keeps no cache, or more than attention's keys and values"
    off = _difference(model, [row[:longest], [row[0], *row[longest:]]])
    if off <= _ROUNDING.get(model.dtype, 0.05):
        progress(f"free responses: prompts of one length at a time with this model: {reason}")
        return "length"
    progress(f"free responses: one prompt at a time with this model: batches move its logits by {off:.2g}")
    return "none"


def _difference(model: Any, heads: Sequence[Sequence[int]]) -> float:
    """The largest difference of the next logits between prompts in one batch and alone, as a share of the largest one.

    A logit that is no number either way makes none; the status of its row tells of it later.
    """
    together, alone = _next_logits(model, heads), torch.cat([_next_logits(model, [head]) for head in heads])
    seen = ~(together.isnan() & alone.isnan())
    if not seen.any():
        return 0.0
    off = (together - alone)[seen].abs().nan_to_num(float("inf")).amax()
    return float(off / (alone - alone.mean(-1, keepdim=True))[seen].abs().amax().clamp(min=1e-30))


def _next_logits(model: Any, heads: Sequence[Sequence[int]]) -> Tensor:
    """Logits (prompts, 3, vocabulary) after every prompt, and after two more tokens that are the same for all."""
    how = {"output_logits": True, "return_dict_in_generate": True}
    made = _generate(model, heads, (), 3, logits_processor=[_Always(heads[0][0])], **how)
    logits = torch.stack(made.logits, dim=1)
    return logits if logits.dtype == torch.float64 else logits.float()


class _Always(LogitsProcessor):
    """Leaves every row one token."""

    def __init__(self, token: int):
        self.token = token

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        only = torch.full_like(scores, float("-inf"))
        only[:, self.token] = 0
        return only


@torch.no_grad()
def attention_throughout(model: Any) -> bool:
    """Whether all that a model keeps of the tokens before is keys and values of attention, in the library's own cache.

    Such a cache can be shared and padding be hidden by a mask; a recurrent or convolutional state runs over both.
    """
    if model not in _attention_throughout:
        found = False
        if "past_key_values" in signature(model.forward).parameters:
            ids = torch.zeros(1, 2, dtype=torch.long, device=model.device)
            cache = getattr(model(input_ids=ids, use_cache=True), "past_key_values", None)
            # Derived classes hold more beside, such as MiniMax's and the hybrids' states.
            kinds = {type(layer) for layer in cache.layers} if type(cache) is DynamicCache else {None}
            found = kinds <= {DynamicLayer, DynamicSlidingWindowLayer}
        _attention_throughout[model] = found
    return _attention_throughout[model]
