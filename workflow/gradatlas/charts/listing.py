"""Saving the figures of a folder, and the list of them (``index.json``) that the atlas page reads."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt

from gradatlas.charts.save import save, size_of_svg
from gradatlas.charts.theme import Heading
from gradatlas.core.errors import InputError
from gradatlas.core.files import check_sums, from_json, sums_of, write_sums, write_text

INDEX = "index.json"


def saved(
    chart: alt.TopLevelMixin,
    stem: Path,
    about: Mapping[str, Any],
    heading: Heading,
    formats: Sequence[str],
) -> dict[str, Any]:
    """Save one figure as `stem` with each of `formats`; its entry in the list.

    The entry is `about` (what names the figure), title, subtitle (lines), caption (all facts and paragraphs), files
    (by format), and width and height of the SVG, where one is drawn.
    """
    files = save(chart, stem, formats)
    size = size_of_svg(stem.parent / files["svg"]) if "svg" in files else ()
    entry = {**about, "title": heading.title, "subtitle": [heading.line] if heading.line else []}
    entry |= {"caption": " ".join(_sentences(heading)), "files": files}
    return {**entry, **dict(zip(("width", "height"), size, strict=False))}


def _sentences(heading: Heading) -> list[str]:
    return [*([f"{heading.line}."] if heading.line else []), *heading.caption]


def write_index(
    output: str | Path,
    dataset: str,
    title: str,
    listed: Sequence[dict[str, Any]],
    rule: str,
    left_out: Sequence[dict[str, str]] = (),
) -> None:
    """Write the list of the figures that `rule` drew into the folder `output`, and the checksums of all its files.

    `left_out`: figures that would decide nothing and are not drawn, each with kind, title and reason.
    """
    index = {"dataset": dataset, "dataset_title": title, "figures": listed, "left_out": list(left_out)}
    write_text(Path(output) / INDEX, json.dumps(index, indent=1, ensure_ascii=False) + "\n")
    write_sums(output, rule)


def read_index(folder: str | Path) -> dict[str, Any]:
    """The list that `draw` left in a folder; `InputError` where there is none, or a file has changed since."""
    path = Path(folder) / INDEX
    if sums_of(folder).is_file():
        check_sums(sums_of(folder))
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; draw the folder's figures first (draw_figures)") from None
    except ValueError as error:
        raise InputError(f"{path}: not a list of figures ({error}); draw the folder's figures again") from None
