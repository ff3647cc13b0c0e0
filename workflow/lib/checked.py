"""Files that one rule writes and another reads, each with a checksum inside: damage is an error, never a number.

The checksum is XXH3 of 128 bits, 32 hexadecimal digits. Parquet has it in its footer, over every byte but the digits;
JSON under the key ``checksum``, over all other content; text in its last line, over the lines before. Other programs
read these files as before. A user's own files have none.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from xxhash import xxh3_128

from workflow.lib.errors import InputError
from workflow.lib.files import replacing, write_text

_KEY = "gradatlas.checksum"
_DIGITS = 32
# Key and value as the footer's compact Thrift has them: each with its type and its length before it.
_MARK = b"\x18" + bytes([len(_KEY)]) + _KEY.encode() + b"\x18" + bytes([_DIGITS])
_PART = 1 << 20  # bytes
_LAST_LINE = re.compile(r'(?:# checksum: |\{"checksum": ")([0-9a-f]{32})(?:"\})?\n\Z')


@contextmanager
def parquet_writer(path: str | Path, schema: Any) -> Iterator[Any]:
    """A `ParquetWriter` of the file `path`, which is there once the block ends well, and not at all where it raises.

    `schema`: of pyarrow, which is imported late: Snakemake's start needs the other half of this module alone.
    """
    import pyarrow.parquet as pq

    with replacing(path) as temporary:
        with pq.ParquetWriter(temporary, schema, compression="zstd", write_page_checksum=True) as writer:
            yield writer
            writer.add_key_value_metadata({_KEY: "0" * _DIGITS})
        with open(temporary, "r+b") as file:
            at = _slot(file)
            digits = _sum(file, at)
            file.seek(at)
            file.write(digits)


def open_parquet(path: str | Path, rule: str, own: bool = True) -> Any:
    """A `ParquetFile` whose checksum holds, open for reading, with its pages' checksums verified too.

    `rule` makes the file. Without `own` it may be a user's, which has no checksum. Raises `InputError` that names the
    file and the rule, where the file is missing, damaged or no Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_parquet(path, rule, own)
    try:
        return pq.ParquetFile(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, f"not a readable Parquet file ({error})", rule) from None


def check_parquet(path: str | Path, rule: str, own: bool = True) -> None:
    """Read the whole file and compare its checksum; `InputError` as by `open_parquet`."""
    try:
        with open(path, "rb") as file:
            at = _slot(file)
            if at is None:
                if own:
                    raise damaged(path, "has no checksum, so it is damaged or of an earlier version", rule)
                return
            file.seek(at)
            found = file.read(_DIGITS)
            if found != _sum(file, at):
                raise damaged(path, "damaged, its checksum does not match", rule)
    except FileNotFoundError:
        raise _missing(path, rule) from None
    except OSError as error:
        raise damaged(path, f"cannot be read ({error.strerror})", rule) from None


def _slot(file: BinaryIO) -> int | None:
    """Where the digits of the checksum stand, if there are any."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 8))
    footer = int.from_bytes(file.read(4), "little") + 8
    # A damaged length must not hide them.
    start = max(0, size - max(footer, _PART))
    file.seek(start)
    at = file.read().rfind(_MARK)
    return None if at < 0 else start + at + len(_MARK)


def _sum(file: BinaryIO, slot: int) -> bytes:
    """The checksum of all bytes but the digits."""
    total = xxh3_128()
    file.seek(0)
    before = slot
    while before and (part := file.read(min(before, _PART))):
        total.update(part)
        before -= len(part)
    file.seek(slot + _DIGITS)
    while part := file.read(_PART):
        total.update(part)
    return total.hexdigest().encode()


def write_json(path: str | Path, facts: Mapping[str, Any]) -> None:
    """Write a JSON object, its keys in their order and ``checksum`` as the last one, whole or not at all."""
    whole = {**facts, "checksum": _of(facts)}
    write_text(path, json.dumps(whole, indent=1, ensure_ascii=False) + "\n")


def read_json(path: str | Path, rule: str) -> dict[str, Any]:
    """What `write_json` wrote; `InputError` that names the file and the `rule` that makes it, where it is damaged."""
    try:
        facts = json.loads(Path(path).read_text(encoding="utf-8"))
        found = facts.pop("checksum", None)
    except FileNotFoundError:
        raise _missing(path, rule) from None
    except OSError as error:
        raise damaged(path, f"cannot be read ({error.strerror})", rule) from None
    except (ValueError, AttributeError, TypeError) as error:
        raise damaged(path, f"damaged, not a JSON object ({error})", rule) from None
    if found is None:
        raise damaged(path, "has no checksum, so it is damaged or of an earlier version", rule)
    if found != _of(facts):
        raise damaged(path, "damaged, its checksum does not match", rule)
    return facts


def _of(facts: Mapping[str, Any]) -> str:
    # As they are read again: tuples are lists, and all keys text.
    return xxh3_128(json.dumps(json.loads(json.dumps(facts)), sort_keys=True).encode()).hexdigest()


def write_lines(path: str | Path, text: str, last: str = '{{"checksum": "{}"}}') -> None:
    """Write whole lines of text and, after them, the line `last` with their checksum; whole or not at all."""
    write_text(path, f"{text}{last.format(xxh3_128(text.encode()).hexdigest())}\n")


def read_lines(path: str | Path, rule: str, own: bool = True) -> str:
    """The text that `write_lines` was given; a file without a checksum as it is, where it need not be ours (`own`).

    Raises `InputError` that names the file and the `rule` that makes it, where it is damaged.
    """
    try:
        text = Path(path).read_bytes().decode()
    except FileNotFoundError:
        raise _missing(path, rule) from None
    except (OSError, UnicodeDecodeError) as error:
        raise damaged(path, f"cannot be read ({error})", rule) from None
    last = _LAST_LINE.search(text)
    if last is None and own:
        raise damaged(path, "has no checksum, so it is damaged or of an earlier version", rule)
    body = text[: last.start()] if last else text
    if last and last[1] != xxh3_128(body.encode()).hexdigest():
        copy = "" if own else ", or, of a copy that you edited, its last line"
        raise InputError(f"{damaged(path, 'damaged, its checksum does not match', rule)}{copy}")
    return body


def damaged(path: str | Path, what: str, rule: str) -> InputError:
    """The error for a file that a `rule` makes and that cannot be used."""
    return InputError(f"{path}: {what}; delete it and run again (rule {rule})")


def _missing(path: str | Path, rule: str) -> InputError:
    return InputError(f"{path}: no such file; make it with rule {rule}")
