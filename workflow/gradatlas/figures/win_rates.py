"""Win rates of runs against their baselines as a table, beside the study's own with their judges."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from gradatlas.charts.numbers import as_given, percentage, share, with_interval
from gradatlas.charts.tables import Section, read_exactly, write_table
from gradatlas.core.tables import read_metadata, read_table
from gradatlas.statistics.generations import COMPARED
from gradatlas.statistics.tables import GENERATION_CURVES

TITLE = "Win rates of free responses"
NOTE = (
    "Win rate: mean over n held-out prompts of what a run's response wins against its baseline's, a tie counting half, "
    "with Wilson's 95 % interval; one seed is one run. Both are compared at equal shares of their updates. Epochs: of "
    "the run's own examples; 0 epochs of DPO are the models after SFT. The judge sees the two responses in both "
    "orders; where these disagree, the verdict is a tie. Contests without a readable verdict are counted and take no "
    "part. Published win rates are of one order, without ties."
)
HEADER = ("Run", "Against", "Epochs", "Win rate", "Published", "Ties", "Orders disagree", "Unreadable", "n")
_SCHEMA = {
    **dict.fromkeys(("pairs", "model"), pl.String),
    "seed": pl.Int32,
    **dict.fromkeys(("run", "baseline"), pl.String),
    **dict.fromkeys(("step", "baseline_step", "examples"), pl.Int32),
    "epochs": pl.Float64,
    "judge": pl.String,
    "n": pl.Int32,
    **dict.fromkeys(("win_rate", "low", "high", *COMPARED[1:]), pl.Float64),
    "published": pl.String,
}


def write_win_rates(
    curves: Sequence[tuple[str, str | Path]],
    runs: Mapping[str, Mapping[str, Any]],
    titles: Mapping[str, str],
    epochs: Mapping[str, int],
    published: Sequence[Mapping[str, Any]],
    stem: str | Path,
) -> pl.DataFrame:
    """Write ``{stem}.{parquet,csv,md,tex}`` and return the rows.

    `curves`: the name of the pairs and the ``generation_curves`` table of each model and seed; `runs`: rows of the
    sheet of runs, by name, in the order of the table; `titles`: of models, by key; `epochs`: examples of an epoch, by
    run; `published`: rows of config/published_dynamics.tsv.
    """
    rows = [row for pairs, path in curves for row in _rates(pairs, path, runs, epochs, published)]
    frame = pl.DataFrame(rows, schema=_SCHEMA)
    write_table(stem, frame, TITLE, NOTE, list(sections(frame, runs, titles, published)))
    return frame


def read_win_rates(path: str | Path) -> pl.DataFrame:
    """The rows of `write_win_rates`, by any of its files; `InputError` for any other file."""
    return read_exactly(path, "write_win_rates", list(_SCHEMA), "win rates", "win_rates")


def _rates(pairs, path, runs, epochs, published) -> Iterator[dict[str, Any]]:
    """A row per run, baseline and step of one model and seed."""
    judge = read_metadata(path, GENERATION_CURVES)["judge"]
    frame = pl.from_arrow(read_table(GENERATION_CURVES, path)).filter(pl.col("measure").is_in(COMPARED))
    found: dict[tuple, dict[str, dict[str, Any]]] = {}
    for row in frame.sort("step", maintain_order=True).to_dicts():
        found.setdefault((row["run"], row["baseline"], row["step"]), {})[row["measure"]] = row
    keys = ("model", "seed", "run", "baseline", "step", "baseline_step", "examples")
    for name in runs:
        for measures in (each for key, each in found.items() if key[0] == name):
            # Where no verdict is readable, there is no win rate.
            rate = measures.get("win_rate", {"value": None, "low": None, "high": None, "n": 0})
            row = {"pairs": pairs, **{key: measures["unreadable"][key] for key in keys}}
            row["epochs"] = row["examples"] / epochs[name]
            row |= {"judge": judge.get("model", judge["judge"]), "win_rate": rate["value"]}
            row |= {key: rate[key] for key in ("n", "low", "high")}
            row |= {key: measures[key]["value"] if key in measures else None for key in COMPARED[1:]}
            known = [f"{each['judge']} {as_given(each['value'])}" for each in _known(row, published)]
            yield row | {"published": "; ".join(known) or None}


def _known(row: Mapping[str, Any], published: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What is published of this run, or of one like it on other data, against this baseline after as many epochs."""
    return [
        each
        for each in published
        if f"{row['run']}:{row['baseline']}" in (f"{each['run']}:{each['baseline']}", *each["like"])
        and round(row["epochs"]) == each["epochs"]
    ]


def sections(
    frame: pl.DataFrame,
    runs: Mapping[str, Mapping[str, Any]],
    titles: Mapping[str, str],
    published: Sequence[Mapping[str, Any]],
) -> Iterator[Section]:
    """The tables to read, one for each model and seed; without `published` numbers, their column is empty."""
    keys = ["pairs", "model", "seed", "judge"]
    for (pairs, model, seed, judge), part in frame.group_by(keys, maintain_order=True):
        rows = [
            [
                runs[row["run"]]["title"] or row["run"],
                runs[row["baseline"]]["title"] or row["baseline"],
                f"{row['epochs']:.3g}",
                with_interval(row["win_rate"], row["low"], row["high"], share) if row["n"] else "–",
                row["published"] or "–",
                *("–" if row[key] is None else percentage(row[key]) for key in COMPARED[1:]),
                f"{row['n']:,}",
            ]
            for row in part.to_dicts()
        ]
        shown = [each for row in part.to_dicts() for each in _known(row, published)]
        of = dict.fromkeys(f"{each['title']} on {each['pairs']}, {each['source']}" for each in shown)
        notes = [f"Published, of {'; '.join(of)}."] if of else []
        title = " · ".join([titles.get(model, model), pairs, f"seed {seed}", f"judged by {judge}"])
        yield Section(title, HEADER, rows, notes, left=2, caption=title.replace(" · ", ", "))
