"""Token ids and response mask of one prompt and response."""

from dataclasses import dataclass
from typing import Any

from workflow.lib.errors import InputError
from workflow.lib.responses.prompts import base_prompt, chat_prompt

COMPATS = ("none", "reference")


@dataclass(frozen=True)
class Encoded:
    """One sample as the model reads it.

    `ids`: token ids. `response`: for each token, whether it belongs to the response (its cross-entropy counts,
    given the tokens before it). `truncated`: whether tokens beyond the window were cut off on the right.
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


class Encoder:
    """Encodes prompts and responses for one tokenizer.

    With ``compat="none"`` (the default of the house) the text is tokenised once, a token that holds any character
    of the response counts as response, and special tokens at the front (BOS) stand exactly once, whether or not a
    chat template writes them too. With ``compat="reference"`` the study's own way is followed, for parity: special
    tokens are always added, and the response starts after as many tokens as the prefix alone has.
    """

    def __init__(self, tokenizer: Any, *, chat: bool, max_length: int, compat: str = "none"):
        if compat not in COMPATS:
            raise InputError(f"--compat '{compat}' is not known; choose one of {', '.join(COMPATS)}")
        if max_length < 2:
            raise InputError(f"max_length is {max_length}; it must be at least 2 tokens")
        if compat == "none" and not tokenizer.is_fast:
            raise InputError(
                f"model '{tokenizer.name_or_path}': its tokenizer gives no character offsets; "
                "add a tokenizer.json to the model"
            )
        self.tokenizer, self.chat, self.max_length, self.compat = tokenizer, chat, max_length, compat
        bare = tokenizer("a", add_special_tokens=False)["input_ids"]
        full = tokenizer("a")["input_ids"]
        starts = [i for i in range(len(full)) if full[i : i + len(bare)] == bare]
        self.front = full[: starts[0]] if starts else []

    def encode(self, instruction: str, response: str) -> Encoded:
        """Encode one pair."""
        prompt = chat_prompt(self.tokenizer, instruction) if self.chat else base_prompt(instruction)
        text = prompt + response
        if self.compat == "reference":
            ids = self.tokenizer(text, verbose=False)["input_ids"]
            start = len(self.tokenizer(prompt, verbose=False)["input_ids"])
            mask = [i >= start for i in range(len(ids))]
        else:
            encoding = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            ids = list(encoding["input_ids"])
            mask = [end > len(prompt) and end > begin for begin, end in encoding["offset_mapping"]]
            if self.front and ids[: len(self.front)] != self.front:
                ids, mask = self.front + ids, [False] * len(self.front) + mask
        cut = slice(0, self.max_length)
        return Encoded(tuple(ids[cut]), tuple(mask[cut]), len(ids) > self.max_length)
