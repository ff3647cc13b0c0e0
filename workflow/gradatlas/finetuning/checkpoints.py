"""Checkpoints of a finetuning run: one file with the training state, named by step and checksum, and one file for each
table and evaluated step."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from filelock import FileLock, Timeout

from gradatlas.core.command import progress
from gradatlas.core.errors import InputError
from gradatlas.core.files import sha256_of, write_text, writing
from gradatlas.core.tables import Table, read_table, write_table
from gradatlas.finetuning.processes import SINGLE_PROCESS, Processes


class Checkpoints:
    """A folder of checkpoints of one run.

    A folder of other `facts` (recipe, inputs, code) is moved to a name with their digest, and one of these facts is
    moved back. The tables of a step are written before its state, each atomically: after a kill, those newer than the
    state are written again with the same numbers. The main process writes, all `processes` read. A second run of the
    same folder waits, and continues from the last state of the first: a job can outlive the Snakemake that started it.
    """

    def __init__(self, folder: str | Path, facts: Mapping[str, Any], processes: Processes = SINGLE_PROCESS):
        self.folder, self.processes = Path(folder), processes
        if processes.is_main:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            # The kernel frees it, however the process ends.
            self._lock, self._next = (
                FileLock(self.folder.with_name(f".{self.folder.name}.{name}")) for name in ("lock", "next.lock")
            )
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                progress(f"{self.folder}: another process works on this run; waiting until it has ended")
                with self._next:
                    self._lock.acquire()
            self._open(json.dumps(facts, sort_keys=True, indent=1) + "\n")
        processes.wait()

    @property
    def snapshots(self) -> Path:
        """The folder of models that the run keeps; each is written before the state of its step."""
        return self.folder / "snapshots"

    def _open(self, text: str) -> None:
        mark = self.folder / "facts.json"
        found = mark.read_text(encoding="utf-8", errors="replace") if mark.is_file() else ""
        if not found and self.folder.is_dir() and any(self.folder.iterdir()):
            raise self._damaged(f"{mark}: missing or empty")
        if self.folder.is_dir() and found != text:
            aside = self._aside(found)
            progress(f"{self.folder}: of another recipe, input or code; moved to {aside}")
            os.replace(self.folder, aside)
        if not self.folder.is_dir() and self._aside(text).is_dir():
            progress(f"{self._aside(text)}: of this recipe, input and code; resumed")
            os.replace(self._aside(text), self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(mark, text)

    def _aside(self, facts: str) -> Path:
        """The folder to which checkpoints of `facts` are moved."""
        return self.folder.with_name(f"{self.folder.name}.{hashlib.sha256(facts.encode()).hexdigest()[:12]}")

    def load(self, device: str) -> dict[str, Any] | None:
        """The last state, or None."""
        states = self._states()
        if not states:
            return None
        if states[-1].stem.rpartition("-")[2] != sha256_of(states[-1]):
            raise self._damaged(f"{states[-1]}: damaged, its checksum does not match")
        return torch.load(states[-1], map_location=device, weights_only=True)

    def record(self, table: Table, step: int, rows: list[dict]) -> None:
        """Write one step's rows of a table."""
        if self.processes.is_main:
            write_table(table, rows, self.folder / f"{table.name}-{step:08d}.parquet", {})

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the state after a step, and delete the one before: never more than two are on the disk."""
        if self.processes.is_main:
            older = self._states()
            # One name until it is whole, so that a kill leaves no third file.
            unnamed = self.folder / "state.pt"
            with writing(unnamed), open(unnamed, "wb") as file:
                torch.save({**state, "step": step}, file)
                file.flush()
                os.fsync(file.fileno())
            newest = unnamed.with_name(f"state-{step:08d}-{sha256_of(unnamed)}.pt")
            os.replace(unnamed, newest)
            for path in older:
                if path != newest:
                    path.unlink()

    def recorded(self, table: Table, step: int) -> pa.Table:
        """All rows of a table up to a step, in order."""
        paths = sorted(self.folder.glob(f"{table.name}-*.parquet"))
        kept = [path for path in paths if int(path.stem.rpartition("-")[2]) <= step]
        try:
            return pa.concat_tables([read_table(table, path).replace_schema_metadata() for path in kept])
        except InputError as error:
            raise self._damaged(str(error).partition(";")[0]) from None

    def _states(self) -> list[Path]:
        """The files of states, by step: one, or two after a kill during `save`."""
        return sorted(self.folder.glob("state-*.pt"))

    def _damaged(self, what: str) -> InputError:
        return InputError(f"{what}; delete {self.folder} and run again, from the start")

    def remove(self) -> None:
        """Delete the folder, once the run's outputs are complete; not where another process waits to continue."""
        with suppress(Timeout), self._next.acquire(timeout=0):
            shutil.rmtree(self.folder)
            for lock in (self._lock, self._next):
                Path(lock.lock_file).unlink(missing_ok=True)
        self._lock.release()
