"""Whole files or none: writing through a temporary name in the same folder, and checksums."""

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workflow.lib.errors import InputError

_RULE = "# rule "
_STAMP = ".snakemake_timestamp"  # Snakemake's, in the folders that it asks for


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
        # Else a power failure after the renaming may leave the name with no content.
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
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


def sums_of(folder: str | Path) -> Path:
    """Where the checksums of a folder that a rule makes stand: beside it."""
    return Path(f"{Path(folder)}.sha256")


def write_sums(folder: str | Path, rule: str) -> None:
    """Write the SHA-256 of every file in `folder`, which `rule` has made, to `sums_of` it.

    The file stands for the folder in the workflow: a folder's times say nothing of its content. ``sha256sum -c`` reads
    it, beside the folder.
    """
    folder = Path(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _STAMP)
    lines = [f"{sha256_of(path)}  {path.relative_to(folder.parent).as_posix()}\n" for path in files]
    write_text(sums_of(folder), f"{_RULE}{rule}\n{''.join(lines)}")


def check_sums(sums: str | Path) -> None:
    """Compare every file that the list `sums` names, from its folder on; `InputError` names the first other one."""
    sums = Path(sums)
    if not sums.is_file():
        raise InputError(f"{sums}: no such file; restore it with: git checkout -- {sums.parent}")
    lines = sums.read_text(encoding="utf-8", errors="replace").splitlines()
    rule = lines.pop(0).removeprefix(_RULE) if lines and lines[0].startswith(_RULE) else ""
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
