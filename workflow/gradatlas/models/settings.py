"""Settings of counting tokens."""

from dataclasses import dataclass


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


@dataclass(frozen=True)
class TokenSettings:
    """Settings of counting tokens."""

    models: list[Model]
    """models whose tokenizers count"""
    max_length: int
    """the window, in tokens"""
    compat: str = "none"
    """how texts are tokenised: none or reference"""
