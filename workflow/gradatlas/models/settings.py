"""What decides counts of tokens."""

from dataclasses import dataclass

from gradatlas.study.settings import Tokenising


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


@dataclass(frozen=True, kw_only=True)
class TokenSettings(Tokenising):
    """What decides counts of tokens."""

    models: list[Model]
    """models whose tokenizers count"""
