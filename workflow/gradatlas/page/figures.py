"""The figures of all folders as the page shows them: thumbnails, with what the filters know them by."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl

from gradatlas.charts.listing import read_index
from gradatlas.charts.names import KINDS, TERMS, in_order, label, relations_in_order, responses_of, terms
from gradatlas.charts.save import CAPTION, size_of_svg
from gradatlas.claims.ability import Abilities
from gradatlas.figures import gallery
from gradatlas.figures.data import ALL
from gradatlas.page.titles import Titles
from gradatlas.statistics.counts import is_whole, marks

FORMAT_NAMES = {"svg": "SVG", "png": "PNG", "vl.json": "Vega-Lite"}
# Of the second study, captions by the last part of a figure's kind; any other is captioned by that key.
CAPTIONS = {
    "curves": "Probes of one run",
    "chains": "Chains of runs",
    "norms": "Norms of A and G, the likeliest token and all others",
    "extend": "SFT on both responses, and its controls",
    "length": "Length of SFT and squeezing",
    "losses": "Preference losses on the same pairs",
    "negatives": "Pairs: of the data, and sampled from the model",
    "influence": "Influence of each type of response on the others",
    "influence_time": "SignDelta and LBK over time",
    "one_step": "One step, predicted and measured",
}
TOY_CAPTIONS = {
    "squeeze": "The squeezing effect in a softmax",
    "influence": "Influence in an image classifier",
    "clip": "The clipped objective",
}

# Of pictures of the third study, by the name of their file.
QUALITY = {
    "layers": "By layer",
    "effects": "Every score",
    "study_form": "In the study’s form",
    "recall": "Recall",
    "curves": "Curves of recall",
}


def groups_of(folders: Sequence[str | Path], base: Path, cells: pl.DataFrame, able: Abilities) -> list[dict[str, Any]]:
    """A group for each folder with a list of figures (``index.json``): its key, title, figures and what was left out.

    `base`: the folder of the page. `cells`: what the samples were, and `able`: what the models can do, for the badges.
    """
    groups = []
    for folder in map(Path, folders):
        index = read_index(folder)
        figures = [_figure(entry, folder, base) for entry in index["figures"]]
        for figure in figures:
            figure["badges"] = _badges(index["dataset"], figure["model"], cells, able)
        title = index["dataset_title"]
        title = f"Learning dynamics: {title}" if index["dataset"] == "dynamics" else title
        left_out = [f"{each['title']} ({each['reason']})" for each in index.get("left_out", ())]
        groups.append({"key": index["dataset"], "title": title, "figures": figures, "left_out": left_out})
    return [group for group in groups if group["figures"]]


def _figure(entry: Mapping[str, Any], folder: Path, base: Path) -> dict[str, Any]:
    """An entry of a folder's list; `image` is its SVG, or its PNG where no SVG was drawn, or nothing."""
    files = {name: link(folder / file, base) for name, file in entry["files"].items()}
    kind, caption = _kind(entry)
    return {
        "kind": kind,
        "model": entry.get("model", ""),
        "relation": entry.get("relation", ""),
        "title": entry["title"],
        "caption": caption,
        "about": entry.get("caption") or " ".join(entry["subtitle"]),
        "image": files.get("svg") or files.get("png"),
        "width": entry.get("width"),
        "height": entry.get("height"),
        "files": [(FORMAT_NAMES.get(name, name), file) for name, file in files.items()],
    }


def _kind(entry: Mapping[str, Any]) -> tuple[str, str]:
    """What the filters know a figure by, and its caption."""
    if "toy" in entry:
        return entry["toy"], TOY_CAPTIONS.get(entry["toy"], label(entry["toy"]))
    kind, relation = entry["kind"], entry.get("relation")
    if relation is None:
        # ``dpo.curves`` and ``chains.2`` are of the kinds curves and chains.
        kind = [part for part in kind.split(".") if not part.isdigit()][-1]
        return kind, CAPTIONS.get(kind, label(kind))
    if kind == "compared":
        return kind, f"{TERMS.get(relation, label(relation))} against correct responses"
    return kind, KINDS.get(kind, label(kind)) + ("" if relation == ALL else f", {responses_of(relation)}")


def _badges(dataset: str, model: str, cells: pl.DataFrame, able: Abilities) -> list[str]:
    """Figures of all datasets together carry the marks of all their cells."""
    own = cells if dataset == gallery.KEY else cells.filter(dataset=dataset)
    mark = able[model, dataset].mark if (model, dataset) in able else ""
    return [*marks(own.filter(is_whole(), model=model)), *([mark] if mark else [])]


def of_pictures(paths: Sequence[str | Path], base: Path, titles: Titles) -> list[dict[str, Any]]:
    """Groups of pictures that no list of a folder has: of the claims, and of what was made of scores (.svg)."""
    groups: dict[str, dict[str, Any]] = {}
    for path in map(Path, paths):
        about, key = _caption(path), "claims" if path.parent.name == "claims" else "quality"
        heading = {"claims": "Findings and verdicts", "quality": "Data quality"}[key]
        group = groups.setdefault(key, {"title": heading, "key": key, "figures": [], "left_out": []})
        if about and about[0].startswith("No claim"):
            group["left_out"].append(f"{path.name} ({about[0][:1].lower()}{about[0][1:]})")
            continue
        title = about[0] if key == "claims" and about else _of_folders(path, titles)
        size = dict(zip(("width", "height"), size_of_svg(path), strict=True))
        text = " ".join(f"{each.rstrip('.')}." for each in about[1:])
        entry = {"kind": key, "title": title, "subtitle": [text], "files": {"svg": path.name}, **size}
        figure = _figure(entry, path.parent, base) | {"caption": title, "badges": []}
        group["figures"].append(figure | {"files": [*figure["files"], ("Folder", link(path.parent, base))]})
    return [group for group in groups.values() if group["figures"]]


def _caption(path: Path) -> list[str]:
    """The title and the paragraphs of the caption beside a picture, without markup; nothing where it has none."""
    beside = path.with_suffix(CAPTION)
    if not beside.is_file():
        return []
    return [re.sub(r"\\(.)", r"\1", each).strip("*\n") for each in beside.read_text(encoding="utf-8").split("\n\n")]


def _of_folders(path: Path, titles: Titles) -> str:
    """The title of a comparison, of recall or of cosines; its folders name it."""
    kind, data, of = QUALITY.get(path.stem, path.stem), titles[path.parent.name], path.parent.parent.name
    if of == "recall":
        return f"{kind} of planted faults in {data}"
    if of == "cosines":
        return f"Cosines of gradients of {titles[path.stem]} on {data}"
    return f"{kind}: high and low quality of {data} on {titles[of]}"


def filters(groups: Sequence[Mapping[str, Any]], titles: Titles) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Key, title and options (value, text) of each choice that narrows the figures."""
    shown = [figure for group in groups for figure in group["figures"]]
    relations = relations_in_order({figure["relation"] for figure in shown} - {""})
    kinds = in_order((figure["kind"] for figure in shown), (*KINDS, *CAPTIONS))
    places = [(str(place), group["title"]) for place, group in enumerate(groups)]
    return [
        ("group", "Data", places),
        ("model", "Model", [(model, titles[model]) for model in sorted({figure["model"] for figure in shown} - {""})]),
        ("relation", "Responses", list(terms(relations).items())),
        ("kind", "Figure", [(key, KINDS.get(key) or CAPTIONS.get(key) or label(key)) for key in kinds]),
    ]


def link(path: str | Path, base: Path) -> str:
    """The way from the page to a file, as a URL."""
    return quote(Path(os.path.relpath(Path(path).resolve(), base)).as_posix())
