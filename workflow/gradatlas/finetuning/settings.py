"""Settings of a finetuning run. This module does not import torch, as a GPU is leased first."""

from dataclasses import dataclass, field
from typing import Literal

from gradatlas.models.writers import WriterSettings
from gradatlas.study.settings import Sampling
from gradatlas.study.sheets import Loading, Training


@dataclass(frozen=True, kw_only=True)
class RunSettings(Training):
    """One run: a row of config/runs.tsv. `gradatlas.finetuning.recipe.Recipe` is the same, checked."""

    name: str
    """the run's name in the tables"""
    seed: int = 0
    """of the order of examples and of samples"""


@dataclass(frozen=True, kw_only=True)
class GenerateSettings(Sampling, Loading):
    """Which free responses are made."""

    seed: int = 0
    """of the random numbers"""
    prompts: int = 0
    """prompts that are answered freely, of those trained on and held out each"""
    draws: int = 1
    """free responses to a prompt"""


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(RunSettings, GenerateSettings):
    """A run, what it is watched by, and how the model computes."""

    judge: Literal["", "oracle", "endpoint", "reward"] = ""
    """who ranks on-policy samples: oracle (of the miniature's grammar), endpoint or reward"""
    judge_model: WriterSettings = field(default_factory=WriterSettings)
    """the endpoint's model; of a reward model name, device, dtype and trust_remote_code"""
    snapshots: tuple[int, ...] = ()
    """steps, of evaluations, after which the model is kept"""
    processes: int = 1
    """that share every batch, each on a GPU of its own; the bytes depend on it"""
