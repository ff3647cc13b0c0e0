"""Atomic writes, through a temporary name in the same folder; errors of the disk; checksums of files."""

import errno
import fcntl
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gradatlas.core.errors import InputError

#: The folder that holds workflow/, config/ and resources/.
ROOT = Path(__file__).resolve().parents[3]
_RULE = re.compile(r"# rule (\w+)(?:, files: (\d+))?")
_PIECES, _PIECE = 64, 65536  # of a large file's fingerprint: how many, and bytes of each
_SPACE, _MODE = "free some space", "change the mode or the owner of the file or its folder"
_DISK = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EROFS: "mount it writable",
    errno.EACCES: _MODE,
    errno.EPERM: _MODE,
}
# As Python, pyarrow and libraries in Rust write it; not all of them raise an OSError.
_NUMBER = re.compile(r"(?:errno|os error) (\d+)", re.IGNORECASE)


def disk_error(error: BaseException | None, path: str | Path = "") -> InputError | None:
    """The one line of a disk that is full or not writable; None for any other error.

    It names the file of the error, or `path` where the error has none or a temporary one beside `path`.
    """
    if error is None or isinstance(error, InputError):
        return None
    found = _NUMBER.search(str(error))
    number = int(found[1]) if found else None
    if number not in _DISK:
        # torch's error of closing a file hides that of writing it.
        return disk_error(error.__context__, path)
    named = getattr(error, "filename", None)
    if path and (not named or Path(named).parent == Path(path).absolute().parent):
        named = path
    return InputError(f"{named or 'a file of this job'}: {os.strerror(number)}; {_DISK[number]} and run again")


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Errors of the disk in this block become an `InputError` that names `path`."""
    try:
        yield
    except Exception as error:
        if found := disk_error(error, path):
            raise found from None
        raise


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path in the folder of `path`, renamed to `path` when the block ends without an error.

    It keeps the suffix, which some writers depend on. When the block raises, the temporary file is removed and an older
    `path` stays. What killed writers of `path` have left is removed first. `InputError` as by `writing`.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left(path)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
        temporary = Path(name)
        try:
            # Some file systems have no locks.
            with suppress(OSError):
                _lock(handle)
            yield temporary
            # mkstemp makes files private; results are to be read by colleagues.
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            # Without this, a power failure after the renaming can leave an empty file.
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(handle)


def _lock(handle: int) -> None:
    """Lock an open file until it is closed, by a kill too; OSError where another process holds it."""
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_left(path: Path) -> None:
    """Remove the temporary files of killed writers of `path`; a writer that lives holds a lock."""
    name = re.compile(rf"\.{re.escape(path.stem)}\.\w{{8}}{re.escape(path.suffix)}")
    for left in [entry.path for entry in os.scandir(path.parent) if name.fullmatch(entry.name)]:
        with suppress(OSError), open(left, "rb") as file:
            _lock(file.fileno())
            os.unlink(left)


def check_writable(option: str, path: str | Path) -> None:
    """`InputError` where no file can be written at `path`. Checked before a long job; creates nothing."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{option} {path}: is a folder; give a file")
    # Missing folders are made later.
    above = next(folder for folder in path.absolute().parents if folder.exists() or folder.is_symlink())
    if not above.is_dir():
        raise InputError(f"{option} {path}: {above} is no folder; give another path")
    if not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"{option} {path}: no file may be written into {above}; give another path, or change its mode")


def check_all_writable(folder: str | Path) -> None:
    """`InputError` that names a folder in `folder`, if there is one, in which no file can be written or removed."""
    for place, _, _ in os.walk(folder):
        if not os.access(place, os.W_OK | os.X_OK):
            raise InputError(f"{place}: no file may be written here; {_MODE} and run again")


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def from_json(text: str) -> Any:
    """The value of a JSON text; `ValueError` also where it is nested too deeply, or holds half of a character."""
    try:
        value = json.loads(text)
        # An escape can be half of a character (a lone surrogate), which cannot be written to a file.
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint_of(path: str | Path) -> str:
    """SHA-256 of a file's size and content, 16 hexadecimal digits; of a file beyond 4 MiB, of 64 evenly spaced pieces.

    For what is asked at every start: a change of a large file is seen if it covers a 64th of it in one place.
    """
    size = os.path.getsize(path)
    last = max(size - _PIECE, 0)
    places = range(0, size, _PIECE) if size <= _PIECES * _PIECE else [last * i // (_PIECES - 1) for i in range(_PIECES)]
    found = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        for place in places:
            file.seek(place)
            found.update(file.read(_PIECE))
    return found.hexdigest()[:16]


def sums_of(folder: str | Path) -> Path:
    """The file of checksums of a folder that a rule makes: FOLDER.sha256."""
    return Path(f"{Path(folder)}.sha256")


def write_sums(folder: str | Path, rule: str) -> None:
    """Write the SHA-256 of every file in `folder`, which `rule` has made, to FOLDER.sha256.

    The workflow uses this file in place of the folder, whose modification time does not depend on its content.
    ``sha256sum -c`` can read it.
    """
    folder = Path(folder)
    # Not Snakemake's time stamp, nor the temporary file of another writer.
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    lines = [f"{sha256_of(path)}  {path.relative_to(folder.parent).as_posix()}\n" for path in files]
    write_text(sums_of(folder), f"# rule {rule}, files: {len(lines)}\n{''.join(lines)}")


def check_sums(sums: str | Path) -> None:
    """Compare all files with the list `sums` (paths relative to it); `InputError` names the first that differs."""
    sums = Path(sums)
    if not sums.is_file():
        raise InputError(f"{sums}: no such file; restore it with: git checkout -- {sums.parent}")
    lines = sums.read_text(encoding="utf-8", errors="replace").splitlines()
    made = _RULE.fullmatch(lines[0]) if lines else None
    rule, count = made.groups() if made else ("", None)
    lines = lines[1:] if made else lines
    if not lines or (count and int(count) != len(lines)):
        again = f"run again (rule {rule})" if rule else "run again"
        raise InputError(f"{sums}: damaged, it lists {len(lines)} of {count or 'its'} files; delete it and {again}")
    for line in lines:
        expected, _, name = line.partition("  ")
        path = sums.parent / name
        again = f"delete {sums} and run again (rule {rule})" if rule else f"restore it with: git checkout -- {path}"
        if not re.fullmatch("[0-9a-f]{64}", expected):
            raise InputError(f"{sums}: damaged at '{line[:40]}'; {again}")
        if not path.is_file():
            raise InputError(f"{path}: no such file, though {sums} lists it; {again}")
        if sha256_of(path) != expected:
            raise InputError(f"{path}: its sha256 is not that in {sums}; {again}")
