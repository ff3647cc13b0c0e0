"""Settings of a finetuning run. This module does not import torch, as a GPU is leased first."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RunSettings:
    """One run: a row of config/runs.tsv. `gradatlas.finetuning.recipe.Recipe` is the same, checked."""

    name: str
    """the run's name in the tables"""
    loss: str = "sft"
    """sft, dpo, ipo, slic, sppo, kto or simpo"""
    target: str = "chosen"
    """of sft: chosen, extend (chosen and rejected), or a type of probe"""
    split: str = "train"
    """pairs to train on: train, or base for a warm start"""
    probed: bool = False
    """train on the probed pairs alone"""
    negatives: str = "off_policy"
    """off_policy (the pairs' own) or on_policy (sampled at every step)"""
    optimiser: str = "rmsprop"
    """sgd, rmsprop or adamw"""
    learning_rate: float = 1e-4
    """after the warm-up"""
    steps: int = 100
    """updates"""
    batch_size: int = 4
    """responses (sft) or pairs of an update"""
    warm_up: int = 0
    """updates over which the learning rate rises; it stays from there"""
    clip: float = 10.0
    """largest norm of the gradient; 0: as it comes"""
    beta: float = 0.1
    """of the losses on pairs"""
    margin: float = 0.0
    """of slic (delta) and simpo (gamma)"""
    evaluate_every: int = 25
    """updates between evaluations and checkpoints; also before the first and after the last"""
    generate_every: int = 0
    """updates between free responses; 0: before the first and after the last alone"""
    parameters: str = "full"
    """full, or lora (low-rank terms of all linear layers but the output, scaled by 2, without dropout)"""
    lora_rank: int = 8
    """of lora"""
    seed: int = 0
    """of the order of examples and of samples"""


@dataclass(frozen=True)
class FinetuneSettings(RunSettings):
    """A run, what it is watched by, and how the model computes."""

    prompts: int = 0
    """prompts that are answered freely, of those trained on and held out each"""
    draws: int = 1
    """free responses to a prompt"""
    max_length: int = 512
    """window in tokens; longer examples are left out and counted"""
    max_new_tokens: int = 64
    """tokens of a sampled response at most"""
    batch_tokens: int = 4096
    """tokens of an evaluation's batch, padding included"""
    device: str = "cpu"
    """auto, cpu or cuda"""
    dtype: str = "float32"
    """precision of weights and passes"""
    trust_remote_code: bool = False
    """run model code from the checkpoint"""
    processes: int = 1
    """that share every batch, each on a GPU of its own; the bytes depend on it"""
