"""What both callbacks share: when they measure, on which process, their table, and how their numbers are logged."""

import hashlib
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from torch import distributed
from transformers import TrainerCallback
from transformers.trainer_callback import CallbackHandler

from gradatlas.api.live import borrowed, check_whole
from gradatlas.core.command import progress
from gradatlas.core.errors import InputError
from gradatlas.core.tables import Table, read_metadata, read_table, write_table
from gradatlas.data.training.rows import TrainingRow
from gradatlas.models.conversations import EncodedRow


class Watching(TrainerCallback):
    """Measures a model before training, every `every` optimizer steps, and after the last one.

    Process 0 measures and writes ``{output_dir}/gradatlas/``, complete after each step; the others wait.
    Numbers go to the Trainer's log and so to what `report_to` names, as ``gradatlas/...``. Training is as without the
    callback, to the last bit. A resumed run continues the table at its checkpoint's step.

    Subclasses give `name`, `prepare`, `measure`, and by file name the `tables`; the first has rows of every step.
    """

    name = ""
    tables: dict[str, Table]

    def __init__(self, every: int, output_dir: str | Path | None, tokenizer: Any):
        if every < 1:
            raise InputError(f"every: {every} is not a number of optimizer steps; give 1 or more")
        self.every, self.output_dir, self.tokenizer = every, output_dir, tokenizer
        self.folder = Path()
        self.facts: dict[str, Any] = {}
        self.rows: dict[str, pa.Table] = {}
        self.begun = self.spent = 0.0

    def prepare(self, model: Any, tokenizer: Any, step: int) -> dict[str, Any]:
        """Get ready to measure `model` from `step` on; returns what tables' numbers depend on, as their metadata."""
        raise NotImplementedError

    def measure(self, model: Any, step: int) -> tuple[dict[str, pa.Table], dict[str, float]]:
        """The rows of `step` by table, and the numbers to log by name."""
        raise NotImplementedError

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: Any, processing_class: Any, **kwargs):
        """Prepare, and measure step 0."""
        self.begun, self.spent = time.perf_counter(), 0.0
        # Every process sees that, so none waits for another.
        check_whole(model)
        tokenizer = self.tokenizer or processing_class
        if tokenizer is None:
            raise InputError(f"{type(self).__name__}: the Trainer has no processing_class; give tokenizer=")
        with _first_process(state.is_world_process_zero) as works:
            if works:
                with borrowed(model):
                    self.facts = self.prepare(model, getattr(tokenizer, "tokenizer", tokenizer), state.global_step)
                self.folder = Path(self.output_dir or args.output_dir) / "gradatlas"
                self.rows = {name: self._earlier(name, state.global_step) for name in self.tables}
        self._at_step(args, state, control, model)

    def on_step_end(self, args: Any, state: Any, control: Any, *, model: Any, **kwargs):
        """Measure every `every` steps, and at the last one."""
        self._at_step(args, state, control, model)

    def on_train_end(self, args: Any, state: Any, control: Any, *, model: Any, **kwargs):
        """Measure the last step of a training that was stopped early."""
        if args.load_best_model_at_end:
            # These are another step's weights.
            return
        self._at_step(args, state, control, model, last=True)

    def _at_step(self, args: Any, state: Any, control: Any, model: Any, last: bool = False) -> None:
        step = state.global_step
        if step % self.every and step < state.max_steps and not last:
            return
        with _first_process(state.is_world_process_zero) as works:
            if not works or step in next(iter(self.rows.values()))["step"].unique().to_pylist():
                return
            started = time.perf_counter()
            with borrowed(model):
                found, numbers = self.measure(model, step)
            for name, rows in found.items():
                self.rows[name] = pa.concat_tables([self.rows[name], rows.cast(self.tables[name].schema)])
                write_table(self.tables[name], self.rows[name], self.folder / f"{name}.parquet", self.facts)
            now = time.perf_counter()
            self.spent += now - started
            numbers[f"{self.name}_seconds"] = now - started
            if step:
                numbers[f"{self.name}_share"] = self.spent / (now - self.begun)
            _log(args, state, control, {f"gradatlas/{name}": value for name, value in numbers.items()})

    def _earlier(self, name: str, step: int) -> pa.Table:
        """A table's rows of an earlier part of this training, up to its checkpoint's `step`."""
        path, table = self.folder / f"{name}.parquet", self.tables[name]
        if not path.exists():
            return table.empty()
        if step == 0:
            kept = path.with_name(f"{name}.earlier.parquet")
            progress(f"{path}: of an earlier training, renamed to {kept.name}")
            path.replace(kept)
            return table.empty()
        before = read_metadata(path, table)
        if changed := [key for key in self.facts if before.get(key) != self.facts[key]]:
            raise InputError(
                f"{path}: was measured with other {', '.join(changed)} than this resumed training measures; give "
                "the same, or another output_dir"
            )
        rows = read_table(table, path)
        kept = rows.filter(pc.less_equal(rows["step"], step))
        if lost := rows.num_rows - kept.num_rows:
            progress(f"{path}: {lost} rows are later than the checkpoint (step {step}) and are measured again")
        return kept


def digest_of(encoded: Sequence[tuple[TrainingRow, EncodedRow]]) -> str:
    """A digest of what a model reads of probes, 16 hexadecimal digits."""
    read = [[row.id, row.response, each.status, each.sample and [each.sample.ids, each.sample.response]]
            for row, each in encoded]  # fmt: skip
    return hashlib.sha256(json.dumps(read).encode()).hexdigest()[:16]


@contextmanager
def _first_process(works: bool) -> Iterator[bool]:
    """A block that process 0 (`works`) works in while the others wait for its end; its error ends all."""
    failed = None
    try:
        yield works
    except BaseException as error:
        failed = str(error) or type(error).__name__
        raise
    finally:
        if distributed.is_available() and distributed.is_initialized():
            message = [failed]
            distributed.broadcast_object_list(message, src=0)
            if message[0] and not failed:
                raise InputError(f"process 0: {message[0]}")


def _log(args: Any, state: Any, control: Any, numbers: dict[str, float]) -> None:
    """Log as `Trainer.log` does. A callback has no reference to its Trainer: the handler that called it is found.

    `Trainer.log` itself would also end the means that TRL's trainers collect between two logs, and `on_log` of the
    handler would clear the flow's request to log.
    """
    numbers = {name: value for name, value in numbers.items() if math.isfinite(value)}
    frame = sys._getframe()
    while frame and not isinstance(frame.f_locals.get("self"), CallbackHandler):
        frame = frame.f_back
    epoch = {} if state.epoch is None else {"epoch": state.epoch}
    state.log_history.append({**numbers, **epoch, "step": state.global_step})
    if frame:
        frame.f_locals["self"].call_event("on_log", args, state, control, logs={**numbers, **epoch})
    else:
        progress(f"step {state.global_step}: " + ", ".join(f"{name} {value:.4g}" for name, value in numbers.items()))
