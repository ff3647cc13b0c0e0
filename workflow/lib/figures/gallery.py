"""All figures of one dataset, and the list of them that the atlas page reads."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import altair as alt
import polars as pl

from workflow.lib.command import progress
from workflow.lib.errors import InputError
from workflow.lib.figures import ability, charts, distribution, findings, partners, unusable
from workflow.lib.figures import relations as all_relations
from workflow.lib.figures.listing import saved, write_index
from workflow.lib.figures.names import PIPELINE_CHECK, label, relations_in_order
from workflow.lib.figures.theme import Heading
from workflow.lib.responses.relations import is_marked
from workflow.lib.statistics.shapes import sentence
from workflow.lib.tables import read_metadata, read_table

REFERENCE = "correct"
# Stands for the relation of a figure of all of them.
ALL = "all"
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
    partners_of: Mapping[str, str] | None = None,
    prompts: Mapping[str, str] | None = None,
    paper_axes: bool = False,
    paper_top: int | None = None,
    bundle: str | Path | None = None,
) -> None:
    """Draw every model and relation in the tables of the folder `statistics` into the folder `output`.

    `title` and `model_titles` (by key; a model without one is called by its key) are what readers see. `accuracy`:
    tables of what the models can do, of which each figure says its line. `partners_of`: by model, the one it is
    compared with; `prompts`: by model, the form of its prompts. `paper_axes`: ``panels`` have the study's own axes, of
    norms up to `paper_top` where that is given, and say how much these cut off. `bundle`: the script that interactive
    figures share (`save`).
    Files are ``{model}.{relation}.{kind}.{format}`` with kind ``panels``, ``variants``, ``samples``, for another
    relation than correct ``compared``, for a model beside its partner ``instructed``; and where three or more
    relations were measured, ``{model}.all.relations``. ``index.json`` lists them: dataset, dataset_title, and by figure
    model, relation, kind,
    purpose, title, subtitle (lines), files (by format), width and height (of the SVG, where drawn).
    Of a model and relation without a usable sample one figure says so, and why: ``{model}.{relation}.unusable``.
    `InputError` where a table is missing, is of another dataset, or holds nothing that was measured.
    """
    tables = {name: _read(name, Path(statistics) / f"{name}.parquet", dataset) for name in _TABLES}
    if tables["cells"].is_empty():
        raise InputError(f"{statistics}/cells.parquet: no row with loss_tokens '{LOSS_TOKENS}'; nothing to draw")
    facts = read_metadata(Path(statistics) / "curves.parquet", "curves")
    able = ability.abilities(ability.read(accuracy))
    models = sorted({*tables["curves"]["model"], *tables["cells"]["model"]})
    titles = [(model_titles or {}).get(model, model) for model in models]
    # Models of one title get their keys too.
    called = [name if titles.count(name) == 1 else f"{name} ({key})" for key, name in zip(models, titles, strict=True)]
    by_model = {model: _of_model(tables, model, name) for model, name in zip(models, called, strict=True)}
    listed = []
    for model, of_model in by_model.items():
        lines = [able[model, dataset].sentence] if (model, dataset) in able else []
        lines += sentence(facts.get("models", {}).get(model, {}).get("matrix_shapes"))
        top = (lambda variants: charts.paper_tops(variants, paper_top)) if paper_axes else None
        figures = [*_unusable(of_model["cells"], title, lines), *_figures(of_model, title, lines, top)]
        partner = (partners_of or {}).get(model)
        units = {key: bool(sentence(facts.get("models", {}).get(key, {}).get("matrix_shapes"))) for key in by_model}
        if partner in by_model and units[partner] != units[model]:
            # One has norms divided by the root of a matrix's smaller dimension: a ratio of the two would mean nothing.
            progress(f"{dataset}: {model} beside {partner}: not drawn, the layers of only one differ in shape")
        elif partner in by_model and not by_model[partner]["curves"].is_empty():
            said = [
                f"{by_model[key]['cells']['model'][0]}: {able[key, dataset].sentence}"
                for key in (partner, model)
                if (key, dataset) in able
            ]
            said = [*said, *sentence(facts.get("models", {}).get(model, {}).get("matrix_shapes"))]
            forms = [(prompts or {}).get(key, "") for key in (partner, model)]
            figures += _beside(by_model[partner], of_model, title, facts["draws"], facts["seed"], forms, said)
        purpose = PIPELINE_CHECK if findings.is_check(of_model["cells"]) else "study"
        for relation, kind, heading, chart in figures:
            listed.append(keep(chart(), Path(output), (model, relation, kind), purpose, heading, formats, bundle))
            progress(f"{dataset}: {model}, {relation}, {kind}: {', '.join(listed[-1]['files'].values())}")
    write_index(output, dataset, title, listed, "draw_figures")


def keep(
    chart: alt.TopLevelMixin,
    output: Path,
    key: tuple[str, str, str],
    purpose: str,
    heading: Heading,
    formats: Sequence[str],
    bundle: str | Path | None,
) -> dict[str, Any]:
    """Save one figure of a (model, relation, kind) into the folder `output`; returns its entry in the index."""
    about = {**dict(zip(("model", "relation", "kind"), key, strict=True)), "purpose": purpose}
    return saved(chart, output / ".".join(key), about, heading, formats, bundle)


_TABLES = ("curves", "mad", "rd", "rd_layers", "cells", "per_sample")


_Figure = tuple[str, str, Heading, Callable[[], alt.ConcatChart]]


def _unusable(cells: pl.DataFrame, title: str, general: Sequence[str]) -> Iterator[_Figure]:
    """What stands in place of the figures of a relation of which no sample is usable. `cells`: of one model."""
    for _, relation in unusable.lost(cells):
        rows = cells.filter(pl.col("relation") == relation)
        heading = unusable.heading(rows, title).saying(general)
        yield relation, "unusable", heading, partial(unusable.chart, rows, heading)


def _figures(
    tables: dict[str, pl.DataFrame],
    title: str,
    general: Sequence[str] = (),
    paper_tops: Callable[[Sequence[str]], dict[str, float]] | None = None,
) -> Iterator[_Figure]:
    """Relation, kind, heading and chart (when called) of each figure of one model.

    Headings say the `general` lines, and where labels that should be wrong are right. `paper_tops`: the ends of the
    study's own axes, by variant.
    """
    relations = relations_in_order(tables["curves"]["relation"].unique())
    for relation in relations:
        curves, mad = (tables[name].filter(pl.col("relation") == relation) for name in ("curves", "mad"))
        cells = tables["cells"].filter(pl.col("relation") == relation)
        said = [*general, *_right_labels(cells)]
        lines = [*findings.left_out(cells), *said]
        tops = paper_tops(curves["variant"].unique()) if paper_tops else None
        apart = charts.own_scales(curves) if tops is None else len(set(tops.values())) > 1
        heading = findings.of_panels(curves, mad, title, apart).saying([*cut_off(curves, tops), *lines])
        yield relation, "panels", heading, partial(charts.paper_panels, curves, heading, tops=tops)
        heading = findings.of_variants(curves, title).saying(lines)
        yield relation, "variants", heading, partial(charts.variants_overlaid, curves, heading)
        rd, rd_layers = (tables[name].filter(pl.col("relation") == relation) for name in ("rd", "rd_layers"))
        both_cells = tables["cells"].filter(pl.col("relation").is_in([REFERENCE, relation]))
        paired = findings.left_out(both_cells, ("relation", "variant"))
        if relation != REFERENCE and not rd_layers.is_empty():
            # Only variants that have both relations compare; the others are in the figures above.
            both = tables["curves"].filter(
                pl.col("relation").is_in([REFERENCE, relation]) & pl.col("variant").is_in(list(rd_layers["variant"]))
            )
            multiples = charts.by_decades(rd_layers)
            heading = findings.of_comparison(both, rd, relation, title, multiples).saying([*paired, *said])
            draw_ = partial(charts.relations_compared, both, rd_layers, heading, multiples=multiples)
            yield relation, "compared", heading, draw_
        samples = tables["per_sample"].filter(pl.col("relation").is_in([REFERENCE, relation]))
        if not samples.filter(pl.col("relation") == relation).is_empty():
            heading = distribution.heading(samples, title).saying([*paired, *said])
            yield relation, "samples", heading, partial(distribution.chart, samples, heading)
    if tables["rd"]["relation"].n_unique() > 1:
        lost = findings.left_out(tables["cells"], ("relation", "variant"))
        lines = [*lost, *general, *_right_labels(tables["cells"], of_relation=True)]
        heading = all_relations.heading(tables["rd"], title).saying(lines)
        yield ALL, "relations", heading, partial(all_relations.chart, tables["rd"], heading)


def _beside(
    partner: dict[str, pl.DataFrame],
    own: dict[str, pl.DataFrame],
    title: str,
    draws: int,
    seed: int,
    forms: Sequence[str] = ("", ""),
    general: Sequence[str] = (),
) -> Iterator[_Figure]:
    """The figures of a model beside its partner, of the responses that both were measured on.

    `forms`: of the partner's and the model's own prompts.
    """
    curves = partners.shared(partner["curves"], own["curves"])
    for relation in relations_in_order(curves["relation"].unique()):
        of_relation = curves.filter(pl.col("relation") == relation)
        samples = [tables["per_sample"].filter(pl.col("relation") == relation) for tables in (partner, own)]
        cells = pl.concat([tables["cells"].filter(pl.col("relation") == relation) for tables in (partner, own)])
        lost = findings.left_out(cells, ("model", "variant"))
        heading = partners.heading(of_relation, partners.paired(*samples, draws, seed), title, forms)
        heading = heading.saying([*lost, *general])
        yield relation, "instructed", heading, partial(partners.chart, of_relation, heading)


def cut_off(curves: pl.DataFrame, tops: Mapping[str, float] | None) -> list[str]:
    """A line where a figure has the study's axes: how many of its means they cut off."""
    if tops is None:
        return []
    cut, drawn = charts.beyond(curves, tops)
    said = f"{cut} of {drawn} means lie beyond them and are cut off" if cut else "all means lie within"
    return [f"The study’s own axes: {said}."]


def _right_labels(cells: pl.DataFrame, of_relation: bool = False) -> list[str]:
    """A line where labels that should be wrong are right, by variant (and relation); none where few enough are."""
    said = [
        " ".join([*([label(row["relation"])] if of_relation else []), f"{label(row['variant'])} {_of_labelled(row)}"])
        for row in cells.to_dicts()
        if is_marked(row["relation"], row["n_label_equals_gold"], row["n_labelled"])
    ]
    return [f"{RIGHT_LABELS}: {', '.join(said)}. They are no wrong responses."] if said else []


def _of_labelled(row: dict[str, Any]) -> str:
    return f"{row['n_label_equals_gold']:,} of {row['n_labelled']:,}"


def _read(name: str, path: Path, dataset: str) -> pl.DataFrame:
    frame = pl.from_arrow(read_table(name, path))
    other = [key for key in frame["dataset"].unique() if key != dataset]
    if other:
        raise InputError(f"{path}: holds dataset '{other[0]}', not '{dataset}'; give the folder of '{dataset}'")
    return frame.filter(pl.col("loss_tokens") == LOSS_TOKENS)


def _of_model(tables: dict[str, pl.DataFrame], model: str, title: str) -> dict[str, pl.DataFrame]:
    """The rows of one model, under the name that readers know it by."""
    called = pl.lit(title).alias("model")
    return {name: table.filter(pl.col("model") == model).with_columns(called) for name, table in tables.items()}
