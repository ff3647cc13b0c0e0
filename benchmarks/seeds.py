"""How far the miniature study's statistics lie apart over seeds.

  snakemake --cores all --configfile config/seeds.yaml -- statistics results/tables/accuracy.csv
  python -m benchmarks.seeds --results results --output resources/miniature/seed_statistics.csv

One row per dataset, kind of model and statistic; a column per seed, then least, largest and their ratio. All are of the
nuclear norm, averaged over layers and Q, K, V, O: `size_ratio` None (or short) : Detailed (or long) of the correct
responses' mean gradient; `mad_ratio` the same of the MAD over all layers; `rd.RELATION.VARIANT` the signed RD.
"""

import argparse
import re
from pathlib import Path

import polars as pl

ENDS = {"mini_popular": ("length_short", "length_long")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", default="results", help="the study's results folder")
    parser.add_argument("--output", required=True, help="CSV file to write")
    given = parser.parse_args()
    results = Path(given.results)
    norms = pl.col("statistic") == "nuclear_norm"
    curves = pl.concat(pl.read_parquet(path) for path in sorted(results.glob("statistics/*/curves.parquet")))
    whole = pl.read_csv(results / "tables/mad.csv").filter(norms & (pl.col("segment") == "all"))
    found = [
        *ratios(curves.filter(norms), "size_ratio"),
        *ratios(whole, "mad_ratio"),
    ]
    rd = pl.read_csv(results / "tables/rd.csv").filter(norms & (pl.col("measure") == "signed"))
    for row in rd.group_by("model", "dataset", "relation", "variant").agg(pl.col("value").mean()).to_dicts():
        found.append((row["model"], row["dataset"], f"rd.{row['relation']}.{row['variant']}", row["value"]))
    rows = [
        {**identity(model), "dataset": dataset, "statistic": name, "value": value}
        for model, dataset, name, value in found
    ]
    wide = (
        pl.DataFrame(rows)
        .pivot("seed", index=["dataset", "kind", "statistic"], values="value", sort_columns=True)
        .sort("dataset", "kind", "statistic")
    )
    seeds = [name for name in wide.columns if name.isdigit()]
    least, most = pl.min_horizontal(seeds), pl.max_horizontal(seeds)
    # A ratio says nothing where the seeds differ in sign.
    ratio = pl.when(least > 0).then(most / least)
    wide = wide.with_columns(least.alias("least"), most.alias("largest"), ratio.alias("ratio"))
    wide.rename({name: f"seed_{name}" for name in seeds}).write_csv(given.output, float_precision=4)
    print(f"{given.output}: {wide.height} statistics of seeds {', '.join(seeds)}")


def ratios(frame: pl.DataFrame, name: str) -> list[tuple[str, str, str, float]]:
    """Of the correct responses, the first variant's mean value over the last one's."""
    means = (
        frame.filter(pl.col("relation") == "correct")
        .group_by("model", "dataset", "variant")
        .agg(pl.col("value").mean())
    )
    found = []
    for (model, dataset), group in means.group_by("model", "dataset"):
        by_variant = dict(group.select("variant", "value").rows())
        first, last = ENDS.get(dataset, ("none", "detailed"))
        if first in by_variant and last in by_variant:
            found.append((model, dataset, name, by_variant[first] / by_variant[last]))
    return found


def identity(model: str) -> dict[str, str]:
    """Seed and kind from a model's name in config/seeds.yaml."""
    seed = re.search(r"seed(\d+)", model)
    kind = "random" if "random" in model else "instruct" if "instruct" in model else "base"
    return {"seed": seed.group(1) if seed else "0", "kind": kind}


if __name__ == "__main__":
    main()
