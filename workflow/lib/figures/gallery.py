"""All figures of one dataset, and the list of them that the atlas page reads."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import altair as alt
import polars as pl

from workflow.lib.command import progress
from workflow.lib.errors import InputError
from workflow.lib.figures import ability, charts, findings
from workflow.lib.figures.names import PIPELINE_CHECK, label, relations_in_order
from workflow.lib.figures.save import save, size_of_svg
from workflow.lib.figures.theme import Heading
from workflow.lib.files import write_text
from workflow.lib.responses.relations import is_marked
from workflow.lib.tables import read_table

INDEX = "index.json"
REFERENCE = "correct"
# Controls on a subset of the response's tokens are tables of their own; these figures show the whole response.
LOSS_TOKENS = "all"
# What stands in a figure of responses whose labels should be wrong and are not.
RIGHT_LABELS = "RIGHT LABELS AMONG THE WRONG"


def draw(
    statistics: str | Path,
    dataset: str,
    title: str,
    output: str | Path,
    formats: Sequence[str],
    model_titles: Mapping[str, str] | None = None,
    accuracy: Sequence[str | Path] = (),
) -> None:
    """Draw every model and relation in the tables of the folder `statistics` into the folder `output`.

    `title` and `model_titles` (by key; a model without one is called by its key) are what readers see.
    `accuracy`: tables of what the models can do, of which each figure says its line.
    Files are ``{model}.{relation}.{kind}.{format}`` with kind ``panels``, ``variants`` or, for another relation than
    correct, ``compared``. ``index.json`` lists them: dataset, dataset_title, and by figure model, relation, kind,
    purpose, title, subtitle (lines), files (by format), width and height (of the SVG, where drawn).
    `InputError` where a table is missing, is of another dataset, or holds nothing to draw.
    """
    tables = {name: _read(name, Path(statistics) / f"{name}.parquet", dataset) for name in _TABLES}
    if tables["curves"].is_empty():
        raise InputError(f"{statistics}/curves.parquet: no row with loss_tokens '{LOSS_TOKENS}'; nothing to draw")
    output = Path(output)
    able = ability.abilities(ability.read(accuracy))
    listed = []
    for model in sorted(tables["curves"]["model"].unique()):
        called = pl.lit((model_titles or {}).get(model, model)).alias("model")
        of_model = {name: table.filter(pl.col("model") == model).with_columns(called) for name, table in tables.items()}
        lines = [able[model, dataset].sentence] if (model, dataset) in able else []
        for relation, kind, heading, chart in _figures(of_model, title, lines):
            files = save(chart(), output / f"{model}.{relation}.{kind}", formats)
            listed.append(
                {
                    "model": model,
                    "relation": relation,
                    "kind": kind,
                    "purpose": PIPELINE_CHECK if findings.is_check(of_model["curves"]) else "study",
                    "title": heading.title,
                    "subtitle": list(heading.subtitle),
                    "files": files,
                    **_size(output, files),
                }
            )
            progress(f"{dataset}: {model}, {relation}, {kind}: {', '.join(files)}")
    index = {"dataset": dataset, "dataset_title": title, "figures": listed}
    write_text(output / INDEX, json.dumps(index, indent=1, ensure_ascii=False) + "\n")


def read_index(folder: str | Path) -> dict[str, Any]:
    """The list that `draw` left in a folder; `InputError` where there is none."""
    path = Path(folder) / INDEX
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; draw the folder's figures first (draw_figures)") from None
    except ValueError as error:
        raise InputError(f"{path}: not a list of figures ({error}); draw the folder's figures again") from None


_TABLES = ("curves", "mad", "rd", "rd_layers", "cells")


_Figure = tuple[str, str, Heading, Callable[[], alt.ConcatChart]]


def _figures(tables: dict[str, pl.DataFrame], title: str, general: Sequence[str] = ()) -> Iterator[_Figure]:
    """Relation, kind, heading and chart (when called) of each figure of one model.

    Headings say the `general` lines, and where labels that should be wrong are right.
    """
    relations = relations_in_order(tables["curves"]["relation"].unique())
    for relation in relations:
        curves, mad = (tables[name].filter(pl.col("relation") == relation) for name in ("curves", "mad"))
        lines = [*general, *_right_labels(tables["cells"].filter(pl.col("relation") == relation))]
        heading = findings.of_panels(curves, mad, title, charts.own_scales(curves)).saying(lines)
        yield relation, "panels", heading, partial(charts.paper_panels, curves, heading)
        heading = findings.of_variants(curves, title).saying(lines)
        yield relation, "variants", heading, partial(charts.variants_overlaid, curves, heading)
        rd, rd_layers = (tables[name].filter(pl.col("relation") == relation) for name in ("rd", "rd_layers"))
        if relation != REFERENCE and not rd_layers.is_empty():
            # Only variants that have both relations compare; the others are in the figures above.
            both = tables["curves"].filter(
                pl.col("relation").is_in([REFERENCE, relation]) & pl.col("variant").is_in(list(rd_layers["variant"]))
            )
            heading = findings.of_comparison(both, rd, relation, title).saying(lines)
            yield relation, "compared", heading, partial(charts.relations_compared, both, rd_layers, heading)


def _right_labels(cells: pl.DataFrame) -> list[str]:
    """A line where labels that should be wrong are right, by variant; none where few enough are."""
    said = [
        f"{label(row['variant'])} {row['n_label_equals_gold']:,} of {row['n_labelled']:,}"
        for row in cells.to_dicts()
        if is_marked(row["relation"], row["n_label_equals_gold"], row["n_labelled"])
    ]
    return [f"{RIGHT_LABELS}: {', '.join(said)}. They are no wrong responses."] if said else []


def _read(name: str, path: Path, dataset: str) -> pl.DataFrame:
    frame = pl.from_arrow(read_table(name, path))
    other = [key for key in frame["dataset"].unique() if key != dataset]
    if other:
        raise InputError(f"{path}: holds dataset '{other[0]}', not '{dataset}'; give the folder of '{dataset}'")
    return frame.filter(pl.col("loss_tokens") == LOSS_TOKENS)


def _size(folder: Path, files: dict[str, str]) -> dict[str, int]:
    return dict(zip(("width", "height"), size_of_svg(folder / files["svg"]), strict=True)) if "svg" in files else {}
