"""All style of the charts: colours, marks, sizes, type. Charts themselves hold none.

The type is Liberation Sans: vl-convert carries it inside its wheel, so a chart's text is measured and drawn alike on
every machine (tried: with no font installed an SVG has the same bytes), and it has the metrics of Arial and Helvetica.
A browser that has none of these shows an SVG in a wider font, made narrower (`STAND_IN`), so it keeps its layout.
(One glyph that it does not have, such as a subscript digit, sets a whole line into another font: labels avoid those.)
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import altair as alt
import numpy as np
from altair.utils import schemapi

# Altair stops at 5,000 rows to protect notebooks; here data are aggregated first, and all of them are to be drawn.
alt.data_transformers.disable_max_rows()
# It checks each part of a chart as it is made, a tenth of a figure's time; the tests check every kind of chart whole.
schemapi.disable_debug_mode()


class _Shared:
    """Copies share their parts: Altair copies all of a chart whenever it is combined, half of the time of a figure."""

    def copy(self, deep: Any = True, ignore: list[str] | None = None) -> Any:
        return super().copy(deep=False if deep is True else deep, ignore=ignore)  # type: ignore[misc]


class Chart(_Shared, alt.Chart):
    """A chart whose parts are never changed once they are made."""

    def encode(self, **channels: Any) -> Self:  # type: ignore[override]
        """With channels that may be shorthands (``"x:Q"``), values (`alt.value`) and lists of them."""
        return super().encode(**{name: _channel(name, given) for name, given in channels.items()})


def _channel(name: str, given: Any) -> Any:
    """What is given for a channel, as an object of its class: Altair would compare all its classes to find it."""
    kind = name[:1].upper() + name[1:]
    if isinstance(given, list):
        return [_channel(name, each) for each in given]
    if isinstance(given, str):
        return getattr(alt, kind)(given)
    return getattr(alt, f"{kind}Value")(**given) if isinstance(given, dict) else given


class _Layers(_Shared, alt.LayerChart):
    pass


def layer(*parts: alt.Chart | alt.LayerChart, **settings: Any) -> alt.LayerChart:
    """Charts over each other."""
    return _Layers(layer=list(parts), **settings)


def plain(**settings) -> dict[str, Any]:
    """An axis or a scale as a plain dict: Altair writes all eighty settings of an `alt.Axis` that nobody made."""
    return settings


FAMILY = "Liberation Sans, Arimo, Arial, Helvetica, sans-serif"
# The family behind these, and how an SVG defines it: fonts of Linux and others that are wider by a sixth.
STAND_IN = "Gradatlas"
STAND_INS = "".join(
    f"@font-face{{font-family:{STAND_IN};font-weight:{weight};size-adjust:86%;"
    f'src:local("DejaVu Sans{name}"),local("Verdana{name}")}}'
    for weight, name in (("normal", ""), ("bold", " Bold"))
)
INK, QUIET, RULE, GRID = "#1f2430", "#4d5566", "#8b93a3", "#e7e9ee"

# One colour a meaning, over all figures; other modules take theirs from here. Shapes repeat them. The projections have
# the paper's hues (Q red, K green, V blue, O grey), moved apart in luminance.
COLOURS: dict[str, dict[str, str]] = {
    "projection": {
        "q": "#d94a1f",
        "k": "#1d5f4c",
        "v": "#1d2f7a",
        "o": "#a5a09b",
        "gate": "#7a3c9a",
        "up": "#b9770a",
        "down": "#2a8fa8",
    },
    # Fast to slow runs from dark to light; other variants have colours of series.
    "variant": {"none": "#41206f", "simplified": "#c0413f", "detailed": "#df9210"},
    "response": {"correct": "#2f6fb7", "other": "#d17ab0"},
    # The study's own irrelevant responses, the same by its algorithm, and corrected ones.
    "source": {"published": "#7a1f4b", "reference": "#b5658a", "derangement": "#4f8f3a"},
    "verdict": {"holds": "#00874a", "fails": "#c8102e", "inconclusive": "#7f8aa0"},
    # What is wrong with the data themselves; what a step is on.
    "mark": {"fault": "#a3123a", "target": "#e0115f"},
    # Types of probes: chosen green and blue, rejected red, other questions violet, no answers brown.
    "probe": {
        "chosen": "#0b5d2e",
        "chosen_semantic": "#3d9a62",
        "chosen_format": "#86c06c",
        "initial": "#156f9f",
        "self_rephrase": "#56b4d3",
        "rejected": "#8f1d1d",
        "rejected_semantic": "#d6685a",
        "rejected_format": "#eb9a78",
        "irrelevant_train": "#5b3fa8",
        "irrelevant_held_out": "#9a83d6",
        "unrelated": "#c9a7de",
        "permuted": "#5a4632",
        "random_nonhum": "#9c7a52",
        "random_tokens": "#c4ad86",
    },
    # Runs, models, groups, scores, lengths: by their place in a figure.
    "series": {
        "1": "#0a4f8a",
        "2": "#e86f2c",
        "3": "#12a08c",
        "4": "#b23a86",
        "5": "#8a8d1c",
        "6": "#5fa3e0",
        "7": "#7d4a2d",
    },
}
# The same meanings on a dark page: lighter colours of about the same hue.
ON_DARK: dict[str, dict[str, str]] = {
    "variant": {"none": "#b08be0", "simplified": "#f08a80", "detailed": "#f0b64a"},
    "verdict": {"holds": "#4fd39b", "fails": "#ff8f8f"},
    "series": {
        "1": "#7fb2ea",
        "2": "#f2a072",
        "3": "#4fd0bf",
        "4": "#ec8fd0",
        "5": "#c9cc5a",
        "6": "#c3e0fb",
        "7": "#cf9f80",
    },
}
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right")
PROJECTION_SHAPES = dict(
    zip(
        COLOURS["projection"],
        ("circle", "triangle-up", "square", "diamond", "cross", "triangle-down", "triangle-right"),
        strict=True,
    )
)
# Of variants by rank: first those that have colours of their own.
VARIANT_COLOURS = (*COLOURS["variant"].values(), *COLOURS["series"].values())
# Small to large, and below to above zero: light to dark in one hue, and two hues apart for every reader.
SEQUENTIAL = ("#f1f5f8", "#c3d3df", "#8eabc0", "#527b99", "#1b4a6b")
DIVERGING = ("#8c510a", "#d8b365", "#f6e8c3", "#f5f5f5", "#c7eae5", "#5ab4ac", "#01665e")
# Many values in order, of about one lightness, so that all stand out on white.
RAMP = ("#2c3e8f", "#2f6f9f", "#2a8f86", "#6b9a3a", "#c08a1a", "#c2562f", "#7a1f2b")
DASHES = ((1, 0), (4, 2.5))
DASH_LEGEND = {"title": None, "symbolType": "stroke", "symbolSize": 500}

RAMP_LEGEND = {"orient": "top", "direction": "horizontal", "gradientLength": 200, "gradientThickness": 10}

# Of all panels of a row together: a figure is about 700 pixels wide. Printed 17 cm wide its labels have 7 to 8 points,
# 8.5 cm wide half of that.
WIDTH = 600
GAP = 22
HEIGHTS = {"main": 170, "minor": 95, "small": 110, "difference": 84}
TITLE_SIZE, SUBTITLE_SIZE, LEGEND_SIZE = 14, 11.5, 11
# With fewer pixels between layers, points overlap: the curve is drawn without them.
POINT_SPACING = 5


# Two words in capitals or more, after the name of a model or none.
_WARNING = re.compile(r"(?:[^:]{1,80}: )?([A-Z]{2,}(?: [A-Z]{2,})+)\b")


@dataclass(frozen=True)
class Heading:
    """What is written about a figure: its title and one line below it in the picture, the rest in its caption."""

    title: str
    subtitle: tuple[str, ...] = ()
    """facts of the line, the most important first: those that do not fit are in the caption alone"""
    caption: tuple[str, ...] = ()
    """paragraphs: what was drawn, and what was left out"""

    def with_lines(self, lines: Sequence[str]) -> "Heading":
        """The same with further paragraphs of the caption."""
        return Heading(self.title, self.subtitle, (*self.caption, *lines))

    @property
    def facts(self) -> tuple[str, ...]:
        """What the line below the title holds: first the warnings, which are paragraphs that begin in capitals."""
        warnings = dict.fromkeys(found[1] for each in self.caption if (found := _WARNING.match(each)))
        return (*warnings, *filter(None, self.subtitle))

    @property
    def line(self) -> str:
        """All facts of the line below the title."""
        return " · ".join(self.facts)

    @property
    def paragraphs(self) -> list[str]:
        """The whole caption: the title, all facts, and its own paragraphs."""
        return [each for each in (self.title, self.line, *self.caption) if each]


def ramp(count: int) -> tuple[str, ...]:
    """Colours for `count` values in order; between those of `RAMP`, mixtures of two neighbours."""
    places, known = np.linspace(0, len(RAMP) - 1, count), range(len(RAMP))
    channels = [np.interp(places, known, [int(colour[at : at + 2], 16) for colour in RAMP]) for at in (1, 3, 5)]
    return tuple("#" + "".join(f"{round(value):02x}" for value in colour) for colour in zip(*channels, strict=True))


def panel_width(columns: int) -> int:
    """Width in pixels of each of `columns` panels side by side; never too narrow to read, never a banner."""
    return max(130, min(430, (WIDTH - 2 * GAP * (columns - 1)) // columns))


def headed(heading: Heading, columns: int) -> dict[str, Any]:
    """The arguments of a chart of `columns` panels a row with this heading: title, one line below it, and the caption.

    The caption is the chart's description, so that its record holds it and `save` writes it beside the picture.
    """
    width = max(panel_width(columns) * columns + GAP * (columns - 1), 430)
    text = _lines(heading.title, width, TITLE_SIZE * _BOLD)
    # From the labels' left edge on: names of rows take as much room as the panels.
    title = alt.Title(text=text, subtitle=one_line(heading, width), frame="bounds")
    return {"title": title, "description": "\n\n".join(heading.paragraphs)}


def one_line(heading: Heading, width: float) -> list[str]:
    """As many of the heading's facts as fit into one line of `width` pixels; a first one that is too long is cut."""
    shown, facts = "", heading.facts
    for fact in facts:
        longer = f"{shown} · {fact}" if shown else fact
        if width_of(longer, SUBTITLE_SIZE) > width:
            break
        shown = longer
    if facts and not shown:
        while width_of(f"{facts[0][: len(shown) + 1]}…", SUBTITLE_SIZE) <= width:
            shown = facts[0][: len(shown) + 1]
        shown = f"{shown.rstrip()}…"
    return [shown] if shown else []


# Mean widths of characters in thousandths of the size, on the safe side; bold ones are wider.
_CAPITAL, _NARROW, _OTHER, _BOLD = 720, 278, 540, 1.08


def width_of(text: str, size: float) -> float:
    """About the width in pixels of a line of this type, of `size` pixels, and not less."""
    widths = (_CAPITAL if each.isupper() else _NARROW if each in " iljtf.,:;'()[]|!" else _OTHER for each in text)
    return size / 1000 * sum(widths)


def _lines(text: str, width: float, size: float) -> list[str]:
    """A text broken into lines; two lines are of similar length, and not a last word alone."""
    lines = wrapped(text, width, size)
    if len(lines) == 2:
        even = wrapped(text, min(width, 0.5 * width_of(text, size) + 12 * size), size)
        lines = even if len(even) == 2 else lines
    return lines


def wrapped(text: str, width: float, size: float) -> list[str]:
    """A text broken into lines of at most `width` pixels."""
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
                "lineHeight": 18,
                "offset": 14,
                "subtitleColor": QUIET,
                "subtitleFont": FAMILY,
                "subtitleFontSize": SUBTITLE_SIZE,
                "subtitleLineHeight": 15,
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
                "labelFontSize": 10.5,
                "titleColor": QUIET,
                "titleFontSize": 11,
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
                "labelFontSize": LEGEND_SIZE,
                "columnPadding": 16,
                "rowPadding": 3,
                "symbolSize": 70,
                # A legend takes the opacity of a transparent band in the same layer, and grows faint.
                "symbolOpacity": 1,
                "titleFont": FAMILY,
                "titleColor": QUIET,
                "titleFontSize": 11,
                "titleFontWeight": "normal",
                "symbolStrokeWidth": 1.7,
                "symbolBaseStrokeColor": INK,
                "offset": 10,
            },
        }
    }
