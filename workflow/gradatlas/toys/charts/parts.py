"""What the toys' figures share."""

from collections.abc import Sequence

import altair as alt
import polars as pl

from gradatlas.charts import theme
from gradatlas.charts.theme import Heading

DIGITS = 6
EXACT, FIRST = theme.ORDERED_COLOURS[:2]


def rounded(name: str) -> pl.Expr:
    """A plotted column: finer than any screen, and files stay small."""
    return pl.col(name).round_sig_figs(DIGITS).alias(name)


def grid(panels: Sequence[alt.LayerChart], columns: int, heading: Heading, colour: str = "shared") -> alt.ConcatChart:
    """Panels in rows of `columns`, each with axes of its own, below their heading."""
    apart = alt.Resolve(scale=alt.ScaleResolveMap(x="independent", y="independent", color=colour))
    return alt.concat(*panels, columns=columns, title=theme.heading_of(heading, columns), resolve=apart)
