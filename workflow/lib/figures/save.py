"""One way to save a chart: the record (`.vl.json`), the print (`.svg`), the slide (`.png`) and, asked for, `.html`.

The same chart gives the same bytes, in every process.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from workflow.lib.errors import InputError, nearest
from workflow.lib.figures import theme  # noqa: F401  (a chart without the theme is not ours)
from workflow.lib.files import replacing, write_text

PPI = 200
FORMATS = ("vl.json", "svg", "png", "html")


def save(chart: alt.TopLevelMixin, stem: str | Path, formats: Sequence[str]) -> dict[str, str]:
    """Write `chart` as ``{stem}.{format}`` for each format; each file whole or not at all.

    Returns file names by format, in the order of `FORMATS`. `InputError` for a format that is not in `FORMATS`.
    """
    for name in formats:
        if name not in FORMATS:
            raise InputError(f"--formats {name}: no such format; {nearest(name, FORMATS)}")
    # The tests check every kind of chart against the schema; here that would be a third of the time.
    specification = chart.to_dict(validate=False)
    stem = Path(stem)
    written = {}
    for name in FORMATS:
        if name in formats:
            path = stem.with_name(f"{stem.name}.{name}")
            _WRITERS[name](specification, path)
            written[name] = path.name
    return written


def as_json(specification: dict[str, Any]) -> str:
    """A Vega-Lite specification as text that a diff can read: keys in order, one row of data a line."""
    datasets = specification.get("datasets", {})
    plain = {key: value for key, value in specification.items() if key != "datasets"}
    head = json.dumps(plain, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    if not datasets:
        return f"{head}\n"
    tables = []
    for name in sorted(datasets):
        rows = ",\n".join(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in datasets[name])
        tables.append(f"{json.dumps(name)}: [\n{rows}\n]")
    return f'{head.removesuffix("}").rstrip()},\n "datasets": {{\n' + ",\n".join(tables) + "\n}\n}\n"


def size_of_svg(path: str | Path) -> tuple[int, int]:
    """Width and height of an SVG in pixels, rounded up, as its first tag states them."""
    with open(path, encoding="utf-8") as file:
        tag = file.read(2000)
    sizes = [re.search(rf'\b{side}="([\d.]+)"', tag) for side in ("width", "height")]
    if not all(sizes):
        raise InputError(f"{path}: no width and height in its first tag; delete it and draw again")
    return tuple(int(-(-float(size.group(1)) // 1)) for size in sizes)


def _write_json(specification: dict[str, Any], path: Path) -> None:
    write_text(path, as_json(specification))


def _write_svg(specification: dict[str, Any], path: Path) -> None:
    write_text(path, vl_convert.vegalite_to_svg(specification, vl_version=_version(specification)))


def _write_png(specification: dict[str, Any], path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(vl_convert.vegalite_to_png(specification, vl_version=_version(specification), ppi=PPI))


def _write_html(specification: dict[str, Any], path: Path) -> None:
    write_text(path, vl_convert.vegalite_to_html(specification, vl_version=_version(specification), bundle=True))


def _version(specification: dict[str, Any]) -> str:
    """The specification's own version of Vega-Lite (``6.1``), and not the converter's newest."""
    return re.search(r"/v(\d+\.\d+)", specification["$schema"]).group(1)


_WRITERS: dict[str, Callable[[dict[str, Any], Path], None]] = {
    "vl.json": _write_json,
    "svg": _write_svg,
    "png": _write_png,
    "html": _write_html,
}
