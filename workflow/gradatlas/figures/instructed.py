"""A model against its partner, such as the base model that it was made from, on the same samples."""

import altair as alt
import polars as pl

from gradatlas.charts.panel import Dashed, of
from gradatlas.charts.theme import Heading
from gradatlas.figures.compared import pair
from gradatlas.figures.data import Data
from gradatlas.figures.heading import larger, left_out, of_curves, states_findings
from gradatlas.statistics.counts import FEWEST_SAMPLES
from gradatlas.statistics.paired import ratios, relative_differences

DRAWN = (
    "Mean nuclear norm by layer of {own} (dashed) and of {partner}, on the same responses; below it, the first over "
    "the second. That band takes the two models’ samples for independent, which makes it wide; the title’s intervals "
    "are paired by sample."
)
APART = (
    "The two read different prompts, {own} {forms[1]} ones and {partner} {forms[0]} ones: a difference may be theirs."
)


def is_drawn(data: Data) -> bool:
    """Whether the model has a partner with responses of the relation in common."""
    return data.partner is not None and not shared(data).is_empty()


def heading(data: Data) -> Heading:
    """In how many variants and projections the model's mean gradients are larger than its partner's.

    Where the two read different prompts, their forms are in the title.
    """
    curves, forms = shared(data), data.prompts
    partner, own = curves["model"].unique(maintain_order=True)
    forms_differ = forms[0] != forms[1]
    names = [
        f"{name} ({form} prompts)" if forms_differ else name for name, form in zip((partner, own), forms, strict=True)
    ]
    title = f"{names[1]} against {names[0]}, by layer"
    samples = [_of_relation(tables, "per_sample", data.relation) for tables in (data.partner, data.tables)]
    rows = relative_differences(*samples, data.draws, data.seed)
    if states_findings(curves) and not rows.is_empty() and rows["n"].min() >= FEWEST_SAMPLES:
        title = larger(f"Mean gradients of {names[1]}", names[0], rows, "variants and projections")
    notes = [APART.format(own=own, partner=partner, forms=forms)] if forms_differ else []
    cells = pl.concat(_of_relation(tables, "cells", data.relation) for tables in (data.partner, data.tables))
    made = of_curves(title, curves, data.title, DRAWN.format(own=own, partner=partner), notes=notes)
    return made.with_lines([*left_out(cells, ("model", "variant")), *data.notes])


def chart(data: Data, heading: Heading) -> alt.ConcatChart:
    """Both models' curves, one of them dashed, and their ratio below."""
    curves = shared(data)
    names = tuple(curves["model"].unique(maintain_order=True))
    by_model = [of(curves, model=name) for name in names]
    # Of any length the names are in the legend.
    return pair(curves, ratios(*by_model), heading, Dashed("model", names), ["Dashed / solid,", "log"], neutral=1)


def shared(data: Data) -> pl.DataFrame:
    """The relation's curves of both models, for the variants that both have, the partner's first."""
    partner, own = (_of_relation(tables, "curves", data.relation) for tables in (data.partner, data.tables))
    return pl.concat([partner.join(own, on="variant", how="semi"), own.join(partner, on="variant", how="semi")])


def _of_relation(tables, name: str, relation: str) -> pl.DataFrame:
    return of(tables[name], relation=relation)
