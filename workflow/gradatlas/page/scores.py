"""The page of a scored training file: one offline HTML file, made of the folder that ``score`` writes and nothing else.

Histograms and percentiles are of all samples. Tables, scatter plots and texts hold at most `SAMPLES` of them: a quarter
of these have the highest outlier scores, a quarter the lowest, the others are drawn with `SEED`. A model with many
layers shows fewer, so that the layer curves together are at most `VALUES` numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.types as types

from gradatlas.charts import theme
from gradatlas.charts.names import label
from gradatlas.charts.numbers import three_digits
from gradatlas.core.checked import open_parquet
from gradatlas.core.files import write_text
from gradatlas.core.tables import read_metadata, read_table
from gradatlas.page import explorer
from gradatlas.page import score_parts as parts
from gradatlas.page.pieces import pack, rounded, vega
from gradatlas.page.templating import render
from gradatlas.scores.tables import LAYERS, SCORES
from gradatlas.statistics import outliers
from gradatlas.statistics.rounding import rounding_note

SAMPLES, FAILED, SEED, VALUES = 2_000, 200, 17, 2_000_000
#: Numeric columns of the file, groups in the menu, rows of the table without scripts, samples in one part of the page.
OWN, MENU, TOP, CHUNK = 12, 50, 20, 100
#: Numbers of a sample: their names, and what they are. Those of `SCORES` without a name here are named by their keys.
# Of groups, as in the figures.
_COLOURS = {"light": [*theme.COLOURS["series"].values()], "dark": [*theme.ON_DARK["series"].values()]}
NUMBERS = {
    "outlier": (
        "Outlier score",
        "largest absolute robust z-score of its numbers among samples of like response length",
    ),
    "rank": ("Outlier rank", "1: the largest outlier score"),
    "loss": ("Loss", "mean cross-entropy of the response tokens, in nats"),
    "loss_without_prompt": ("Loss without the prompt", "the same for the last response alone"),
    "ifd": ("IFD", "perplexity of the response with its prompt, divided by that without it"),
    "nuclear_norm": (
        "Nuclear norm",
        "sum of the singular values of a weight's gradient; mean over all measured weights",
    ),
    "effective_rank": ("Effective rank", "exp of the entropy of the normalised singular values; mean as above"),
    "gradient_norm": ("Gradient norm", "Frobenius norm over all measured weights"),
    "self_influence": (
        "Self-influence",
        "its square: the sample's diagonal entry of the tangent kernel of these weights",
    ),
    "sigma_ratio": ("σ max / nuclear norm", "share of the largest singular value; mean as above"),
    "mad": ("MAD of the layer curve", "mean absolute difference of the nuclear norm between neighbouring layers"),
    "largest_layer": ("Largest layer", "the layer with the largest part of the squared gradient norm"),
    "largest_layer_share": ("Share of the largest layer", "its part of the squared gradient norm"),
    "response_tokens": ("Response tokens", "tokens with a loss"),
    "prompt_tokens": ("Prompt tokens", "all other tokens"),
}
#: The table's columns: words, numbers, and then the numeric columns of the file.
WORDS = ("row", "id", "group", "response", "status", "outlier_of")
COLUMNS = ("rank", "outlier", "outlier_of", "loss", "ifd", "nuclear_norm", "effective_rank")
COLUMNS += ("gradient_norm", "response_tokens")
# Metadata that are not among the settings: shown as a note, or in no need of it.
_SHOWN = ("rounding", "table")


@dataclass(frozen=True)
class _File:
    """A table of scores: all samples, those with scores (`ok`) and the others; its numbers, as floats without NaN.

    `own`: the file's own numeric columns, and `left`, how many more it has; `counts`: numbers that are integers;
    `groups`: the largest first.
    """

    frame: pl.DataFrame
    ok: pl.DataFrame
    failed: pl.DataFrame
    numbers: list[str]
    counts: set[str]
    own: list[str]
    left: int
    groups: list[str]


def write_page(folder: Path, output: Path, *, title: str, samples: int = SAMPLES) -> None:
    """Write the page of `folder` to `output`, with `title` as its heading and at most `samples` samples.

    Reads ``scores.parquet``, ``layers.parquet`` and ``measured/*.parquet``. `InputError` where one of them is missing
    or damaged, or where a sample with scores is in none of the parts.
    """
    path = Path(folder) / "scores.parquet"
    file = _read(path)
    layers = pl.from_arrow(read_table(LAYERS, path.with_name("layers.parquet"))).filter(pl.col("group").is_null())
    most = max(1, min(samples, VALUES // max(1, layers.filter(pl.col("metric").is_in(parts.CURVES)).height)))
    held = _chosen(file.ok, most)
    listed = pl.concat([held, file.failed.head(FAILED)])
    measured = parts.measured_of(path.with_name("measured"), held)
    index = _index(file, listed) | {
        "layers": parts.bands(layers, read_metadata(path, SCORES)["projections"]),
        "steps": parts.loss_steps(one["text"]["losses"] for one in measured.values()),
    }
    pieces = {"vega": vega(), "samples": pack(_samples(file, listed))}
    keys = held.select("row", "response").rows()
    for chunk, start in enumerate(range(0, len(keys), CHUNK)):
        for kind in ("text", "curves"):
            pieces[f"{kind}-{chunk}"] = pack([measured[key][kind] for key in keys[start : start + CHUNK]])
    context = {
        "title": parts.cut(title, parts.REASON),
        "index": index,
        "pieces": pieces,
        "meanings": [NUMBERS[name] for name in file.numbers if name in NUMBERS],
        "facts": _facts(file),
        "notes": rounding_note(read_metadata(path, SCORES)),
        "settings": _settings(path),
        "statuses": file.frame["status"].value_counts(sort=True).rows(),
        "failed": _failed(file),
        "failures": file.failed.height,
        "outliers": file.ok["outlier"].count() > 0,
        "held": held.height,
        "total": file.ok.height,
        "draw": {"seed": SEED, "ends": most // 4} if held.height < file.ok.height else None,
        "limits": {
            "tokens": parts.TOKENS,
            "characters": parts.CHARACTERS,
            "own": OWN,
            "left": file.left,
            "least": outliers.LEAST,
        },
        "words": sum(name in WORDS and name != "outlier_of" for name in index["columns"]),
        "top": [_cells(file, row, index["columns"]) for row in held.head(TOP).iter_rows(named=True)],
    }
    write_text(output, render("scores_page.html.j2", context))


def _read(path: Path) -> _File:
    with open_parquet(path, SCORES.rule) as opened:
        fields = [field for field in opened.schema_arrow if field.name not in SCORES.names]
    all_own = [field.name for field in fields if types.is_integer(field.type) or types.is_floating(field.type)]
    own = all_own[:OWN]
    frame = pl.from_arrow(read_table(SCORES, path, [*SCORES.names, *own]))
    others = [name for name in SCORES.names if name not in (*NUMBERS, *WORDS, "reason", "truncated")]
    numbers = [*NUMBERS, *others, *own]
    counts = {name for name in numbers if frame[name].dtype.is_integer()}
    values = {name: pl.col(name).cast(pl.Float64) for name in numbers}
    frame = frame.with_columns(pl.when(value.is_finite()).then(value).alias(name) for name, value in values.items())
    ok = frame.filter(status="ok")
    groups = ok["group"].drop_nulls().value_counts().sort(["count", "group"], descending=[True, False])
    return _File(
        frame=frame,
        ok=ok,
        failed=frame.filter(pl.col("status") != "ok"),
        numbers=[name for name in numbers if ok[name].count() or name in COLUMNS],
        counts={name for name in counts if (frame[name].abs().max() or 0) < parts.EXACT},
        own=own,
        left=len(all_own) - len(own),
        groups=groups["group"].to_list(),
    )


def _chosen(ok: pl.DataFrame, most: int) -> pl.DataFrame:
    """At most `most` of the samples, by outlier score: a quarter from each end, and a draw of the others."""
    ok = ok.sort("outlier", "row", "response", descending=[True, False, False], nulls_last=True)
    if ok.height <= most:
        return ok
    ok = ok.with_row_index("place")
    known, ends = ok["outlier"].count(), most // 4
    first = ok.filter((pl.col("place") < ends) | pl.col("place").is_between(max(ends, known - ends), known - 1))
    others = ok.join(first, on="place", how="anti").sample(most - first.height, seed=SEED)
    return pl.concat([first, others]).sort("place").drop("place")


def _index(file: _File, listed: pl.DataFrame) -> dict[str, Any]:
    """Names, order and style of all that can be chosen, and what is of all samples."""
    shown = ["row", "id", *(name for name in ("group", "response") if any(listed[name]))]
    shown += ["status"] if file.failed.height else []
    titles = {name: label(name) for name in WORDS} | {name: _title(file, name) for name in file.numbers}
    return {
        "numbers": [{"key": key, "title": titles[key], "count": key in file.counts} for key in file.numbers],
        "titles": titles,
        "columns": [*shown, *(name for name in (*COLUMNS, *file.own) if name in (*file.numbers, "outlier_of"))],
        "groups": [parts.cut(group, parts.NAME) for group in file.groups[:MENU]],
        "all_groups": len(file.groups),
        "ungrouped": listed["group"].null_count() > 0,
        "coloured": min(len(file.groups), parts.GROUPS),
        # Whether some are of none of the coloured groups.
        "others": file.ok["group"].null_count() > 0 or len(file.groups) > parts.GROUPS,
        "statuses": listed["status"].unique(maintain_order=True).to_list(),
        "colours": _COLOURS,
        "shapes": explorer.SHAPES,
        "histograms": {name: parts.histogram(file.ok, name, file.groups) for name in file.numbers},
        "chunk": CHUNK,
        "total": file.ok.height,
        "config": theme.gradatlas()["config"],
    }


def _title(file: _File, key: str) -> str:
    return parts.cut(key, parts.NAME) if key in file.own else NUMBERS[key][0] if key in NUMBERS else label(key)


def _samples(file: _File, listed: pl.DataFrame) -> dict[str, Any]:
    """The listed samples: a list for each kind of word, and for each number and its percentile in the file."""
    place = {group: i for i, group in enumerate(file.groups)}
    ranked = [name for name in file.numbers if name not in ("rank", "largest_layer")]
    shares = [(100 * (pl.col(name).rank() - 0.5) / pl.col(name).count()).alias(name) for name in ranked]
    key = ["row", "response"]
    among = listed.select(key).join(
        file.ok.select(*key, *shares), on=key, how="left", nulls_equal=True, maintain_order="left"
    )
    return {
        **{name: listed[name].to_list() for name in ("row", "response", "status", "truncated")},
        "id": [parts.cut(text, parts.NAME) for text in listed["id"]],
        "group": [parts.cut(group, parts.NAME) for group in listed["group"]],
        "place": [place.get(group, len(place)) for group in listed["group"]],
        "reason": [parts.cut(text, parts.REASON) for text in listed["reason"]],
        "outlier_of": [_title(file, of) if of else "–" for of in listed["outlier_of"]],
        "numbers": {
            name: [None if value is None else int(value) for value in listed[name]]
            if name in file.counts
            else rounded(listed[name], 3)
            for name in file.numbers
        },
        "percentiles": {name: [None if v is None else round(v) for v in among[name]] for name in ranked},
    }


# Words and cells of the page without scripts -------------------------------------------------------------------------


def _facts(file: _File) -> list[tuple[str, str]]:
    """The file in a few numbers."""
    prompts, responses = file.ok.select(pl.sum("prompt_tokens", "response_tokens")).row(0)
    return [
        ("rows", f"{file.frame['row'].n_unique():,}"),
        ("samples with scores", f"{file.ok.height:,}"),
        ("tokens", f"{prompts + responses:,.0f}"),
        ("of them in the loss", f"{responses:,.0f}"),
    ]


def _settings(path: Path) -> list[tuple[str, str]]:
    """What the table's metadata state of the model, the file and the settings; values that hold others, as text."""
    flat = {}
    for key, value in read_metadata(path, SCORES).items():
        flat |= value if key != "rounding" and isinstance(value, dict) else {key: value}
    return [(label(key), str(value)) for key, value in flat.items() if value not in ("", None) and key not in _SHOWN]


def _failed(file: _File) -> dict[str, Any]:
    """The first samples without scores: a table's header and rows."""
    names = ["row", "id", *(["response"] if any(file.frame["response"]) else []), "status", "reason"]
    rows = file.failed.select(names).head(FAILED).rows()
    return {
        "header": [label(name) for name in names],
        "rows": [[parts.cut(str("" if word is None else word), parts.REASON) for word in row] for row in rows],
    }


def _cells(file: _File, row: Mapping[str, Any], columns: list[str]) -> list[str]:
    """A sample's cells as the script writes them."""
    cells = []
    for key in columns:
        value = row[key]
        if key == "outlier_of":
            cells.append(_title(file, value) if value else "–")
        elif key in WORDS:
            cells.append(parts.cut(str("" if value is None else value), parts.NAME))
        else:
            cells.append(f"{value:,.0f}" if value is not None and key in file.counts else three_digits(value))
    return cells
