"""Prompts and responses as tokens, in training and probing alike, and a model's belief in them, token by token.

Prompt and response are read as one text (`gradatlas.models.tokens`), and one end token closes the response.
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


@dataclass(frozen=True)
class EncodedResponse:
    """Token ids of a prompt with a response; the response begins at `start` and ends with the end token."""

    ids: tuple[int, ...]
    start: int

    @property
    def tokens(self) -> int:
        """Tokens of the response, the end token among them."""
        return len(self.ids) - self.start

    @property
    def sample(self) -> Encoded:
        """The same as the gradient engine takes it."""
        return Encoded(self.ids, tuple(i >= self.start for i in range(len(self.ids))), False)


class ResponseEncoder:
    """Encodes prompts and responses for one tokenizer; `max_length`: window in tokens.

    Raises `InputError` for a tokenizer without an end token or without character offsets, and, where the `model` is
    given, for a text with a token that it has no embedding for.
    """

    def __init__(self, tokenizer: Any, max_length: int, model: Any = None):
        if tokenizer.eos_token_id is None:
            raise InputError(f"model '{tokenizer.name_or_path}': its tokenizer has no end token; set eos_token there")
        check_offsets(tokenizer)
        self.tokenizer, self.max_length, self.model = tokenizer, max_length, model
        self.front, self.end = front_tokens(tokenizer), tokenizer.eos_token_id

    def encode_prompt(self, text: str) -> tuple[int, ...]:
        """Token ids of a prompt; `InputError` where the tokenizer finds no token in it."""
        ids, _ = tokenise(self.tokenizer, self.front, text, "")
        self._check(ids, f"prompt {text[:60]!r}")
        return tuple(ids) if ids else self._refuse(text)

    def encode(self, prompt: str, response: str) -> EncodedResponse | None:
        """A prompt with a response, or None where they do not fit the window: nothing is ever cut."""
        encoded = self.encode_uncut(prompt, response)
        return encoded if len(encoded.ids) <= self.max_length else None

    def encode_uncut(self, prompt: str, response: str) -> EncodedResponse:
        """A prompt with a response of any length; `InputError` where no token comes before the response."""
        # A text that closes itself, with a new line behind, is closed once.
        if response.rstrip().endswith(self.tokenizer.eos_token):
            response = response.rstrip()
        ids, start = tokenise(self.tokenizer, self.front, prompt, response)
        if start == 0:
            self._refuse(prompt)
        # A text may close the response itself.
        while len(ids) > start and ids[-1] == self.end:
            ids.pop()
        self._check((*ids, self.end), f"response {response[:60]!r} to prompt {prompt[:60]!r}")
        return EncodedResponse((*ids, self.end), start)

    def _check(self, ids: Sequence[int], name: str) -> None:
        if self.model is not None:
            check_ids(ids, self.model, self.tokenizer, name)

    def _refuse(self, prompt: str) -> NoReturn:
        raise InputError(
            f"model '{self.tokenizer.name_or_path}': its tokenizer leaves no token before the response to prompt "
            f"{prompt[:60]!r}; give a longer prompt, or leave its row out"
        )


def response_logits(model: Any, batch: Sequence[EncodedResponse]) -> tuple[Tensor, Tensor]:
    """Logits (tokens, vocabulary) and targets (tokens) of all response tokens of a batch, one sequence after another.

    At least float32. Padding stands on the right, where no real token of a causal decoder sees it. The sequences have
    to be of one length regime.
    """
    ids, counted = _padded([encoded.ids for encoded in batch], [encoded.start for encoded in batch], model.device)
    longest = ids.shape[1]
    # A token is predicted at the place before it; logits of prompts are not made.
    first = min(encoded.start for encoded in batch) - 1
    logits = run_forward(model, ids, logits=longest - first)[:, :-1][counted[:, first + 1 :]]
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    return logits, ids[counted]


def shared_logits(model: Any, batch: Sequence[EncodedResponse]) -> tuple[Tensor, Tensor]:
    """As `response_logits`, without gradient, for prompts of one length: each distinct one is read once.

    Prompts are compared by their tokens: two responses to one text may follow different ones, where a token lies over
    the border. A model that keeps more than attention's keys and values reads every prompt with its response, and so
    does one whose positions depend on a length that lies between a prompt's and its response's.
    """
    regime = length_regime(model.config)
    prompts = {encoded.ids[: encoded.start]: None for encoded in batch}
    places = {prompt: place for place, prompt in enumerate(prompts)}
    crossing = any(regime(each.start) != regime(len(each.ids)) for each in batch)
    if len(prompts) == len(batch) or crossing or not attention_throughout(model):
        return response_logits(model, batch)
    read = model(input_ids=torch.tensor(list(prompts), device=model.device), use_cache=True)
    cache = read.past_key_values
    mine = torch.tensor([places[encoded.ids[: encoded.start]] for encoded in batch], device=model.device)
    cache.batch_select_indices(mine)
    ids, counted = _padded([encoded.ids[encoded.start :] for encoded in batch], [0] * len(batch), model.device)
    # The prompt's last place predicts the response's first token.
    logits = read.logits[mine, -1:]
    if ids.shape[1] > 1:
        rest = model(input_ids=ids[:, :-1], past_key_values=cache, use_cache=True).logits
        logits = torch.cat([logits, rest], dim=1)
    logits = logits[counted]
    return (logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits), ids[counted]


def log_probs(model: Any, batch: Sequence[EncodedResponse]) -> Tensor:
    """Log-probability of every response of a batch, the sum over its tokens: (sequences,), with gradient.

    Each as it is alone: sequences of different length regimes are read apart.
    """
    regime = length_regime(model.config)
    apart: dict[int, list[int]] = {}
    for place, encoded in enumerate(batch):
        apart.setdefault(regime(len(encoded.ids)), []).append(place)
    found: dict[int, Tensor] = {}
    for places in apart.values():
        part = [batch[place] for place in places]
        logits, targets = response_logits(model, part)
        each = torch.log_softmax(logits, -1).gather(-1, targets[:, None])[:, 0]
        sums = (tokens.sum() for tokens in each.split([encoded.tokens for encoded in part]))
        found |= zip(places, sums, strict=True)
    return torch.stack([found[place] for place in range(len(batch))])


def _padded(rows: Sequence[Sequence[int]], starts: Sequence[int], device: Any) -> tuple[Tensor, Tensor]:
    """Ids (sequences, longest), and which of them count: from `starts` on, without padding.

    Padding repeats a sequence's last token, as another one's embedding could be no number.
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
    """A response to every prompt at temperature 1, closed by the end token; the same for the same `seed` and prompts.

    Only the tokenizer's end token ends it, as in training, whatever others the checkpoint's generation_config lists. At
    most `max_tokens` tokens, or what the longest of the prompts leaves of the window, without the end token. Raises
    `InputError` where a prompt fills the window.
    """
    heads = [encoder.encode_prompt(prompt) for prompt in prompts]
    longest = max(map(len, heads))
    room = min(max_tokens, encoder.max_length - longest - 1)
    if room < 1:
        raise InputError(f"a prompt of {longest} tokens fills the window of {encoder.max_length}; raise max_length")
    end, key = encoder.end, batch_key(model, encoder.max_length)
    apart: dict[int, list[int]] = {}
    for place, head in enumerate(heads):
        apart.setdefault(key(place, len(head)), []).append(place)
    found: dict[int, EncodedResponse] = {}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for places in apart.values():
            part = [heads[place] for place in places]
            made = continue_prompts(model, part, [end], room, do_sample=True, temperature=1.0, top_k=0, top_p=1.0)
            for place, head, row in zip(places, part, made, strict=True):
                said = row[: row.index(end)] if end in row else row
                found[place] = EncodedResponse((*head, *said, end), len(head))
    return [found[place] for place in range(len(heads))]
