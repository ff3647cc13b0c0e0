"""Numbers and texts as the page carries them: base64 of gzip of JSON, which a browser unpacks when it needs them.

Numbers are rounded once, to significant digits, counts not at all; a missing one is null.
"""

import base64
import gzip
import json
from collections.abc import Mapping
from typing import Any

import numpy as np


def pack(header: Mapping[str, Any], columns: Mapping[str, np.ndarray] | None = None, digits: int = 4) -> str:
    """One piece.

    `header`: what JSON can hold. `columns`: by name, numbers of any shape, kept flat (row by row) and rounded to
    `digits`; one that is not finite is missing.
    """
    numbers = {name: rounded(values, digits) for name, values in (columns or {}).items()}
    return pack_text(
        json.dumps({**header, "columns": numbers}, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    )


def pack_text(text: str) -> str:
    """Text alone, such as a script."""
    # No time of day in it: the same numbers are the same bytes.
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode("ascii")


def rounded(values: np.ndarray, digits: int) -> list[float | int | None]:
    """The numbers with so many significant digits; whole ones, such as counts, as they are; None where not finite."""
    values = np.asarray(values, dtype=float).ravel()
    finite = np.isfinite(values)
    whole = finite & (np.where(finite, values, 0) % 1 == 0) & (np.abs(values) < 2**53)
    short = np.char.mod(f"%.{digits - 1}e", values).astype(float)
    return [
        None if not known else int(value) if is_whole else number
        for value, number, known, is_whole in zip(values.tolist(), short.tolist(), finite, whole, strict=True)
    ]
