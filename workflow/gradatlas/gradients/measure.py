"""One gradients job: measure every row of a responses file on one model, with a journal, and write the tables."""

import json
import platform
import subprocess
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from gradatlas.core.checked import write_json
from gradatlas.core.command import progress
from gradatlas.core.digest import code_digest
from gradatlas.core.errors import InputError
from gradatlas.core.files import check_writable
from gradatlas.core.machine import machine
from gradatlas.data.responses.prompts import CHAT_DATE
from gradatlas.gradients.capture import HALF_SCALE, Capture, Pass
from gradatlas.gradients.extras import Extras, code_of, measure_extras
from gradatlas.gradients.journal import Journal, Record
from gradatlas.gradients.meter import Meter
from gradatlas.gradients.plan import Item, expand_rows, key_of, limit_rows, plan_batches, read_rows, share_of
from gradatlas.gradients.rounding import HALVES, rounding_error, shortest
from gradatlas.gradients.settings import Settings
from gradatlas.gradients.solvers import fastest_solver, solver_of
from gradatlas.gradients.spectra import Spectrum, start
from gradatlas.gradients.write import write_extra, write_tables
from gradatlas.models.adapted import load_adapted, locate_adapted
from gradatlas.models.decoders import shapes_of
from gradatlas.models.forward import length_regime
from gradatlas.models.loading import check_ids, choose_device
from gradatlas.models.tokens import Encoded, Encoder

# Not in the metadata: numbers do not depend on the size of a batch. The shard is added separately.
_NO_FACTS = ("batch_tokens", "planned_tokens", "shard")
# Not in the journal's key: what decides only token ids and masks, which are in the key; then what changes no number.
_IN_TOKENS = ("max_length", "compat", "truncation", "loss_tokens", "chat", "seed", "relations", "controls")
_NO_KEYS = {*_NO_FACTS, *_IN_TOKENS, "limit", "limit_seed", "purpose", "trust_remote_code", "compared"}


def measure(
    model: str,
    responses: str,
    samples_path: str,
    spectra_path: str,
    settings: Settings,
    *,
    extras: Extras | None = None,
    revision: str = "",
    adapter: str = "",
    adapter_revision: str = "",
    gpus: int = 1,
    model_name: str = "",
    journal: str | None = None,
    run_path: str | None = None,
) -> None:
    """Measure all rows of `responses` on `model`, and write the samples and spectra tables, each atomically.

    `model`: a folder, a card or a hub id; `adapter`: a PEFT adapter of it, a folder or a hub id; `gpus`: how many hold
    it together. `responses`: a responses table or a JSON list. `extras`: optional tables. `journal`: a folder for
    finished batches, which survive kills and edits. `run_path`: a JSON file for time, host, device and versions.
    """
    extras = extras or Extras()
    outputs = {"samples": samples_path, "spectra": spectra_path, **extras.paths, "run": run_path}
    _check_paths({"responses": responses, **{name: path for name, path in outputs.items() if path}})
    device = choose_device(settings.device)
    started = time.time()
    drawn = limit_rows(read_rows(responses), settings.limit, settings.limit_seed)
    rows = [row for row in drawn if settings.subsets_of(row.variant, row.relation)]
    with_tokens = extras.chosen(rows)
    where, adapted = locate_adapted(model, revision, adapter, adapter_revision)
    # Set explicitly, whatever the library's default: TF32 keeps 10 of float32's 23 bits.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = settings.tf32
    network, tokenizer = load_adapted(where, adapted, settings, device=device, gpus=gpus)
    positions = getattr(network.config, "max_position_embeddings", None)
    # XLNet has -1 for no limit.
    window = min(settings.max_length, positions) if positions and positions > 0 else settings.max_length
    if window < settings.max_length:
        progress(
            f"max_length is {settings.max_length}, but the model has {positions} positions: texts are cut at {window} "
            "tokens"
        )
    encoder = Encoder(
        tokenizer, chat=settings.chat, max_length=window, compat=settings.compat, truncation=settings.truncation
    )
    items = expand_rows(rows, encoder, settings.subsets_of, settings.seed)
    # A dropped sample is not measured, even if another sample has the same tokens.
    dropped = [settings.truncation == "drop" and item.sample.truncated for item in items]
    for item, out in zip(items, dropped, strict=True):
        if not out:
            check_ids(item.sample.ids, network, tokenizer, f"{responses}: {item.name}")
    context = {
        **{name: value for name, value in asdict(settings).items() if name not in _NO_KEYS},
        "model": where.digest,
        "adapter": adapted.digest if adapted else "",
        # No other code affects the numbers: token ids and masks are in the key.
        "engine": code_digest("gradatlas.gradients.capture:Capture", "gradatlas.gradients.spectra:start"),
        # But what makes other weights of the files.
        "weights": code_digest("gradatlas.models.adapted:load_adapted") if adapted or settings.quantise else "",
        "torch": ".".join(torch.__version__.split(".")[:2]),
        "transformers": ".".join(transformers.__version__.split(".")[:2]),
        "device": device,
        "attention": network.config._attn_implementation,
    }
    more = {name: code_of(name) for name in extras.paths}
    wanted = [[name for name in more if name != "tokens" or item.row.sample_id in with_tokens] for item in items]
    keys = [
        "" if out else key_of(item.sample, {**context, "extras": {name: more[name] for name in names}})
        for item, names, out in zip(items, wanted, dropped, strict=True)
    ]
    measured = {key: item.sample for key, item in zip(keys, items, strict=True) if key and item.sample.response_tokens}
    batches = _batches(measured, settings, length_regime(network.config))
    own = {key for batch in batches for key in batch}
    # The first shard has the rows that need no pass.
    places = [at for at, key in enumerate(keys) if key in own or (key not in measured and settings.shard[0] == 1)]
    items, keys, wanted = ([each[place] for place in places] for each in (items, keys, wanted))
    job = _Job(
        Capture(network, settings.projections, settings.mapping, settings.lora),
        {key: item for key, item in zip(keys, items, strict=True) if key},
        dict(zip(keys, wanted, strict=True)),
        batches,
        settings,
    )
    for line in _shape_notes(job.shapes()):
        progress(line)
    records = job.run(Journal(journal, _maker(context)) if journal else None) | {"": Record(None, "truncated")}
    name = model_name or Path(where.path).resolve().name
    facts = {
        **{name: value for name, value in asdict(settings).items() if name not in _NO_FACTS},
        "window": window,
        "chat_date": CHAT_DATE.isoformat() if settings.chat else None,
        # For a mean loss, also times the power of two above the number of response tokens.
        "loss_scale": HALF_SCALE if settings.dtype == "float16" else 1,
        **context,
        "model": name,
        "model_digest": where.digest,
        "revision": where.revision,
        "adapter_base": adapted.adapter_base if adapted else "",
        "rows": len(rows),
        "projections": job.capture.projections,
        "matrix_shapes": job.shapes(),
    }
    if settings.dtype in HALVES and settings.compared and measured:
        whole = replace(settings, dtype="float32")

        def exact() -> Capture:
            model = load_adapted(where, adapted, whole, device=device, gpus=gpus)[0]
            return Capture(model, settings.projections, settings.mapping, settings.lora)

        few = shortest(measured.values(), settings.compared)
        facts["rounding"] = rounding_error(job.capture, few, exact, settings.loss_norm)
    if settings.shard != (1, 1):
        facts |= {"shard": settings.shard, "places": places, "of_places": len(dropped)}
    ordered = [records[key] for key in keys]
    write_tables(items, ordered, facts, samples_path, spectra_path)
    for extra, path in extras.paths.items():
        chosen = {"tokens_of": sorted(with_tokens)} if extra == "tokens" else {}
        write_extra(extra, items, ordered, {**facts, "code": more[extra], **chosen}, path, tokenizer)
    statuses = Counter(records[key].status for key in keys)
    progress(
        f"{len(items)} rows ({', '.join(f'{count} {status}' for status, count in sorted(statuses.items()))}): "
        f"{job.computed} computed, {job.recalled} from the journal, in {time.time() - started:.1f} s"
    )
    if run_path:
        write_json(run_path, _run_facts(started, device, job))


def _batches(samples: Mapping[str, Encoded], settings: Settings, regime: Callable[[int], int]) -> list[list[str]]:
    """The batches of a shard, from the plan of all shards; a retry cuts them into smaller ones."""
    planned = plan_batches(samples, settings.planned_tokens or settings.batch_tokens, regime)
    return [
        part
        for batch in share_of(planned, settings.shard)
        for part in plan_batches({key: samples[key] for key in batch}, settings.batch_tokens)
    ]


def _shape_notes(shapes: Mapping[str, Sequence[Sequence[int] | None]]) -> Iterator[str]:
    """Lines about layers without a projection of their own, and about layers that differ in shape."""
    without = {name: [str(at) for at, shape in enumerate(each) if not shape] for name, each in shapes.items()}
    if missing := [f"{name} in layers {', '.join(layers)}" for name, layers in without.items() if layers]:
        yield (
            f"no matrix of their own: {'; '.join(missing)} (they use an earlier layer's keys and values, or keys as "
            "values); these rows are empty"
        )
    sizes = {name: sorted({tuple(shape) for shape in each if shape}) for name, each in shapes.items()}
    if differ := [f"{name} {', '.join(f'{r}x{c}' for r, c in each)}" for name, each in sizes.items() if len(each) > 1]:
        yield f"layers differ in shape: {'; '.join(differ)}; across layers compare nuclear_norm_scaled"


def _maker(context: Mapping[str, Any]) -> str:
    """The code and versions in a key's `context`: where they change, no earlier result is used."""
    return json.dumps([context[name] for name in ("engine", "torch", "transformers")])


def _check_paths(paths: Mapping[str, str]) -> None:
    """`InputError` where two options name the same file, or an output cannot be written."""
    options: dict[Path, str] = {}
    for name, path in paths.items():
        option = f"--{name.replace('_', '-')}"
        other = options.setdefault(Path(path).resolve(), option)
        if other != option:
            raise InputError(f"{other} and {option} are both {path}; give two files")
        if name != "responses":
            check_writable(option, path)


class _Job:
    """The distinct samples of a job, by key; samples with equal token ids and masks are computed once.

    `wanted`: the names of each sample's optional tables. `batches`: the keys of the samples to measure.
    """

    def __init__(
        self,
        capture: Capture,
        items: Mapping[str, Item],
        wanted: Mapping[str, Collection[str]],
        batches: Sequence[list[str]],
        settings: Settings,
    ):
        self.capture, self.items, self.wanted, self.settings = capture, items, wanted, settings
        self.samples = {key: item.sample for key, item in items.items()}
        self.batches = batches
        self.computed = self.recalled = 0
        # On a GPU the next pass is queued before a batch's numbers are waited for.
        self.ahead = capture.model.device.type == "cuda"
        self.solve = solver_of(capture.model)

    def run(self, journal: Journal | None) -> dict[str, Record]:
        """The record of every key. Each finished batch is committed to the journal."""
        empty = Record(None, "no_response_tokens")
        records = {key: empty for key, sample in self.samples.items() if not sample.response_tokens}
        known = journal.read() if journal else {}
        recalled = {key: known[key] for key in self.samples if key in known}
        self.recalled = len(recalled)
        records |= recalled
        todo = [left for batch in self.batches if (left := [key for key in batch if key not in recalled])]
        meter = Meter(sum(map(len, todo)), self.recalled)
        with self.capture:
            for batch, fresh in self._computed(todo, meter):
                # Not kept: a sample that does not fit here may fit on another machine.
                kept = [key for key in batch if fresh[key].status != "out_of_memory"]
                if journal and kept:
                    journal.commit(kept, [fresh[key] for key in kept])
                records |= fresh
                self.computed += len(batch)
                meter.advance(len(batch), sum(len(self.samples[key].ids) for key in batch))
        meter.close()
        if journal:
            journal.close()
            journal.set_aside()
        return records

    def _computed(
        self, batches: Iterable[Sequence[str]], meter: Meter
    ) -> Iterator[tuple[Sequence[str], dict[str, Record]]]:
        """Each batch with its records. What fails ahead of time is repeated in its turn, where its error is handled."""
        waiting: deque[tuple[Sequence[str], Callable[[], dict[str, Record]] | None]] = deque()
        for batch in batches:
            begun = None
            if self.ahead:
                with suppress(Exception):
                    begun = self._begin(batch, hold=False)
            waiting.append((batch, begun))
            while len(waiting) > self.ahead:
                yield self._in_turn(*waiting.popleft(), meter)
        while waiting:
            yield self._in_turn(*waiting.popleft(), meter)

    def _in_turn(
        self, keys: Sequence[str], begun: Callable[[], dict[str, Record]] | None, meter: Meter
    ) -> tuple[Sequence[str], dict[str, Record]]:
        if begun:
            with suppress(Exception):
                return keys, begun()
        del begun
        return keys, self._compute(keys, meter)

    def _compute(self, keys: Sequence[str], meter: Meter) -> dict[str, Record]:
        try:
            return self._compute_once(keys)
        except InputError:
            raise
        except Exception as error:
            if not out_of_memory(error):
                raise self._failure(keys, error) from error
        # Outside the handler, so that the failed pass's tensors are freed before the next attempt.
        if len(keys) == 1:
            sample = self.samples[keys[0]]
            meter.print(f"out of memory on one sample: {self.items[keys[0]].name} ({len(sample.ids)} tokens)")
            return {keys[0]: Record(None, "out_of_memory")}
        half = len(keys) // 2
        meter.print(f"out of memory on a batch of {len(keys)}; trying halves of {half}")
        return self._compute(keys[:half], meter) | self._compute(keys[half:], meter)

    def _compute_once(self, keys: Sequence[str]) -> dict[str, Record]:
        return self._begin(keys, hold=True)()

    def _begin(self, keys: Sequence[str], *, hold: bool) -> Callable[[], dict[str, Record]]:
        """One pass over samples; the function returned waits for their records."""
        passes = self.capture.run([self.samples[key] for key in keys], normalise=self.settings.loss_norm)
        extras = [name for key in keys for name in self.wanted[key]]
        spectra = start(
            [done.factors for done in passes],
            self.settings.metrics,
            with_values="singular_values" in extras,
            solve=self.solve,
            hold=hold or bool(extras),
        )
        if not extras:
            passes = [replace(done, factors={}) for done in passes]
        return partial(self._finish, keys, passes, spectra)

    def _finish(
        self, keys: Sequence[str], passes: Sequence[Pass], spectra: Callable[[], list[Spectrum | None]]
    ) -> dict[str, Record]:
        found = zip(keys, passes, spectra(), strict=True)
        records = {key: spectrum and self._record(done, spectrum, self.wanted[key]) for key, done, spectrum in found}
        del found, passes, spectra
        for key in keys:
            # Alone: another sample of the batch may be the cause; and one that needs its factors once more.
            if records[key] is None or (records[key].status == "nonfinite" and len(keys) > 1):
                records |= self._compute_once([key])
        return records

    def _failure(self, keys: Sequence[str], error: Exception) -> RuntimeError:
        """The error for a failed batch: names the sample that also fails alone, or else all samples."""
        names = [self.items[key].name for key in keys]
        # After a GPU error every later call fails too, so that single samples show nothing.
        if len(keys) > 1 and not isinstance(error, torch.AcceleratorError):
            for key in keys:
                try:
                    self._compute_once([key])
                except Exception as alone:
                    if not out_of_memory(alone):
                        return RuntimeError(f"failed on {self.items[key].name}: {type(alone).__name__}: {alone}")
            return RuntimeError(f"failed on these together, on none of them alone: {'; '.join(names)}")
        one_of = "one of: " if len(keys) > 1 else ""
        return RuntimeError(f"failed on {one_of}{'; '.join(names)}: {type(error).__name__}: {error}")

    def _record(self, done: Pass, spectrum: Spectrum, wanted: Collection[str]) -> Record:
        if not (np.isfinite(done.loss) and spectrum.finite):
            return Record(done.loss, "nonfinite")
        extras = measure_extras(done, spectrum.sigma, wanted)
        return Record(done.loss, "ok", done.loss_concentration, spectrum.metrics.flatten().tolist(), extras)

    def shapes(self) -> dict[str, list[list[int] | None]]:
        """By projection, the (rows, columns) of each layer's matrix; None where a layer has none of its own."""
        shapes = shapes_of(self.capture.layers, self.capture.projections)
        return {name: [list(shape) if shape else None for shape in each] for name, each in shapes.items()}


def out_of_memory(error: Exception) -> bool:
    # PyTorch's CPU allocator raises a plain RuntimeError, and so does cuBLAS for its workspace.
    texts = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in texts)


def _run_facts(started: float, device: str, job: _Job) -> dict[str, Any]:
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 1),
        "host": platform.node(),
        "commit": _commit(),
        "machine": machine(device),
        "threads": torch.get_num_threads(),
        "batch_tokens": job.settings.batch_tokens,
        "devices": sorted({str(parameter.device) for parameter in job.capture.model.parameters()}),
        "peak_gpu_bytes": sum(map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count()))) or None,
        # By size of matrix: each route's seconds a matrix, or why it is not used.
        "solvers": fastest_solver().facts if device == "cuda" else None,
        "computed": job.computed,
        "recalled": job.recalled,
    }


def _commit() -> str | None:
    """The commit of the code, with "-dirty" after edits; None outside of a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
