"""Spectra of the gradients of fixed probes during training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from gradatlas.api.callback import Watching, digest_of
from gradatlas.api.live import encode, listed, measured, metrics_of, read
from gradatlas.api.tables import TRAINING_SPECTRA
from gradatlas.gradients.capture import Capture
from gradatlas.models.decoders import ATTENTION
from gradatlas.scores.tables import METRICS
from gradatlas.study.settings import METRICS as ALL
from gradatlas.study.settings import Prompting, Reading


class GradientSpectra(Watching):
    """Measures the gradients of fixed `probes` every `every` optimizer steps with the engine's own pass.

    >>> Trainer(..., callbacks=[GradientSpectra(probes, every=100)])

    `probes`: rows as of `gradatlas.measure`, and so are the arguments after `tokenizer`. `output_dir`: empty, the
    Trainer's; a second callback needs one of its own. `tokenizer`: for a Trainer without processing_class. The pass is
    in evaluation mode and in the precision of the weights, whatever the Trainer's mixed precision, accumulation and
    dropout. Logged: loss, the mean over probes, layers and projections of every metric, seconds of the call, and the
    share of all calls in the training's time so far. Table: `gradatlas.api.tables.TRAINING_SPECTRA`.
    """

    name, tables = "spectra", {"spectra": TRAINING_SPECTRA}

    def __init__(
        self,
        probes: Any,
        every: int = 100,
        output_dir: str | Path | None = None,
        *,
        tokenizer: Any = None,
        projections: str | Sequence[str] = ATTENTION,
        metrics: str | Sequence[str] = METRICS,
        prompt: str = "auto",
        turns: str = "all",
        max_length: int = 1024,
        batch_tokens: int = 4096,
        reading: Reading | Mapping[str, str] | None = None,
        mapping: str = "",
    ):
        super().__init__(every, output_dir, tokenizer)
        self.probes, self.projections, self.metrics = probes, listed(projections), metrics_of(metrics)
        self.prompting, self.reading = Prompting(prompt, turns, max_length), reading
        self.batch_tokens, self.mapping = batch_tokens, mapping

    def prepare(self, model: Any, tokenizer: Any, step: int) -> dict[str, Any]:
        """Tokens of the probes, and the projections of the model."""
        self.encoded = encode(model, tokenizer, read(self.probes, "probes", self.reading), "probes", self.prompting)
        self.capture = Capture(model, self.projections, self.mapping)
        return {"probes": digest_of(self.encoded), "projections": list(self.projections), "metrics": list(self.metrics)}

    def measure(self, model: Any, step: int) -> tuple[dict[str, pa.Table], dict[str, float]]:
        """Rows of `TRAINING_SPECTRA`, and means of loss and metrics."""
        frame = measured(self.capture, self.encoded, self.metrics, self.batch_tokens)
        losses = frame.group_by("row", "response").agg(pl.col("loss").first())["loss"]
        numbers = {"loss": losses.mean()} | {name: frame[name].drop_nans().mean() for name in self.metrics}
        others = [pl.lit(None, pl.Float64).alias(name) for name in ALL if name not in self.metrics]
        rows = frame.with_columns(pl.lit(step).alias("step"), pl.col("id").alias("sample"), *others)
        made = {"spectra": rows.select(TRAINING_SPECTRA.names).to_arrow()}
        return made, {name: number for name, number in numbers.items() if number is not None}
