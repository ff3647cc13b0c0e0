"""Tokenisation, for both studies: prompt and response are tokenised as one text, after the special tokens (BOS)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from gradatlas.core.errors import InputError
from gradatlas.data.responses.prompts import base_prompt, chat_prompt


@dataclass(frozen=True)
class Encoded:
    """One sample as the model reads it.

    `ids`: token ids. `response`: for each token, whether it belongs to the response, and so to the loss. `truncated`:
    whether the sample was longer than the window and was cut.
    """

    ids: tuple[int, ...]
    response: tuple[bool, ...]
    truncated: bool

    @property
    def response_tokens(self) -> int:
        """The number of tokens in the loss; the very first token is never predicted."""
        return sum(self.response[1:])

    @property
    def prompt_tokens(self) -> int:
        """The number of other tokens."""
        return len(self.ids) - self.response_tokens


def check_offsets(tokenizer: Any) -> None:
    """`InputError` for a tokenizer without character offsets, which `tokenise` needs."""
    if not tokenizer.is_fast:
        raise InputError(
            f"model '{tokenizer.name_or_path}': its tokenizer gives no character offsets; "
            "add a tokenizer.json to the model"
        )


def front_tokens(tokenizer: Any) -> list[int]:
    """The special tokens (BOS) that a tokenizer adds in front of a text."""
    special = set(tokenizer.all_special_ids)
    # A small vocabulary may have no token for "a".
    for text in chain("a", (tokenizer.decode([i]) for i in range(len(tokenizer)) if i not in special)):
        if bare := tokenizer(text, add_special_tokens=False)["input_ids"]:
            full = tokenizer(text)["input_ids"]
            return next((full[:i] for i in range(len(full)) if full[i : i + len(bare)] == bare), [])
    return []


def with_front(front: Sequence[int], ids: Sequence[int]) -> list[int]:
    """`front` and the token ids of a text; `front` is not added where the text begins with it."""
    return list(ids) if list(ids[: len(front)]) == list(front) else [*front, *ids]


def tokenise(tokenizer: Any, front: Sequence[int], prompt: str, response: str) -> tuple[list[int], int]:
    """Token ids of `front` and ``prompt + response``, tokenised as one text, and the position of the response.

    The response begins with the first token that contains one of its characters. No EOS is added.
    """
    text = prompt + response
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids = list(encoding["input_ids"])
    # The first token that ends within the response. (A token of spaces may have offsets of zero width.)
    ends = [end for _, end in encoding["offset_mapping"]]
    start = next((i for i, end in enumerate(ends) if end > len(prompt)), len(ids))
    full = with_front(front, ids)
    return full, max(start + len(full) - len(ids), len(front))


class Encoder:
    """Encodes prompts and responses with one tokenizer.

    ``compat="none"``: the text is tokenised once, a token with a character of the response belongs to the response, and
    BOS occurs once, also where a chat template contains it. ``compat="reference"``: as the study's code, for parity;
    special tokens are always added, and the response starts after as many tokens as the prompt alone has.

    A sample of more than `max_length` tokens is cut: on the right with `truncation` ``flag`` or ``drop`` (the caller
    drops it), and with ``left`` at the start of its prompt, after BOS, and at the end of a response that is too long
    itself. Raises `InputError` for a tokenizer without offsets.
    """

    def __init__(self, tokenizer: Any, *, chat: bool, max_length: int, compat: str = "none", truncation: str = "flag"):
        if compat == "none":
            check_offsets(tokenizer)
        self.tokenizer, self.chat, self.max_length, self.compat = tokenizer, chat, max_length, compat
        self.truncation = truncation
        self.front = front_tokens(tokenizer)

    def encode(self, instruction: str, response: str) -> Encoded:
        """Encode one pair."""
        prompt = chat_prompt(self.tokenizer, instruction) if self.chat else base_prompt(instruction)
        if self.compat == "reference":
            ids = self.tokenizer(prompt + response, verbose=False)["input_ids"]
            start = len(self.tokenizer(prompt, verbose=False)["input_ids"])
        else:
            ids, start = tokenise(self.tokenizer, self.front, prompt, response)
        mask = [i >= start for i in range(len(ids))]
        kept = within(ids, mask, self.front, self.max_length, self.truncation)
        return Encoded(tuple(ids[i] for i in kept), tuple(mask[i] for i in kept), len(ids) > self.max_length)


def within(
    ids: Sequence[int], response: Sequence[bool], front: Sequence[int], max_length: int, truncation: str
) -> list[int]:
    """The places of a sample's tokens that stay in the window (`Encoder`).

    With `truncation` ``left`` the first tokens of the prompt after BOS go, as many as the tokens from the response's
    first on need.
    """
    places = list(range(len(ids)))
    if len(ids) > max_length and truncation == "left":
        head = 0
        # In compat `reference`, BOS occurs twice where the chat template contains it.
        while front and list(ids[head : head + len(front)]) == list(front):
            head += len(front)
        start = list(response).index(True) if True in response else len(ids)
        # Without BOS the prompt's last token stays, as the response's first token is predicted from it.
        prompt_tokens = max(max_length - head - (len(ids) - start), 0 if head else 1)
        places = places[:head] + places[max(start - prompt_tokens, head) :]
    return places[:max_length]
