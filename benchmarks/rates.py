"""Which learning rates the rule of docs/learning_rates.md accepts, from the results of config/dynamics_rates.yaml.

  snakemake --cores all --directory rates --configfile config/dynamics_rates.yaml -- dynamics
  python -m benchmarks.rates --results rates/results/dynamics/mini_qa/mini --output rates.csv

One row per run and seed. `start`, `end`: mean over trained probes of log pi(chosen) (SFT), or of the margin (DPO);
`fall`: the largest fall below the highest value so far, as a share of the rise so far; `step`: the largest rise between
two evaluations, as a share of the rise of the run; `grammatical`, `grammatical_end`: the share of `DRAWS` responses to
every held-out prompt that the miniature's grammar parses, of the model that the run starts from and of its own.
`passes`: by the rule. Printed: the table of docs/learning_rates.md.

  python -m benchmarks.rates --long seeds/results/dynamics/mini_qa/mini --output long.csv

of a run of config/dynamics.yaml: the grammatical share of the free responses of `dpo`, which has more updates.
"""

import argparse
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gradatlas.core.checked import read_json
from gradatlas.core.command import progress
from gradatlas.data.made_up import grammar
from gradatlas.data.pairs import read_pairs
from gradatlas.figures.rates import written
from gradatlas.finetuning.finetune import STATUS
from gradatlas.finetuning.generations import generate
from gradatlas.finetuning.sequences import ResponseEncoder
from gradatlas.models.loading import load

FALL, STEP, GRAMMATICAL = 0.1, 0.25, 0.05
DRAWS = 5
STARTS = {"sft": "base", "dpo": "sft"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, help="a folder with seed_0, seed_1, ...")
    parser.add_argument("--long", type=Path, help="the same of config/dynamics.yaml")
    parser.add_argument("--output", required=True, help="CSV file to write")
    given = parser.parse_args()
    if given.long:
        table = by_step(given.long)
        table.write_csv(given.output)
        print("\n".join(by_step_markdown(table)))
        return
    rows = []
    for loss in ("sft", "dpo"):
        runs = {path.parent.name for path in given.results.glob(f"seed_*/{loss}_*e[0-9]/status.json")}
        for rate, run in sorted((float(run.partition("_")[2].replace("e", "e-")), run) for run in runs):
            for folder in sorted(path.parent for path in given.results.glob(f"seed_*/{run}/status.json")):
                seed = int(folder.parent.name.partition("_")[2])
                rows.append({"loss": loss, "learning_rate": rate, "seed": seed} | judged(folder, loss))
    table = pl.DataFrame(rows)
    table.write_csv(given.output)
    print("\n".join(markdown(table)))


def markdown(table: pl.DataFrame) -> list[str]:
    """A row per loss and rate: means over seeds, the largest of the seeds, or each seed's number."""
    lines = [
        "| Loss | Rate | Start, nats | End, nats | Largest fall | Largest step | Grammatical, by seed | Rule |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    for (loss, rate), part in table.sort("loss", "learning_rate", "seed", descending=[True, False, False]).group_by(
        "loss", "learning_rate", maintain_order=True
    ):
        start, end = part["start"].mean(), part["end"].mean()
        fall, step = part["fall"].max(), part["step"].max()
        words = ", ".join(
            f"{row['grammatical']:.2f} → {row['grammatical_end']:.2f}" for row in part.iter_rows(named=True)
        )
        passed = "passes" if part["passes"].all() else f"fails in {part['passes'].not_().sum()} of {len(part)}"
        name = f"{loss.upper()} | {written(rate)}"
        lines.append(f"| {name} | {start:.2f} | {end:.2f} | {fall:.1%} | {step:.0%} | {words} | {passed} |")
    return lines


def judged(folder: Path, loss: str) -> dict[str, Any]:
    """The numbers of the rule for one run."""
    values = aim(folder, loss)
    best, rise = np.maximum.accumulate(values), values[-1] - values[0]
    fall = float(((best - values)[1:] / np.maximum(best - values[0], 1e-9)[1:]).max())
    step = float(np.diff(values).max() / rise) if rise > 0 else None
    before, after = grammatical(folder.parent / STARTS[loss]), grammatical(folder)
    ended = read_json(folder / STATUS, "finetune")["status"] == "ok"
    smooth = step is not None and fall <= FALL and step <= STEP
    return {
        "start": values[0],
        "end": values[-1],
        "fall": fall,
        "step": step,
        "grammatical": before,
        "grammatical_end": after,
        "passes": ended and smooth and after >= before - GRAMMATICAL,
    }


def aim(folder: Path, loss: str) -> np.ndarray:
    """What the run trains, mean over trained probes, by evaluation."""
    rows = pl.read_parquet(folder / "dynamics.parquet").filter(pl.col("split") == "train", pl.col("status") == "ok")
    chosen, rejected = (
        rows.filter(pl.col("type") == side).group_by("step").agg(pl.col("log_prob_sum").mean()).sort("step")
        for side in ("chosen", "rejected")
    )
    levels = chosen["log_prob_sum"].to_numpy()
    return levels if loss == "sft" else levels - rejected["log_prob_sum"].to_numpy()


@cache
def grammatical(run: Path) -> float:
    """Of a run's model; seed of the random numbers 0."""
    model, tokenizer = load(run / "model", dtype="float32", device="cpu")
    prompts = read_pairs(run.parents[2] / "pairs.parquet", "held_out")
    encoder = ResponseEncoder(tokenizer, 512, model)
    rows = generate(model, encoder, prompts, seed=0, draws=DRAWS, max_tokens=64, batch_tokens=8192)
    progress(f"{run.parent.name}/{run.name}")
    return float(np.mean([grammar.parse(row["response"]) is not None for row in rows]))


def by_step(results: Path, run: str = "dpo") -> pl.DataFrame:
    """Seed, step and grammatical share of a run's free responses to held-out prompts."""
    rows = pl.concat([pl.read_parquet(path) for path in sorted(results.glob(f"seed_*/{run}/generations.parquet"))])
    parsed = pl.col("response").map_elements(lambda text: grammar.parse(text) is not None, return_dtype=pl.Boolean)
    held_out = rows.filter(pl.col("split") == "held_out", pl.col("status") == "ok")
    return (
        held_out.group_by("seed", "step")
        .agg(parsed.mean().alias("grammatical"), pl.len().alias("n"))
        .sort("seed", "step")
    )


def by_step_markdown(table: pl.DataFrame) -> list[str]:
    """A row per seed, a column per step."""
    steps = table["step"].unique().sort().to_list()
    lines = ["| Updates | " + " | ".join(map(str, steps)) + " |", "| --- |" + " ---: |" * len(steps)]
    for (seed,), part in table.group_by("seed", maintain_order=True):
        lines.append(f"| Seed {seed} | " + " | ".join(f"{share:.2f}" for share in part["grammatical"]) + " |")
    return lines


if __name__ == "__main__":
    main()
