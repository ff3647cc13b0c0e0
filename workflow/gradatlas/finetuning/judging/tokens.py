"""A model's tokenizer without its weights, for scoring."""

from collections.abc import Callable
from pathlib import Path

from gradatlas.models.loading import load_tokenizer
from gradatlas.models.snapshots import read_card


def tokens_with(model: str, trust_remote_code: bool = False) -> Callable[[str], list[int]]:
    """A function that gives a text's tokens, without special ones, by the tokenizer of `model`, a folder or a card.

    Raises `InputError` where there is no tokenizer.
    """
    path = read_card(model)["path"] if Path(model).suffix == ".json" else model
    tokenizer = load_tokenizer(path, trust_remote_code)
    return lambda text: tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
