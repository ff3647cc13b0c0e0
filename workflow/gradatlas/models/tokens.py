"""Text to tokens, for both studies: prompt and response are read as one text, with special tokens in front once."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from gradatlas.core.errors import InputError, check_choice
from gradatlas.data.responses.prompts import base_prompt, chat_prompt

COMPATS = ("none", "reference")
TRUNCATIONS = ("flag", "drop", "left")


@dataclass(frozen=True)
class Encoded:
    """One sample as the model reads it.

    `ids`: token ids. `response`: for each token, whether it belongs to the response (its cross-entropy counts,
    given the tokens before it). `truncated`: whether the sample was longer than the window and tokens were cut off.
    """

    ids: tuple[int, ...]
    response: tuple[bool, ...]
    truncated: bool

    @property
    def response_tokens(self) -> int:
        """Number of tokens whose cross-entropy counts; the very first token has nothing to be predicted from."""
        return sum(self.response[1:])

    @property
    def prompt_tokens(self) -> int:
        """Number of tokens that do not count."""
        return len(self.ids) - self.response_tokens


def check_offsets(tokenizer: Any) -> None:
    """`InputError` for a tokenizer that does not say which characters a token stands for; `tokenise` needs that."""
    if not tokenizer.is_fast:
        raise InputError(
            f"model '{tokenizer.name_or_path}': its tokenizer gives no character offsets; "
            "add a tokenizer.json to the model"
        )


def front_tokens(tokenizer: Any) -> list[int]:
    """The special tokens (BOS) that a tokenizer puts in front of a text."""
    special = set(tokenizer.all_special_ids)
    # A small vocabulary may have no token for "a".
    for text in chain("a", (tokenizer.decode([i]) for i in range(len(tokenizer)) if i not in special)):
        if bare := tokenizer(text, add_special_tokens=False)["input_ids"]:
            full = tokenizer(text)["input_ids"]
            return next((full[:i] for i in range(len(full)) if full[i : i + len(bare)] == bare), [])
    return []


def with_front(front: Sequence[int], ids: Sequence[int]) -> list[int]:
    """Token ids of a text behind `front`, which stands once where the text has it written out."""
    return list(ids) if list(ids[: len(front)]) == list(front) else [*front, *ids]


def tokenise(tokenizer: Any, front: Sequence[int], prompt: str, response: str) -> tuple[list[int], int]:
    """Token ids of ``prompt + response``, read as one text behind `front`, and the place where the response begins.

    The response begins with the first token that holds any character of it. What the tokenizer would put behind a text
    (EOS) is not added.
    """
    text = prompt + response
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids = list(encoding["input_ids"])
    # From the first token that ends in the response on: the offsets of a token of nothing but spaces may be
    # trimmed to no width, so a token's own begin and end do not tell.
    ends = [end for _, end in encoding["offset_mapping"]]
    start = next((i for i, end in enumerate(ends) if end > len(prompt)), len(ids))
    whole = with_front(front, ids)
    return whole, max(start + len(whole) - len(ids), len(front))


class Encoder:
    """Encodes prompts and responses for one tokenizer.

    With ``compat="none"`` (the default of the house) the text is tokenised once, a token that holds any character
    of the response counts as response, and special tokens at the front (BOS) stand exactly once, whether or not a
    chat template writes them too. With ``compat="reference"`` the study's own way is followed, for parity: special
    tokens are always added, and the response starts after as many tokens as the prefix alone has.

    A sample of more than `max_length` tokens is cut: on the right with `truncation` ``flag`` or ``drop`` (the caller
    leaves the latter out), or with ``left`` at the start of its prompt, behind BOS, and only where the response alone
    does not fit, at the response's end too. Raises `InputError` for options or a tokenizer that cannot do this.
    """

    def __init__(self, tokenizer: Any, *, chat: bool, max_length: int, compat: str = "none", truncation: str = "flag"):
        check_choice("--compat", compat, COMPATS)
        check_choice("--truncation", truncation, TRUNCATIONS)
        if max_length < 2:
            raise InputError(f"--max-length is {max_length}; give at least 2 tokens")
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
        truncated = len(ids) > self.max_length
        if truncated and self.truncation == "left":
            ids, mask = self._without_start(ids, mask)
        cut = slice(0, self.max_length)
        return Encoded(tuple(ids[cut]), tuple(mask[cut]), truncated)

    def _without_start(self, ids: list[int], mask: list[bool]) -> tuple[list[int], list[bool]]:
        """The prompt's first tokens cut off behind BOS, as many as it takes for the response to fit."""
        head = 0
        # The reference has BOS twice where the chat template writes it too.
        while self.front and ids[head : head + len(self.front)] == self.front:
            head += len(self.front)
        start = mask.index(True) if True in mask else len(ids)
        # Without BOS the prompt's last token stays: the response's first one is predicted from it.
        room = max(self.max_length - head - (len(ids) - start), 0 if head else 1)
        kept = max(start - room, head)
        return ids[:head] + ids[kept:], mask[:head] + mask[kept:]
