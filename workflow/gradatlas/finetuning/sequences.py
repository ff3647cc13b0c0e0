"""Prompts and responses as tokens, for training and probing, and their log-probabilities under a model.

Prompt and response are tokenised as one text (`gradatlas.models.tokens`), and one end token follows the response. A
sampled response has the sampled tokens alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from gradatlas.core.errors import InputError
from gradatlas.models.decoding import attention_throughout, batch_key, continue_prompts
from gradatlas.models.forward import length_regime, run_forward
from gradatlas.models.loading import check_ids
from gradatlas.models.tokens import Encoded, check_offsets, front_tokens, tokenise

#: Where the next turn begins in dialogues in the form of HH.
NEXT_TURN = "\n\nHuman:"


@dataclass(frozen=True)
class EncodedResponse:
    """Token ids of a prompt with a response that begins at `start`; the end token is its last, unless it was cut."""

    ids: tuple[int, ...]
    start: int

    @property
    def tokens(self) -> int:
        """The number of tokens of the response, with its end token."""
        return len(self.ids) - self.start

    @property
    def sample(self) -> Encoded:
        """The same, as the gradient engine's input."""
        return Encoded(self.ids, tuple(i >= self.start for i in range(len(self.ids))), False)


class ResponseEncoder:
    """Encodes prompts and responses with one tokenizer.

    `max_length`: window in tokens. `truncation`: what becomes of longer texts (`gradatlas.study.settings.Window`). By
    the study's code a prompt is cut to half the window if it and the longest text of its row exceed the window. The
    prompt is one of these texts, so a prompt of more than half the window is always cut, whatever its responses are.

    Raises `InputError` for a tokenizer without an end token or without character offsets, and for a text with a token
    that the `model`, if given, has no embedding for.
    """

    def __init__(self, tokenizer: Any, max_length: int, model: Any = None, truncation: str = "drop"):
        if tokenizer.eos_token_id is None:
            raise InputError(f"model '{tokenizer.name_or_path}': its tokenizer has no end token; set eos_token there")
        check_offsets(tokenizer)
        self.tokenizer, self.max_length, self.model, self.truncation = tokenizer, max_length, model, truncation
        self.front, self.end = front_tokens(tokenizer), tokenizer.eos_token_id

    def encode_prompt(self, text: str, cut: bool = True) -> tuple[int, ...]:
        """Token ids of a prompt, `cut` where prompts are; `InputError` for a prompt without a token."""
        ids, _ = tokenise(self.tokenizer, self.front, text, "")
        self._check(ids, f"prompt {text[:60]!r}")
        if not ids:
            self._refuse(text)
        return self._prompt(ids) if cut else tuple(ids)

    def encode(self, prompt: str, response: str) -> EncodedResponse | None:
        """A prompt with a response, or None where they are longer than the window and `truncation` is ``drop``."""
        encoded = self.encode_any(prompt, response)
        return encoded if len(encoded.ids) <= self.max_length else None

    def encode_any(self, prompt: str, response: str) -> EncodedResponse:
        """The same, whatever its length; `InputError` where no token comes before the response."""
        # A response may end with the end token and a new line.
        if response.rstrip().endswith(self.tokenizer.eos_token):
            response = response.rstrip()
        ids, start = tokenise(self.tokenizer, self.front, prompt, response)
        if start == 0:
            self._refuse(prompt)
        # A response may end with the end token.
        while len(ids) > start and ids[-1] == self.end:
            ids.pop()
        self._check((*ids, self.end), f"response {response[:60]!r} to prompt {prompt[:60]!r}")
        head, ids = self._prompt(ids[:start]), (*ids[start:], self.end)
        room = len(ids) if self.truncation == "drop" else self.max_length - len(head)
        return EncodedResponse((*head, *ids[:room]), len(head))

    def _prompt(self, ids: Sequence[int]) -> tuple[int, ...]:
        """A prompt's tokens, at most half the window where prompts are cut; those in front of all texts stay."""
        front, text = ids[: len(self.front)], ids[len(self.front) :]
        excess = len(ids) - self.max_length // 2
        if self.truncation == "drop" or excess <= 0:
            return tuple(ids)
        return (*front, *(text[excess:] if self.truncation == "study" else text[:-excess]))

    def cut(self, sampled: Sequence[int]) -> tuple[int, ...]:
        """Sampled token ids up to the end token, or to the next turn: the fewest that have all the text before it.

        At least one; all, where the response has neither.
        """
        ids = self._ended(sampled)
        before, found, _ = self._decode(ids).partition(NEXT_TURN)
        if not found:
            return ids
        return next(ids[:n] for n in range(1, len(ids) + 1) if self._decode(ids[:n]).startswith(before))

    def text(self, sampled: Sequence[int]) -> str:
        """The text of sampled token ids, up to the end token or the next turn."""
        return self._decode(self._ended(sampled)).partition(NEXT_TURN)[0]

    def _ended(self, sampled: Sequence[int]) -> tuple[int, ...]:
        ids = tuple(sampled)
        return ids[: ids.index(self.end) + 1] if self.end in ids else ids

    def _decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def _check(self, ids: Sequence[int], name: str) -> None:
        if self.model is not None:
            check_ids(ids, self.model, self.tokenizer, name)

    def _refuse(self, prompt: str) -> NoReturn:
        raise InputError(
            f"model '{self.tokenizer.name_or_path}': its tokenizer gives no token before the response to prompt "
            f"{prompt[:60]!r}; give a longer prompt, or remove its row"
        )


def response_logits(model: Any, batch: Sequence[EncodedResponse]) -> tuple[Tensor, Tensor]:
    """Logits (tokens, vocabulary) and targets (tokens) of all response tokens of a batch, sequence by sequence.

    At least float32. Padding is on the right, where no token of a causal decoder attends to it. The sequences must have
    one `length_regime`.
    """
    ids, counted = _padded([encoded.ids for encoded in batch], [encoded.start for encoded in batch], model.device)
    longest = ids.shape[1]
    # A token is predicted at the position before it; logits of prompts are not computed.
    first = min(encoded.start for encoded in batch) - 1
    logits = run_forward(model, ids, logits=longest - first)[:, :-1][counted[:, first + 1 :]]
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    return logits, ids[counted]


def shared_logits(model: Any, batch: Sequence[EncodedResponse]) -> tuple[Tensor, Tensor]:
    """As `response_logits`, without gradient, for prompts of equal length: each distinct prompt is computed once.

    Prompts are compared by tokens: one text may have different tokens before two responses, where a token spans the
    border. Prompts are not shared in a model whose cache holds more than keys and values, or where a prompt's
    `length_regime` differs from that of its sequence.
    """
    regime = length_regime(model.config)
    prompts = {encoded.ids[: encoded.start]: None for encoded in batch}
    places = {prompt: place for place, prompt in enumerate(prompts)}
    crossing = any(regime(each.start) != regime(len(each.ids)) for each in batch)
    if len(prompts) == len(batch) or crossing or not attention_throughout(model):
        return response_logits(model, batch)
    read = model(input_ids=torch.tensor(list(prompts), device=model.device), use_cache=True)
    cache = read.past_key_values
    prompt_of = torch.tensor([places[encoded.ids[: encoded.start]] for encoded in batch], device=model.device)
    cache.batch_select_indices(prompt_of)
    ids, counted = _padded([encoded.ids[encoded.start :] for encoded in batch], [0] * len(batch), model.device)
    # The prompt's last position predicts the response's first token.
    logits = read.logits[prompt_of, -1:]
    if ids.shape[1] > 1:
        rest = model(input_ids=ids[:, :-1], past_key_values=cache, use_cache=True).logits
        logits = torch.cat([logits, rest], dim=1)
    logits = logits[counted]
    return (logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits), ids[counted]


def log_probs(model: Any, batch: Sequence[EncodedResponse]) -> Tensor:
    """Log-probability of every response of a batch, summed over its tokens: (sequences,), with gradient.

    Sequences of different `length_regime` are computed separately, so that the batch does not change a value.
    """
    regime = length_regime(model.config)
    by_regime: dict[int, list[int]] = {}
    for place, encoded in enumerate(batch):
        by_regime.setdefault(regime(len(encoded.ids)), []).append(place)
    found: dict[int, Tensor] = {}
    for places in by_regime.values():
        part = [batch[place] for place in places]
        logits, targets = response_logits(model, part)
        each = torch.log_softmax(logits, -1).gather(-1, targets[:, None])[:, 0]
        sums = (tokens.sum() for tokens in each.split([encoded.tokens for encoded in part]))
        found |= zip(places, sums, strict=True)
    return torch.stack([found[place] for place in range(len(batch))])


def _padded(rows: Sequence[Sequence[int]], starts: Sequence[int], device: Any) -> tuple[Tensor, Tensor]:
    """Ids (sequences, longest), and a mask of the same shape: positions from `starts` on, padding excluded.

    Padding repeats a sequence's last token, as another token's embedding could be NaN.
    """
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[row[-1]] * (longest - len(row))] for row in rows])
    places = torch.arange(longest)
    ends = torch.tensor([len(row) for row in rows])
    counted = (places >= torch.tensor(starts)[:, None]) & (places < ends[:, None])
    return ids.to(device), counted.to(device)


def sample(
    model: Any, encoder: ResponseEncoder, prompts: Sequence[str], seed: int, max_tokens: int
) -> list[EncodedResponse]:
    """A response to every prompt at temperature 1, determined by `seed` and prompts, cut by `ResponseEncoder.cut`.

    Only the tokenizer's end token ends a response, as in training, whatever the checkpoint's generation_config lists.
    A response has at most `max_tokens` tokens, fewer where the longest prompt leaves less of the window, in which there
    is room for one more. Raises `InputError` where a prompt fills the window.
    """
    heads = [encoder.encode_prompt(prompt) for prompt in prompts]
    longest = max(map(len, heads))
    limit = min(max_tokens, encoder.max_length - longest - 1)
    if limit < 1:
        raise InputError(f"a prompt of {longest} tokens fills the window of {encoder.max_length}; raise max_length")
    end, key = encoder.end, batch_key(model, encoder.max_length)
    by_regime: dict[int, list[int]] = {}
    for place, head in enumerate(heads):
        by_regime.setdefault(key(place, len(head)), []).append(place)
    found: dict[int, EncodedResponse] = {}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for places in by_regime.values():
            part = [heads[place] for place in places]
            made = continue_prompts(model, part, [end], limit, do_sample=True, temperature=1.0, top_k=0, top_p=1.0)
            for place, head, row in zip(places, part, made, strict=True):
                found[place] = EncodedResponse((*head, *encoder.cut(row)), len(head))
    return [found[place] for place in range(len(heads))]
