"""Passes over a model that somebody else is using: it is measured, and left as it was."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from gradatlas.core.command import progress
from gradatlas.core.errors import InputError
from gradatlas.core.schemas import checked, picked
from gradatlas.data.training.read import rows_of
from gradatlas.data.training.rows import TrainingRow
from gradatlas.gradients.capture import Capture
from gradatlas.gradients.measure import out_of_memory
from gradatlas.gradients.plan import plan_batches
from gradatlas.gradients.solvers import solver_of
from gradatlas.gradients.spectra import start
from gradatlas.models.conversations import ConversationEncoder, EncodedRow
from gradatlas.models.forward import evaluating, length_regime
from gradatlas.models.loading import check_ids
from gradatlas.models.tokens import Encoded
from gradatlas.study.settings import METRICS, Prompting, Reading

#: Of what is measured; metrics follow.
COLUMNS = {
    "row": pl.Int64,
    "response": pl.String,
    "id": pl.String,
    "group": pl.String,
    "status": pl.String,
    "reason": pl.String,
    "prompt_tokens": pl.Int32,
    "response_tokens": pl.Int32,
    "truncated": pl.Boolean,
    "loss": pl.Float64,
    "layer": pl.Int16,
    "projection": pl.String,
}

_REASONS = {"nonfinite": "its loss or a gradient is not finite", "out_of_memory": "it does not fit into memory"}


@contextmanager
def borrowed(model: Any) -> Iterator[None]:
    """`model` in evaluation mode and without autocast: passes are in the precision of its weights.

    Afterwards, also after an error, modes, `requires_grad`, `forward` and the states of random generators are those of
    before. Raises `InputError` for what is no model in memory, and for a model whose parameters are not whole.
    """
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"model: {_short(model)} is no model in memory; give a PreTrainedModel")
    check_whole(model)
    device = model.device
    # Under mixed precision, accelerate puts autocast around the forward pass and keeps the original here.
    original, wrapped = vars(model).get("_original_forward"), vars(model).get("forward")
    devices = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices),
        torch.autocast(device.type, enabled=False),
        torch.inference_mode(False),
        evaluating(model),
    ):
        try:
            if original is not None:
                model.forward = original
            yield
        finally:
            if original is not None:
                model.forward = wrapped


def check_whole(model: Any) -> None:
    """`InputError` for a model whose parameters are divided among processes (FSDP, DeepSpeed ZeRO-3)."""
    for name, parameter in model.named_parameters():
        placements = getattr(parameter, "placements", ())
        split = any(not placement.is_replicate() for placement in placements)
        if split or getattr(parameter, "_is_flat_param", False) or hasattr(parameter, "ds_shape"):
            raise InputError(
                f"parameter {name} is divided among processes (FSDP or DeepSpeed ZeRO-3); train with DDP or ZeRO stage "
                "1 or 2, where each process has whole parameters, or measure saved checkpoints with 'gradatlas score'"
            )


def read(rows: Any, where: str, reading: Reading | Mapping[str, str] | None = None) -> list[TrainingRow]:
    """Every response of rows in memory, as `records` takes them; `where`: what messages call them."""
    given = picked(vars(reading), Reading) if isinstance(reading, Reading) else {} if reading is None else reading
    return list(rows_of(records(rows, where), Reading(**checked(given, Reading, "reading")), where))


def records(rows: Any, where: str) -> Iterator[Mapping[str, Any]]:
    """Rows as dicts, of a list or `datasets.Dataset` of dicts, a polars or a pandas frame."""
    known = "give a list of dicts, a datasets.Dataset, or a polars or pandas frame"
    if hasattr(rows, "iterrows"):
        # A missing value of pandas is NaN, also among texts.
        rows = pl.from_pandas(rows)
    rows = rows.iter_rows(named=True) if hasattr(rows, "iter_rows") else rows
    if isinstance(rows, str | Mapping) or not isinstance(rows, Iterable):
        raise InputError(f"{where}: {known}")
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise InputError(f"{where}: row {number} is {_short(row)}, no dict; {known}")
        yield row


def check_tokenizer(tokenizer: Any) -> None:
    """`InputError` for what is no tokenizer."""
    if not callable(tokenizer):
        raise InputError(f"tokenizer: {_short(tokenizer)} is none; give tokenizer=AutoTokenizer.from_pretrained(...)")


def listed(names: str | Sequence[str]) -> tuple[str, ...]:
    """Names as a tuple; a single text is one name."""
    return (names,) if isinstance(names, str) else tuple(names)


def _short(value: Any) -> str:
    return f"{value!r:.50}"


def encode(
    model: Any, tokenizer: Any, rows: Iterable[TrainingRow], where: str, prompting: Prompting
) -> list[tuple[TrainingRow, EncodedRow]]:
    """Every response, and what the model reads of it, in a window of at most the model's positions.

    Raises `InputError` where no response can be measured, for a token that the model has no embedding for, and for a
    choice of `prompting` that is not known.
    """
    check_tokenizer(tokenizer)
    checked(asdict(prompting), Prompting, "settings")
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 0
    window = min(prompting.max_length, positions) if positions > 0 else prompting.max_length
    encoder = ConversationEncoder(tokenizer, prompting, max_length=window)
    found = []
    for row in rows:
        encoded = encoder.encode(row) if row.status == "ok" else EncodedRow(None, row.status, row.reason, ())
        if encoded.status == "ok":
            check_ids(encoded.sample.ids, model, tokenizer, f"{where}: row {row.number}")
        else:
            progress(f"{where}: row {row.number} is not measured: {encoded.status}, {encoded.reason}")
        found.append((row, encoded))
    if all(encoded.status != "ok" for _, encoded in found):
        raise InputError(f"{where}: none of {len(found)} responses can be measured; the lines above give the reasons")
    return found


def measured(
    capture: Capture, rows: Sequence[tuple[TrainingRow, EncodedRow]], metrics: Sequence[str], batch_tokens: int
) -> pl.DataFrame:
    """One row per response, layer and projection: `COLUMNS` and the `metrics`.

    A response that cannot be measured has one row, without layer. A layer without the projection has none.
    """
    samples = {str(at): encoded.sample for at, (_, encoded) in enumerate(rows) if encoded.status == "ok"}
    done: dict[str, tuple[str, float | None, Tensor | None]] = {}
    with capture:
        for keys in plan_batches(samples, batch_tokens, length_regime(capture.model.config)):
            done |= _passes(capture, {key: samples[key] for key in keys}, metrics)
    kinds = COLUMNS | dict.fromkeys(metrics, pl.Float64)
    frames = []
    for at, (row, encoded) in enumerate(rows):
        status, loss, values = done.get(str(at), (encoded.status, None, None))
        sample = encoded.sample
        about = {"row": row.number, "response": row.response, "id": row.id, "group": row.group, "status": status}
        about |= {"reason": encoded.reason or _REASONS.get(status), "loss": loss}
        if sample is not None:
            about |= {"prompt_tokens": sample.prompt_tokens, "response_tokens": sample.response_tokens}
            about |= {"truncated": sample.truncated}
        if values is None:
            frames.append(pl.DataFrame([about], kinds))
            continue
        layers, projections = len(capture.layers), capture.projections
        table = {"layer": np.repeat(np.arange(layers), len(projections)), "projection": [*projections] * layers}
        table |= {name: values[..., place].flatten().numpy() for place, name in enumerate(metrics)}
        present = [name in layer for layer in capture.layers for name in capture.projections]
        frame = pl.DataFrame(table).filter(present)
        same = [pl.lit(about[name], kind).alias(name) for name, kind in kinds.items() if name not in table]
        # The sigma ratio of a zero gradient is NaN.
        frames.append(frame.with_columns(same).select(*kinds).cast(kinds).fill_nan(None))
    return pl.concat(frames)


def _passes(
    capture: Capture, batch: Mapping[str, Encoded], metrics: Sequence[str]
) -> dict[str, tuple[str, float | None, Tensor | None]]:
    """By key, status, loss and (layers, projections, metrics); halves of a batch that does not fit into memory."""
    try:
        found = {}
        passes = capture.run(list(batch.values()))
        factors = [done.factors for done in passes]
        spectra = start(factors, metrics, with_values=False, solve=solver_of(capture.model))()
        for key, done, spectrum in zip(batch, passes, spectra, strict=True):
            finite = bool(np.isfinite(done.loss)) and spectrum.finite
            found[key] = ("ok" if finite else "nonfinite", done.loss, spectrum.metrics if finite else None)
        return found
    except Exception as error:
        if not out_of_memory(error):
            raise
        if len(batch) == 1:
            return dict.fromkeys(batch, ("out_of_memory", None, None))
    # Outside of the handler, so that the failed pass's tensors are freed first.
    keys = list(batch)
    halves = keys[: len(keys) // 2], keys[len(keys) // 2 :]
    first, second = (_passes(capture, {key: batch[key] for key in half}, metrics) for half in halves)
    return first | second


def metrics_of(names: str | Sequence[str]) -> tuple[str, ...]:
    """The metrics that `names` choose, ``all`` of them or some, in one order; `InputError` for an unknown one."""
    names = listed(names)
    if unknown := [name for name in names if name not in (*METRICS, "all")]:
        raise InputError(f"unknown metric '{unknown[0]}'; known: all, {', '.join(METRICS)}")
    return METRICS if "all" in names else tuple(name for name in METRICS if name in names)
