"""Settings of counting tokens."""

from dataclasses import dataclass

from gradatlas.study.settings import Tokenising


@dataclass(frozen=True)
class Model:
    """The columns of models.tsv that a model's tokenizer depends on."""

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
