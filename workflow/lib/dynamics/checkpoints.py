"""Where a finetuning run goes on after a kill: one file with all that its future depends on, and
one per table and step that is watched. The name of the former holds its step and its checksum."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from workflow.lib.command import progress
from workflow.lib.dynamics.processes import ALONE, Processes
from workflow.lib.errors import InputError
from workflow.lib.files import replacing, sha256_of, write_text
from workflow.lib.tables import read_table, write_table


class Checkpoints:
    """A folder for one run. Made for other `facts` (recipe, inputs, code), what stands there is deleted.

    What is watched at a step is written before the step's checkpoint, each table whole or not at all: what is newer
    than the checkpoint was not reached yet and is written again, with the same numbers. Of several `processes` the
    first writes, and all read.
    """

    def __init__(self, folder: str | Path, facts: Mapping[str, Any], processes: Processes = ALONE):
        self.folder, self.processes = Path(folder), processes
        if processes.leads:
            self._open(json.dumps(facts, sort_keys=True, indent=1) + "\n")
        processes.wait()

    def _open(self, text: str) -> None:
        mark = self.folder / "facts.json"
        if self.folder.is_dir() and (not mark.is_file() or mark.read_text(encoding="utf-8") != text):
            progress(f"{self.folder}: kept for another recipe, input or code; begun anew")
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(mark, text)

    def load(self, device: str) -> dict[str, Any] | None:
        """The last state, or None."""
        states = self._states()
        if not states:
            return None
        if states[-1].stem.rpartition("-")[2] != sha256_of(states[-1]):
            raise self._damaged(f"{states[-1]}: damaged, its checksum does not match")
        return torch.load(states[-1], map_location=device, weights_only=True)

    def record(self, table: str, step: int, rows: list[dict]) -> None:
        """Keep one step's rows of a table."""
        if self.processes.leads:
            write_table(table, rows, self.folder / f"{table}-{step:08d}.parquet", {})

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Keep the state after a step; with what was recorded up to here it survives a kill."""
        if self.processes.leads:
            older = self._states()
            made = self.folder / "state.pt"
            with replacing(made) as temporary:
                torch.save({**state, "step": step}, temporary)
            named = made.with_name(f"state-{step:08d}-{sha256_of(made)}.pt")
            os.replace(made, named)
            for path in older:
                if path != named:
                    path.unlink()

    def recorded(self, table: str, step: int) -> pa.Table:
        """All rows of a table up to a step, in their order."""
        paths = sorted(self.folder.glob(f"{table}-*.parquet"))
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
