"""One way to save a chart: the record (`.vl.json`), the print (`.svg`), the slide (`.png`); asked for, `.pdf`, `.html`.

The same chart gives the same bytes, in every process; a PDF alone bears marks of when it was made.
"""

import html
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import altair as alt
import vl_convert

from workflow.lib.command import progress
from workflow.lib.errors import InputError, nearest
from workflow.lib.figures import theme  # noqa: F401  (a chart without the theme is not ours)
from workflow.lib.files import replacing, write_text

PPI = 160
FORMATS = ("vl.json", "svg", "png", "pdf", "html")
_WIDE, _STAND_IN = re.compile("[\U00010000-\U0010ffff]"), "\u25a1"


def save(
    chart: alt.TopLevelMixin, stem: str | Path, formats: Sequence[str], bundle: str | Path | None = None
) -> dict[str, str]:
    """Write `chart` as ``{stem}.{format}`` for each format; each file whole or not at all.

    Returns file names by format, in the order of `FORMATS`. `html` loads the script `bundle` (of `write_bundle`), which
    all figures share, by its relative path. `InputError` for a format that is not in `FORMATS`, or `html` without it.
    """
    if "html" in formats and bundle is None:
        raise InputError("--formats html: needs --bundle, the script that all interactive figures share (write_vega)")
    for name in formats:
        if name not in FORMATS:
            raise InputError(f"--formats {name}: no such format; {nearest(name, FORMATS)}")
    # The tests check every kind of chart against the schema; here that would be a third of the time.
    specification = chart.to_dict(validate=False)
    # The others are made of the SVG: to run Vega is most of the work.
    svg = _svg(specification) if {"svg", "png", "pdf"} & set(formats) else ""
    stem = Path(stem)
    written = {}
    for name in FORMATS:
        if name in formats:
            path = stem.with_name(f"{stem.name}.{name}")
            if name == "html":
                _write_html(specification, path, os.path.relpath(bundle, path.parent))
            else:
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


def _write(path: Path, specification: dict[str, Any], svg: str) -> None:
    with replacing(path) as temporary:
        if path.suffix == ".json":
            temporary.write_text(as_json(specification), encoding="utf-8")
        elif path.suffix == ".svg":
            temporary.write_text(svg, encoding="utf-8")
        elif path.suffix == ".png":
            temporary.write_bytes(vl_convert.svg_to_png(svg, ppi=PPI))
        else:
            temporary.write_bytes(vl_convert.svg_to_pdf(svg))


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<link rel="icon" href="data:,">
<script src="{bundle}"></script>
<div id="figure"></div>
<script type="application/json" id="specification">{specification}</script>
<script>
const specification = JSON.parse(document.getElementById("specification").textContent);
vegaEmbed("#figure", specification, {{renderer: "svg", actions: {{export: true, source: false, editor: false}}}});
</script>
</html>
"""


def _write_html(specification: dict[str, Any], path: Path, bundle: str) -> None:
    title = specification.get("title", {}).get("text", path.stem)
    title = html.escape(" ".join(title) if isinstance(title, list) else title)
    # Nothing in the data may end the script that holds them.
    data = json.dumps(specification, ensure_ascii=False, sort_keys=True).replace("<", "\\u003c")
    write_text(path, _PAGE.format(title=title, bundle=quote(Path(bundle).as_posix()), specification=data))


def write_bundle(path: str | Path) -> None:
    """Write Vega, Vega-Lite and Vega-Embed as one script, for figures that a browser draws without a network."""
    version = version_of({"$schema": alt.SCHEMA_URL})
    # As a classic script: a browser loads no module from a page opened as a file.
    script = vl_convert.javascript_bundle(vl_version=version)
    write_text(path, f"(() => {{{script}}})();\n")


def version_of(specification: dict[str, Any]) -> str:
    """A specification's own version of Vega-Lite (``6.1``), and not the converter's newest."""
    return re.search(r"/v(\d+\.\d+)", specification["$schema"]).group(1)
