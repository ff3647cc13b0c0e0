"""Cosines between gradients of one sample over layers, as the data-quality study draws them."""

from collections.abc import Sequence
from pathlib import Path

import altair as alt
import polars as pl

from gradatlas.charts import scales, theme
from gradatlas.charts.names import PROJECTIONS, TERMS, in_order, label, relations_in_order, variants_in_order
from gradatlas.charts.numbers import span
from gradatlas.charts.panel import SERIES, Axis, Palette, cells, ends_in, grid, of, panel
from gradatlas.charts.save import save
from gradatlas.core.errors import InputError
from gradatlas.core.tables import read_table
from gradatlas.gradients.tables import COSINES
from gradatlas.statistics.bootstrap import interval, resampled_means

DRAWN = (
    "Of two matrices of one layer whose shapes agree, and of one projection in a layer and the next. Mean over "
    "samples, all panels on one scale. Bands: 95 % bootstrap intervals over samples."
)
_KINDS = {"same_layer": "Of one layer", "adjacent_layers": "Of a layer and the next"}
_KEYS = ("kind", "variant", "relation", "pair", "layer")


def draw_cosines(
    cosines: str | Path, title: str, output: str | Path, formats: Sequence[str], draws: int, seed: int
) -> None:
    """Draw the cosines table of one model and dataset as ``{output}.{format}``; `title` names the two."""
    known = pl.col("cosine").is_finite().fill_null(False) & (pl.col("loss_tokens") == "all")
    frame = pl.from_arrow(read_table(COSINES, cosines)).filter(known)
    if frame.is_empty():
        raise InputError(f"{cosines}: no cosine is known; measure with a model whose matrices have gradients")
    rows = []
    for key, part in frame.group_by(_KEYS, maintain_order=True):
        drawn = resampled_means(part["cosine"].to_numpy(), draws, seed, " ".join(map(str, key)))
        value, low, high = map(float, interval(drawn))
        rows.append(dict(zip(_KEYS, key, strict=True)) | {"value": value, "low": low, "high": high, "n": part.height})
    save(chart(pl.DataFrame(rows), title), output, formats)


def chart(curves: pl.DataFrame, title: str) -> alt.TopLevelMixin:
    """A row a kind of cosine and of responses, a column a variant; one scale for all."""
    columns = variants_in_order(curves["variant"])
    relations = relations_in_order(curves["relation"])
    kinds = [(kind, relation) for kind in _KINDS for relation in relations if kind in set(curves["kind"])]
    scale = scales.linear(ends_in(curves))
    panels = []
    for (kind, relation), variant, at in cells(kinds, columns):
        frame = of(curves, kind=kind, variant=variant, relation=relation)
        width = theme.panel_width(len(columns))
        x = Axis("layer", "Layer" if at.bottom else None, count=max(3, width // 40), format="d")
        y_title = [_KINDS[kind], TERMS.get(relation, label(relation))] if at.left else None
        y = Axis("value", y_title, scale, labels=at.left, count=4)
        name = label(variant) if at.top else None
        size = (width, theme.HEIGHTS["small"])
        panels.append(panel(frame, x, y, _palette(curves), size, title=name, dots=False, level=0, more=("n",)))
    heading = theme.Heading(
        "Cosines between gradients of one sample",
        (title, f"n = {span(curves['n'].min(), curves['n'].max())}"),
        (DRAWN,),
    )
    return grid(panels, len(columns), heading)


def _palette(curves: pl.DataFrame) -> Palette:
    """A projection has its own colour; pairs of one layer have those of series."""
    pairs = in_order(curves["pair"], ("q-o", "k-v", *PROJECTIONS))
    own = dict(zip(("q-o", "k-v"), SERIES, strict=False)) | theme.COLOURS["projection"]
    shapes = {"q-o": "circle", "k-v": "square"} | theme.PROJECTION_SHAPES
    return Palette("pair", tuple(pairs), tuple(own[pair] for pair in pairs), tuple(shapes[pair] for pair in pairs))
