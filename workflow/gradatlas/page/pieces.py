"""Parts of the page that a browser unpacks when it needs them: base64 of gzip of text, mostly JSON."""

import base64
import gzip
import json
from collections.abc import Iterable
from functools import cache
from typing import Any

import vl_convert

from gradatlas.charts.numbers import plotted

VEGA_LITE = "6.1"


def pack(content: Any) -> str:
    """What JSON can hold, as one part of the page. `ValueError` for a number that is not finite."""
    return pack_text(json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False))


def pack_text(text: str) -> str:
    """A text, such as a script, as one part of the page; the same text is the same bytes."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode("ascii")


def rounded(values: Iterable[float | None], digits: int) -> list[float | None]:
    """The numbers to so many significant digits; None where there is no finite one."""
    return [plotted(value, digits) for value in values]


@cache
def vega() -> str:
    """The library that draws a page's charts, as one part of the page."""
    # Within a function: the bundle's short names would be the page's names too.
    return pack_text(f"(() => {{{vl_convert.javascript_bundle(vl_version=VEGA_LITE)}}})();")
