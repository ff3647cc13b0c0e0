"""All choices that a gradients job's numbers depend on, checked before anything is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass

from gradatlas.core.errors import InputError, check_choice, nearest
from gradatlas.gradients.spectra import METRICS
from gradatlas.gradients.subsets import Subset, parse_subsets
from gradatlas.models.decoders import KNOWN
from gradatlas.models.loading import DEVICES, DTYPES
from gradatlas.models.tokens import COMPATS, TRUNCATIONS

PURPOSES = ("study", "pipeline check")
LOSS_NORMS = ("mean", "sum")


@dataclass(frozen=True)
class Settings:
    """What a job is asked for; the README of config/ says what each choice means.

    `seed` is that of random `loss_tokens`. `relations` are measured with all `loss_tokens` (none named: all relations
    that there are), and `controls`, VARIANT:RELATION:SUBSET, beside them. `projections` and `metrics` are brought into
    the tables' order. `shard` (i, n), i from 1: measure only the i-th of n parts, of batches planned with
    `planned_tokens` (None: with `batch_tokens`). Raises `InputError` where a choice is not known.
    """

    chat: bool
    max_length: int
    dtype: str
    compat: str
    device: str
    batch_tokens: int
    limit: int | None
    limit_seed: int | None
    trust_remote_code: bool
    purpose: str
    truncation: str = "flag"
    loss_tokens: Sequence[str] = ("all",)
    loss_norm: str = "mean"
    seed: int = 0
    projections: Sequence[str] = ("q", "k", "v", "o")
    metrics: Sequence[str] = METRICS
    tf32: bool = False
    mapping: str = ""
    relations: Sequence[str] = ()
    controls: Sequence[str] = ()
    shard: tuple[int, int] = (1, 1)
    planned_tokens: int | None = None

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
            raise InputError(f"--shard is {self.shard[0]}/{self.shard[1]}; give I/N with I from 1 to N")
        parse_subsets(self.loss_tokens)
        for text in self.controls:
            if text.count(":") < 2:
                raise InputError(f"--controls '{text}' is not known; write VARIANT:RELATION:SUBSET")
            parse_subsets([text.split(":", 2)[2]])
        object.__setattr__(self, "projections", _chosen("--projections", "projection", self.projections, KNOWN))
        object.__setattr__(self, "metrics", _chosen("--metrics", "metric", self.metrics, METRICS))

    def subsets_of(self, variant: str, relation: str) -> list[Subset]:
        """The subsets of its tokens that a response is measured with; none, where it is not asked for."""
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
