"""What decides the scores of a training file."""

from dataclasses import asdict, dataclass
from typing import Annotated

from gradatlas.core.schemas import checked
from gradatlas.study.settings import LISTED, PROJECTIONS, Batching, Projection, Prompting, Reading
from gradatlas.study.sheets import Weights


@dataclass(frozen=True)
class Scoring(Prompting, Batching, Weights):
    """How rows are measured, wherever they come from. Raises `InputError` where a choice is not known."""

    projections: Annotated[tuple[Projection, ...], LISTED] = ("q", "k", "v", "o")
    """matrices to measure, as the config key of this name"""
    mapping: str = ""
    """where the projections are, if not found: 'q=PATH k=PATH[0:64] v=PATH o=PATH'; it is not checked what they do"""
    tf32: bool = False
    """let a GPU round float32 products to TF32: faster, with 10 of 23 bits"""

    def __post_init__(self):
        checked(asdict(self), type(self), "settings")
        # In one order, so that equal choices are equal settings.
        object.__setattr__(self, "projections", tuple(name for name in PROJECTIONS if name in self.projections))


@dataclass(frozen=True)
class Settings(Reading, Scoring):
    """How a training file is read, and how its rows are measured."""
