"""Settings of a gradients job, checked before anything is loaded."""

from dataclasses import asdict, dataclass
from typing import Literal

from gradatlas.core.errors import InputError
from gradatlas.core.schemas import checked
from gradatlas.gradients.subsets import Subset, parse_subsets
from gradatlas.study.settings import METRICS, PROJECTIONS, Batching, Count, Measuring, Whole
from gradatlas.study.sheets import Weights


@dataclass(frozen=True)
class Samples:
    """Which samples are taken, and what for."""

    limit: Count | None = None
    """only this many samples; none: all"""
    limit_seed: int | None = None
    """draw them by a seeded hash instead of taking the first"""
    purpose: Literal["study", "pipeline check"] = "study"
    """`pipeline check`: a model on data it was never meant for"""


@dataclass(frozen=True)
class Settings(Measuring, Batching, Weights, Samples):
    """What decides a gradients job's numbers. Raises `InputError` where a choice is not known."""

    chat: bool = False
    """prompt through the tokenizer's chat template"""
    seed: int = 0
    """of random loss_tokens"""
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
    compared: Whole = 4
    """where dtype has 16 bits: samples, the shortest ones, that are measured in float32 too, for the error of the
    nuclear norm in the tables' metadata; 0: none"""

    def __post_init__(self):
        checked(asdict(self), Settings, "settings")
        if not 1 <= self.shard[0] <= self.shard[1]:
            raise InputError(f"--shard is {self.shard[0]} {self.shard[1]}; give I and N with I from 1 to N")
        parse_subsets(self.loss_tokens)
        for text in self.controls:
            if text.count(":") < 2:
                raise InputError(f"--controls '{text}' is not known; write VARIANT:RELATION:SUBSET")
            parse_subsets([text.split(":", 2)[2]])
        # In one order, so that equal choices are equal settings.
        object.__setattr__(self, "projections", tuple(name for name in PROJECTIONS if name in self.projections))
        named = METRICS if "all" in self.metrics else self.metrics
        object.__setattr__(self, "metrics", tuple(name for name in METRICS if name in named))

    def subsets_of(self, variant: str, relation: str) -> list[Subset]:
        """The subsets of tokens that a response is measured with; none for a response that is not measured."""
        named = not self.relations or relation in self.relations
        beside = [text.split(":", 2)[2] for text in self.controls if text.split(":")[:2] == [variant, relation]]
        wanted = [*(self.loss_tokens if named else ()), *beside]
        return parse_subsets(wanted) if wanted else []
