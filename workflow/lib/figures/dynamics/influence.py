"""What learning one type of response does to all others: the table of influences, and LBK and SignDelta over time."""

import math
from collections.abc import Mapping

import altair as alt
import polars as pl

from workflow.lib.figures import theme
from workflow.lib.figures.dynamics.parts import TYPES, looks, signed
from workflow.lib.statistics.bootstrap import interval, resampled_means
from workflow.lib.statistics.influence import accumulated, by_column, lbk, sign_delta

#: Followed over time.
_FOLLOWED = (
    "chosen",
    "chosen_semantic",
    "rejected",
    "rejected_semantic",
    "irrelevant_train",
    "unrelated",
    "random_tokens",
)
_PAIRS = "DPO"
_LABELS = (
    "Of the paper's measures, which take all entries of the vocabulary, these take those of the responses' own tokens"
)

Learnt = Mapping[str, tuple[str, str]]


def table_of(dynamics: Mapping[str, pl.DataFrame], learnt: Learnt, draws: int, seed: int) -> pl.DataFrame:
    """Accumulated SignDelta of every type by what was learnt: a row a type and run, mean and interval over probes.

    `dynamics`: that table by run; `learnt`: `choose.learnt`. Columns: run, column (what was learnt, in words), own
    (the type that was learnt), type, value, low, high (nats per token), n, share (of the column's range).
    """
    rows = []
    for run, (pulled, pushed) in learnt.items():
        sums = accumulated(sign_delta(dynamics[run].filter(pl.col("split") == "train")))
        found = {}
        for (kind,), part in sums.sort("type", "probe_id").group_by("type", maintain_order=True):
            value, low, high = interval(
                resampled_means(part["change"].to_numpy(), draws, seed, f"influence {run} {kind}")
            )
            found[kind] = {"value": float(value), "low": float(low), "high": float(high), "n": len(part)}
        own = "" if pushed else pulled
        shares = by_column([each["value"] for each in found.values()])
        for (kind, each), share in zip(found.items(), shares, strict=True):
            column = _PAIRS if pushed else TYPES[pulled]
            rows.append({"run": run, "column": column, "own": own, "type": kind, "share": share} | each)
    return pl.DataFrame(rows)


def heat_map(table: pl.DataFrame, settings: str = "") -> tuple[theme.Heading, alt.LayerChart]:
    """Types by what was learnt, as `table_of` gives them; `settings`: which runs these are, in words."""
    columns = [name for name in (*TYPES.values(), _PAIRS) if name in set(table["column"])]
    single = table.filter(pl.col("own") != "")
    rises, moves = (_own_first(single, by) for by in (pl.col("value"), pl.col("value").abs()))
    runs = single["run"].n_unique()
    said = [f"The type learnt rises most in {rises} of {runs} runs, and moves most, up or down, in {moves}"]
    pairs = table.filter(pl.col("column") == _PAIRS)
    if len(pairs):
        falling = int((pairs["high"] < 0).sum())
        said.append(f"DPO lowers {falling} of {len(pairs)} types")
    n = int(table["n"].max())
    heading = theme.Heading(
        "; ".join(said),
        (
            f"{settings} Numbers: SignDelta, the change of the mean log-probability per token summed over evaluations, "
            f"which is the end less the start; mean over {n} probed questions, nats per token. Colour: the number "
            f"divided by its column's range, as in the paper. Framed: the type that was learnt. {_LABELS}.".strip(),
        ),
    )
    data = table.with_columns(
        pl.col("type").replace_strict(TYPES).alias("row"),
        pl.col("value").map_elements(lambda value: signed(value, 2), return_dtype=pl.String).alias("words"),
        (pl.col("type") == pl.col("own")).alias("itself"),
        *(pl.col(key).round_sig_figs(6) for key in ("value", "low", "high", "share")),
    )
    base = alt.Chart(data).encode(
        x=alt.X(
            "column:O",
            sort=columns,
            title="Learnt",
            axis=alt.Axis(labelAngle=0, labelExpr="split(datum.label, ', ')", domain=False, ticks=False),
        ),
        y=alt.Y("row:O", sort=list(TYPES.values()), title="Observed", axis=alt.Axis(labelLimit=200)),
    )
    ramp = alt.Scale(domain=[place / 3 for place in range(-3, 4)], range=list(theme.DIVERGING), clamp=True)
    ink = alt.condition("abs(datum.share) > 0.6", alt.value("white"), alt.value(theme.INK))
    cells = base.mark_rect(style="tile").encode(
        color=alt.Color(
            "share:Q",
            scale=ramp,
            legend=alt.Legend(title="Share of the column's range", values=[-1, 0, 1], **theme.RAMP_LEGEND),
        ),
        tooltip=["column:N", "row:N", "value:Q", "low:Q", "high:Q", "share:Q", "n:Q"],
    )
    frames = base.transform_filter("datum.itself").mark_rect(fillOpacity=0, stroke=theme.INK, strokeWidth=2)
    words = base.mark_text(style="number").encode(text="words:N", color=ink)
    chart = alt.layer(
        cells,
        frames,
        words,
        width=theme.WIDTH - 140,
        height=24 * data["row"].n_unique(),
        title=theme.heading_of(heading, 2),
    )
    # The row titles stand left of the plot: the heading is as wide as both.
    chart.title.frame = "bounds"
    return heading, chart


def _own_first(single: pl.DataFrame, by: pl.Expr) -> int:
    """Of the runs, those where the type that was learnt comes first by `by`."""
    best = single.sort(by, descending=True).group_by("run", maintain_order=True).first()
    return int((best["type"] == best["own"]).sum())


def over_time(
    dynamics: Mapping[str, pl.DataFrame], training: Mapping[str, pl.DataFrame], learnt: Learnt, settings: str = ""
) -> tuple[theme.Heading, alt.VConcatChart]:
    """SignDelta and LBK between evaluations, and both summed, a row a run (the paper's figure 8)."""
    parts = []
    for run, (pulled, pushed) in learnt.items():
        own = dynamics[run].filter((pl.col("split") == "train") & pl.col("type").is_in(_FOLLOWED))
        found = lbk(own, training[run], pulled, pushed)
        means = found.group_by("type", "examples").agg(pl.col("change").mean(), pl.col("lbk").mean())
        parts.append(means.with_columns(pl.lit(_PAIRS if pushed else TYPES[pulled]).alias("learnt")))
    frame = pl.concat(parts).with_columns(pl.col("type").replace_strict(TYPES).alias("series"))
    n = int(
        next(iter(dynamics.values()))
        .filter((pl.col("split") == "train") & (pl.col("type") == "chosen"))["probe_id"]
        .n_unique()
    )
    sums = frame.group_by("learnt", "series").agg(pl.col("change").sum(), pl.col("lbk").sum())
    top = sums.sort("lbk", descending=True).group_by("learnt", maintain_order=True).first()
    own = top.filter(pl.col("learnt") == pl.col("series")).height
    single = sum(not pushed and pulled in _FOLLOWED for pulled, pushed in learnt.values())
    heading = theme.Heading(
        f"By LBK learning a type moves that type most in {own} of {single} runs",
        (
            f"{settings} Rows: what was learnt. SignDelta: change of the mean log-probability per token since the "
            "evaluation before, nats. LBK: its square over ‖A‖² of the observed and ‖G‖² of the learnt responses, both "
            f"before the change; several updates lie between evaluations. Means over {n} probed questions. {_LABELS}, "
            "and their mean over a response alone.".strip(),
        ),
    )
    entries = [TYPES[kind] for kind in _FOLLOWED]
    colours, _ = looks(entries)
    legend = alt.Legend(title=None, columns=4, labelLimit=200, symbolType="stroke")
    colour = alt.Color("series:N", scale=alt.Scale(domain=entries, range=colours), legend=legend)
    rows = []
    order = [name for name in (*TYPES.values(), _PAIRS) if name in set(frame["learnt"])]
    for name in order:
        of_run, of_sums = (each.filter(pl.col("learnt") == name) for each in (frame, sums))
        first, last = name == order[0], name == order[-1]
        panels = []
        for column, words in (("change", "SignDelta"), ("lbk", "LBK, log")):
            shown, scale, ticks = of_run, alt.Scale(zero=False), alt.Axis(format=".2~g", tickCount=4)
            if column == "lbk":
                shown = of_run.filter(pl.col("lbk") > 0)
                low, high = math.floor(math.log10(shown["lbk"].min())), math.ceil(math.log10(shown["lbk"].max()))
                scale = alt.Scale(type="log", domain=[10.0**low, 10.0**high], nice=False)
                decades = range(low, high + 1, 1 + (high - low) // 5)
                ticks = alt.Axis(format=".0e", values=[10.0**decade for decade in decades])
            x = alt.X("examples:Q", title="Examples seen" if last else None, axis=alt.Axis(tickCount=4, format=",d"))
            y = alt.Y(f"{column}:Q", title=name if column == "change" else None, scale=scale, axis=ticks)
            data = shown.select("series", "examples", pl.col(column).round_sig_figs(6)).sort("series", "examples")
            title = alt.Title(words if first else "", style="panel-title")
            panels.append(
                alt.Chart(data, width=theme.panel_width(4), height=theme.HEIGHTS["minor"], title=title)
                .mark_line(style="curve")
                .encode(x=x, y=y, color=colour)
            )
            data = of_sums.select("series", pl.col(column).round_sig_figs(6)).sort("series")
            value = alt.X(
                f"{column}:Q", title=None, axis=alt.Axis(tickCount=3, format=".0e" if column == "lbk" else ".2~g")
            )
            bars = alt.Chart(data).mark_bar().encode(
                x=value, y=alt.Y("series:N", sort=entries, title=None, axis=None), color=colour,
                tooltip=["series:N", f"{column}:Q"],
            )  # fmt: skip
            zero = alt.Chart(alt.InlineData([{"zero": 0}])).mark_rule(style="zero").encode(x="zero:Q")
            title = alt.Title("summed" if first else "", style="panel-title")
            panels.append(
                alt.layer(bars, zero, width=theme.panel_width(4) * 2 // 3, height=theme.HEIGHTS["minor"], title=title)
            )
        rows.append(alt.hconcat(*panels, spacing=theme.GAP))
    chart = alt.vconcat(*rows, title=theme.heading_of(heading, 2), spacing=8)
    return heading, chart.resolve_scale(x="independent", y="independent")
