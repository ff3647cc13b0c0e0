"""Kernels of responses by block, and budgets of a step, beside the plain ways, side by side in one run.

  python -m benchmarks.kernels --output benchmarks/results/kernels.csv        # about two minutes

The committed miniature and probes of its grammar, float32. Kernels of the first responses, all blocks, all pairs:

autograd, a product a pair    each response's gradient by autograd, a scalar product for each pair and parameter
autograd, a product a block   the same gradients, all pairs of a parameter by one matrix product
blocks                        `gradatlas.kernels.matrices.kernels`

Budgets of a step of SGD on all probes, beside `evaluate`, the finetuning loop's own evaluation of them: by trapezoid
(two backward passes), by midpoint (one), and by midpoint where the change itself is known from two evaluations.
Times are the least of repeats that take turns.
"""

import argparse
from itertools import combinations_with_replacement
from pathlib import Path

import polars as pl
import torch

from benchmarks.probes import MODEL, probed, timed
from gradatlas.finetuning.evaluate import evaluate
from gradatlas.finetuning.sequences import ResponseEncoder, log_probs
from gradatlas.kernels.blocks import Blocks
from gradatlas.kernels.budget import budget
from gradatlas.kernels.matrices import kernels
from gradatlas.models.loading import load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--responses", type=int, default=100, help="of the kernel")
    parser.add_argument("--prompts", type=int, default=10, help="probed prompts of the budget")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--repeats", type=int, default=3, help="measurements; the least counts")
    parser.add_argument("--output", help="table to write (.csv)")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model, tokenizer = load(str(MODEL), dtype="float32", device="cpu")
    probes = probed(model, ResponseEncoder(tokenizer, 512), given.prompts)
    some = list(probes.values())[:: max(1, len(probes) // given.responses)][: given.responses]
    named = dict(model.named_parameters())
    blocks = Blocks(model)

    def gradients() -> list[tuple[torch.Tensor, ...]]:
        model.requires_grad_(True)
        return [torch.autograd.grad(log_probs(model, [each]).sum(), list(named.values())) for each in some]

    def by_pairs() -> torch.Tensor:
        formed = gradients()
        total = torch.zeros(len(some), len(some))
        for i, j in combinations_with_replacement(range(len(some)), 2):
            parts = [torch.dot(one.flatten(), other.flatten()) for one, other in zip(formed[i], formed[j], strict=True)]
            total[i, j] = total[j, i] = torch.stack(parts).sum()
        return total

    def by_blocks() -> torch.Tensor:
        rows = [torch.stack([each.flatten() for each in part]) for part in zip(*gradients(), strict=True)]
        return torch.stack([part @ part.mT for part in rows]).sum(0)

    def ours() -> torch.Tensor:
        return sum(kernels(blocks, some).values())

    exact = by_blocks().double()
    scale = exact.diagonal().sqrt()
    for name, made in (("by pairs", by_pairs()), ("blocks", ours())):
        print(f"{name}: largest difference of a cosine {((made - exact) / scale / scale[:, None]).abs().max():.1e}")
    model.requires_grad_(True)
    pulled = torch.autograd.grad(log_probs(model, some[:2]).sum(), list(named.values()))
    after = {name: each.detach() + 1e-5 * pull for (name, each), pull in zip(named.items(), pulled, strict=True)}
    for rule in ("first_order", "trapezoid", "midpoint"):
        found = budget(blocks, after, probes, rule=rule)
        known = dict(zip(found.responses, found.measured.tolist(), strict=True))
        print(f"{rule}: gap {found.gap:.1e}, mean change {abs(found.measured).mean():.3f}")
    tasks = {
        "kernel": {"autograd, a product a pair": by_pairs, "autograd, a product a block": by_blocks, "blocks": ours},
        "budget": {
            "evaluate": lambda: evaluate(model, probes, 4096),
            "midpoint, known change": lambda: budget(blocks, after, probes, rule="midpoint", measured=known),
            "midpoint": lambda: budget(blocks, after, probes, rule="midpoint"),
            "trapezoid": lambda: budget(blocks, after, probes),
        },
    }
    rows = []
    for task, ways in tasks.items():
        least = dict.fromkeys(ways, (float("inf"), float("inf")))
        for _ in range(given.repeats):
            for name, work in ways.items():
                least[name] = tuple(map(min, least[name], timed(work)))
        responses = some if task == "kernel" else list(probes.values())
        size = {"responses": len(responses), "tokens": sum(len(each.ids) for each in responses)}
        first = next(iter(least.values()))[1]
        for name, (wall, cpu) in least.items():
            rows.append({"task": task, **size, "threads": given.threads, "way": name, "wall_s": round(wall, 3),
                         "cpu_s": round(cpu, 3), "cpu_of_first": round(cpu / first, 4)})  # fmt: skip
            print(rows[-1], flush=True)
    if given.output:
        Path(given.output).parent.mkdir(parents=True, exist_ok=True)
        pl.DataFrame(rows).write_csv(given.output)


if __name__ == "__main__":
    main()
