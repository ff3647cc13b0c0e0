"""The page of a scored training file: one offline HTML file, made of the folder that ``score`` writes and nothing else.

Histograms and percentiles are of all samples. Tables, scatter plots and texts hold at most `SAMPLES` of them: a quarter
of these have the highest outlier scores, a quarter the lowest, the others are drawn with `SEED`. A model with many
layers shows fewer, so that the layer curves together are at most `VALUES` numbers.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.types as types

from gradatlas.charts import theme
from gradatlas.charts.names import label, projections_in_order, statistic_label
from gradatlas.charts.numbers import plotted, three_digits
from gradatlas.core.checked import open_parquet
from gradatlas.core.errors import InputError
from gradatlas.core.files import write_text
from gradatlas.core.tables import read_metadata, read_table
from gradatlas.page import explorer
from gradatlas.page.pieces import pack, rounded, vega
from gradatlas.page.templating import render
from gradatlas.scores.tables import LAYERS, MEASURED, SCORES

SAMPLES, FAILED, SEED = 2_000, 200, 17
#: Of a sample: tokens, characters of all its tokens, and of one token. Of an id, a group or a reason: characters.
TOKENS, CHARACTERS, PIECE, WORDS = 600, 6_000, 120, 80
VALUES = 2_000_000
#: Groups with a colour of their own, numeric columns of the file, bins of a histogram, samples in one part of the page.
GROUPS, OWN, BINS, CHUNK = 5, 12, 40, 100
#: Groups in the table's menu, and rows of the table without scripts.
MENU, TOP = 50, 20
#: Shares of the tokens with a loss below each of the upper steps of the colours.
STEPS = (0.5, 0.75, 0.9, 0.97)
CURVES = ("nuclear_norm", "effective_rank")
_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {127: 0x2421}
_PICTURES |= dict.fromkeys(range(128, 160), 0xFFFD)
# Integers from here on lose digits in a browser.
_EXACT = 2**53

#: Numbers of a sample: their names, and what they are. Those of `SCORES` without a name here are named by their keys.
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
WORD_COLUMNS = ("row", "id", "group", "response", "status", "outlier_of")
COLUMNS = (
    "rank",
    "outlier",
    "outlier_of",
    "loss",
    "ifd",
    "nuclear_norm",
    "effective_rank",
    "gradient_norm",
    "response_tokens",
)
_NOT_NUMBERS = (*WORD_COLUMNS, "reason", "truncated")


def write_page(folder: Path, output: Path, *, title: str, samples: int = SAMPLES) -> None:
    """Write the page of `folder` to `output`, with `title` as its heading and at most `samples` samples.

    Reads ``scores.parquet``, ``layers.parquet`` and ``measured/*.parquet``. `InputError` where one of them is missing
    or damaged, or where a sample with scores is in none of the parts.
    """
    folder = Path(folder)
    path = folder / "scores.parquet"
    own, left = _own_numbers(path)
    frame = pl.from_arrow(read_table(SCORES, path, [*SCORES.names, *own]))
    numbers = [*NUMBERS, *(name for name in SCORES.names if name not in (*NUMBERS, *_NOT_NUMBERS)), *own]
    counted = [name for name in numbers if frame[name].dtype.is_integer() and (frame[name].abs().max() or 0) < _EXACT]
    frame = frame.with_columns(_finite(name) for name in numbers)
    ok = frame.filter(status="ok")
    numbers = [name for name in numbers if ok[name].count() or name in COLUMNS]
    ranked = [name for name in numbers if name not in ("rank", "largest_layer")]
    percentiles = ok.select(
        "row", "response", *((100 * (pl.col(n).rank() - 0.5) / pl.col(n).count()).alias(n) for n in ranked)
    )
    groups = _groups(ok)
    layers = pl.from_arrow(read_table(LAYERS, folder / "layers.parquet")).filter(pl.col("group").is_null())
    most = max(1, min(samples, VALUES // max(1, layers.filter(pl.col("metric").is_in(CURVES)).height)))
    held = _chosen(ok, most)
    failed = frame.filter(pl.col("status") != "ok")
    listed = pl.concat([held, failed.head(FAILED)])
    words = ["row", "id", *(name for name in ("group", "response") if any(listed[name]))]
    words += ["status"] if failed.height else []
    titles = {name: label(name) for name in WORD_COLUMNS} | {name: _cut(name, WORDS) for name in own}
    titles |= {name: _name(name) for name in numbers if name not in own}
    index = {
        "numbers": [{"key": name, "title": titles[name], "count": name in counted} for name in numbers],
        "titles": titles,
        "columns": [*words, *(name for name in (*COLUMNS, *own) if name in (*numbers, "outlier_of"))],
        "groups": [_cut(group, WORDS) for group in groups[:MENU]],
        "all_groups": len(groups),
        "coloured": min(len(groups), GROUPS),
        "statuses": listed["status"].unique(maintain_order=True).to_list(),
        # Whether some are of none of the coloured groups.
        "others": ok["group"].null_count() > 0 or len(groups) > GROUPS,
        "colours": {"light": explorer.LIGHT_COLOURS, "dark": explorer.DARK_COLOURS},
        "shapes": explorer.SHAPES,
        "histograms": {name: _histogram(ok, name, groups) for name in numbers},
        "layers": _bands(layers),
        "chunk": CHUNK,
        "total": ok.height,
        "config": theme.gradatlas()["config"],
    }
    measured = _measured(folder, held)
    index["steps"] = _loss_steps(one["text"]["losses"] for one in measured.values())
    pieces = {"vega": vega(), "samples": _samples(listed, percentiles, numbers, counted, groups)}
    for chunk in range(0, held.height, CHUNK):
        rows = held[chunk : chunk + CHUNK].select("row", "response").rows()
        pieces[f"texts-{chunk // CHUNK}"] = pack([measured[key]["text"] for key in rows])
        pieces[f"curves-{chunk // CHUNK}"] = pack([measured[key]["curves"] for key in rows])
    pairs = "response" in words
    context = {
        "pairs": pairs,
        "title": _cut(title, 4 * WORDS),
        "index": index,
        "pieces": pieces,
        "meanings": [NUMBERS[name] for name in numbers if name in NUMBERS],
        "facts": _facts(path, frame, ok),
        "settings": _settings(path),
        "statuses": frame["status"].value_counts(sort=True).rows(),
        "failed": [_failed(row, pairs) for row in failed.head(FAILED).iter_rows(named=True)],
        "failures": failed.height,
        "held": held.height,
        "total": ok.height,
        "draw": {"seed": SEED, "ends": most // 4} if held.height < ok.height else None,
        "limits": {"tokens": TOKENS, "characters": CHARACTERS, "own": OWN, "left": left},
        "words": len(words),
        "header": [titles[key] for key in index["columns"]],
        "top": [_cells(row, index) for row in held.head(TOP).iter_rows(named=True)],
    }
    write_text(output, render("scores_page.html.j2", context))


# The file as a whole ------------------------------------------------------------------------------------------------


def _own_numbers(path: Path) -> tuple[list[str], int]:
    """The file's own numeric columns, the first `OWN` of them, and how many more there are."""
    with open_parquet(path, SCORES.rule) as file:
        fields = [field for field in file.schema_arrow if field.name not in SCORES.names]
    found = [field.name for field in fields if types.is_integer(field.type) or types.is_floating(field.type)]
    return found[:OWN], max(0, len(found) - OWN)


def _finite(name: str) -> pl.Expr:
    value = pl.col(name).cast(pl.Float64)
    return pl.when(value.is_finite()).then(value).alias(name)


def _groups(ok: pl.DataFrame) -> list[str]:
    """The groups of the samples with scores, the largest first; none where no sample has one."""
    counts = ok["group"].drop_nulls().value_counts().sort(["count", "group"], descending=[True, False])
    return counts["group"].to_list()


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


def _histogram(ok: pl.DataFrame, name: str, groups: Sequence[str]) -> dict[str, Any] | None:
    """Edges of the bins, and counts by bin for each of the first groups and the rest together; None without numbers.

    Twice the cube root of the number of values (Rice's rule), at most `BINS`; even in the logarithm where positive
    values span more than a decade; one for each of a few whole numbers.
    """
    frame = ok.select("group", pl.col(name).alias("value")).drop_nulls("value")
    values = frame["value"].to_numpy()
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, np.inf)
    if not np.isfinite(high - low):
        return None
    whole = bool((values == values.round()).all()) and high - low < BINS and max(abs(low), abs(high)) < _EXACT
    log = low > 0 and high / low > 10 and not whole
    if whole:
        edges = np.arange(low - 0.5, high + 1)
    elif low == high:
        edges = np.array([low - abs(low) / 2, low + abs(low) / 2])
    else:
        bins = min(BINS, 2 * math.ceil(len(values) ** (1 / 3)))
        edges = np.geomspace(low, high, bins + 1) if log else np.linspace(low, high, bins + 1)
        # Not a last digit inside, where the smallest and the largest value would be lost.
        edges[0], edges[-1] = low, high
    edges = np.unique(edges)
    parts = [frame.filter(group=group)["value"] for group in groups[:GROUPS]]
    parts.append(frame.filter(~pl.col("group").is_in(groups[:GROUPS]).fill_null(False))["value"])
    counts = [np.histogram(part.to_numpy(), edges)[0].tolist() for part in parts]
    return {"edges": edges.tolist(), "log": log, "counts": counts}


def _bands(layers: pl.DataFrame) -> dict[str, Any]:
    """By metric and projection: layers, median, 10th and 90th percentile over all samples with scores."""
    projections = projections_in_order(layers["projection"])
    found = {
        metric: [
            {name: rounded(rows[name], 3) for name in ("p10", "p50", "p90")} | {"layer": rows["layer"].to_list()}
            for projection in projections
            for rows in [layers.filter(metric=metric, projection=projection).sort("layer")]
        ]
        for metric in CURVES
    }
    metrics = [{"key": metric, "title": statistic_label(metric)} for metric in CURVES]
    return {"projections": [label(key) for key in projections], "metrics": metrics, "bands": found}


# Samples ------------------------------------------------------------------------------------------------------------


def _samples(
    listed: pl.DataFrame,
    percentiles: pl.DataFrame,
    numbers: Sequence[str],
    counted: Sequence[str],
    groups: Sequence[str],
) -> str:
    """The listed samples: a list for each kind of word, and for each number and its percentile in the file."""
    place = {group: i for i, group in enumerate(groups)}
    among = listed.select("row", "response").join(
        percentiles, on=["row", "response"], how="left", nulls_equal=True, maintain_order="left"
    )
    return pack(
        {
            "row": listed["row"].to_list(),
            "response": listed["response"].to_list(),
            "id": [_cut(text, WORDS) for text in listed["id"]],
            "group": [_cut(group, WORDS) for group in listed["group"]],
            "place": [place.get(group, len(place)) for group in listed["group"]],
            "status": listed["status"].to_list(),
            "reason": [_cut(text, 4 * WORDS) for text in listed["reason"]],
            "truncated": listed["truncated"].to_list(),
            "outlier_of": [_name(of) if of else "–" for of in listed["outlier_of"]],
            "numbers": {
                name: [int(v) if v is not None else None for v in listed[name]]
                if name in counted
                else rounded(listed[name], 3)
                for name in numbers
            },
            "percentiles": {
                name: [None if v is None else round(v) for v in among[name]] for name in percentiles.columns[2:]
            },
        }
    )


def _measured(folder: Path, held: pl.DataFrame) -> dict[tuple[int, str], dict[str, Any]]:
    """Tokens and layer curves of the held samples, by row and response; reads one part of the file at a time."""
    keys = set(held.select("row", "response").rows())
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for part in sorted((folder / "measured").glob("*.parquet")):
        frame = pl.from_arrow(read_table(MEASURED, part, ["row", "response"])).with_row_index()
        places = [row[0] for row in frame.iter_rows() if row[1:] in keys]
        if places:
            table = read_table(MEASURED, part).take(places)
            found |= dict(_of_part(table.to_pylist(), read_metadata(part, MEASURED)))
    if missing := keys - found.keys():
        row, _ = min(missing)
        raise InputError(
            f"{folder / 'measured'}: row {row} of scores.parquet is in no part; run `gradatlas score` again"
        )
    return found


def _of_part(rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> Iterator[tuple[tuple[int, str], dict]]:
    """Each row's key, its `text` for the page, and its `curves` by metric, projection and layer."""
    projections, metrics = list(facts["projections"]), list(facts["metrics"])
    order = [projections.index(key) for key in projections_in_order(projections)]
    wanted = [metrics.index(metric) for metric in CURVES]
    for row in rows:
        values = np.asarray(row["values"], dtype=float).reshape(-1, len(projections), len(metrics))
        curves = values[:, order][:, :, wanted].transpose(2, 1, 0)
        yield (
            (row["row"], row["response"]),
            {"text": _text(row), "curves": [[rounded(curve, 3) for curve in metric] for metric in curves.tolist()]},
        )


def _text(row: Mapping[str, Any]) -> dict[str, Any]:
    """A sample's first tokens; losses in hundredths, terms in thousandths of the largest term of the whole sample."""
    tokens, used = [], 0
    for token in row["tokens"][:TOKENS]:
        token = _cut(token, PIECE)
        used += len(token)
        if used > CHARACTERS:
            break
        tokens.append(token)
    terms = np.asarray([np.nan if term is None else term for term in row["token_terms"]], dtype=float)
    finite = terms[np.isfinite(terms)]
    largest = float(finite.max()) if len(finite) else 0.0
    return {
        "tokens": tokens,
        "all": len(row["tokens"]),
        "losses": [_whole(loss, 0.01) for loss in row["token_losses"][: len(tokens)]],
        "terms": [_whole(term, largest / 1000) for term in terms[: len(tokens)].tolist()],
        "largest": plotted(largest, 3),
    }


def _loss_steps(losses: Iterable[Sequence[int | None]]) -> list[float]:
    """Where a step of the colours begins, in nats: 0 and the `STEPS` of all tokens of the page.

    Not at fixed losses: on a model that does not know the text, all tokens would have one colour.
    """
    known = np.array([loss for sample in losses for loss in sample if loss is not None], dtype=float)
    return [0, *(plotted(step / 100, 3) for step in (np.quantile(known, STEPS) if len(known) else (1, 2, 3, 4)))]


def _whole(value: float | None, unit: float) -> int | None:
    return None if value is None or not np.isfinite(value) or unit == 0 else round(value / unit)


def _cut(text: str | None, most: int) -> str:
    """The first `most` characters of a text, with an ellipsis in place of the last where more follows.

    Control characters become their pictures (NUL: ␀), so that they are seen; HTML cannot hold all of them.
    """
    text = text or ""
    return (text if len(text) <= most else text[: most - 1] + "…").translate(_PICTURES)


def _name(key: str) -> str:
    return NUMBERS[key][0] if key in NUMBERS else label(key)


# Words and cells of the page without scripts -------------------------------------------------------------------------


def _facts(path: Path, frame: pl.DataFrame, ok: pl.DataFrame) -> list[tuple[str, str]]:
    """The file in a few numbers."""
    tokens = ok.select(pl.sum("prompt_tokens", "response_tokens")).row(0)
    return [
        ("rows", f"{frame['row'].n_unique():,}"),
        ("samples with scores", f"{ok.height:,}"),
        ("tokens", f"{sum(tokens):,.0f}"),
        ("of them in the loss", f"{tokens[1]:,.0f}"),
    ]


def _settings(path: Path) -> list[tuple[str, str]]:
    """What the table's metadata state of the model, the file and the settings; values that hold others, as text."""
    flat = {}
    for key, value in read_metadata(path, SCORES).items():
        flat |= value if isinstance(value, dict) else {key: value}
    return [(label(key), str(value)) for key, value in flat.items() if value not in ("", None) and key != "table"]


def _failed(row: Mapping[str, Any], pairs: bool) -> list[str]:
    words = (row["id"], *([row["response"]] if pairs else []), row["status"], row["reason"])
    return [str(row["row"]), *(_cut(word, 4 * WORDS) for word in words)]


def _cells(row: Mapping[str, Any], index: Mapping[str, Any]) -> list[str]:
    """A sample's cells as the script writes them."""
    counts = {number["key"] for number in index["numbers"] if number["count"]}
    cells = []
    for key in index["columns"]:
        value = row[key]
        if key == "outlier_of":
            cells.append(_name(value) if value else "–")
        elif key in WORD_COLUMNS:
            cells.append(_cut(str("" if value is None else value), WORDS))
        else:
            cells.append(f"{value:,.0f}" if value is not None and key in counts else three_digits(value))
    return cells
