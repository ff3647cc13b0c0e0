"""Measured chunks of a file, each a Parquet file with a key of all that its numbers depend on.

A later run takes the chunks whose key is the same and computes the others, so a killed run loses one chunk at most.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

from gradatlas.core.command import progress
from gradatlas.core.digest import code_digest
from gradatlas.core.tables import read_metadata, write_table
from gradatlas.data.training.rows import TrainingRow
from gradatlas.scores.measure import Item, Scorer, chunks
from gradatlas.scores.tables import MEASURED, METRICS

# Seconds between two lines of progress.
_PERIOD = 5.0


@dataclass
class Outcome:
    """What became of a file's rows: paths of the parts in order, rows by status, rows computed and found, tokens."""

    paths: list[Path] = field(default_factory=list)
    statuses: Counter = field(default_factory=Counter)
    computed: int = 0
    recalled: int = 0
    tokens: int = 0

    def line(self) -> str:
        """The numbers of rows by status."""
        return ", ".join(f"{count} {status}" for status, count in self.statuses.most_common())


def facts_of(scorer: Scorer, model_digest: str, adapter_digest: str = "") -> dict[str, Any]:
    """All that a part's numbers depend on, beside its rows' tokens."""
    settings = asdict(scorer.settings)
    changed = adapter_digest or settings["quantise"]
    return {
        "model_digest": model_digest,
        "adapter": adapter_digest,
        "layers": len(scorer.capture.layers),
        "metrics": METRICS,
        "projections": scorer.capture.projections,
        **{name: settings[name] for name in ("mapping", "tf32", "lora", "quantise")},
        "dtype": str(scorer.model.dtype).removeprefix("torch."),
        # Token ids and masks are in the key.
        "engine": code_digest("gradatlas.scores.measure:measure_chunk"),
        # But what makes other weights of the files.
        "weights": code_digest("gradatlas.models.adapted:load_adapted") if changed else "",
        "torch": ".".join(torch.__version__.split(".")[:2]),
        "transformers": ".".join(transformers.__version__.split(".")[:2]),
        "device": str(scorer.model.device.type),
        "attention": scorer.model.config._attn_implementation,
    }


def write_parts(
    scorer: Scorer,
    rows: Iterable[TrainingRow],
    folder: Path,
    *,
    model_digest: str,
    adapter_digest: str = "",
    more: Mapping[str, Any] | None = None,
    load: Callable[[], Any] | None = None,
) -> Outcome:
    """Measure all rows into `folder`, a file NNNNNNNN.parquet for each chunk, by the number of its first row.

    `model_digest`: empty for a live model, whose earlier parts are not used; `adapter_digest`: of its adapter. `more`:
    further facts for the metadata. `load` gives the model in float32, for the error of a 16-bit pass, which is in the
    metadata of the first part.
    """
    facts, outcome, shown = facts_of(scorer, model_digest, adapter_digest), Outcome(), time.monotonic()
    started = shown
    for chunk in chunks(scorer.items(rows)):
        path = folder / f"{chunk[0].number:08}.parquet"
        key = key_of(chunk, facts)
        statuses = _known(path, key) if model_digest else None
        if statuses is None:
            table = scorer.measure(chunk)
            about = {**facts, **(more or {}), **(scorer.rounding(chunk, load) if not outcome.paths else {})}
            statuses = Counter(table["status"].to_pylist())
            # A sample that does not fit into memory here may fit on another machine.
            kept = "" if statuses["out_of_memory"] else key
            write_table(MEASURED, table, path, {**about, "key": kept, "statuses": statuses})
            outcome.computed += len(chunk)
            outcome.tokens += sum(len(item.texts) for item in chunk)
        else:
            outcome.recalled += len(chunk)
        outcome.paths.append(path)
        outcome.statuses.update(statuses)
        if time.monotonic() - shown >= _PERIOD:
            shown = time.monotonic()
            done, seconds = outcome.computed, shown - started
            progress(
                f"{done} rows computed, {done / seconds:.1f} rows/s, {outcome.tokens / seconds:.0f} tokens/s, "
                f"{outcome.recalled} found in {folder}"
            )
    for left in {*folder.glob("*.parquet")} - {*outcome.paths}:
        left.unlink()
    return outcome


def key_of(chunk: Sequence[Item], facts: Mapping[str, Any]) -> str:
    """A hash of the tokens of a chunk and of `facts`."""
    parts = [
        (item.number, item.response, item.status, item.reason, item.texts)
        + ((item.sample.ids, item.sample.response, item.sample.truncated) if item.sample else ())
        for item in chunk
    ]
    return hashlib.sha256(json.dumps([parts, facts], sort_keys=True).encode()).hexdigest()


def _known(path: Path, key: str) -> Counter | None:
    """The statuses of a part that has this key; None where there is none."""
    if not path.is_file():
        return None
    found = read_metadata(path, MEASURED)
    return Counter(found["statuses"]) if found.get("key") == key else None
