"""A crash-safe journal of computed samples: killed jobs resume where they stopped.

A journal is a folder of segments, one per writing process. A segment is a sequence of frames: one committed batch of
samples each, with a checksum. Readers merge all segments by key, so writers need no common lock. A crashed writer may
leave an incomplete last frame, which is ignored; any other damage is an error. Samples that a job does not need stay
for later jobs.
"""

import hashlib
import os
import struct
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from filelock import FileLock, Timeout

from gradatlas.core.command import progress
from gradatlas.core.errors import InputError
from gradatlas.core.files import writing

_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("loss", pa.float64()),
        ("status", pa.string()),
        ("loss_concentration", pa.float64()),
        # (layers, projections, metrics) in row-major order; empty where the status is not ok.
        ("values", pa.list_(pa.float64())),
        # Numbers of optional tables, by name (gradatlas.gradients.extras).
        ("extras", pa.map_(pa.string(), pa.list_(pa.float64()))),
    ]
)

# A frame's head: a mark, the length of the body in bytes, and digests of the body and of the head's other fields. The
# last one detects a damaged length, which would look like an incomplete body.
_MARK = b"GAJ3"
# Formats of older code: no key of theirs is looked up any more.
_OLD_MARKS = (b"GAJ1", b"GAJ2")
_EARLIER = "earlier"  # the folder for their segments
_FIELDS = struct.Struct("<4sQ16s")
_DIGEST = 16
_HEAD = _FIELDS.size + _DIGEST
# What a power failure can leave: the file has grown, but its content is zeros. A written body never ends like this, but
# with Arrow's end of stream, ff ff ff ff 00 00 00 00.
_UNWRITTEN = bytes(8)


@dataclass(frozen=True)
class Record:
    """The result of a pass over one sample."""

    loss: float | None
    status: str
    loss_concentration: float | None = None
    values: Sequence[float] = ()
    extras: Mapping[str, Sequence[float]] = field(default_factory=dict)


class Journal:
    """Appends batches to a segment of its own, and reads all segments.

    `maker`: the code and versions that compute. They are part of every key, so that results of other code are not used.

    >>> journal = Journal(folder, maker); journal.commit(keys, records); journal.close()
    """

    def __init__(self, folder: str | Path, maker: str = ""):
        self.folder = Path(folder)
        self._schema, self._place = _SCHEMA.with_metadata({"maker": maker}), _folder_of(maker.encode())
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"--journal {folder}: no folder can be made here ({error.strerror}); give another"
            ) from None
        self._path = self.folder / f"{os.getpid()}-{uuid.uuid4().hex[:12]}.frames"
        self._lock = FileLock(f"{self._path}.lock")
        self._file = None

    def read(self) -> dict[str, Record]:
        """All committed records of all segments, by key."""
        found: dict[str, Record] = {}
        for path in self._segments():
            for batch in _batches(path):
                columns = (batch.column(name).to_pylist() for name in _SCHEMA.names)
                for key, *rest, extras in zip(*columns, strict=True):
                    found[key] = Record(*rest, dict(extras))
        return found

    def commit(self, keys: Sequence[str], records: Sequence[Record]) -> None:
        """Append one batch and sync it to the disk: after this returns, a kill cannot lose it."""
        if self._file is None:
            # Held while this process lives; the kernel frees it however the process ends.
            self._lock.acquire()
            self._file = open(self._path, "xb")  # noqa: SIM115 - open for the life of the writer
        columns = [
            list(keys),
            [record.loss for record in records],
            [record.status for record in records],
            [record.loss_concentration for record in records],
            [list(record.values) for record in records],
            [list(record.extras.items()) for record in records],
        ]
        columns = [pa.array(column, kind.type) for column, kind in zip(columns, _SCHEMA, strict=True)]
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self._schema) as writer:
            writer.write_batch(pa.record_batch(columns, schema=self._schema))
        body = sink.getvalue().to_pybytes()
        fields = _FIELDS.pack(_MARK, len(body), _digest(body))
        with writing(self._path):
            self._file.write(fields + _digest(fields) + body)
            self._file.flush()
            os.fsync(self._file.fileno())

    def set_aside(self) -> int:
        """Move the segments of another `maker` into a folder named by its digest; returns how many were moved.

        If the code is changed back, they are read from there. The segment of a running process stays; a segment without
        a complete batch is deleted.
        """
        moved = 0
        for path in sorted(self.folder.glob("*.frames")):
            if path == self._path:
                continue
            first = next(_batches(path), None)
            place = _folder_of((first.schema.metadata or {}).get(b"maker", b"")) if first is not None else ""
            if place == self._place:
                continue
            try:
                with FileLock(f"{path}.lock", timeout=0):
                    if first is None and not _is_earlier(path):
                        path.unlink(missing_ok=True)
                    else:
                        (self.folder / (place or _EARLIER)).mkdir(exist_ok=True)
                        os.replace(path, self.folder / (place or _EARLIER) / path.name)
                        moved += 1
            except (Timeout, FileNotFoundError):
                continue
            Path(f"{path}.lock").unlink(missing_ok=True)
        if moved:
            progress(
                f"{self.folder}: {moved} segments of other code or versions were moved to folders named by its digest"
            )
        return moved

    def close(self) -> None:
        """Close this process's segment, if there is one."""
        if self._file is not None:
            self._file.close()
            self._lock.release()
            Path(f"{self._path}.lock").unlink(missing_ok=True)
            self._file = None

    def _segments(self) -> list[Path]:
        """The segments in use, and those of this maker that were moved while the code was different."""
        return [*sorted(self.folder.glob("*.frames")), *sorted((self.folder / self._place).glob("*.frames"))]


def _folder_of(maker: bytes) -> str:
    return hashlib.sha256(maker).hexdigest()[:12]


def _is_earlier(path: Path) -> bool:
    """Whether a segment has an old format, which is not read any more."""
    with open(path, "rb") as file:
        return file.read(len(_MARK)) in _OLD_MARKS


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:_DIGEST]


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The complete batches of a segment, without an incomplete last one of a killed or still writing process."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        # Moved by another process since the folder was listed.
        return
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); make it readable, or delete it to compute its samples again"
        ) from None
    at = 0
    while len(content) - at >= _HEAD:
        fields = content[at : at + _FIELDS.size]
        body_at = at + _HEAD
        mark, length, digest = _FIELDS.unpack(fields)
        if mark not in (_MARK, *_OLD_MARKS) or content[at + _FIELDS.size : body_at] != _digest(fields):
            if len(content[at:].rstrip(b"\0")) < _HEAD:
                return
            raise _damaged(path, at)
        body = content[body_at : body_at + length]
        if len(body) < length:
            return
        if _digest(body) != digest:
            if content[body_at + length - len(_UNWRITTEN) :] == _UNWRITTEN:
                return
            raise _damaged(path, at)
        if mark == _MARK:
            yield from pa.ipc.open_stream(body)
        at = body_at + length


def _damaged(path: Path, at: int) -> InputError:
    return InputError(f"{path}: damaged at byte {at}; delete this file to compute its samples again")
