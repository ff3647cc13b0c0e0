"""A family of datasets in one figure: each as a variant, or each variant of each, in the study's form and overlaid."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import altair as alt
import polars as pl

from gradatlas.charts.names import label, variants_in_order
from gradatlas.charts.panel import of
from gradatlas.charts.theme import Heading
from gradatlas.figures import layers, panels
from gradatlas.figures.data import Data
from gradatlas.figures.heading import DRAWN, left_out, of_curves, right_labels
from gradatlas.figures.heatmaps import left_out_by_dataset


def families(data: Data, paper_axes: bool) -> dict[str, Data]:
    """By family, its datasets' curves as variants of one dataset, for families of which two or more have curves."""
    names = dict.fromkeys(each.family for each in data.datasets if each.family)
    found = {name: _joined(data, name, paper_axes) for name in names}
    return {name: each for name, each in found.items() if each}


@dataclass(frozen=True)
class OfFamily:
    """A kind of figure of a family, drawn as that of one dataset; `axes`: what its axes are is below the title."""

    chart: Callable[[Data, Heading], alt.ConcatChart]
    shown: str
    axes: bool = False

    def heading(self, data: Data) -> Heading:
        """The family's name; what is drawn, of which samples."""
        curves = data.of("curves")
        drawn = f"Datasets of one family. {self.shown} {DRAWN}"
        made = of_curves(f"{data.title}, by layer", curves, f"{len(_members(data))} datasets", drawn, order=data.order)
        lines = [
            *(panels.axis_lines(curves, data.tops) if self.axes else []),
            f"Datasets: {', '.join(_members(data))}.",
        ]
        return made.with_lines([*lines, *data.notes])


PANELS, VARIANTS = OfFamily(panels.chart, panels.SHOWN, axes=True), OfFamily(layers.chart, layers.SHOWN)


def _members(data: Data) -> list[str]:
    return [each.title for each in data.datasets if not of(data.of("curves"), dataset=each.key).is_empty()]


def _joined(data: Data, family: str, paper_axes: bool) -> Data | None:
    members = tuple(each for each in data.datasets if each.family == family)
    curves, cells = data.of("curves"), data.of("cells")
    parts, counts, tops = [], [], {}
    for each in members:
        rows = of(curves, dataset=each.key)
        variants = variants_in_order(rows["variant"].unique())
        for variant in variants:
            # One kind of text is called by its dataset, several by their own names.
            name = label(variant) if len(variants) > 1 else each.member or each.title
            name = name if name not in tops else f"{name} ({each.member or each.title})"
            named = pl.lit(name).alias("variant")
            parts.append(of(rows, variant=variant).with_columns(named))
            counts.append(of(cells, dataset=each.key, variant=variant).with_columns(named))
            tops[name] = panels.paper_tops([variant], each.paper_top)[variant]
    present = {each.key for each in members if not of(curves, dataset=each.key).is_empty()}
    if len(present) < 2:
        return None
    titles = {each.key: each.title for each in members}
    missing = [title for key, title in titles.items() if of(cells, dataset=key).is_empty()]
    notes = (
        *([f"Not measured: {', '.join(missing)}."] if missing else []),
        *left_out_by_dataset(cells, {key: title for key, title in titles.items() if key not in present}),
        *left_out(pl.concat(counts)),
        *right_labels(cells.filter(pl.col("dataset").is_in(list(titles))), titles),
        *data.notes,
    )
    joined = {**data.tables, "curves": pl.concat(parts), "cells": pl.concat(counts)}
    return replace(
        data, tables=joined, title=label(family), datasets=members, order=tuple(tops), notes=notes,
        tops=tops if paper_axes else None,
    )  # fmt: skip
