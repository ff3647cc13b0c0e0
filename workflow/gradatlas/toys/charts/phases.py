"""The tangent kernels along training: by class, by phase beside A and G, and estimated by Gaussian vectors."""

import altair as alt
import polars as pl

from gradatlas.charts import scales, theme
from gradatlas.charts.numbers import share
from gradatlas.charts.panel import Axis, Palette, cells, grid, panel, rounded, series_palette, titled
from gradatlas.charts.theme import Heading
from gradatlas.toys.charts.influence import epoch_axis, guide
from gradatlas.toys.phases import DRAWS, PHASES

#: Panels of learned classes at most, and those side by side.
_CLASSES, _COLUMNS = 12, 4
#: Largest and smallest kernels that are coloured.
_EDGE = 3
_KERNEL, _CHANGE, _PRODUCT, _A, _G = _FACTORS = ("K", "change of K in an epoch", "AKG", "A", "G")


def heading_of_classes(kernels: pl.DataFrame) -> Heading:
    """What is drawn, of which classes."""
    learned, last = _learned(kernels), kernels["epoch"].max()
    some = "" if len(learned) == kernels["learned"].n_unique() else f" The first {len(learned)} classes are shown."
    return Heading(
        "Norms of the tangent kernels over training, by learned class",
        (f"{len(learned)} classes",),
        (
            "A panel per learned class u, a line per other class o: mean norm of the kernel over pairs of their "
            f"images. Colour: the {_EDGE} largest and the {_EDGE} smallest of each panel after epoch {last}; lines "
            f"that do not cross keep their rank.{some}",
        ),
    )


def class_curves(kernels: pl.DataFrame, heading: Heading) -> alt.ConcatChart:
    """A panel per learned class, a line per observed one."""
    others, learned = kernels.filter(pl.col("learned") != pl.col("observed")), _learned(kernels)
    place = pl.col("norm").rank("ordinal", descending=True).over("learned")
    end = others.filter(pl.col("epoch") == kernels["epoch"].max()).with_columns(place=place)
    count = int(end["place"].max())
    kinds = (f"the {_EDGE} largest in the end", "between", f"the {_EDGE} smallest in the end")
    kind = (
        pl.when(pl.col("place") <= _EDGE).then(pl.lit(kinds[0]))
        .when(pl.col("place") > count - _EDGE).then(pl.lit(kinds[2])).otherwise(pl.lit(kinds[1]))
    )  # fmt: skip
    lines = others.join(end.select("learned", "observed", kind.alias("series")), on=["learned", "observed"])
    palette = Palette(
        "series", kinds, (theme.COLOURS["series"]["2"], theme.RULE, theme.COLOURS["series"]["1"]), ("circle",) * 3
    )
    height = theme.HEIGHTS["small"]
    scale = scales.log_if_decades(others["norm"], height // 25)
    norm = "Norm, log" if scale.kind == "log" else "Norm"
    panels = []
    for at, name in enumerate(learned):
        x = epoch_axis(kernels, "Epoch, square root" if at + _COLUMNS >= len(learned) else None)
        y = Axis("norm", norm if at % _COLUMNS == 0 else None, scale, labels=at % _COLUMNS == 0)
        order = end.filter(pl.col("learned") == name).sort("place")["observed"]
        panels.append(
            panel(lines.filter(pl.col("learned") == name), x, y, palette, (theme.panel_width(_COLUMNS), height),
                  title=f"{name}: most {order[0]}, least {order[-1]}", detail="observed", dots=False)
        )  # fmt: skip
    return grid(panels, _COLUMNS, heading)


def _learned(kernels: pl.DataFrame) -> list[str]:
    return kernels["learned"].unique(maintain_order=True).to_list()[:_CLASSES]


def heading_of_phases(phases: pl.DataFrame) -> Heading:
    """What is drawn, and how much an epoch changes the kernel in each phase."""
    relative = phases.with_columns(relative=pl.col("change") / pl.col("kernel")).drop_nulls()
    changes = relative.group_by("phase", maintain_order=True).agg(pl.col("relative", "cosine").mean())
    by_phase = ", ".join(
        f"{row['phase']} {share(row['relative'])} (cosine {row['cosine']:.4f})" for row in changes.to_dicts()
    )
    return Heading(
        "The factors of a step’s influence −ηAKG in phases of training",
        (f"{phases['n'][0]:,} pairs of images",),
        (
            f"Mean norms over {phases['n'][0]:,} pairs of distinct images, epoch by epoch. A = I − 1π, G = π − e; AKG "
            "is the change of log π by a step of rate 1, to first order. An epoch changes K by this share of its norm, "
            f"in the mean: {by_phase}. Below: cosine of K with that of the epoch before.",
        ),
    )


def phase_curves(phases: pl.DataFrame, heading: Heading) -> alt.ConcatChart:
    """A column per phase: norms of K, of its change and of AKG; norms of A and G; the cosine of K over an epoch."""
    names = {"kernel": _KERNEL, "change": _CHANGE, "influence": _PRODUCT, "a": _A, "g": _G}
    norms = phases.unpivot([*names], index=["epoch", "phase"], variable_name="series").drop_nulls()
    norms = norms.with_columns(pl.col("series").replace_strict(names))
    cosines = phases.select("epoch", "phase", value="cosine", series=pl.lit(_CHANGE)).drop_nulls()
    rows = {
        "Norm": norms.filter(pl.col("series").is_in([_KERNEL, _CHANGE, _PRODUCT])),
        "Norm of A and G": norms.filter(pl.col("series").is_in([_A, _G])),
        "Cosine over an epoch": cosines,
    }
    palette, width, panels = series_palette(_FACTORS), theme.panel_width(len(PHASES)), []
    for (title, frame), phase, at in cells(rows.items(), PHASES):
        own = frame.filter(pl.col("phase") == phase)
        height = theme.HEIGHTS["main" if at.top else "small"]
        scale = scales.log_if_decades(frame["value"], height // 20) if at.top else scales.linear(frame["value"])
        scale = scales.Scale("linear", cosines["value"].min(), 1) if at.bottom else scale
        name = f"{title}, log" if scale.kind == "log" else title
        first, last = (phases.filter(pl.col("phase") == phase)["epoch"].sort()[end] for end in (0, -1))
        x = Axis("epoch", "Epoch" if at.bottom else None, scales.Scale("linear", first, last), "d", count=5)
        y = Axis("value", name if at.left else None, scale, labels=at.left, count=5)
        heads = f"{phase.capitalize()}: epochs {first} to {last}" if at.top else None
        panels.append(panel(own, x, y, palette, (width, height), title=heads, dots=False))
    return grid(panels, len(PHASES), heading)


def heading_of_norms(norms: pl.DataFrame) -> Heading:
    """What is drawn, and how many estimates are within two standard errors."""
    # Of squares, whose errors are twice the estimate times that of the root.
    apart = (pl.col("estimate") ** 2 - pl.col("norm") ** 2).abs() / (2 * pl.col("estimate") * pl.col("error"))
    inside = norms.select((apart <= 2).mean()).item()
    error = norms.select((pl.col("error") / pl.col("norm")).median()).item()
    return Heading(
        "Norms of the tangent kernels, exact and estimated by Gaussian vectors",
        (f"{DRAWS} vectors a side", f"median error {share(error)}"),
        (
            f"Each dot: an image of each of two classes; the estimate is the root of the mean of (w·Kv)² over {DRAWS} "
            f"vectors w and {DRAWS} v, without K. Line: equal. Bars: two standard errors; the median error is "
            f"{share(error)} of the norm, and {share(inside)} of all {len(norms):,} squares are within two.",
        ),
    )


def norm_scatter(norms: pl.DataFrame, heading: Heading) -> alt.ConcatChart:
    """Estimates against norms at each epoch."""
    ends = [pl.col("estimate") + side * 2 * pl.col("error") for side in (-1, 1)]
    norms = norms.unique(["epoch", "learned", "observed"], keep="first", maintain_order=True)
    norms = norms.with_columns(low=ends[0].clip(pl.col("estimate") / 2), high=ends[1])
    epochs = norms["epoch"].unique().sort().to_list()
    panels = []
    for epoch in epochs:
        own = norms.filter(pl.col("epoch") == epoch).select(map(rounded, ("norm", "estimate", "low", "high")))
        scale = scales.logarithmic([*own["norm"], *own["low"], *own["high"]], 6)
        x = Axis("norm", "Norm, log", scale).encode(alt.X)
        y = Axis("estimate", None if panels else "Estimate, log", scale)
        line = [{"norm": end, "estimate": end} for end in (scale.low, scale.high)]
        base = theme.Chart(own).encode(x=x, color=alt.value(theme.INK))
        panels.append(
            theme.layer(
                guide(line, x, y.encode(alt.Y)),
                base.mark_rule(style="interval").encode(y=y.encode(alt.Y, "low"), y2="high:Q"),
                base.mark_point(style="dot").encode(y=y.encode(alt.Y)),
                width=theme.panel_width(len(epochs)),
                height=theme.HEIGHTS["main"],
                **titled(f"After {epoch} epoch{'s' if epoch != 1 else ''}"),
            )
        )
    return grid(panels, len(epochs), heading)
