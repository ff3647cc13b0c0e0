"""Where a finetuning run goes on after a kill: one file with all that its future depends on, and
one per table and step that is watched."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from gradatlas.core.command import progress
from gradatlas.core.files import replacing, write_text
from gradatlas.core.tables import read_table, write_table
from gradatlas.finetuning.processes import ALONE, Processes


class Checkpoints:
    """A folder for one run. Made for other `facts` (recipe, inputs, code), what stands there is deleted.

    What is watched at a step is written before the step's checkpoint, each table whole or not at all: what is newer
    than the checkpoint was not reached yet and is written again, with the same numbers. Of several `processes` the
    first writes, and all read.
    """

    def __init__(self, folder: str | Path, facts: Mapping[str, Any], processes: Processes = ALONE):
        self.folder, self.processes = Path(folder), processes
        self.state = self.folder / "state.pt"
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
        return torch.load(self.state, map_location=device, weights_only=True) if self.state.is_file() else None

    def record(self, table: str, step: int, rows: list[dict]) -> None:
        """Keep one step's rows of a table."""
        if self.processes.leads:
            write_table(table, rows, self.folder / f"{table}-{step:08d}.parquet", {})

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Keep the state after a step; with what was recorded up to here it survives a kill."""
        if self.processes.leads:
            with replacing(self.state) as temporary:
                torch.save({**state, "step": step}, temporary)

    def recorded(self, table: str, step: int) -> pa.Table:
        """All rows of a table up to a step, in their order."""
        paths = sorted(self.folder.glob(f"{table}-*.parquet"))
        kept = [path for path in paths if int(path.stem.rpartition("-")[2]) <= step]
        return pa.concat_tables([read_table(table, path).replace_schema_metadata() for path in kept])

    def remove(self) -> None:
        """Delete the folder: the run is whole elsewhere."""
        shutil.rmtree(self.folder)
