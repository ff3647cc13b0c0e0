"""The jobs of the miniature, one per rule."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gradatlas.core.jobs import Json
from gradatlas.study.settings import Whole


@dataclass(frozen=True)
class MiniatureSettings:
    """Settings of a miniature's weights."""

    kind: Literal["base", "random", "instruct"]
    """base, random (its twin before the first step) or instruct (from a base)"""
    seed: Whole
    """of initial weights and the order of documents"""
    steps: Whole
    """training steps of 1,024 tokens; 0 for random"""


def train_miniature(
    *, output: Path, base: Path | None = None, threads: int = 1, settings: Json[MiniatureSettings]
) -> None:
    """Train one miniature model: base, random (its twin before the first step) or instruct (from a base).

    Writes config.json, model.safetensors, the tokenizer's files, training_log.csv and training.json to a folder.

    Parameters
    ----------
    output
        folder to write the model to
    base
        the base model's folder, for instruct
    threads
        CPU threads; the bytes depend on it
    """
    from gradatlas.miniature.training import train

    train(output, settings.seed, settings.steps, settings.kind, base, threads=threads)
