"""The figures across datasets: heatmaps of MAD and RD, and what families of datasets show together."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import altair as alt
import polars as pl

from workflow.lib.command import progress
from workflow.lib.errors import InputError
from workflow.lib.figures import ability, charts, findings, heatmaps
from workflow.lib.figures.gallery import LOSS_TOKENS, REFERENCE, RIGHT_LABELS, cut_off, keep
from workflow.lib.figures.listing import write_index
from workflow.lib.figures.names import PIPELINE_CHECK, label, relations_in_order, variants_in_order
from workflow.lib.figures.panel import of
from workflow.lib.figures.theme import Heading
from workflow.lib.responses.relations import is_marked
from workflow.lib.statistics.shapes import Shapes, read_shapes, sentence
from workflow.lib.tables import read_table

KEY = "all-datasets"
TITLE = "All datasets"
_TABLES = ("curves", "mad", "rd", "rd_layers")
_COUNTS = ("n", "n_ok", *findings.LOST)
_Figure = tuple[str, str, Heading, Callable[[], alt.ConcatChart]]


@dataclass(frozen=True)
class Dataset:
    """A dataset as its sheet describes it: `family` and its name within it (`member`), empty where it has none."""

    key: str
    title: str
    family: str = ""
    member: str = ""
    paper_top: int | None = None


def draw_overview(
    statistics: Sequence[str | Path],
    datasets: Sequence[Dataset],
    output: str | Path,
    formats: Sequence[str],
    model_titles: Mapping[str, str] | None = None,
    paper_axes: bool = False,
    bundle: str | Path | None = None,
    accuracy: Sequence[str | Path] = (),
) -> None:
    """Draw what all `datasets` show together, from the folders `statistics`, one each, into the folder `output`.

    Files are ``{model}.{relation}.{kind}.{format}`` with kind ``mad`` and ``steps``, for another relation than correct
    ``rd`` and ``differences``, and for each family of two or more datasets ``{family}_panels`` (in the study's form)
    and ``{family}_variants``. ``index.json`` lists them as `gallery.draw` does. A dataset that a model was not measured
    on is named in the subtitle, as are samples that were left out, responses whose labels are right where they should
    be wrong, and by the tables `accuracy` datasets that the model does not master. `InputError` where a table lacks.
    """
    tables = {name: _all_of(name, statistics) for name in (*_TABLES, "cells")}
    if tables["curves"].is_empty():
        raise InputError(f"no curves in {', '.join(map(str, statistics))}; nothing to draw")
    able = ability.abilities(ability.read(accuracy))
    shapes = read_shapes(statistics)
    listed = []
    for model in sorted(tables["curves"]["model"].unique()):
        called = pl.lit((model_titles or {}).get(model, model)).alias("model")
        of_model = {name: table.filter(pl.col("model") == model).with_columns(called) for name, table in tables.items()}
        purpose = PIPELINE_CHECK if findings.is_check(of_model["curves"]) else "study"
        marks = [(each.title, able[model, each.key].mark) for each in datasets if (model, each.key) in able]
        unable = [f"{title} ({mark})" for title, mark in marks if mark]
        lines = [f"NOT MASTERED by this model: {', '.join(unable)}."] if unable else []
        lines += sentence(shapes.get(model))
        for relation, kind, heading, chart in _figures(of_model, datasets, paper_axes, lines, shapes.get(model)):
            listed.append(keep(chart(), Path(output), (model, relation, kind), purpose, heading, formats, bundle))
            progress(f"{model}, {relation}, {kind}: {', '.join(listed[-1]['files'].values())}")
    write_index(output, KEY, TITLE, listed, "draw_overview")


def _all_of(name: str, statistics: Sequence[str | Path]) -> pl.DataFrame:
    frames = [pl.from_arrow(read_table(name, Path(folder) / f"{name}.parquet")) for folder in statistics]
    return pl.concat(frames).filter(pl.col("loss_tokens") == LOSS_TOKENS)


def _figures(
    tables: dict[str, pl.DataFrame],
    datasets: Sequence[Dataset],
    paper_axes: bool,
    general: Sequence[str] = (),
    shapes: Shapes | None = None,
) -> Iterator[_Figure]:
    every = heatmaps.Data({each.key: each.title for each in datasets}, {each.key: each.family for each in datasets})
    norms = {name: of(tables[name], statistic="nuclear_norm") for name in _TABLES}
    for relation in relations_in_order(norms["curves"]["relation"].unique()):
        curves, mad, rd, rd_layers = (of(norms[name], relation=relation) for name in _TABLES)
        mad, rd = of(mad, segment="all"), of(rd, measure="signed")
        steps = heatmaps.steps_of(curves, shapes)
        cells = tables["cells"].filter(pl.col("relation").is_in([REFERENCE, relation]))
        own = of(cells, relation=relation)
        data = replace(every, asked=set(own["dataset"]))
        marked = _marked(own, data.titles)
        lines = [*_left_out(own, data.titles), *marked, *general]
        yield from _heatmap(relation, "mad", mad, data, heatmaps.mad_heading, heatmaps.matrix, False, lines)
        yield from _heatmap(relation, "steps", steps, data, heatmaps.steps_heading, heatmaps.by_layer, False, lines)
        if relation != REFERENCE:
            lines = [*_left_out(cells, data.titles), *marked, *general]
            yield from _heatmap(relation, "rd", rd, data, heatmaps.rd_heading, heatmaps.matrix, True, lines)
            yield from _heatmap(
                relation, "differences", rd_layers, data, heatmaps.differences_heading, heatmaps.by_layer, True, lines
            )
        for family in dict.fromkeys(each.family for each in datasets if each.family):
            members = [each for each in datasets if each.family == family]
            rows = of(tables["curves"], relation=relation)
            yield from _family(relation, family, members, rows, own, paper_axes, general)


def _left_out(cells: pl.DataFrame, titles: Mapping[str, str]) -> list[str]:
    """A line that says how many samples of each dataset were left out, and why: those of all its variants together."""
    titled = cells.filter(pl.col("dataset").is_in(list(titles))).with_columns(pl.col("dataset").replace(titles))
    counts = titled.group_by("dataset", maintain_order=True).agg(pl.sum(*_COUNTS))
    return findings.left_out(counts, ("dataset",))


def _marked(cells: pl.DataFrame, titles: Mapping[str, str]) -> list[str]:
    """A line that names the datasets of which labels that should be wrong are right; none where few enough are."""
    found = [
        row["dataset"]
        for row in cells.to_dicts()
        if is_marked(row["relation"], row["n_label_equals_gold"], row["n_labelled"])
    ]
    return [f"{RIGHT_LABELS} of {', '.join(titles.get(key, key) for key in dict.fromkeys(found))}."] if found else []


def _heatmap(relation, kind, frame, data, words, draw, signed, general) -> Iterator[_Figure]:
    # One layer has no steps, and a relation without a correct counterpart no differences.
    if not frame.is_empty():
        heading = words(frame, data).saying(general)
        yield relation, kind, heading, partial(draw, frame, data, heading, signed)


def _family(
    relation: str,
    family: str,
    members: Sequence[Dataset],
    curves: pl.DataFrame,
    cells: pl.DataFrame,
    paper_axes: bool,
    general: Sequence[str],
) -> Iterator[_Figure]:
    """A family's datasets as one: in the study's form, and overlaid."""
    parts, counts, order, tops = [], [], [], {}
    for each in members:
        rows = of(curves, dataset=each.key)
        variants = variants_in_order(rows["variant"].unique())
        for variant in variants:
            # One kind of text is called by its dataset, several by their own names.
            name = label(variant) if len(variants) > 1 else each.member or each.title
            name = name if name not in order else f"{name} ({each.member or each.title})"
            named = pl.lit(name).alias("variant")
            parts.append(of(rows, variant=variant).with_columns(named))
            counts.append(of(cells, dataset=each.key, variant=variant).with_columns(named))
            order.append(name)
            tops[name] = charts.paper_tops([variant], each.paper_top)[variant]
    present = [each for each in members if not of(curves, dataset=each.key).is_empty()]
    missing = [each.title for each in members if of(cells, dataset=each.key).is_empty()]
    unusable = {each.key: each.title for each in members if each not in present}
    if len(present) < 2:
        return
    whole, title = pl.concat(parts), ", ".join(each.title for each in present)
    absent = [f"Not measured: {', '.join(missing)}."] if missing else []
    titles = {each.key: each.title for each in members}
    lines = [
        *absent,
        *_left_out(cells, unusable),
        *findings.left_out(pl.concat(counts)),
        *_marked(cells.filter(pl.col("dataset").is_in(list(titles))), titles),
        *general,
    ]
    tops = tops if paper_axes else None
    apart = charts.own_scales(whole) if tops is None else len(set(tops.values())) > 1
    means = findings.finite(whole).group_by("variant").agg(pl.col("value").mean()).sort("value", "variant")["variant"]
    subtitle = findings.subtitle_of(whole, title, findings.DRAWN, [], variants=order)
    neutral = Heading(label(family), subtitle)
    said = findings.speaks(whole) and len(means) > 1
    words = Heading(findings.ratio_between(whole, (means[-1], means[0])), subtitle) if said else neutral
    notes = ["The upper panels differ in scale."] if apart else []
    heading = words.saying([*notes, *cut_off(whole, tops), *lines])
    yield relation, f"{family}_panels", heading, partial(charts.paper_panels, whole, heading, order, tops)
    heading = words.saying(lines)
    yield relation, f"{family}_variants", heading, partial(charts.variants_overlaid, whole, heading, order)
