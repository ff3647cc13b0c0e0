"""Whole files or none: writing through a temporary name in the same folder, and checksums."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gradatlas.core.errors import InputError

#: The folder that holds workflow/, config/ and resources/.
ROOT = Path(__file__).resolve().parents[3]


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends well.

    The suffix is kept, so that writers which look at it (charts, say) still work. When the block
    raises, nothing is left behind and an older `path` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; results are to be read by colleagues.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(option: str, path: str | Path) -> None:
    """`InputError` where no file can be written at `path`, told before hours of work; nothing is made yet."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{option} {path}: is a folder; give a file")
    # Folders that are not there are made.
    above = next(folder for folder in path.absolute().parents if folder.exists() or folder.is_symlink())
    if not above.is_dir():
        raise InputError(f"{option} {path}: {above} is no folder; give another path")
    if not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"{option} {path}: no file may be written into {above}; give another path, or change its mode")


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sums(folder: str | Path) -> None:
    """Compare every file that `folder`'s SHA256SUMS names; `InputError` names the first missing or altered one."""
    folder = Path(folder)
    if not (folder / "SHA256SUMS").is_file():
        raise InputError(f"{folder}/SHA256SUMS: no such file; restore it with: git checkout -- {folder}")
    for line in (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines():
        expected, name = line.split(maxsplit=1)
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path}: no such file; restore it with: git checkout -- {path}")
        if sha256_of(path) != expected:
            raise InputError(
                f"{path}: its sha256 is not that in {folder}/SHA256SUMS; restore it with: git checkout -- {path}"
            )
