"""Numbers and texts as the page carries them: compressed pieces of text that a browser unpacks when it needs them.

A piece is base64 of gzip of one line of JSON and the bytes of its columns. A column holds decimals of a fixed number of
digits, so that what a reader sees is the table's own number, rounded once. The code 0 is a missing value, 1 zero, and
m x 10^(e - digits + 1), with m of `digits` digits, is 2 + (e - lowest e) * 9 * 10^(digits - 1) + m - 10^(digits - 1);
where any is negative, codes are doubled and odd for those. Whole numbers are one more than themselves. Codes stand byte
by byte, all lowest bytes first: alike bytes side by side compress better.

Or a column is a chain of like arrays, one after the other, of numbers that are not negative: 0 is a missing value, 1
zero, and 2 + k is exp(lowest + k `STEP`), so that no number is off by more than `ERROR` of itself. Of each array but
the first the differences of codes from the array before it are kept, a negative one -d as 2 d - 1 and others as 2 d:
neighbouring layers of a sample are alike.
"""

import base64
import gzip
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

# In place of a number of digits.
WHOLE, CHAIN = 0, -1
STEP = 0.0018
ERROR = math.expm1(STEP / 2)


def pack(header: Mapping[str, Any], columns: Mapping[str, tuple[np.ndarray, int]] | None = None) -> str:
    """One piece.

    `header`: what JSON can hold. `columns`: by name, values of any shape (read row by row) and their digits, or `CHAIN`
    for a chain along the first axis; values that are not finite are missing.
    """
    described, planes = {}, []
    for name, (values, digits) in (columns or {}).items():
        values = np.asarray(values, dtype=float)
        codes, about = _chained(values) if digits == CHAIN else _codes(values.ravel(), digits)
        described[name] = {**about, "digits": digits, "length": len(codes)}
        planes += [((codes >> 8 * plane) & 255).astype(np.uint8).tobytes() for plane in range(about["bytes"])]
    line = json.dumps({**header, "columns": described}, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return _squeezed(line.encode() + b"\n" + b"".join(planes))


def pack_text(text: str) -> str:
    """Text alone, such as a script."""
    return _squeezed(text.encode())


def _squeezed(raw: bytes) -> str:
    # No time of day in it: the same numbers are the same bytes.
    return base64.b64encode(gzip.compress(raw, 9, mtime=0)).decode("ascii")


def _codes(values: np.ndarray, digits: int) -> tuple[np.ndarray, dict[str, int]]:
    """Codes of the values, and what is needed to read them: lowest exponent, bytes, whether the last bit is a sign."""
    codes = np.zeros(len(values), dtype=np.int64)
    finite = np.isfinite(values)
    if digits == WHOLE:
        codes[finite] = values[finite].astype(np.int64) + 1
        return codes, {"lowest": 0, "bytes": _bytes(codes), "signed": 0}
    codes[finite & (values == 0)] = 1
    some = finite & (values != 0)
    size = np.abs(values[some])
    exponent = np.floor(np.log10(size)).astype(int)
    first = 10 ** (digits - 1)
    mantissa = np.rint(size / 10.0 ** (exponent - digits + 1)).astype(np.int64)
    # Where rounding, of the value or of its logarithm, went over a power of ten.
    over = mantissa >= 10 * first
    exponent, mantissa = exponent + over, np.where(over, first, mantissa)
    lowest = int(exponent.min()) if len(exponent) else 0
    codes[some] = 2 + (exponent - lowest) * 9 * first + mantissa - first
    signed = bool((values[some] < 0).any())
    if signed:
        codes = codes * 2 + (finite & (values < 0))
    return codes, {"lowest": lowest, "bytes": _bytes(codes), "signed": int(signed)}


def _chained(values: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    """Codes of a chain, and what is needed to read them: its lowest logarithm, its step, the length of one array."""
    if (values < 0).any():
        raise ValueError("a chain holds no negative number")
    codes = np.isfinite(values).astype(np.int64)
    some = (codes > 0) & (values > 0)
    logs = np.log(values[some])
    lowest = float(logs.min()) if len(logs) else 0.0
    codes[some] = 2 + np.rint((logs - lowest) / STEP).astype(np.int64)
    codes[1:] = np.diff(codes, axis=0)
    codes[1:] = np.where(codes[1:] < 0, -2 * codes[1:] - 1, 2 * codes[1:])
    link = math.prod(values.shape[1:])
    return codes.ravel(), {"lowest": lowest, "step": STEP, "link": link, "bytes": _bytes(codes)}


def _bytes(codes: np.ndarray) -> int:
    return max(1, (int(codes.max(initial=0)).bit_length() + 7) // 8)
