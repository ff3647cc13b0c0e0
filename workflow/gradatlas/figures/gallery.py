"""Which figures of layer gradients there are, and when each is drawn: of one dataset, and of all datasets together.

A kind is a row here and a module that has a function for its heading and one for its chart.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import altair as alt
import polars as pl

from gradatlas.charts.listing import saved, write_index
from gradatlas.charts.names import PIPELINE_CHECK, relations_in_order
from gradatlas.charts.theme import Heading
from gradatlas.claims import ability
from gradatlas.core.command import progress
from gradatlas.core.errors import InputError
from gradatlas.core.tables import read_metadata, read_table
from gradatlas.figures import compared, family, heatmaps, instructed, layers, panels, relations, samples, unusable
from gradatlas.figures.data import ALL, Data
from gradatlas.figures.jobs import FigureSettings, OverviewSettings
from gradatlas.statistics.counts import WHOLE_RESPONSE, has_check, is_whole
from gradatlas.statistics.rounding import rounding_note, rounding_notes
from gradatlas.statistics.shapes import read_shapes, sentence
from gradatlas.statistics.tables import CURVES, TABLES

_TABLES = ("curves", "mad", "rd", "rd_layers", "cells", "per_sample")
# The key and the title of all datasets together.
KEY, TITLE = "all-datasets", "All datasets"


class Drawing(Protocol):
    """What draws a kind of figure: a module, or an object of one."""

    def heading(self, data: Data) -> Heading: ...

    def chart(self, data: Data, heading: Heading) -> alt.ConcatChart: ...


class Kind(NamedTuple):
    """A kind of figure: its name, when it is drawn, by the data of one relation, and what draws it."""

    name: str
    when: Callable[[Data], bool]
    drawing: Drawing


#: Relation, kind, heading, and what draws the chart.
Figure = tuple[str, str, Heading, Callable[[], alt.ConcatChart]]


def _has(table: str) -> Callable[[Data], bool]:
    """Drawn where the relation has rows in a table."""
    return lambda data: not data.of(table).is_empty()


def _compares_kinds(data: Data) -> bool:
    """Drawn of all relations, where two or more differ from the correct one."""
    return data.relation == ALL and data.tables["rd"]["relation"].n_unique() > 1


#: Figures of one dataset; the relation ``all`` stands for all of them together.
KINDS = (
    Kind("unusable", unusable.is_drawn, unusable),
    Kind("panels", _has("curves"), panels),
    Kind("variants", _has("curves"), layers),
    Kind("compared", _has("rd_layers"), compared),
    Kind("samples", _has("per_sample"), samples),
    Kind("instructed", instructed.is_drawn, instructed),
    Kind("relations", _compares_kinds, relations),
)
#: Figures of all datasets together.
OVER_DATASETS = (
    Kind("mad", heatmaps.MAD.is_drawn, heatmaps.MAD),
    Kind("steps", heatmaps.STEPS.is_drawn, heatmaps.STEPS),
    Kind("rd", heatmaps.RD.is_drawn, heatmaps.RD),
    Kind("differences", heatmaps.DIFFERENCES.is_drawn, heatmaps.DIFFERENCES),
)
#: Figures of a family of two or more datasets, each as variants of one; the names begin with the family's.
OF_FAMILIES = (
    Kind("panels", _has("curves"), family.PANELS),
    Kind("variants", _has("curves"), family.VARIANTS),
)


def draw(
    statistics: str | Path,
    dataset: str,
    title: str,
    output: str | Path,
    formats: Sequence[str],
    settings: FigureSettings = FigureSettings(),  # noqa: B008  (frozen)
    accuracy: Sequence[str | Path] = (),
) -> None:
    """Draw every model and relation in the tables of the folder `statistics` into the folder `output`.

    `title` is what readers see as the dataset. `accuracy`: tables of what the models can do, of which each figure has
    its line.
    Files are ``{model}.{relation}.{kind}.{format}``, of the `KINDS`. ``index.json`` lists them: dataset, dataset_title,
    and by figure model, relation, kind, purpose, title, subtitle (lines), files (by format), width and height (of the
    SVG, where drawn). `InputError` where a table is missing, is of another dataset, or holds nothing that was measured.
    """
    tables = {name: _read(name, Path(statistics) / f"{name}.parquet", dataset) for name in _TABLES}
    if tables["cells"].is_empty():
        raise InputError(f"{statistics}/cells.parquet: no row with loss_tokens '{WHOLE_RESPONSE}'; nothing to draw")
    facts = read_metadata(Path(statistics) / "curves.parquet", CURVES)
    able = ability.abilities(ability.read(accuracy))
    models = sorted({*tables["curves"]["model"], *tables["cells"]["model"]})
    names = _names(models, settings.model_titles)
    by_model = {model: of_model(tables, model, names[model]) for model in models}
    known = facts.get("models", {})
    scaled = {model: sentence(known.get(model, {}).get("matrix_shapes")) for model in models}
    rounded = {model: rounding_note(known.get(model, {})) for model in models}
    listed = []
    for model in models:
        variants = by_model[model]["curves"]["variant"].unique()
        data = Data(
            by_model[model],
            title,
            notes=(*_ability(able, dataset, {model: ""}), *scaled[model], *rounded[model]),
            tops=panels.paper_tops(variants, settings.paper_top) if settings.paper_axes else None,
        )
        partner = settings.partners.get(model)
        beside = None
        if partner in by_model and bool(scaled[partner]) != bool(scaled[model]):
            # One has norms divided by the root of a matrix's smaller dimension: a ratio of the two would mean nothing.
            progress(f"{dataset}: {model} beside {partner}: not drawn, the layers of only one differ in shape")
        elif partner in by_model:
            both = {key: f"{names[key]}: " for key in (partner, model)}
            beside = replace(
                data,
                partner=by_model[partner],
                prompts=tuple(settings.prompts.get(key, "") for key in (partner, model)),
                draws=facts["draws"],
                seed=facts["seed"],
                notes=(
                    *_ability(able, dataset, both),
                    *scaled[model],
                    *(f"{both[key]}{note}" for key in both for note in rounded[key]),
                ),
            )
        for key, kind, heading, chart in figures(data, beside):
            listed.append(keep(chart(), Path(output), (model, key, kind), by_model[model]["cells"], heading, formats))
    write_index(output, dataset, title, listed, "draw_figures")


def figures(data: Data, beside: Data | None = None) -> Iterator[Figure]:
    """The figures of one model; `beside`: the same with its partner's tables."""
    measured = {*data.tables["curves"]["relation"], *data.tables["cells"]["relation"]}
    for relation in [*relations_in_order(measured), ALL]:
        for kind in KINDS:
            each = replace(beside if beside and kind.name == "instructed" else data, relation=relation)
            if kind.when(each):
                heading = kind.drawing.heading(each)
                yield relation, kind.name, heading, partial(kind.drawing.chart, each, heading)


def draw_overview(
    statistics: Sequence[str | Path],
    settings: OverviewSettings,
    output: str | Path,
    formats: Sequence[str],
    accuracy: Sequence[str | Path] = (),
) -> None:
    """Draw what all datasets show together, from the folders `statistics`, one each, into the folder `output`.

    Files are ``{model}.{relation}.{kind}.{format}``, of `OVER_DATASETS` and, as ``{family}_{kind}``, of `OF_FAMILIES`.
    ``index.json`` lists them as `draw` does. A dataset that a model was not measured on is named in the subtitle, as
    are samples that were left out, responses whose labels are right where they should be wrong, and by the tables
    `accuracy` datasets that the model does not master. `InputError` where a table is missing.
    """
    tables = {name: _all_of(name, statistics) for name in _TABLES[:-1]}
    if tables["curves"].is_empty():
        raise InputError(f"no curves in {', '.join(map(str, statistics))}; nothing to draw")
    able = ability.abilities(ability.read(accuracy))
    shapes, rounded = read_shapes(statistics), rounding_notes(statistics)
    listed = []
    for model in sorted(tables["curves"]["model"].unique()):
        marks = [(each.title, able[model, each.key].mark) for each in settings.datasets if (model, each.key) in able]
        unable = [f"{title} ({mark})" for title, mark in marks if mark]
        notes = [f"NOT ALL MASTERED by this model: {', '.join(unable)}."] if unable else []
        data = Data(
            of_model(tables, model, settings.model_titles.get(model, model)),
            datasets=tuple(settings.datasets),
            shapes=shapes.get(model),
            notes=(*notes, *sentence(shapes.get(model)), *rounded.get(model, [])),
        )
        for relation, kind, heading, chart in figures_over(data, settings.paper_axes):
            cells = data.tables["curves"]
            listed.append(keep(chart(), Path(output), (model, relation, kind), cells, heading, formats))
    write_index(output, KEY, TITLE, listed, "draw_overview")


def figures_over(data: Data, paper_axes: bool = False) -> Iterator[Figure]:
    """The figures of all datasets of one model."""
    norms = data.tables["curves"].filter(pl.col("statistic") == "nuclear_norm")
    for relation in relations_in_order(norms["relation"].unique()):
        own = replace(data, relation=relation)
        families = family.families(own, paper_axes)
        parts = [("", own, OVER_DATASETS), *((f"{name}_", part, OF_FAMILIES) for name, part in families.items())]
        for name, part, kinds in parts:
            for kind in kinds:
                if kind.when(part):
                    heading = kind.drawing.heading(part)
                    yield relation, f"{name}{kind.name}", heading, partial(kind.drawing.chart, part, heading)


def keep(
    chart: alt.TopLevelMixin,
    output: Path,
    key: tuple[str, str, str],
    rows: pl.DataFrame,
    heading: Heading,
    formats: Sequence[str],
) -> dict[str, Any]:
    """Save one figure of a (model, relation, kind) into the folder `output`; returns its entry in the index.

    `rows`: of the table whose purpose is the figure's.
    """
    about = dict(zip(("model", "relation", "kind"), key, strict=True))
    about["purpose"] = PIPELINE_CHECK if has_check(rows) else "study"
    entry = saved(chart, output / ".".join(key), about, heading, formats)
    progress(f"{', '.join(key)}: {', '.join(entry['files'].values())}")
    return entry


def of_model(tables: Mapping[str, pl.DataFrame], model: str, title: str) -> dict[str, pl.DataFrame]:
    """The rows of one model, under the name that readers know it by."""
    named = pl.lit(title).alias("model")
    return {name: table.filter(pl.col("model") == model).with_columns(named) for name, table in tables.items()}


def _names(models: Sequence[str], titles: Mapping[str, str]) -> dict[str, str]:
    """What readers see as each model; models of one title have their keys, too."""
    given = [titles.get(model, model) for model in models]
    pairs = zip(models, given, strict=True)
    return {model: name if given.count(name) == 1 else f"{name} ({model})" for model, name in pairs}


def _ability(able: Mapping, dataset: str, models: Mapping[str, str]) -> list[str]:
    """What is known of each model's ability on the dataset; `models`: by key, what the line begins with."""
    return [f"{begin}{able[key, dataset].sentence}" for key, begin in models.items() if (key, dataset) in able]


def _read(name: str, path: Path, dataset: str) -> pl.DataFrame:
    frame = pl.from_arrow(read_table(TABLES[name], path))
    other = [key for key in frame["dataset"].unique() if key != dataset]
    if other:
        raise InputError(f"{path}: holds dataset '{other[0]}', not '{dataset}'; give the folder of '{dataset}'")
    return frame.filter(is_whole())


def _all_of(name: str, statistics: Sequence[str | Path]) -> pl.DataFrame:
    frames = [pl.from_arrow(read_table(TABLES[name], Path(folder) / f"{name}.parquet")) for folder in statistics]
    return pl.concat(frames).filter(is_whole())
