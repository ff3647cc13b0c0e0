"""A drawn figure as the page shows it, and links from the page to files."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

FORMAT_NAMES = {"svg": "SVG", "png": "PNG", "vl.json": "Vega-Lite"}


def drawn(entry: Mapping[str, Any], folder: Path, base: Path, kind: str, caption: str) -> dict[str, Any]:
    """An entry of a folder's list of figures; `image` is its SVG, or its PNG where no SVG was drawn, or nothing.

    `base`: the folder of the page. `kind`: what the filters know it by.
    """
    files = {name: link(folder / file, base) for name, file in entry["files"].items()}
    return {
        "kind": kind,
        "relation": entry.get("relation", ""),
        "title": entry["title"],
        "caption": caption,
        "description": " ".join([f"{entry['title']}.", *entry["subtitle"]]),
        "image": files.get("svg") or files.get("png"),
        "width": entry.get("width"),
        "height": entry.get("height"),
        "files": [(FORMAT_NAMES.get(name, name), file) for name, file in files.items()],
    }


def link(path: str | Path, base: Path) -> str:
    """The way from the page to a file, as a URL."""
    return quote(Path(os.path.relpath(Path(path).resolve(), base)).as_posix())
