"""A finetuning run's settings, checked."""

import math
from dataclasses import dataclass

from gradatlas.core.errors import InputError, nearest
from gradatlas.data.pairs import SPLITS
from gradatlas.finetuning.losses import loss_named
from gradatlas.finetuning.probes import TYPES
from gradatlas.finetuning.settings import RunSettings

OPTIMISERS = ("sgd", "rmsprop", "adamw")
PARAMETERS = ("full", "lora")
NEGATIVES = ("off_policy", "on_policy")
#: Targets of sft: the chosen responses, both responses (the paper's "extend"), or probes of a type. Losses on pairs
#: always use ``chosen`` and ``rejected``.
TARGETS = ("chosen", "extend", *(name for name in TYPES if name != "chosen"))


@dataclass(frozen=True)
class Recipe(RunSettings):
    """A run's settings; `InputError` for an unknown value, or values that contradict each other."""

    def __post_init__(self):
        loss = loss_named(self.loss)
        choices = (("target", TARGETS), ("split", SPLITS), ("negatives", NEGATIVES), ("optimiser", OPTIMISERS))
        choices += (("parameters", PARAMETERS),)
        for key, known in choices:
            if getattr(self, key) not in known:
                raise InputError(f"run '{self.name}': {key} '{getattr(self, key)}' is not known: "
                                 f"{nearest(getattr(self, key), known)}")  # fmt: skip
        for key, least in (
            ("steps", 1),
            ("batch_size", 2 if loss.mismatched else 1),
            ("evaluate_every", 1),
            ("lora_rank", 1),
            ("generate_every", 0),
            ("warm_up", 0),
        ):
            if getattr(self, key) < least:
                raise InputError(f"run '{self.name}': {key} is {getattr(self, key)}; give at least {least}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0 and self.beta > 0 and self.clip >= 0):
            raise InputError(f"run '{self.name}': give learning_rate and beta above 0, and clip of at least 0")
        if loss.paired and self.target != "chosen":
            raise InputError(
                f"run '{self.name}': loss {self.loss} takes chosen and rejected responses, but target is "
                f"'{self.target}'; set target to chosen, or loss to sft"
            )
        if loss.paired and self.split == "base":
            raise InputError(
                f"run '{self.name}': loss {self.loss} needs rejected responses, split base has none; set split to train"
            )
        if not loss.paired and self.negatives != "off_policy":
            raise InputError(f"run '{self.name}': loss {self.loss} has no negatives; set negatives to off_policy")

    @property
    def on_probes(self) -> bool:
        """Whether the run trains on the probed pairs only."""
        return self.probed or self.target not in ("chosen", "extend")

    def evaluates(self, step: int) -> bool:
        """Whether the probes are evaluated after this many steps."""
        return step in (0, self.steps) or step % self.evaluate_every == 0

    def generates(self, step: int) -> bool:
        """Whether free responses are written after this many steps."""
        return step in (0, self.steps) or bool(self.generate_every and step % self.generate_every == 0)
