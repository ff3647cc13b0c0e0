"""One way to save a chart: its specification (`.vl.json`), `.svg`, `.png` and `.pdf`, and its caption (`.caption.md`).

The same chart gives the same bytes, in every process; a PDF alone holds the time when it was made.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from gradatlas.charts import theme
from gradatlas.core.command import progress
from gradatlas.core.errors import InputError, nearest
from gradatlas.core.files import replacing, write_text

PPI = 160
FORMATS = ("vl.json", "svg", "png", "pdf")
CAPTION = ".caption.md"
_WIDE, _STAND_IN = re.compile("[\U00010000-\U0010ffff]"), "\u25a1"


def save(chart: alt.TopLevelMixin, stem: str | Path, formats: Sequence[str]) -> dict[str, str]:
    """Write `chart` as ``{stem}.{format}`` for each format, and its description as ``{stem}.caption.md``.

    Each file is written completely or not at all. Returns file names by format, in the order of `FORMATS`. `InputError`
    for a format that is not in `FORMATS`.
    """
    for name in formats:
        if name not in FORMATS:
            raise InputError(f"--formats {name}: no such format; {nearest(name, FORMATS)}")
    # The tests check every kind of chart against the schema; here that would be a third of the time.
    specification = chart.to_dict(validate=False)
    # The others are made of the SVG: to run Vega is most of the work.
    svg = _svg(specification) if {"svg", "png", "pdf"} & set(formats) else ""
    stem = Path(stem)
    write_text(stem.with_name(f"{stem.name}{CAPTION}"), caption_of(specification))
    written = {}
    for name in FORMATS:
        if name in formats:
            path = stem.with_name(f"{stem.name}.{name}")
            _write(path, specification, svg)
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


def caption_of(specification: dict[str, Any]) -> str:
    """The caption of a chart as Markdown that reStructuredText reads alike: what could be markup has a backslash."""
    title, *paragraphs = map(_plain, specification["description"].split("\n\n"))
    return "\n\n".join([f"**{title}**", *paragraphs]) + "\n"


def _plain(text: str) -> str:
    """Text without markup, in one line."""
    text = re.sub(r"[\\`*_|\[\]<>#@$~^{}]|:(?=\S)|^[-+.(]", lambda found: f"\\{found.group()}", " ".join(text.split()))
    # No item of a list: 1. or A. at the beginning.
    return re.sub(r"^(\w+)([.)])(?=\s|$)", r"\1\\\2", text)


def size_of_svg(path: str | Path) -> tuple[int, int]:
    """Width and height of an SVG in pixels, rounded up, as its first tag states them."""
    with open(path, encoding="utf-8") as file:
        tag = file.read(2000)
    sizes = [re.search(rf'\b{side}="([\d.]+)"', tag) for side in ("width", "height")]
    if not all(sizes):
        raise InputError(f"{path}: no width and height in its first tag; delete it and draw again")
    return tuple(int(-(-float(size.group(1)) // 1)) for size in sizes)


def _svg(specification: dict[str, Any]) -> str:
    version = version_of(specification)
    try:
        svg = vl_convert.vegalite_to_svg(specification, vl_version=version)
    except ValueError as error:
        if "hex escape" not in str(error):
            raise
        # The renderer shortens a long label in the middle of a character that takes two of its units (an emoji).
        plain = json.loads(_WIDE.sub(_STAND_IN, json.dumps(specification, ensure_ascii=False)))
        svg = vl_convert.vegalite_to_svg(plain, vl_version=version)
        progress(f"characters beyond U+FFFF are drawn as {_STAND_IN}: a label with some is too long")
    # The renderer numbers gradients and clips through all charts of a process.
    names: dict[str, str] = {}
    rename = lambda found: names.setdefault(found.group(), f"{found.group(1)}{len(names)}")  # noqa: E731
    return re.sub(r"\b(gradient_|clip)\d+\b", rename, svg)


def _with_stand_ins(svg: str) -> str:
    """The SVG with fonts of the same width behind the theme's; titles of panels get its family from the renderer."""
    behind = theme.FAMILY.replace("sans-serif", f"{theme.STAND_IN}, sans-serif")
    for family in (theme.FAMILY, "sans-serif"):
        svg = svg.replace(f'font-family="{family}"', f'font-family="{behind}"')
    return svg.replace(">", f"><style>{theme.STAND_INS}</style>", 1)


def _write(path: Path, specification: dict[str, Any], svg: str) -> None:
    with replacing(path) as temporary:
        if path.suffix == ".json":
            temporary.write_text(as_json(specification), encoding="utf-8")
        elif path.suffix == ".svg":
            temporary.write_text(_with_stand_ins(svg), encoding="utf-8")
        elif path.suffix == ".png":
            temporary.write_bytes(vl_convert.svg_to_png(svg, ppi=PPI))
        else:
            temporary.write_bytes(vl_convert.svg_to_pdf(svg))


def version_of(specification: dict[str, Any]) -> str:
    """A specification's own version of Vega-Lite (``6.1``), and not the converter's newest."""
    return re.search(r"/v(\d+\.\d+)", specification["$schema"]).group(1)
