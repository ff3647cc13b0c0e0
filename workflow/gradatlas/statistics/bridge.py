"""The ``bridge`` table as arrays: nuclear norms of one kind of responses at one stage of a run."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from gradatlas.statistics.bootstrap import resampled_means
from gradatlas.statistics.measures import mean_absolute_difference


@dataclass(frozen=True)
class Measured:
    """`norms` (samples, projections, layers), `loss` and `tokens` (samples,), in the order of samples' ids."""

    norms: np.ndarray
    loss: np.ndarray
    tokens: np.ndarray

    @classmethod
    def of(cls, rows: pl.DataFrame, kind: str, step: int) -> "Measured":
        """Of VARIANT:RELATION in the rows of one run; none of a kind that was not measured."""
        variant, relation = kind.split(":")
        part = rows.filter(step=step, variant=variant, relation=relation).sort("sample_id", "projection", "layer")
        samples = part.unique("sample_id", keep="first", maintain_order=True)
        projections = part["projection"].n_unique()
        norms = part["nuclear_norm"].to_numpy().reshape(samples.height, projections, -1 if samples.height else 0)
        return cls(norms, samples["loss"].to_numpy(), samples["response_tokens"].to_numpy())

    def take(self, places: np.ndarray) -> "Measured":
        """Some of the samples."""
        return Measured(self.norms[places], self.loss[places], self.tokens[places])

    @property
    def covariates(self) -> np.ndarray:
        """Logarithms of loss and tokens, (samples, 2)."""
        return np.log(np.stack([np.maximum(self.loss, 1e-12), self.tokens], axis=1))

    def mads(self, draws: int, seed: int) -> np.ndarray:
        """MAD of the mean curve and of resamples, the geometric mean over projections: (1 + draws,).

        As many samples have the same resamples.
        """
        curves = resampled_means(self.norms, draws, seed, f"bridge {len(self.norms)}")
        return np.exp(np.log(mean_absolute_difference(curves)).mean(-1))
