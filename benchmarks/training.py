"""Updates a second and peak memory of the finetuning loop: SFT and DPO, all weights, float32 without TF32.

  python -m benchmarks.training                                                  # the miniature on a CPU
  python -m benchmarks.training --device cuda --shapes Qwen2-0.5B Qwen2-1.5B --output FILE.csv

Random tokens (`benchmarks.shapes`), the loop's own updates with RMSprop, clipping and the log; no evaluation and no
checkpoint. *Plain* is forward, backward and the same optimiser for the same batches, and nothing else.
"""

import argparse
import csv
import gc
import time
from pathlib import Path

import torch

from benchmarks.shapes import TIED, facts_of, model_of, responses_of
from gradatlas.finetuning.examples import Example
from gradatlas.finetuning.finetune import _TrainingLoop
from gradatlas.finetuning.processes import SINGLE_PROCESS
from gradatlas.finetuning.recipe import Recipe
from gradatlas.finetuning.sequences import log_probs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--shapes", nargs="+", choices=["toy", *TIED], default=["toy"])
    parser.add_argument("--losses", nargs="+", choices=["sft", "dpo"], default=["sft", "dpo"])
    parser.add_argument("--batch", type=int, default=4, help="responses (SFT) or pairs (DPO) of an update")
    parser.add_argument("--steps", type=int, default=20, help="updates that are timed")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--output", help="table to write (.csv)")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    rows = []
    for shape in given.shapes:
        for loss in given.losses:
            for way in ("loop", "plain"):
                try:
                    found = measured(shape, loss, way, given)
                except torch.OutOfMemoryError as error:
                    print(f"{shape} {loss} {way}: {str(error)[:160]}", flush=True)
                    continue
                rows.append({"shape": shape, "loss": loss, "batch": given.batch, "way": way, **found,
                             "threads": given.threads, **facts_of(given.device)})  # fmt: skip
                print(rows[-1], flush=True)
                if given.output:
                    Path(given.output).parent.mkdir(parents=True, exist_ok=True)
                    with open(given.output, "w", newline="") as file:
                        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
                        writer.writeheader()
                        writer.writerows(rows)


def measured(shape: str, loss: str, way: str, given: argparse.Namespace) -> dict[str, float]:
    """Seconds an update, tokens an update, and peak memory on a GPU."""
    on_gpu, warm = given.device == "cuda", 3
    if on_gpu:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    model, _ = model_of(shape, given.device)
    model.requires_grad_(True)
    pairs = given.batch * (warm + given.steps)
    encoded = list(responses_of(model.config.vocab_size, 2 * pairs).values())
    examples = [Example("", "", *encoded[at : at + 2]) for at in range(0, 2 * pairs, 2)]
    recipe = Recipe(name=loss, loss=loss, learning_rate=1e-7, steps=warm + given.steps, batch_size=given.batch)
    weights = sum(each.numel() for each in model.parameters())
    if way == "loop":
        run = _TrainingLoop(model, None, recipe, examples, None, 0, SINGLE_PROCESS)
        run.prepare(4096)

        def step(place: int) -> None:
            if not run._step(place):
                raise SystemExit(f"{shape} {loss}: update {place} is not finite")
    else:
        optimiser = torch.optim.RMSprop(model.parameters(), lr=recipe.learning_rate)

        def step(place: int) -> None:
            batch = examples[place * given.batch : (place + 1) * given.batch]
            sides = [[each.chosen for each in batch], [each.rejected for each in batch]]
            scores = log_probs(model, sides[0] if loss == "sft" else sides[0] + sides[1])
            optimiser.zero_grad()
            (-scores.sum() if loss == "sft" else scores[given.batch :].sum() - scores[: given.batch].sum()).backward()
            optimiser.step()

    for place in range(warm):
        step(place)
    if on_gpu:
        torch.cuda.synchronize()
    begun = time.perf_counter()
    for place in range(warm, warm + given.steps):
        step(place)
    if on_gpu:
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - begun) / given.steps
    tokens = sum(len(each.ids) for each in (encoded if loss == "dpo" else encoded[::2])) / (warm + given.steps)
    found = {"weights": weights, "tokens": round(tokens), "s_per_update": round(seconds, 4)}
    found["updates_per_s"] = round(1 / seconds, 2)
    if on_gpu:
        found["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return found


if __name__ == "__main__":
    main()
