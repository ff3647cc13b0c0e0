"""What learning one type of response does to all others: the table of influences, and LBK and SignDelta over time."""

from collections.abc import Mapping, Sequence

import altair as alt
import polars as pl

from gradatlas.charts import scales, theme
from gradatlas.charts.numbers import signed
from gradatlas.charts.panel import OWN_SCALE, Axis, palette_of, rounded, titled
from gradatlas.figures.run_curves import TYPES, Figure
from gradatlas.figures.runs import Chain, RunData, learnt
from gradatlas.finetuning.tables import DYNAMICS, TRAINING
from gradatlas.statistics.influence import by_column, lbk, mean_changes

#: Followed over time.
_FOLLOWED = (
    "chosen",
    "chosen_semantic",
    "rejected",
    "rejected_semantic",
    "irrelevant_train",
    "unrelated",
    "random_nonhum",
)
_PAIRS = "DPO"
_LABELS = (
    "Of the paper's measures, which take all entries of the vocabulary, these take those of the responses' own tokens"
)

Learnt = Mapping[str, tuple[str, str]]


def table_of(dynamics: Mapping[str, pl.DataFrame], learnt: Learnt, draws: int, seed: int) -> pl.DataFrame:
    """Accumulated SignDelta of every type by what was learnt: a row per type and run, mean and interval over probes.

    `dynamics`: that table by run; `learnt`: `runs.learnt`. Columns: run, column (what was learnt, in words), own
    (the type that was learnt), type, value, low, high (nats per token), n, share (of the column's range).
    """
    rows = []
    for run, (pulled, pushed) in learnt.items():
        found = mean_changes(dynamics[run].filter(pl.col("split") == "train"), draws, seed, f"influence {run}")
        own = "" if pushed else pulled
        shares = by_column([each["value"] for each in found.values()])
        for (kind, each), share in zip(found.items(), shares, strict=True):
            column = _PAIRS if pushed else TYPES[pulled]
            rows.append({"run": run, "column": column, "own": own, "type": kind, "share": share} | each)
    return pl.DataFrame(rows)


def chosen(data: RunData) -> list[list[Chain]]:
    """The runs on the probed prompts, in one figure."""
    names = learnt(data.runs)
    return [[Chain((name,), data.runs[name]["title"] or name) for name in names]] if names else []


def influence(data: RunData, chains: Sequence[Chain]) -> Figure:
    """Types by what was learnt."""
    tables, runs = _tables(data, DYNAMICS), learnt(data.runs)
    table = table_of(tables, runs, data.facts["draws"], data.facts["seed"])
    return heat_map(table, _settings(tables), data.title)


def influence_time(data: RunData, chains: Sequence[Chain]) -> Figure:
    """SignDelta and LBK between evaluations, and both summed, a row per run (the paper's figure 8)."""
    dynamics, training = _tables(data, DYNAMICS), _tables(data, TRAINING)
    return over_time(dynamics, training, learnt(data.runs), _settings(dynamics), data.title)


def _tables(data: RunData, table) -> dict[str, pl.DataFrame]:
    return {name: data.table(table, name) for name in learnt(data.runs)}


def _settings(dynamics: Mapping[str, pl.DataFrame]) -> str:
    seen = sorted({int(each["examples"].max()) for each in dynamics.values()})
    return (
        "SFT on one type of the probed prompts' responses a run, and DPO on their pairs, each "
        f"{' or '.join(f'{value:,}' for value in seen)} examples. "
    )


def heat_map(table: pl.DataFrame, settings: str = "", title: str = "") -> tuple[theme.Heading, alt.LayerChart]:
    """Types by what was learnt, as `table_of` gives them; in words `settings`: which runs these are, `title`: whose."""
    columns = [name for name in (*TYPES.values(), _PAIRS) if name in set(table["column"])]
    single = table.filter(pl.col("own") != "")
    best = single.sort("value", descending=True).group_by("run", maintain_order=True).first()
    first = int((best["type"] == best["own"]).sum())
    heading = theme.Heading(
        f"The type learnt rises most in {first} of {single['run'].n_unique()} runs",
        (title, f"{table['n'].max()} probed questions"),
        (
            f"{settings}Numbers: SignDelta, the change of the mean log-probability per token summed over evaluations, "
            f"which is the end less the start; mean over {table['n'].max()} probed questions, nats per token. Colour: "
            "the number divided by its column's range, as in the paper. Framed: the type that was learnt. "
            f"{_LABELS}.",
        ),
    )
    data = table.with_columns(
        pl.col("type").replace_strict(TYPES).alias("row"),
        pl.col("value").map_elements(lambda value: signed(value, 2), return_dtype=pl.String).alias("words"),
        (pl.col("type") == pl.col("own")).alias("itself"),
        *map(rounded, ("value", "low", "high", "share")),
    )
    base = theme.Chart(data).encode(
        x=alt.X(
            "column:O",
            sort=columns,
            title="Learnt",
            axis=alt.Axis(labelAngle=0, labelExpr="split(datum.label, ' ')", domain=False, ticks=False),
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
    chart = theme.layer(
        cells,
        frames,
        words,
        width=theme.WIDTH - 100,
        height=24 * data["row"].n_unique(),
        **theme.headed(heading, 2),
    )
    return heading, chart


def over_time(
    dynamics: Mapping[str, pl.DataFrame],
    training: Mapping[str, pl.DataFrame],
    learnt: Learnt,
    settings: str = "",
    title: str = "",
) -> tuple[theme.Heading, alt.VConcatChart]:
    """SignDelta and LBK between evaluations, and both summed, a row per run (the paper's figure 8)."""
    parts = []
    for run, (pulled, pushed) in learnt.items():
        # With what was learnt, whose norm is needed.
        types = {*_FOLLOWED, *filter(None, (pulled, pushed))}
        own = dynamics[run].filter((pl.col("split") == "train") & pl.col("type").is_in(types))
        found = lbk(own, training[run], pulled, pushed).filter(pl.col("type").is_in(_FOLLOWED))
        means = found.group_by("type", "examples").agg(pl.col("change").mean(), pl.col("lbk").mean())
        parts.append(means.with_columns(pl.lit(_PAIRS if pushed else TYPES[pulled]).alias("learnt")))
    frame = pl.concat(parts).with_columns(pl.col("type").replace_strict(TYPES).alias("series"))
    sums = frame.group_by("learnt", "series").agg(pl.col("change").sum(), pl.col("lbk").sum())
    probes = next(iter(dynamics.values())).filter((pl.col("split") == "train") & (pl.col("type") == "chosen"))
    heading = theme.Heading(
        "SignDelta and LBK over time, by what was learnt",
        (title, f"{probes['probe_id'].n_unique()} probed questions"),
        (
            f"{settings}Rows: what was learnt. SignDelta: change of the mean log-probability per token since the "
            "evaluation before, nats. LBK: its square over ‖A‖² of the observed and ‖G‖² of the learnt responses, both "
            "before the change; several updates lie between evaluations. Means over "
            f"{probes['probe_id'].n_unique()} probed questions. {_LABELS}, and their mean over a response alone.",
        ),
    )
    palette = palette_of("probe", {kind: TYPES[kind] for kind in _FOLLOWED})
    colour = palette.encode(alt.Color)
    colour.legend.symbolType = "stroke"
    order = [name for name in (*TYPES.values(), _PAIRS) if name in set(frame["learnt"])]
    width, height = theme.panel_width(4), theme.HEIGHTS["minor"]
    rows = []
    for name in order:
        of_run, of_sums = (each.filter(pl.col("learnt") == name) for each in (frame, sums))
        first, last = name == order[0], name == order[-1]
        panels = []
        for column, words in (("change", f"SignDelta, {OWN_SCALE}"), ("lbk", f"LBK, log, {OWN_SCALE}")):
            log = column == "lbk"
            shown = of_run.filter(pl.col("lbk") > 0) if log else of_run
            scale = scales.logarithmic(shown["lbk"], 5) if log else None
            x = Axis("examples", "Examples seen" if last else None, format=",d", count=2)
            y = Axis(column, None if log else name, scale, ".0e" if log else ".2~g", count=4)
            data = shown.select("series", "examples", rounded(column)).sort("series", "examples")
            lines = theme.Chart(data, width=width, height=height, **titled(words if first else ""))
            panels.append(lines.mark_line(style="curve").encode(x=x.encode(alt.X), y=y.encode(alt.Y), color=colour))
            value = Axis(column, format=".0e" if log else ".2~g", count=2)
            bars = theme.Chart(of_sums.select("series", rounded(column)).sort("series")).mark_bar()
            bars = bars.encode(
                x=value.encode(alt.X), y=alt.Y("series:N", sort=list(palette.entries), title=None, axis=None),
                color=colour, tooltip=["series:N", f"{column}:Q"],
            )  # fmt: skip
            zero = theme.Chart(alt.InlineData([{"zero": 0}])).mark_rule(style="zero").encode(x="zero:Q")
            size = {"width": width * 2 // 3, "height": height}
            panels.append(theme.layer(bars, zero, **size, **titled("Summed" if first else "")))
        rows.append(alt.hconcat(*panels, spacing=theme.GAP))
    chart = alt.vconcat(*rows, spacing=8, **theme.headed(heading, 2))
    return heading, chart.resolve_scale(x="independent", y="independent")
