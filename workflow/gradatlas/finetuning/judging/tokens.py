"""A model's tokenizer without its weights, for scoring."""

import os
from collections.abc import Callable
from pathlib import Path

from transformers import AutoTokenizer

from gradatlas.core.errors import InputError
from gradatlas.models.snapshots import read_card


def tokens_with(model: str, trust_remote_code: bool = False) -> Callable[[str], list[int]]:
    """A function that gives a text's tokens, without special ones, by the tokenizer of `model`, a folder or a card.

    Raises `InputError` where there is no tokenizer.
    """
    path = read_card(model)["path"] if Path(model).suffix == ".json" else model
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        cause = " ".join(str(error).split())[:240]
        raise InputError(f"{path}: no tokenizer could be loaded ({cause}); give a model's folder or card") from None
    return lambda text: tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
