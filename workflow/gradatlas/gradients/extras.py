"""Optional tables of a gradients job: all singular values, cosines, tokens."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradatlas.core.digest import code_digest
from gradatlas.core.errors import InputError
from gradatlas.gradients.capture import Pass
from gradatlas.gradients.cosines import cosines
from gradatlas.gradients.plan import Row

NAMES = ("singular_values", "cosines", "tokens")


@dataclass(frozen=True)
class Extras:
    """The paths of the optional tables, None for a table that is not requested.

    `tokens` holds the samples with ids `tokens_of`, or the first `tokens_first` samples. Raises `InputError` where the
    path or the choice of samples is missing.
    """

    singular_values: str | None = None
    cosines: str | None = None
    tokens: str | None = None
    tokens_of: Sequence[str] = ()
    tokens_first: int | None = None

    def __post_init__(self):
        chosen = bool(self.tokens_of) + (self.tokens_first is not None)
        if self.tokens and chosen != 1:
            raise InputError("--tokens: which samples? give one of --tokens-of ID and --tokens-first N")
        if chosen and not self.tokens:
            raise InputError("--tokens-of and --tokens-first choose samples for --tokens; give --tokens OUT too")
        if self.tokens_first is not None and self.tokens_first < 0:
            raise InputError(f"--tokens-first is {self.tokens_first}; give 0 or more")

    @property
    def paths(self) -> dict[str, str]:
        """The requested tables' paths, by name."""
        return {name: path for name in NAMES if (path := getattr(self, name))}

    def chosen(self, rows: Sequence[Row]) -> set[str]:
        """The ids of the samples in the ``tokens`` table; `InputError` for one that is not measured."""
        ids = list(dict.fromkeys(row.sample_id for row in rows))
        if self.tokens_first is not None:
            return set(ids[: self.tokens_first])
        for name in self.tokens_of:
            if name not in ids:
                raise InputError(
                    f"--tokens-of: no sample '{name}' among the {len(ids)} measured ({', '.join(ids[:3])}, ...); "
                    "correct the id, or measure more samples"
                )
        return set(self.tokens_of)


def code_of(name: str) -> str:
    """A digest of the code that an extra's numbers depend on, beside the engine's own."""
    return code_digest(f"{__name__}:{MEASURES[name].__name__}")


def measure_extras(done: Pass, sigma: Sequence[Sequence[Tensor]], wanted: Collection[str]) -> dict[str, list[float]]:
    """The numbers of one sample's `wanted` tables, flat, as in the journal.

    `sigma`: the singular values, by layer and projection.
    """
    return {name: values for extra in NAMES if extra in wanted for name, values in MEASURES[extra](done, sigma).items()}


def _singular_values(done: Pass, sigma: Sequence[Sequence[Tensor]]) -> dict[str, list[float]]:
    """Every gradient's singular values, one after the other."""
    return {"singular_values": torch.cat([values for layer in sigma for values in layer]).tolist()}


def _cosines(done: Pass, sigma: Sequence[Sequence[Tensor]]) -> dict[str, list[float]]:
    """Cosines by pair, then layer (`pairs_of`)."""
    return {"cosines": [value for values in cosines(done.factors).values() for value in values]}


def _tokens(done: Pass, sigma: Sequence[Sequence[Tensor]]) -> dict[str, list[float]]:
    """(layers, projections, tokens) of |x_t| |d_t|, NaN where a layer has no such projection; each token's loss."""
    terms = [_lengths(part.x) * _lengths(part.d) for part in done.factors.values()]
    return {"tokens": torch.stack(terms, 1).flatten().tolist(), "token_losses": done.token_losses.tolist()}


def _lengths(rows: Tensor | Sequence[Tensor | None]) -> Tensor:
    """(layers, tokens), float64 on the CPU; NaN in a layer without the projection."""
    if isinstance(rows, Tensor):
        return rows.double().norm(dim=-1).cpu()
    tokens = next(len(each) for each in rows if each is not None)
    none = torch.full((tokens,), torch.nan, dtype=torch.float64)
    return torch.stack([none if each is None else each.double().norm(dim=-1).cpu() for each in rows])


MEASURES = {"singular_values": _singular_values, "cosines": _cosines, "tokens": _tokens}
