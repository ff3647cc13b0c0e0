"""Whether rarer rejected answers squeeze more: DPO from one start on pairs that differ in `rejected_rarity` alone.

  for q in 0 0.5 1; do
      snakemake --cores all --directory rarity/$q --configfile config/rarity.yaml \\
          --config "dynamics={rejected_rarity: $q}" -- dynamics
  done
  python -m benchmarks.rarity --results 0=rarity/0 0.5=rarity/0.5 1=rarity/1 --output rarity/rarity.csv

One row per rarity, seed and measure: the mean over probed prompts of trained pairs, its 95 % bootstrap interval, and
how much more it is than at the least rarity, prompt by prompt. `rejected_start`: the rejected responses' log-prob
a token before DPO; the others are changes over DPO: `argmax`, the likeliest tokens' a token along the chosen responses;
`chosen` and `rejected`, whole responses' in nats.
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl

from gradatlas.core.errors import InputError
from gradatlas.core.tables import read_table
from gradatlas.finetuning.tables import DYNAMICS
from gradatlas.statistics.bootstrap import interval, resampled_means

#: Type of probe and column of each measure; `rejected_start` is a level, the others are changes.
MEASURES = {
    "rejected_start": ("rejected", "log_prob_sum", True),
    "argmax": ("chosen", "argmax_log_prob", True),
    "chosen": ("chosen", "log_prob_sum", False),
    "rejected": ("rejected", "log_prob_sum", False),
}
DRAWS = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", nargs="+", required=True, metavar="RARITY=FOLDER", help="where each was run")
    parser.add_argument("--output", required=True, help="CSV file to write")
    given = parser.parse_args()
    found = {}
    for name, folder in (each.split("=", 1) for each in given.results):
        paths = sorted(Path(folder).glob("results/dynamics/mini_qa/*/seed_*/dpo/dynamics.parquet"))
        if not paths:
            raise SystemExit(f"error: {folder}: no results/dynamics/mini_qa/MODEL/seed_SEED/dpo; run it first")
        for path in paths:
            seed = int(path.parents[1].name.removeprefix("seed_"))
            found[float(name), seed] = measured(pl.from_arrow(read_table(DYNAMICS, path)))
    frame = pl.DataFrame(compared(found))
    frame.write_csv(given.output, float_precision=4)
    print(f"{given.output}: {frame.height} rows")


def measured(dynamics: pl.DataFrame) -> dict[str, dict[str, float]]:
    """By measure and prompt, over one run's evaluations."""
    rows = dynamics.filter((pl.col("split") == "train") & (pl.col("status") == "ok"))
    first, last = (rows.filter(pl.col("step") == step) for step in (rows["step"].min(), rows["step"].max()))
    found = {}
    for name, (kind, column, a_token) in MEASURES.items():
        ends = [
            part.filter(pl.col("type") == kind)
            .with_columns(pl.col(column) / (pl.col("tokens") if a_token else 1))
            .select("probe_id", column)
            for part in (first, last)
        ]
        begun, ended = (dict(part.iter_rows()) for part in ends)
        found[name] = {
            key.rpartition("/")[0]: value if name.endswith("_start") else ended[key] - value
            for key, value in begun.items()
        }
    return found


def compared(found: dict[tuple[float, int], dict[str, dict[str, float]]]) -> list[dict]:
    """A row per rarity, seed and measure; `InputError` where the prompts of two rarities differ."""
    rows = []
    for (rarity, seed), measures in sorted(found.items()):
        least = min(other for other, of in found if of == seed)
        for name, values in measures.items():
            base = found[least, seed][name]
            if values.keys() != base.keys():
                raise InputError(
                    f"seed {seed}: rarity {rarity} was probed at other prompts than {least}; run both anew"
                )
            level, more = (
                np.array([values[key] - (base[key] if paired else 0.0) for key in sorted(values)])
                for paired in (False, True)
            )
            result = {}
            for prefix, each in (("", level), ("more_", more)):
                ends = map(float, interval(resampled_means(each, DRAWS, seed, f"{name} {rarity}")))
                result |= {f"{prefix}{end}": value for end, value in zip(("value", "low", "high"), ends, strict=True)}
            rows.append({"rarity": rarity, "seed": seed, "measure": name, "n": len(level), **result})
    return rows


if __name__ == "__main__":
    main()
