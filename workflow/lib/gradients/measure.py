"""One gradients job: every row of a responses file through one model, resumable, into two tables."""

import json
import platform
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import transformers

from workflow.lib.command import progress
from workflow.lib.digest import module_digest
from workflow.lib.errors import InputError
from workflow.lib.files import write_text
from workflow.lib.gradients.capture import PROJECTIONS, Capture
from workflow.lib.gradients.journal import Journal, Record
from workflow.lib.gradients.plan import Row, key_of, limit_rows, plan_batches, read_rows
from workflow.lib.gradients.spectra import METRICS, spectra
from workflow.lib.gradients.tokens import Encoded, Encoder
from workflow.lib.models.loading import choose_device, load, locate
from workflow.lib.tables import write_table

PURPOSES = ("study", "pipeline check")

# Seconds between two lines of progress.
_PROGRESS = 5.0


@dataclass(frozen=True)
class Settings:
    """All choices that a job's numbers depend on."""

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
    mapping: str = ""


def measure(
    model: str,
    responses: str,
    samples_path: str,
    spectra_path: str,
    settings: Settings,
    *,
    revision: str = "",
    model_name: str = "",
    journal: str | None = None,
    run_path: str | None = None,
) -> None:
    """Measure all rows of `responses` on `model`; write the samples and spectra tables, whole or not at all.

    `model`: a folder, a card or a hub id; `responses`: a responses table or a JSON list. `journal`: a folder that
    keeps finished batches through kills and edits. `run_path`: a JSON file for time, host, device and versions.
    """
    if settings.purpose not in PURPOSES:
        raise InputError(f"--purpose '{settings.purpose}' is not known; choose one of {', '.join(PURPOSES)}")
    if settings.batch_tokens < 1:
        raise InputError(f"--batch-tokens is {settings.batch_tokens}; give at least 1")
    if Path(samples_path).resolve() == Path(spectra_path).resolve():
        raise InputError(f"--samples and --spectra are both {samples_path}; give two files")
    started = time.time()
    rows = limit_rows(read_rows(responses), settings.limit, settings.limit_seed)
    where = locate(model, revision)
    device = choose_device(settings.device)
    network, tokenizer = load(
        where.path, dtype=settings.dtype, device=device, trust_remote_code=settings.trust_remote_code
    )
    window = min(settings.max_length, getattr(network.config, "max_position_embeddings", settings.max_length))
    if window < settings.max_length:
        progress(
            f"max_length is {settings.max_length}, but the model has {window} positions: the window is {window} tokens"
        )
    encoder = Encoder(tokenizer, chat=settings.chat, max_length=window, compat=settings.compat)
    encoded = [encoder.encode(row.instruction, row.response) for row in rows]
    context = {
        "model": where.digest,
        "dtype": settings.dtype,
        "metrics": METRICS,
        "projections": PROJECTIONS,
        # Token ids and masks are in the key themselves: no more code than this decides the numbers.
        "engine": module_digest(
            *(f"workflow.lib.gradients.{name}" for name in ("capture", "decoders", "forward", "probe", "spectra"))
        ),
        "mapping": settings.mapping,
        "torch": ".".join(torch.__version__.split(".")[:2]),
        "transformers": ".".join(transformers.__version__.split(".")[:2]),
        "device": device,
        "attention": network.config._attn_implementation,
    }
    keys = [key_of(sample, context) for sample in encoded]
    capture = Capture(network, mapping=settings.mapping)
    job = _Job(capture, dict(zip(keys, encoded, strict=True)), _names(keys, rows), settings.batch_tokens)
    records = job.run(Journal(journal) if journal else None)
    name = model_name or Path(where.path).resolve().name
    # The size of a batch is no fact of the numbers; a retry halves it.
    facts = {
        **{name: value for name, value in asdict(settings).items() if name != "batch_tokens"},
        "window": window,
        **context,
        "model": name,
        "model_digest": where.digest,
        "revision": where.revision,
        "rows": len(rows),
        "matrix_shapes": job.shapes(),
    }
    _write(rows, encoded, [records[key] for key in keys], name, facts, samples_path, spectra_path)
    statuses = Counter(records[key].status for key in keys)
    progress(
        f"{len(rows)} rows ({', '.join(f'{count} {status}' for status, count in sorted(statuses.items()))}): "
        f"{job.computed} computed, {job.recalled} from the journal, in {time.time() - started:.1f} s"
    )
    if run_path:
        write_text(run_path, json.dumps(_run_facts(started, device, job), indent=2, sort_keys=True) + "\n")


def _names(keys: Sequence[str], rows: Sequence[Row]) -> dict[str, str]:
    return {
        key: f"{row.dataset} {row.sample_id} {row.variant} {row.relation}" for key, row in zip(keys, rows, strict=True)
    }


class _Job:
    """The distinct samples of a job; equal token ids and masks are computed once."""

    def __init__(self, capture: Capture, samples: Mapping[str, Encoded], names: Mapping[str, str], batch_tokens: int):
        self.capture, self.samples, self.names = capture, samples, names
        self.batch_tokens = batch_tokens
        self.batches = plan_batches(
            {key: sample for key, sample in samples.items() if sample.response_tokens}, batch_tokens
        )
        self.computed = self.recalled = 0

    def run(self, journal: Journal | None) -> dict[str, Record]:
        """The record of every key; finished batches are committed to the journal one by one."""
        empty = Record(None, "no_response_tokens", ())
        records = {key: empty for key, sample in self.samples.items() if not sample.response_tokens}
        known = journal.read() if journal else {}
        recalled = {key: known[key] for key in self.samples if key in known}
        self.recalled = len(recalled)
        records |= recalled
        todo = [left for batch in self.batches if (left := [key for key in batch if key not in recalled])]
        meter = _Meter(sum(map(len, todo)), self.recalled)
        for batch in todo:
            fresh = self._compute(batch)
            # What did not fit here may fit elsewhere: it is not a result to remember.
            kept = [key for key in batch if fresh[key].status != "out_of_memory"]
            if journal and kept:
                journal.commit(kept, [fresh[key] for key in kept])
            records |= fresh
            self.computed += len(batch)
            meter.advance(len(batch), sum(len(self.samples[key].ids) for key in batch))
        if journal:
            journal.close()
            journal.prune(self.samples)
        return records

    def _compute(self, keys: Sequence[str]) -> dict[str, Record]:
        try:
            passes = self.capture.run([self.samples[key] for key in keys])
            return {key: _record(done.loss, done.factors) for key, done in zip(keys, passes, strict=True)}
        except Exception as error:
            if not _out_of_memory(error):
                raise RuntimeError(f"failed on one of: {'; '.join(self.names[key] for key in keys)}") from error
        # Outside the handler, so that the failed pass's tensors are freed before the next attempt.
        if len(keys) == 1:
            progress(f"out of memory on {self.names[keys[0]]} ({len(self.samples[keys[0]].ids)} tokens) alone")
            return {keys[0]: Record(None, "out_of_memory", ())}
        half = len(keys) // 2
        progress(f"out of memory on a batch of {len(keys)}; going on with halves of {half}")
        return self._compute(keys[:half]) | self._compute(keys[half:])

    def shapes(self) -> dict[str, list[list[int]]]:
        """By projection, the (rows, columns) of each layer's matrix."""
        return {name: [list(parts[name].shape) for parts in self.capture.layers] for name in PROJECTIONS}


def _out_of_memory(error: Exception) -> bool:
    # PyTorch's CPU allocator raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _record(loss: float, factors: Mapping[str, Any]) -> Record:
    finite = np.isfinite(loss) and all(
        bool(part.d.isfinite().all() and part.x.isfinite().all()) for part in factors.values()
    )
    if not finite:
        return Record(float(loss), "nonfinite", ())
    return Record(float(loss), "ok", spectra(factors).flatten().tolist())


class _Meter:
    """A line of progress every few seconds: done, rates, time left."""

    def __init__(self, total: int, recalled: int):
        self.total, self.done, self.tokens = total, 0, 0
        self.begun = self.told = time.monotonic()
        progress(f"{total} distinct rows to compute, {recalled} found in the journal")

    def advance(self, samples: int, tokens: int) -> None:
        self.done += samples
        self.tokens += tokens
        now = time.monotonic()
        if now - self.told >= _PROGRESS:
            self.told = now
            seconds = now - self.begun
            left = seconds / self.done * (self.total - self.done)
            progress(
                f"{self.done} of {self.total} rows, {self.done / seconds:.1f} rows/s, "
                f"{self.tokens / seconds:.0f} tokens/s, {left:.0f} s left"
            )


def _write(
    rows: Sequence[Row],
    encoded: Sequence[Encoded],
    records: Sequence[Record],
    model: str,
    facts: Mapping[str, Any],
    samples_path: str,
    spectra_path: str,
) -> None:
    samples = pa.table(
        {
            "model": [model] * len(rows),
            "dataset": [row.dataset for row in rows],
            "sample_id": [row.sample_id for row in rows],
            "variant": [row.variant for row in rows],
            "relation": [row.relation for row in rows],
            "loss_tokens": ["all"] * len(rows),
            "loss": pa.array([record.loss for record in records], pa.float64()),
            "prompt_tokens": [sample.prompt_tokens for sample in encoded],
            "response_tokens": [sample.response_tokens for sample in encoded],
            "truncated": [sample.truncated for sample in encoded],
            "status": [record.status for record in records],
        }
    )
    good = [index for index, record in enumerate(records) if record.status == "ok"]
    layers = len(facts["matrix_shapes"][PROJECTIONS[0]])
    values = np.array([records[index].values for index in good]).reshape(
        len(good), layers, len(PROJECTIONS), len(METRICS)
    )
    # One row per sample, layer and projection, in this order.
    sample, layer, projection = (axis.ravel() for axis in np.indices(values.shape[:3]))
    names = ("model", "dataset", "sample_id", "variant", "relation", "loss_tokens")
    long = samples.select(names).take(pa.array(np.array(good, dtype=np.int64)[sample]))
    long = long.append_column("layer", pa.array(layer.astype(np.int16)))
    long = long.append_column("projection", pa.array(np.array(PROJECTIONS)[projection]))
    for index, metric in enumerate(METRICS):
        long = long.append_column(metric, pa.array(values[..., index].ravel()))
    write_table("samples", samples, samples_path, facts)
    write_table("spectra", long, spectra_path, facts)


def _run_facts(started: float, device: str, job: _Job) -> dict[str, Any]:
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 1),
        "host": platform.node(),
        "commit": _commit(),
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "batch_tokens": job.batch_tokens,
        "peak_gpu_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else None,
        "computed": job.computed,
        "recalled": job.recalled,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def _commit() -> str | None:
    """The commit of the code, marked where files were edited since; None outside of a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
