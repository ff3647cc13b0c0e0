"""One gradients job: every row of a responses file through one model, resumable, into two tables."""

import json
import platform
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from workflow.lib.command import progress
from workflow.lib.digest import module_digest
from workflow.lib.errors import InputError
from workflow.lib.files import write_text
from workflow.lib.gradients.capture import Capture, Factors
from workflow.lib.gradients.journal import Journal, Record
from workflow.lib.gradients.meter import Meter
from workflow.lib.gradients.plan import Item, expand_rows, key_of, limit_rows, plan_batches, read_rows
from workflow.lib.gradients.settings import Settings
from workflow.lib.gradients.spectra import spectra
from workflow.lib.gradients.tokens import Encoder
from workflow.lib.gradients.write import write_tables
from workflow.lib.models.loading import choose_device, load, locate


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
    if Path(samples_path).resolve() == Path(spectra_path).resolve():
        raise InputError(f"--samples and --spectra are both {samples_path}; give two files")
    started = time.time()
    drawn = limit_rows(read_rows(responses), settings.limit, settings.limit_seed)
    rows = [row for row in drawn if settings.subsets_of(row.variant, row.relation)]
    where = locate(model, revision)
    device = choose_device(settings.device)
    # Never by a library's default: TF32 keeps 10 bits of a float32's 23.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = settings.tf32
    network, tokenizer = load(
        where.path, dtype=settings.dtype, device=device, trust_remote_code=settings.trust_remote_code
    )
    window = min(settings.max_length, getattr(network.config, "max_position_embeddings", settings.max_length))
    if window < settings.max_length:
        progress(
            f"max_length is {settings.max_length}, but the model has {window} positions: the window is {window} tokens"
        )
    encoder = Encoder(
        tokenizer, chat=settings.chat, max_length=window, compat=settings.compat, truncation=settings.truncation
    )
    items = expand_rows(rows, encoder, settings.subsets_of, settings.seed)
    context = {
        "model": where.digest,
        "dtype": settings.dtype,
        "tf32": settings.tf32,
        "loss_norm": settings.loss_norm,
        "metrics": settings.metrics,
        "projections": settings.projections,
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
    # What is left of a sample to drop is never measured, though another sample may have the same tokens.
    dropped = [settings.truncation == "drop" and item.sample.truncated for item in items]
    keys = ["" if out else key_of(item.sample, context) for item, out in zip(items, dropped, strict=True)]
    asked = {key: item for key, item in zip(keys, items, strict=True) if key}
    job = _Job(Capture(network, settings.projections, settings.mapping), asked, settings)
    records = job.run(Journal(journal) if journal else None) | {"": Record(None, "truncated", ())}
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
    write_tables(items, [records[key] for key in keys], facts, samples_path, spectra_path)
    statuses = Counter(records[key].status for key in keys)
    progress(
        f"{len(items)} rows ({', '.join(f'{count} {status}' for status, count in sorted(statuses.items()))}): "
        f"{job.computed} computed, {job.recalled} from the journal, in {time.time() - started:.1f} s"
    )
    if run_path:
        write_text(run_path, json.dumps(_run_facts(started, device, job), indent=2, sort_keys=True) + "\n")


class _Job:
    """The distinct samples of a job; equal token ids and masks are computed once."""

    def __init__(self, capture: Capture, items: Mapping[str, Item], settings: Settings):
        self.capture, self.items, self.settings = capture, items, settings
        self.samples = {key: item.sample for key, item in items.items()}
        measured = {key: sample for key, sample in self.samples.items() if sample.response_tokens}
        self.batches = plan_batches(measured, settings.batch_tokens)
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
        meter = Meter(sum(map(len, todo)), self.recalled)
        for batch in todo:
            fresh = self._compute(batch, meter)
            # What did not fit here may fit elsewhere: it is not a result to remember.
            kept = [key for key in batch if fresh[key].status != "out_of_memory"]
            if journal and kept:
                journal.commit(kept, [fresh[key] for key in kept])
            records |= fresh
            self.computed += len(batch)
            meter.advance(len(batch), sum(len(self.samples[key].ids) for key in batch))
        meter.close()
        if journal:
            journal.close()
            journal.prune(self.samples)
        return records

    def _compute(self, keys: Sequence[str], meter: Meter) -> dict[str, Record]:
        try:
            passes = self.capture.run([self.samples[key] for key in keys], normalise=self.settings.loss_norm)
            return {key: self._record(done.loss, done.factors) for key, done in zip(keys, passes, strict=True)}
        except Exception as error:
            if not _out_of_memory(error):
                names = "; ".join(self.items[key].name for key in keys)
                raise RuntimeError(f"failed on {'one of: ' if len(keys) > 1 else ''}{names}") from error
        # Outside the handler, so that the failed pass's tensors are freed before the next attempt.
        if len(keys) == 1:
            meter.say(f"out of memory on {self.items[keys[0]].name} ({len(self.samples[keys[0]].ids)} tokens) alone")
            return {keys[0]: Record(None, "out_of_memory", ())}
        half = len(keys) // 2
        meter.say(f"out of memory on a batch of {len(keys)}; going on with halves of {half}")
        return self._compute(keys[:half], meter) | self._compute(keys[half:], meter)

    def _record(self, loss: float, factors: Mapping[str, Factors]) -> Record:
        finite = np.isfinite(loss) and all(
            bool(part.d.isfinite().all() and part.x.isfinite().all()) for part in factors.values()
        )
        if not finite:
            return Record(float(loss), "nonfinite", ())
        return Record(float(loss), "ok", spectra(factors, self.settings.metrics).flatten().tolist())

    def shapes(self) -> dict[str, list[list[int]]]:
        """By projection, the (rows, columns) of each layer's matrix."""
        return {name: [list(parts[name].shape) for parts in self.capture.layers] for name in self.settings.projections}


def _out_of_memory(error: Exception) -> bool:
    # PyTorch's CPU allocator raises a plain RuntimeError, and so does cuBLAS for its workspace.
    told = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in told)


def _run_facts(started: float, device: str, job: _Job) -> dict[str, Any]:
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 1),
        "host": platform.node(),
        "commit": _commit(),
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "batch_tokens": job.settings.batch_tokens,
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
