"""All style of the charts: colours, marks, sizes, type. Charts themselves hold none.

The type is Liberation Sans: vl-convert carries it inside its wheel, so a chart's text is measured and drawn alike on
every machine (tried: with no font installed an SVG has the same bytes), and it has the metrics of Arial and Helvetica,
so an SVG keeps its layout in a viewer without it.
(One glyph that it does not have, such as a subscript digit, sets a whole line into another font: labels avoid those.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np

# Altair stops at 5,000 rows to protect notebooks; here data are aggregated first, and all of them are to be drawn.
alt.data_transformers.disable_max_rows()


def plain(**settings) -> dict[str, Any]:
    """An axis or a scale as a plain dict.

    Altair copies a chart whenever it is layered or concatenated, with all eighty settings of an `alt.Axis` that nobody
    made: they alone took a tenth of the time of a figure.
    """
    return settings


FAMILY = "Liberation Sans, Arimo, Arial, Helvetica, sans-serif"
INK, QUIET, RULE, GRID = "#1f2430", "#4d5566", "#8b93a3", "#e7e9ee"

# The paper's hues (Q red, K green, V blue, O grey), moved apart in luminance so that they stay apart in greyscale and
# for colour-blind readers (a test measures both). Shapes repeat them.
PROJECTION_COLOURS = {
    "q": "#d94a1f",
    "k": "#1d5f4c",
    "v": "#1d2f7a",
    "o": "#a5a09b",
    "gate": "#7a3c9a",
    "up": "#b9770a",
    "down": "#2a8fa8",
}
PROJECTION_SHAPES = {
    "q": "circle",
    "k": "triangle-up",
    "v": "square",
    "o": "diamond",
    "gate": "cross",
    "up": "triangle-down",
    "down": "triangle-right",
}
# What is wrong with the data themselves.
MARKED = "#c0213f"
# Fast to slow runs from dark to light. These variants keep their colours in a dataset without one of them.
OWN_LOOK = {"none": 0, "simplified": 1, "detailed": 2}
ORDERED_COLOURS = ("#41206f", "#c0413f", "#df9210", "#1d8a99", "#6c757d")
ORDERED_SHAPES = ("circle", "square", "triangle-up", "diamond", "cross")
# Small to large, and below to above zero: light to dark in one hue, and two hues apart for every reader (PuOr).
SEQUENTIAL = ("#f4f1fa", "#cbbfe3", "#9a86c8", "#6a4aa5", "#41206f")
DIVERGING = ("#b35806", "#f1a340", "#fee0b6", "#f7f7f7", "#d8daeb", "#998ec3", "#542788")
# Many values in order, of about one lightness, so that all stand out on white.
RAMP = ("#41206f", "#2b5fb0", "#1d8a99", "#5c9a3b", "#df9210", "#c0413f", "#6b1420")
# Correct responses, and another kind beside them.
PAIR_COLOURS = (ORDERED_COLOURS[0], ORDERED_COLOURS[2])
DASHES = ((1, 0), (4, 2.5))
DASH_LEGEND = {"title": None, "symbolType": "stroke", "symbolSize": 500}

LEGEND_BELOW = {"orient": "bottom", "labelLimit": 190}
RAMP_LEGEND = {"orient": "top", "direction": "horizontal", "gradientLength": 220, "gradientThickness": 10}

WIDTH = 780  # of all panels of a row together; a figure is about a text column wide when printed
GAP = 22
HEIGHTS = {"main": 190, "minor": 105, "small": 120, "difference": 84}
TITLE_SIZE, SUBTITLE_SIZE = 16, 11.5
# With fewer pixels between layers, points overlap: the curve is drawn without them.
POINT_SPACING = 5


@dataclass(frozen=True)
class Heading:
    """A chart's title, and the lines below it: what was drawn, of how many, what was left out."""

    title: str
    subtitle: tuple[str, ...]

    def with_lines(self, lines: Sequence[str]) -> "Heading":
        """The same with further lines."""
        return Heading(self.title, (*self.subtitle, *lines))


def ramp(count: int) -> tuple[str, ...]:
    """Colours for `count` values in order; between those of `RAMP`, mixtures of two neighbours."""
    places, known = np.linspace(0, len(RAMP) - 1, count), range(len(RAMP))
    channels = [np.interp(places, known, [int(colour[at : at + 2], 16) for colour in RAMP]) for at in (1, 3, 5)]
    return tuple("#" + "".join(f"{round(value):02x}" for value in colour) for colour in zip(*channels, strict=True))


def panel_width(columns: int) -> int:
    """Width in pixels of each of `columns` panels side by side; never too narrow to read, never a banner."""
    return max(130, min(430, (WIDTH - 2 * GAP * (columns - 1)) // columns))


def heading_of(heading: Heading, columns: int) -> alt.Title:
    """The heading as a chart title, its lines broken to the width of `columns` panels."""
    width = max(panel_width(columns) * columns + GAP * (columns - 1), 430)
    return alt.Title(
        text=_lines([heading.title], width, TITLE_SIZE * _BOLD),
        subtitle=_lines(heading.subtitle, width, SUBTITLE_SIZE),
    )


# Mean widths of characters in thousandths of the size, on the safe side; bold ones are wider.
_CAPITAL, _NARROW, _OTHER, _BOLD = 720, 278, 540, 1.08


def width_of(text: str, size: float) -> float:
    """About the width in pixels of a line of this type, of `size` pixels, and not less."""
    widths = (_CAPITAL if each.isupper() else _NARROW if each in " iljtf.,:;'()[]|!" else _OTHER for each in text)
    return size / 1000 * sum(widths)


def _lines(paragraphs: Sequence[str], width: float, size: float) -> list[str]:
    """Paragraphs broken into lines; two lines are of similar length, and not a last word alone."""
    broken = []
    for text in paragraphs:
        lines = _wrapped(text, width, size)
        if len(lines) == 2:
            even = _wrapped(text, min(width, 0.5 * width_of(text, size) + 12 * size), size)
            lines = even if len(even) == 2 else lines
        broken += lines
    return broken


def _wrapped(text: str, width: float, size: float) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and width_of(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


@alt.theme.register("gradatlas", enable=True)
def gradatlas() -> alt.theme.ThemeConfig:
    """The one theme of all charts."""
    return {
        "config": {
            "background": "white",
            "padding": 14,
            "font": FAMILY,
            "view": {"stroke": None},
            "concat": {"spacing": GAP},
            # Labels for every mark would make an SVG five times as large; the page gives each figure one text.
            "mark": {"aria": False},
            "title": {
                "font": FAMILY,
                "anchor": "start",
                "frame": "group",
                "align": "left",
                "color": INK,
                "fontSize": TITLE_SIZE,
                "fontWeight": "bold",
                "lineHeight": 20,
                "offset": 14,
                "subtitleColor": QUIET,
                "subtitleFont": FAMILY,
                "subtitleFontSize": SUBTITLE_SIZE,
                "subtitleLineHeight": 15.5,
                "subtitlePadding": 7,
            },
            "style": {
                "panel-title": {"fontSize": 12, "fontWeight": "bold", "fill": INK},
                "band": {"opacity": 0.16, "strokeWidth": 0},
                "interval": {"strokeWidth": 1.6, "opacity": 0.6},
                "curve": {"strokeWidth": 1.7, "strokeJoin": "round", "strokeCap": "butt"},
                "dot": {"filled": True, "size": 17, "opacity": 1, "strokeWidth": 0},
                "dot-alone": {"filled": True, "size": 60, "opacity": 1, "strokeWidth": 0},
                "shape": {"opacity": 0.3, "strokeWidth": 1, "line": True},
                "median": {"filled": True, "size": 40, "opacity": 1},
                # Not "cell": so Vega-Lite calls every panel.
                "tile": {"stroke": "white", "strokeWidth": 1},
                "number": {"fontSize": 10, "font": FAMILY},
                "zero": {"stroke": INK, "strokeWidth": 0.9},
                "turn": {"stroke": INK, "strokeWidth": 0.9, "strokeDash": list(DASHES[1])},
                "nothing": {"fill": QUIET, "fontSize": 11, "font": FAMILY},
            },
            "axis": {
                "labelFont": FAMILY,
                "titleFont": FAMILY,
                "labelColor": QUIET,
                "labelFontSize": 10,
                "titleColor": QUIET,
                "titleFontSize": 10.5,
                "titleFontWeight": "normal",
                "titlePadding": 7,
                "domainColor": RULE,
                "tickColor": RULE,
                "tickSize": 4,
                "gridColor": GRID,
                "labelOverlap": False,
            },
            "axisX": {"grid": False, "labelFlush": False},
            "axisY": {"domain": False, "ticks": False, "labelPadding": 5},
            "legend": {
                "orient": "top",
                "direction": "horizontal",
                "labelFont": FAMILY,
                "labelColor": INK,
                "labelFontSize": 11,
                "columnPadding": 16,
                "rowPadding": 3,
                "symbolSize": 70,
                # A legend takes the opacity of a transparent band in the same layer, and grows faint.
                "symbolOpacity": 1,
                "titleFont": FAMILY,
                "titleColor": QUIET,
                "titleFontSize": 10.5,
                "titleFontWeight": "normal",
                "symbolStrokeWidth": 1.7,
                "symbolBaseStrokeColor": INK,
                "offset": 10,
            },
        }
    }
