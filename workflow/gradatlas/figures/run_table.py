"""Every run from its first evaluation to its last as a table: start, peak and end, beside published numbers."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from gradatlas.charts.names import in_order
from gradatlas.charts.numbers import as_given, fixed, with_interval
from gradatlas.charts.tables import Section, read_exactly, write_table
from gradatlas.core.tables import read_metadata, read_table
from gradatlas.figures.run_curves import TYPES
from gradatlas.statistics.tables import DYNAMICS_CURVES

MEASURES = ("log_prob_sum", "argmax_log_prob")
SPLITS = ("train", "held_out")
TITLE = "Learning dynamics: runs from start to end"
NOTE = (
    "Log-probability of whole responses in nats, mean over n probed questions that are trained on (held-out ones "
    "are in the CSV), by type of probe: at the run's first evaluation, at its highest, with the examples seen by "
    "then, where that lies between, and at its last. The highest of many means: noise alone raises it. Change: last "
    "less first, with its 95 % bootstrap interval over probes, paired; one seed is one run. Likeliest: the same of "
    "the likeliest token at each place of the response."
)
_PUBLISHED = ("start", "peak", "peak_examples", "end", "change")
_KEYS = ("pairs", "model", "seed", "run", "split", "type", "measure")
_SCHEMA = {
    **dict.fromkeys(_KEYS, pl.String),
    "seed": pl.Int32,
    "n": pl.Int32,
    **dict.fromkeys(("start", "peak"), pl.Float64),
    "peak_examples": pl.Int32,
    "end": pl.Float64,
    "examples": pl.Int32,
    **dict.fromkeys(("change", "low", "high"), pl.Float64),
    "status": pl.String,
    **{f"published_{name}": pl.Int32 if name == "peak_examples" else pl.Float64 for name in _PUBLISHED},
    "published_model": pl.String,
    "published_pairs": pl.String,
}


def write_dynamics_table(
    curves: Sequence[tuple[str, str | Path]],
    runs: Mapping[str, Mapping[str, Any]],
    titles: Mapping[str, str],
    published: Sequence[Mapping[str, Any]],
    stem: str | Path,
) -> pl.DataFrame:
    """Write ``{stem}.{parquet,csv,md,tex}`` and return the rows.

    `curves`: the name of the pairs and the ``dynamics_curves`` table of each model and seed; `runs`: rows of the sheet
    of runs, by name, in the order of the table; `titles`: of models, by key; `published`: rows of
    config/published_curves.tsv.
    """
    rows = [row for pairs, path in curves for row in courses(pairs, path, runs, published)]
    frame = pl.DataFrame(rows, schema=_SCHEMA)
    write_table(stem, frame, TITLE, NOTE, list(_sections(frame, runs, titles, published)))
    return frame


def read_runs(path: str | Path) -> pl.DataFrame:
    """The rows of `write_dynamics_table`, by any of its files; `InputError` for any other file."""
    return read_exactly(path, "write_dynamics_table", list(_SCHEMA), "runs", "dynamics")


def courses(
    pairs: str, curves: str | Path, runs: Mapping[str, Mapping[str, Any]], published: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Start, peak and end of every run, split, type of probe and measure of one model and seed.

    Where several evaluations are highest, the peak is the first of them. `status` is ``diverged`` of a run that stopped
    early.
    """
    frame = pl.from_arrow(read_table(DYNAMICS_CURVES, curves)).filter(pl.col("measure").is_in(MEASURES))
    stopped = read_metadata(curves, DYNAMICS_CURVES)["diverged"]
    found = {key: part.sort("step").to_dicts() for key, part in frame.group_by("run", "split", "type", "measure")}
    rows = []
    for run in (name for name in runs if name in set(frame["run"])):
        here = [key for key in found if key[0] == run]
        for key in sorted(
            here, key=lambda key: (SPLITS.index(key[1]), list(TYPES).index(key[2]), key[3] in MEASURES[1:])
        ):
            steps = found[key]
            first, last, peak = steps[0], steps[-1], max(steps, key=lambda row: row["value"])
            known = _known(pairs, first["model"], key, published)
            rows.append(
                {"pairs": pairs, "model": first["model"], "seed": first["seed"]}
                | dict(zip(_KEYS[3:], key, strict=True))
                | {"n": last["n"], "start": first["value"], "peak": peak["value"], "peak_examples": peak["examples"]}
                | {"end": last["value"], "examples": last["examples"], "change": last["change"]}
                | {"low": last["change_low"], "high": last["change_high"]}
                | {"status": "diverged" if run in stopped else "ok"}
                | {f"published_{name}": known.get(name) for name in (*_PUBLISHED, "model", "pairs")}
            )
    return rows


def _known(pairs, model, key, published) -> Mapping[str, Any]:
    """What is published of trained probes: of this very model, pairs and run, or else of a run like it."""
    run, split, kind, measure = key
    rows = [row for row in published if (row["type"], row["measure"]) == (kind, measure) and split == "train"]
    same = [row for row in rows if (row["pairs"], row["model"], row["run"]) == (pairs, model, run)]
    alike = [row for row in rows if run in (row["run"], *row["like"])]
    return next(iter(same + alike), {})


def _sections(frame, runs, titles, published) -> Iterator[Section]:
    """The tables to read, one a run."""
    keys = ["pairs", "model", "seed", "run"]
    for (pairs, model, seed, run), part in frame.filter(split="train").group_by(keys, maintain_order=True):
        known = part.filter(pl.col("published_model").is_not_null())
        header = [
            "Probe",
            "Start → peak → end",
            "Change",
            "Likeliest",
            "Change",
            *(["Published"] if len(known) else []),
            "n",
        ]
        lines = []
        for kind in in_order(part["type"].unique(), TYPES):
            of_type = {row["measure"]: row for row in part.filter(type=kind).to_dicts()}
            response, likeliest = (of_type[measure] for measure in MEASURES)
            cells = [cell for row in (response, likeliest) for cell in (_course(row), change(row))]
            beside = [_published(response, likeliest)] if len(known) else []
            lines.append([TYPES[kind], *cells, *beside, f"{response['n']:,}"])
        notes = ["Stopped early: a loss or gradient was not finite."] if "diverged" in part["status"] else []
        for other, on in known.select("published_model", "published_pairs").unique(maintain_order=True).iter_rows():
            differ = [word for word, mine, its in (("model", model, other), ("data", pairs, on)) if mine != its]
            of = f"of other {' and '.join(differ)}" if differ else "of this model"
            of_them = (row for row in published if (row["model"], row["pairs"]) == (other, on))
            sources = {row["source"] for row in of_them if run in (row["run"], *row["like"])}
            notes.append(f"Published, {of} ({titles.get(other, other)} on {on}): {'; '.join(sorted(sources))}.")
        examples = f"{part['examples'].max():,} examples"
        about = [runs[run]["title"] or run, titles.get(model, model), pairs, f"seed {seed}", examples]
        yield Section(" · ".join(about), header, lines, notes, caption=", ".join(about))


def _course(row: Mapping[str, Any]) -> str:
    """Start, peak where it is neither, and end."""
    inside = 0 < row["peak_examples"] < row["examples"]
    peak = [f"{fixed(row['peak'])} (at {row['peak_examples']:,})"] if inside else []
    return " → ".join([fixed(row["start"]), *peak, fixed(row["end"])])


def change(row: Mapping[str, Any]) -> str:
    """The change with its interval, in nats."""
    return with_interval(row["change"], row["low"], row["high"], fixed)


def _published(response: Mapping[str, Any], likeliest: Mapping[str, Any]) -> str:
    texts = [_as_published(row) for row in (response, likeliest)]
    return "; ".join([texts[0] or "–", *([f"likeliest {texts[1]}"] if texts[1] else [])])


def _as_published(row: Mapping[str, Any]) -> str:
    """The published numbers as they are printed; of an unknown start or end, the change alone."""
    start, peak, at, end, change = (row[f"published_{name}"] for name in _PUBLISHED)
    if end is None:
        return "" if change is None else f"change {as_given(change)}"
    top = [] if peak is None else [as_given(peak) + ("" if at is None else f" (at {at:,})")]
    return " → ".join(["…" if start is None else as_given(start), *top, as_given(end)])
