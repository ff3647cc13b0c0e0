"""The atlas at the study's size: how large the page is, and how soon a reader can use its explorer.

  python -m benchmarks.page     # about 3 minutes on two cores

Synthetic tables of 10 models, 11 datasets, 3 variants, correct and irrelevant responses, 500 samples, 42 layers, 34
claims of which half are tested on both kinds of responses; the real page; a headless Chromium (and chromedriver, on the
PATH). Seconds are from opening the file to the first drawn curves and samples, the median of the loads.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.chromium import chromium, settled
from gradatlas.claims import tables as claim_tables
from gradatlas.core.checked import write_lines
from gradatlas.core.files import ROOT, write_text
from gradatlas.core.tables import Table, write_table
from gradatlas.data.tables import RESPONSES
from gradatlas.figures.tables import write_tables
from gradatlas.page.page import MORE, write_atlas
from gradatlas.statistics.tables import CELLS, CURVES, MAD, PER_SAMPLE_LAYERS, RD

VARIANTS, RELATIONS, PROJECTIONS = ("none", "simplified", "detailed"), ("correct", "derangement"), tuple("qkvo")
STATISTICS = ("nuclear_norm", "sigma_ratio", "effective_rank")
KINDS = {"correct": ("panels", "variants"), "derangement": ("panels", "variants", "compared")}
CLAIMS = 34
SPREAD = 0.18


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, number in {"models": 10, "datasets": 11, "samples": 500, "layers": 42, "loads": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--keep", metavar="DIR", help="folder for the tables and the page (default: a temporary one)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(given.keep or temporary)
        begun = time.perf_counter()
        page = write(folder, given.models, given.datasets, given.samples, given.layers)
        print(f"written in {time.perf_counter() - begun:.0f} s, tables included")
        print(f"{page.stat().st_size / 1e6:.1f} MB, {MORE} {page.with_name(MORE).stat().st_size / 1e6:.1f} MB")
        seconds = [load(page) for _ in range(given.loads)]
        print(f"{statistics.median(seconds):.2f} s to the first drawing ({min(seconds):.2f} to {max(seconds):.2f})")


def load(page: Path) -> float:
    """Seconds from opening the page to the explorer's first drawing, in a fresh browser."""
    with chromium() as browser:
        begun = time.perf_counter()
        browser.get(page.as_uri())
        settled(browser)
        return time.perf_counter() - begun


def write(folder: Path, models: int, datasets: int, samples: int, layers: int) -> Path:
    """Synthetic tables of a study, and its page; returns the page."""
    draw = np.random.default_rng(0)
    names = [f"model_{i}" for i in range(models)]
    folders = [folder / "statistics" / f"dataset_{i}" for i in range(datasets)]
    for place in folders:
        write_dataset(place, folder, names, samples, layers, draw)
    for kind in ("mad", "rd"):
        write_tables(kind, folders, folder)
    write_claims(folder / "claims.parquet", names, [place.name for place in folders], draw)
    write_lines(folder / "config.yaml", "seed: 0\n", "# checksum: {}")
    page = folder / "index.html"
    write_atlas(
        [folder / "figures" / place.name for place in folders],
        [place / "cells.parquet" for place in folders],
        [folder / "mad.csv", folder / "rd.csv"],
        folder / "config.yaml",
        page,
        curves=[place / "curves.parquet" for place in folders],
        sample_layers=[place / "per_sample_layers.parquet" for place in folders],
        responses=[folder / "responses" / f"{place.name}.parquet" for place in folders],
        claims=folder / "claims.parquet",
        glossary=ROOT / "docs/glossary.md",
    )
    return page


def write_dataset(place: Path, folder: Path, models: list[str], samples: int, layers: int, draw) -> None:
    """One dataset's statistics, responses and list of figures."""
    dataset, n = place.name, samples
    cell = grid(model=models, variant=VARIANTS, relation=RELATIONS).with_columns(
        dataset=pl.lit(dataset), loss_tokens=pl.lit("all"), purpose=pl.lit("study")
    )
    by_statistic = cell.join(grid(projection=PROJECTIONS, statistic=STATISTICS), how="cross")
    counts = {"n": n, "n_ok": n, "n_labelled": n, "n_label_equals_gold": n}
    counts |= dict.fromkeys(("n_truncated", "n_no_response_tokens", "n_nonfinite", "n_out_of_memory"), 0)
    means = {"loss": 0.8, "prompt_tokens": 61.5, "response_tokens": 120.25}
    put(CELLS, cell.with_columns(**{name: pl.lit(value) for name, value in (counts | means).items()}), place)
    put(CURVES, estimates(by_statistic.join(grid(layer=range(layers)), how="cross"), n, draw), place)
    segments = pl.DataFrame(
        {"segment": ["early", "middle", "last", "all"], "layers": ["0-9", "10-31", "32-41", "0-41"]}
    )
    put(MAD, estimates(by_statistic.join(segments, how="cross"), n, draw), place)
    other = by_statistic.filter(pl.col("relation") != "correct").with_columns(top_layers=pl.lit([0, 1, 2, 3, 4]))
    put(RD, estimates(other.join(grid(measure=["signed", "absolute"]), how="cross"), n, draw), place)
    ids = [f"{dataset}-{i}" for i in range(n)]
    rows = cell.join(grid(sample_id=ids), how="cross").with_columns(
        loss=pl.Series(draw.lognormal(0, 0.6, cell.height * n)),
        response_tokens=pl.Series(draw.integers(1, 400, cell.height * n)),
        own=pl.Series(draw.normal(1, 0.7, cell.height * n)),
    )
    rows = rows.join(grid(projection=PROJECTIONS), how="cross")
    # A sample's own size, and its layers around it, with the spread of the miniature study.
    own = {
        "nuclear_norm": np.exp(rows["own"].to_numpy()),
        "sigma_ratio": draw.beta(3, 9, rows.height),
        "effective_rank": draw.gamma(6, 5, rows.height),
    }
    spread = np.exp(draw.normal(0, SPREAD, (len(own), rows.height, layers)))
    values = {
        name: (one[:, None] * by_layer).astype("f4") for (name, one), by_layer in zip(own.items(), spread, strict=True)
    }
    put(PER_SAMPLE_LAYERS, rows.with_columns(**{name: lists(value) for name, value in values.items()}), place)
    write_responses(folder / "responses" / f"{dataset}.parquet", dataset, ids, draw)
    write_figures(folder / "figures" / dataset, dataset, models)


def lists(values: np.ndarray) -> pl.Series:
    """A list of each row."""
    return pl.Series(values).arr.to_list()


def write_responses(path: Path, dataset: str, ids: list[str], draw) -> None:
    """Texts of words with the frequencies of a language, so that they compress like real ones."""
    words = np.array(["".join(draw.choice(list("etaoinshrdlucmfw"), draw.integers(2, 9))) for _ in range(3000)])

    def text():
        return " ".join(words[np.minimum(draw.zipf(1.3, 70), len(words)) - 1])

    rows = []
    for sample_id in ids:
        instruction = text()
        for variant in VARIANTS:
            for relation in RELATIONS:
                cell = (dataset, sample_id, variant, relation, instruction, text(), "a", "a", True, "ok", [sample_id])
                rows.append(dict(zip(RESPONSES.names, cell, strict=True)))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(RESPONSES, rows, path, {})


def write_figures(folder: Path, dataset: str, models: list[str]) -> None:
    """A list of figures as `gallery.draw` writes it, all of them the same empty picture."""
    folder.mkdir(parents=True, exist_ok=True)
    size = {"width": 800, "height": 400}
    write_text(folder / "empty.svg", '<svg xmlns="http://www.w3.org/2000/svg" width="800" height="400"></svg>')
    figures = [
        {"model": model, "relation": relation, "kind": kind, "purpose": "study", "title": f"{kind} of {model}",
         "subtitle": ["A line of words about n and intervals."], "files": {"svg": "empty.svg"}, **size}
        for model in models
        for relation in RELATIONS
        for kind in KINDS[relation]
    ]  # fmt: skip
    index = {"dataset": dataset, "dataset_title": dataset.replace("_", " "), "figures": figures}
    write_text(folder / "index.json", json.dumps(index))


def write_claims(path: Path, models: list[str], datasets: list[str], draw) -> None:
    rows = grid(claim=[f"claim_{i}" for i in range(CLAIMS)], model=models, dataset=datasets, relation=RELATIONS)
    both = CLAIMS // 2
    rows = rows.filter((pl.col("relation") == "correct") | pl.col("claim").is_in([f"claim_{i}" for i in range(both)]))
    rows = estimates(rows, 500, draw).with_columns(
        study=pl.lit("layer_gradients"),
        status=pl.lit("stands"),
        source=pl.lit("arXiv 2410.23743: slow against fast thinking"),
        title=pl.lit("None's gradients change much more from layer to layer than Detailed's"),
        statistic=pl.lit("MAD ratio"),
        direction=pl.lit("above"),
        statement=pl.lit(
            "From layer to layer one's gradients jump 30.3 [29.5, 31.1] times as much as another's; above 10"
        ),
        verdict=pl.Series(draw.choice(["holds", "fails", "inconclusive"], rows.height)),
        **{name: pl.lit(0.01) for name in ("threshold", "margin", "accuracy", "chance", "p_value", "p_adjusted")},
    )
    put(claim_tables.CLAIMS, rows, path.parent)


def grid(**columns) -> pl.DataFrame:
    """Every combination of the columns' values."""
    frames = [pl.DataFrame({name: list(values)}) for name, values in columns.items()]
    product = frames[0]
    for frame in frames[1:]:
        product = product.join(frame, how="cross")
    return product


def estimates(rows: pl.DataFrame, n: int, draw) -> pl.DataFrame:
    value = pl.Series("value", draw.lognormal(0.5, 1.2, rows.height))
    return rows.with_columns(value, low=value * 0.93, high=value * 1.08, n=pl.lit(n))


def put(table: Table, rows: pl.DataFrame, folder: Path) -> None:
    """Write a table; missing columns are empty."""
    missing = [pl.lit(None).alias(column) for column in table.names if column not in rows.columns]
    folder.mkdir(parents=True, exist_ok=True)
    models = {model: {"revision": "0" * 40, "dtype": "float32"} for model in rows["model"].unique().sort()}
    write_table(table, rows.with_columns(missing).to_arrow(), folder / f"{table.name}.parquet", {"models": models})


if __name__ == "__main__":
    main()
