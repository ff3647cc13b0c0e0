"""The claims of the second study over seeds, as docs/learning_dynamics_numbers.md shows them.

  snakemake --cores all --directory seeds --configfile config/dynamics.yaml -- dynamics claims
  python -m benchmarks.dynamics --claims seeds/results/claims.csv --output benchmarks/results/dynamics.csv

One row per claim and run: the number of every seed, their mean with Student's t interval, and the verdict. Printed: the
table of the page.
"""

import argparse
from collections.abc import Iterable

import polars as pl

from gradatlas.charts.numbers import as_given, three_digits, with_interval

#: A pooled row's model.
OVER_SEEDS = ", over seeds"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claims", required=True, help="claims.csv of a run with several seeds")
    parser.add_argument("--output", required=True, help="CSV file to write")
    given = parser.parse_args()
    table = over_seeds(pl.read_csv(given.claims, infer_schema_length=None))
    table.write_csv(given.output)
    print("\n".join(markdown(table)))


def over_seeds(claims: pl.DataFrame) -> pl.DataFrame:
    """The pooled rows of claims on trainings, in the order of the sheet, each with its seeds' numbers."""
    claims = claims.filter(pl.col("study") == "learning_dynamics")
    keys = ["claim", "dataset", "relation"]
    by_seed = pl.col("value").cast(pl.String).fill_null("None").str.join(" ").alias("by_seed")
    seeds = claims.filter(pl.col("seed").is_not_null()).sort("seed").group_by(keys).agg(by_seed)
    pooled = claims.filter(pl.col("model").str.ends_with(OVER_SEEDS))
    shown = ["value", "low", "high", "direction", "threshold", "margin", "headroom", "published", "verdict", "reason"]
    return pooled.join(seeds, on=keys, how="left", maintain_order="left").select(
        "claim", "title", "relation", "by_seed", *shown
    )


def markdown(table: pl.DataFrame) -> list[str]:
    """The table of the page, claim by claim: the rows that have a number; the CSV file has all, with their reasons."""
    head = ["Claim", "Runs, type, place", "By seed", "Mean [95 %]", "Claimed", "Published", "Verdict"]
    lines = [_line(head), _line(["---"] * len(head))]
    for row in table.filter(pl.col("value").is_not_null()).iter_rows(named=True):
        claimed = f"{row['direction']} {row['threshold']:g}" + (f" ± {row['margin']:g}" if row["margin"] else "")
        seeds = ", ".join(three_digits(float(value)) for value in (row["by_seed"] or "").split() if value != "None")
        published = "–" if row["published"] is None else as_given(row["published"])
        place = row["relation"].replace("_", " ")
        mean = with_interval(row["value"], row["low"], row["high"])
        lines.append(_line([row["title"], place, seeds or "–", mean, claimed, published, row["verdict"]]))
    return lines


def counts(table: pl.DataFrame) -> dict[str, int]:
    """How many tests have each verdict."""
    return dict(table["verdict"].value_counts().iter_rows())


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    main()
