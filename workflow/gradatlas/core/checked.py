"""Files with a checksum inside, which one rule writes and another reads: a damaged file is an error.

The checksum is XXH3 with 128 bits, 32 hexadecimal digits. Parquet: in the footer, over all bytes but the digits. JSON:
under the key ``checksum``, over all other content. Text: in the last line, over the lines before. Other programs can
read these files. A user's own files have no checksum.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from xxhash import xxh3_128

from gradatlas.core.errors import InputError
from gradatlas.core.files import from_json, replacing, write_text

_KEY = "gradatlas.checksum"
_DIGITS = 32
# Key and value in the footer's compact Thrift: each with its type and its length before it.
_MARK = b"\x18" + bytes([len(_KEY)]) + _KEY.encode() + b"\x18" + bytes([_DIGITS])
_PART = 1 << 20  # bytes
_LAST_LINE = re.compile(r'(?:# checksum: |\{"checksum": ")([0-9a-f]{32})(?:"\})?\n\Z')


@contextmanager
def parquet_writer(path: str | Path, schema: Any) -> Iterator[Any]:
    """A `ParquetWriter` for the file `path`, which appears only if the block ends without an error.

    `schema`: a pyarrow schema. pyarrow is imported late, as Snakemake needs only the other half of this module.
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
    """An open `ParquetFile`, its checksum verified; the checksums of its pages are verified on reading.

    `rule`: makes the file. `own=False`: it may be a user's file, without a checksum. Raises `InputError` with the file
    and the rule where the file is missing, damaged or not Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_parquet(path, rule, own)
    try:
        return pq.ParquetFile(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, f"not a readable Parquet file ({error})", rule) from None


def check_parquet(path: str | Path, rule: str, own: bool = True) -> None:
    """Compare the file's checksum; `InputError` as by `open_parquet`."""
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
    """The position of the checksum's digits, None where there is no checksum."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 8))
    footer = int.from_bytes(file.read(4), "little") + 8
    # Search at least the last part of the file: the footer's length may be damaged.
    start = max(0, size - max(footer, _PART))
    file.seek(start)
    at = file.read().rfind(_MARK)
    return None if at < 0 else start + at + len(_MARK)


def _sum(file: BinaryIO, slot: int) -> bytes:
    """The checksum of all bytes but the digits at `slot`."""
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
    """Write a JSON object atomically, its keys in their order and ``checksum`` last."""
    content = {**facts, "checksum": _json_sum(facts)}
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_json(path: str | Path, rule: str) -> dict[str, Any]:
    """The object that `write_json` wrote; `InputError` with the file and the `rule` that makes it, where damaged."""
    try:
        facts = from_json(Path(path).read_text(encoding="utf-8"))
        found = facts.pop("checksum", None)
    except FileNotFoundError:
        raise _missing(path, rule) from None
    except OSError as error:
        raise damaged(path, f"cannot be read ({error.strerror})", rule) from None
    except (ValueError, AttributeError, TypeError) as error:
        raise damaged(path, f"damaged, not a JSON object ({error})", rule) from None
    if found is None:
        raise damaged(path, "has no checksum, so it is damaged or of an earlier version", rule)
    if found != _json_sum(facts):
        raise damaged(path, "damaged, its checksum does not match", rule)
    return facts


def _json_sum(facts: Mapping[str, Any]) -> str:
    # As read again: tuples become lists, and keys become text.
    return xxh3_128(json.dumps(json.loads(json.dumps(facts)), sort_keys=True).encode()).hexdigest()


def write_lines(path: str | Path, text: str, last: str = '{{"checksum": "{}"}}') -> None:
    """Write lines of text and a last line with their checksum (`last`), atomically."""
    write_text(path, f"{text}{last.format(xxh3_128(text.encode()).hexdigest())}\n")


def read_lines(path: str | Path, rule: str, own: bool = True) -> str:
    """The text that `write_lines` wrote, without the line of the checksum.

    `own=False`: a user's file, without a checksum, is accepted too. Raises `InputError` with the file and the `rule`
    that makes it, where it is damaged.
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
        copy = "" if own else ", or, in a copy that you edited, delete its last line"
        raise InputError(f"{damaged(path, 'damaged, its checksum does not match', rule)}{copy}")
    return body


def damaged(path: str | Path, what: str, rule: str) -> InputError:
    """The error for an unusable file that a `rule` makes."""
    return InputError(f"{path}: {what}; delete it and run again (rule {rule})")


def _missing(path: str | Path, rule: str) -> InputError:
    return InputError(f"{path}: no such file; make it with rule {rule}")
