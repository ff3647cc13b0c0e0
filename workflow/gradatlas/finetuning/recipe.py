"""A finetuning run's settings, checked."""

from dataclasses import asdict, dataclass
from functools import cached_property

from gradatlas.core.errors import InputError
from gradatlas.core.schemas import checked
from gradatlas.finetuning.losses import LOSSES
from gradatlas.finetuning.settings import RunSettings
from gradatlas.study.runs import due, on_probes


@dataclass(frozen=True)
class Recipe(RunSettings):
    """A run's settings; `InputError` for an unknown value, or values that contradict each other."""

    def __post_init__(self):
        checked(asdict(self), RunSettings, f"run '{self.name}'")
        loss = LOSSES[self.loss]
        if loss.mismatched and self.batch_size < 2:
            raise InputError(
                f"run '{self.name}': batch_size is {self.batch_size}; give at least 2 for loss {self.loss}"
            )
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
        for option in ("label_smoothing", "reference_free"):
            if getattr(self, option) and not loss.optional:
                having = " and ".join(name for name, each in LOSSES.items() if each.optional)
                raise InputError(f"run '{self.name}': {option} is of the losses {having}; leave it out for {self.loss}")

    @property
    def needs_reference(self) -> bool:
        """Whether the loss compares with a reference model."""
        return LOSSES[self.loss].reference and not self.reference_free

    @property
    def keeps_reference(self) -> bool:
        """Whether the reference model is needed in every step, and not for the responses of the data alone."""
        return self.needs_reference and (LOSSES[self.loss].mismatched or self.negatives != "off_policy")

    @property
    def on_probes(self) -> bool:
        """Whether the run trains on the probed pairs only."""
        return on_probes(self.probed, self.target)

    def evaluates(self, step: int) -> bool:
        """Whether the probes are evaluated after this many steps."""
        return step in self._evaluated

    def generates(self, step: int) -> bool:
        """Whether free responses are written after this many steps."""
        return step in self._generated

    @cached_property
    def _evaluated(self) -> frozenset[int]:
        return frozenset(due(self.steps, self.evaluate_every))

    @cached_property
    def _generated(self) -> frozenset[int]:
        return frozenset(due(self.steps, self.generate_every))
