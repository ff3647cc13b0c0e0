"""The claims of the studies: a class per sheet, with what all have in their base."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from gradatlas.core.sheets import read_sheet
from gradatlas.study.sheets import ClaimRow, DynamicsClaimRow, GradientClaimRow, QualityClaimRow

# In the column `projection`: all of them together.
OVERALL = "all"


@dataclass(frozen=True, kw_only=True)
class Claim(ClaimRow):
    """What claims of all studies have."""

    study: ClassVar[str]
    # Follows "published" in a statement, where the published number is of another model than the row.
    published_of: ClassVar[str] = ""

    def claimed(self, value: float) -> bool:
        """Whether a number lies where it is claimed to lie."""
        if self.direction == "within":
            return abs(value - self.threshold) < self.margin
        return value > self.threshold if self.direction == "above" else value < self.threshold

    @property
    def bounds(self) -> tuple[float, ...]:
        """The numbers between what is claimed and what is not."""
        if self.direction == "within":
            return self.threshold - self.margin, self.threshold + self.margin
        return (self.threshold,)

    def published_number(self, row: Mapping[str, Any]) -> str | None:
        """The number that the study has published for a row of evidence, as it is printed."""
        return dict(entry.split("=") for entry in self.published).get(self._published_key(row))

    @property
    def over_seeds(self) -> bool:
        """Whether a verdict needs several trainings of one model, of different seeds."""
        return False

    @property
    def ability_of(self) -> str:
        """Whose ability to do the task a verdict needs: column `ability` of the first study's sheet."""
        return "free"

    def place(self, row: Mapping[str, Any]) -> str:
        """Where on its curves a row of evidence is measured, as a statement ends with it."""
        return ""

    def _published_key(self, row: Mapping[str, Any]) -> str:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class GradientClaim(GradientClaimRow, Claim):
    """A row of config/claims.tsv."""

    study: ClassVar[str] = "layer_gradients"

    @property
    def ability_of(self) -> str:
        return self.ability

    def _published_key(self, row: Mapping[str, Any]) -> str:
        return f"{row['model']}/{row['dataset']}" if row["projection"] == OVERALL else ""


@dataclass(frozen=True, kw_only=True)
class DynamicsClaim(DynamicsClaimRow, Claim):
    """A row of config/claims_dynamics.tsv."""

    study: ClassVar[str] = "learning_dynamics"
    published_of: ClassVar[str] = " (at the study's scale, on HH)"

    @property
    def over_seeds(self) -> bool:
        return self.rests == "seeds"

    @property
    def ability_of(self) -> str:
        return self.ability

    def place(self, row: Mapping[str, Any]) -> str:
        at = row["relation"].partition("@")[2]
        if at.startswith("margin_"):
            return f", where the margin has grown by {at.removeprefix('margin_')} nats"
        return {"peak": ", at its peak", "equal_examples": ", at equal examples"}.get(at, "")

    def _published_key(self, row: Mapping[str, Any]) -> str:
        # Published numbers are of the last evaluation.
        return row["relation"].removesuffix("@end").removesuffix("@equal_examples")


@dataclass(frozen=True, kw_only=True)
class QualityClaim(QualityClaimRow, Claim):
    """A row of config/claims_quality.tsv."""

    study: ClassVar[str] = "data_quality"

    def published_number(self, row: Mapping[str, Any]) -> str | None:
        return None


Kind = TypeVar("Kind", bound=Claim)


def read_claims(kind: type[Kind], sheet: str | Path) -> list[Kind]:
    """The claims of a sheet; `InputError` names the line and column of what is wrong in it."""
    return [kind(**row) for row in read_sheet(Path(sheet), kind, "claim").values()]
