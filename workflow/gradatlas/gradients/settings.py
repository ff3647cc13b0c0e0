"""Settings of a gradients job, checked before anything is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass

from gradatlas.core.errors import InputError, check_choice, nearest
from gradatlas.gradients.metrics import METRICS
from gradatlas.gradients.subsets import Subset, parse_subsets
from gradatlas.models.loading import DEVICES, DTYPES
from gradatlas.models.projections import KNOWN
from gradatlas.models.tokens import COMPATS, TRUNCATIONS

PURPOSES = ("study", "pipeline check")
LOSS_NORMS = ("mean", "sum")


@dataclass(frozen=True)
class Settings:
    """What decides a gradients job's numbers. Raises `InputError` where a choice is not known."""

    chat: bool = False
    """prompt through the tokenizer's chat template"""
    max_length: int = 1024
    """window in tokens"""
    dtype: str = "float32"
    """of the pass: float32, float64, bfloat16 or float16"""
    compat: str = "none"
    """'reference' tokenises as the study's own code does"""
    device: str = "auto"
    """auto, cpu or cuda"""
    batch_tokens: int = 4096
    """tokens of one batch, padding included"""
    limit: int | None = None
    """measure only this many samples"""
    limit_seed: int | None = None
    """draw them by a seeded hash instead of taking the first"""
    trust_remote_code: bool = False
    """run model code from the checkpoint"""
    purpose: str = "study"
    """'pipeline check': a model on data it was never meant for"""
    truncation: str = "flag"
    """longer samples: flag (cut on the right), drop, left (cut the prompt)"""
    loss_tokens: tuple[str, ...] = ("all",)
    """response tokens whose loss counts, each a row of its own: all, last[:K], span:A:B, random:K[:DRAWS]"""
    loss_norm: str = "mean"
    """loss of a response: mean or sum over its tokens"""
    seed: int = 0
    """of random loss_tokens"""
    projections: tuple[str, ...] = ("q", "k", "v", "o")
    """matrices to measure, of q k v o gate up down"""
    metrics: tuple[str, ...] = METRICS
    """columns to measure"""
    tf32: bool = False
    """let a GPU round float32 products to TF32"""
    mapping: str = ""
    """where the projections are, if not found: 'q=PATH k=PATH[0:64] v=PATH o=PATH'; it is not checked what they do"""
    relations: tuple[str, ...] = ()
    """responses to measure with all loss_tokens; none named: all there are"""
    controls: tuple[str, ...] = ()
    """measured beside them, VARIANT:RELATION:SUBSET of the loss"""
    shard: tuple[int, int] = (1, 1)
    """I and N: measure only the I-th of N parts, for gather-shards; alike in all but I, one --journal if any"""
    planned_tokens: int | None = None
    """tokens of a batch in the plan that shards cut; none: batch_tokens"""

    def __post_init__(self):
        check_choice("--purpose", self.purpose, PURPOSES)
        check_choice("--loss-norm", self.loss_norm, LOSS_NORMS)
        check_choice("--truncation", self.truncation, TRUNCATIONS)
        check_choice("--compat", self.compat, COMPATS)
        check_choice("--dtype", self.dtype, DTYPES)
        check_choice("--device", self.device, DEVICES)
        if self.max_length < 2:
            raise InputError(f"--max-length is {self.max_length}; give at least 2 tokens")
        if self.batch_tokens < 1:
            raise InputError(f"--batch-tokens is {self.batch_tokens}; give at least 1")
        if not 1 <= self.shard[0] <= self.shard[1]:
            raise InputError(f"--shard is {self.shard[0]} {self.shard[1]}; give I and N with I from 1 to N")
        parse_subsets(self.loss_tokens)
        for text in self.controls:
            if text.count(":") < 2:
                raise InputError(f"--controls '{text}' is not known; write VARIANT:RELATION:SUBSET")
            parse_subsets([text.split(":", 2)[2]])
        object.__setattr__(self, "projections", _chosen("--projections", "projection", self.projections, KNOWN))
        object.__setattr__(self, "metrics", _chosen("--metrics", "metric", self.metrics, METRICS))

    def subsets_of(self, variant: str, relation: str) -> list[Subset]:
        """The subsets of tokens that a response is measured with; none for a response that is not measured."""
        named = not self.relations or relation in self.relations
        beside = [text.split(":", 2)[2] for text in self.controls if text.split(":")[:2] == [variant, relation]]
        wanted = [*(self.loss_tokens if named else ()), *beside]
        return parse_subsets(wanted) if wanted else []


def _chosen(option: str, what: str, names: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    for name in names:
        if name not in known:
            raise InputError(f"{option}: unknown {what} '{name}': {nearest(name, known)}")
    if not names:
        raise InputError(f"{option} is empty; give at least one of {', '.join(known)}")
    return tuple(name for name in known if name in names)
