"""Where a finetuning run goes on after a kill: one file with all that its future depends on, and
one per table and step that is watched. The name of the former holds its step and its checksum."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from gradatlas.core.command import progress
from gradatlas.core.errors import InputError
from gradatlas.core.files import replacing, sha256_of, write_text
from gradatlas.core.tables import Table, read_table, write_table
from gradatlas.finetuning.processes import SINGLE_PROCESS, Processes


class Checkpoints:
    """A folder for one run. Work for other `facts` (recipe, inputs, code) that stands there is set aside, in a folder
    of its own named by their digest; work for these that was set aside is taken up again.

    What is watched at a step is written before the step's checkpoint, each table whole or not at all: what is newer
    than the checkpoint was not reached yet and is written again, with the same numbers. Of several `processes` the
    first writes, and all read.
    """

    def __init__(self, folder: str | Path, facts: Mapping[str, Any], processes: Processes = SINGLE_PROCESS):
        self.folder, self.processes = Path(folder), processes
        if processes.is_main:
            self._open(json.dumps(facts, sort_keys=True, indent=1) + "\n")
        processes.wait()

    def _open(self, text: str) -> None:
        mark = self.folder / "facts.json"
        found = mark.read_text(encoding="utf-8") if mark.is_file() else ""
        if self.folder.is_dir() and found != text:
            aside = self._aside(found)
            progress(f"{self.folder}: for another recipe, input or code; set aside as {aside}")
            os.replace(self.folder, aside)
        if not self.folder.is_dir() and self._aside(text).is_dir():
            progress(f"{self._aside(text)}: for this recipe, input and code; taken up again")
            os.replace(self._aside(text), self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(mark, text)

    def _aside(self, facts: str) -> Path:
        """Where work for `facts` is set aside."""
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
        """Keep one step's rows of a table."""
        if self.processes.is_main:
            write_table(table, rows, self.folder / f"{table.name}-{step:08d}.parquet", {})

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Keep the state after a step; with what was recorded up to here it survives a kill."""
        if self.processes.is_main:
            older = self._states()
            made = self.folder / "state.pt"
            with replacing(made) as temporary:
                torch.save({**state, "step": step}, temporary)
            named = made.with_name(f"state-{step:08d}-{sha256_of(made)}.pt")
            os.replace(made, named)
            for path in older:
                if path != named:
                    path.unlink()

    def recorded(self, table: Table, step: int) -> pa.Table:
        """All rows of a table up to a step, in their order."""
        paths = sorted(self.folder.glob(f"{table.name}-*.parquet"))
        kept = [path for path in paths if int(path.stem.rpartition("-")[2]) <= step]
        try:
            return pa.concat_tables([read_table(table, path).replace_schema_metadata() for path in kept])
        except InputError as error:
            raise self._damaged(str(error).partition(";")[0]) from None

    def _states(self) -> list[Path]:
        """The states by step: one, and after a kill while it was being renewed two."""
        return sorted(self.folder.glob("state-*.pt"))

    def _damaged(self, what: str) -> InputError:
        return InputError(f"{what}; delete {self.folder} and run again: the run begins anew")

    def remove(self) -> None:
        """Delete the folder: the run is whole elsewhere."""
        shutil.rmtree(self.folder)
