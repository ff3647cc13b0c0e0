"""A finetuning run's settings, checked."""

from dataclasses import asdict, dataclass

from gradatlas.core.errors import InputError
from gradatlas.core.schemas import checked
from gradatlas.finetuning.losses import LOSSES
from gradatlas.finetuning.settings import RunSettings


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
        return self.probed or self.target not in ("chosen", "extend")

    def evaluates(self, step: int) -> bool:
        """Whether the probes are evaluated after this many steps."""
        return step in (0, self.steps) or step % self.evaluate_every == 0

    def generates(self, step: int) -> bool:
        """Whether free responses are written after this many steps."""
        return step in (0, self.steps) or bool(self.generate_every and step % self.generate_every == 0)
