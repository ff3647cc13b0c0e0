"""Where a finetuning run goes on after a kill: one file with all that its future depends on, and one per evaluation."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from workflow.lib.command import progress
from workflow.lib.files import replacing, write_text
from workflow.lib.tables import read_table, write_table


class Checkpoints:
    """A folder for one run. Made for other `facts` (recipe, inputs, code), what stands there is deleted.

    An evaluation is written before the checkpoint of its step, each whole or not at all: what is newer than the
    checkpoint was not reached yet and is written again, with the same numbers.
    """

    def __init__(self, folder: str | Path, facts: Mapping[str, Any]):
        self.folder = Path(folder)
        self.state = self.folder / "state.pt"
        text = json.dumps(facts, sort_keys=True, indent=1) + "\n"
        mark = self.folder / "facts.json"
        if self.folder.is_dir() and (not mark.is_file() or mark.read_text(encoding="utf-8") != text):
            progress(f"{folder}: kept for another recipe, input or code; begun anew")
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(mark, text)

    def load(self, device: str) -> dict[str, Any] | None:
        """The last state, or None."""
        return torch.load(self.state, map_location=device, weights_only=True) if self.state.is_file() else None

    def save(self, step: int, rows: list[dict], state: Mapping[str, Any]) -> None:
        """Keep the evaluation of a step and the state after it; they survive a kill from here on."""
        write_table("dynamics", rows, self.folder / f"step-{step:08d}.parquet", {})
        with replacing(self.state) as temporary:
            torch.save({**state, "step": step}, temporary)

    def evaluations(self, step: int) -> pa.Table:
        """All evaluations up to a step, in their order."""
        paths = sorted(self.folder.glob("step-*.parquet"))
        kept = [path for path in paths if int(path.stem.removeprefix("step-")) <= step]
        return pa.concat_tables([read_table("dynamics", path).replace_schema_metadata() for path in kept])

    def remove(self) -> None:
        """Delete the folder: the run is whole elsewhere."""
        shutil.rmtree(self.folder)
