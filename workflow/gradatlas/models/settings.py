"""What decides counts of tokens."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    """A row of models.tsv, as far as its tokenizer goes."""

    name: str
    """the model's key"""
    source: str
    """its folder, or its hub id ORG/NAME"""
    revision: str
    """commit of a hub id; empty: unresolved"""
    chat: bool
    """prompts through the model's own chat template"""


@dataclass(frozen=True)
class TokenSettings:
    """What decides counts of tokens."""

    models: list[Model]
    """models whose tokenizers count"""
    max_length: int
    """the window, in tokens"""
    compat: str = "none"
    """how texts are tokenised: none or reference"""
