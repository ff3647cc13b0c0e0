"""A crash-safe memory of computed samples: killed jobs go on where they stopped.

A journal is a folder of segments, one per writing process, each an Arrow stream of record batches; one record batch
is one committed batch of samples. Readers merge all segments by key, so writers need no lock on each other: a
crashed writer leaves at worst a torn last record (ignored), a living one whole records before it.
"""

import os
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from filelock import FileLock, Timeout

from workflow.lib.errors import InputError

_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("loss", pa.float64()),
        ("status", pa.string()),
        # (layers, projections, metrics) in row-major order; empty where the status is not ok.
        ("values", pa.list_(pa.float64())),
    ]
)
_MARKER = b"\xff\xff\xff\xff"


@dataclass(frozen=True)
class Record:
    """What a pass over one sample gave."""

    loss: float | None
    status: str
    values: Sequence[float]


class Journal:
    """Append committed batches to an own segment; look up what any segment holds.

    >>> journal = Journal(folder); journal.commit(keys, records); journal.close()
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._path = self.folder / f"{os.getpid()}-{uuid.uuid4().hex[:12]}.arrows"
        self._lock = FileLock(f"{self._path}.lock")
        self._file = None
        self._writer = None

    def read(self) -> dict[str, Record]:
        """All committed records of all segments, by key."""
        found: dict[str, Record] = {}
        for path in self._segments():
            for batch in _batches(path):
                columns = (batch.column(name).to_pylist() for name in ("key", "loss", "status", "values"))
                found.update((key, Record(*rest)) for key, *rest in zip(*columns, strict=True))
        return found

    def commit(self, keys: Sequence[str], records: Sequence[Record]) -> None:
        """Append one batch, whole, and force it to the disk: after this returns, no kill can lose it."""
        if self._writer is None:
            # The lock says "this writer lives"; the kernel frees it however the process ends.
            self._lock.acquire()
            self._file = open(self._path, "xb")  # noqa: SIM115 - open for the life of the writer
            self._writer = pa.ipc.new_stream(self._file, _SCHEMA)
        columns = [
            list(keys),
            [record.loss for record in records],
            [record.status for record in records],
            [list(record.values) for record in records],
        ]
        self._writer.write_batch(pa.record_batch(columns, schema=_SCHEMA))
        self._file.flush()
        os.fsync(self._file.fileno())

    def prune(self, wanted: Iterable[str]) -> int:
        """Delete the segments of dead writers that hold none of the `wanted` keys; returns how many."""
        keys = set(wanted)
        pruned = 0
        for path in self._segments():
            if path == self._path or any(
                not keys.isdisjoint(batch.column("key").to_pylist()) for batch in _batches(path)
            ):
                continue
            try:
                with FileLock(f"{path}.lock", timeout=0):
                    path.unlink(missing_ok=True)
                    pruned += 1
            except Timeout:
                continue
            Path(f"{path}.lock").unlink(missing_ok=True)
        return pruned

    def close(self) -> None:
        """End the own segment, if one was begun."""
        if self._writer is not None:
            self._writer.close()
            self._file.close()
            self._lock.release()
            Path(f"{self._path}.lock").unlink(missing_ok=True)
            self._writer = None

    def _segments(self) -> list[Path]:
        return sorted(self.folder.glob("*.arrows"))


def _batches(path: Path) -> list[pa.RecordBatch]:
    """The whole record batches of a segment; a torn last one, from a killed or still writing process, is left out."""
    content = path.read_bytes()
    # Every Arrow stream opens with this marker; a shorter file is a header torn by a kill.
    if content[:4] != _MARKER[: len(content)]:
        raise InputError(f"{path}: not a journal segment; delete this file, its samples are computed again")
    whole = []
    try:
        reader = pa.ipc.open_stream(content)
        if reader.schema != _SCHEMA:
            raise InputError(
                f"{path}: a journal segment with other columns; delete this file, its samples are computed again"
            )
        for batch in reader:
            batch.validate(full=True)
            whole.append(batch)
    except (pa.ArrowInvalid, OSError):
        # Truncated: all that was committed before stands.
        pass
    return whole
