"""Kernels of responses by block, and budgets of a step, beside the plain ways, side by side in one run.

  python -m benchmarks.kernels --output benchmarks/results/kernels.csv        # about two minutes on a CPU
  python -m benchmarks.kernels --device cuda --shape Qwen2-0.5B --held 20 --more 500 --output FILE.csv

The committed miniature and probes of its grammar, or a larger shape with random weights and random tokens; float32
without TF32. Kernels of the first responses, all blocks, all pairs:

autograd, gradients alone     each response's gradient by autograd; none is kept: what any such way takes at least
autograd, a product a block   the same, and all pairs of a parameter by one matrix product
autograd, a product a pair    the same, a scalar product for each pair and parameter
blocks                        `gradatlas.kernels.matrices.kernels`, within half of the free memory
blocks, one pass              a padded pass over all responses with the hooks of `blocks`, which keeps nothing

Where the gradients of all responses do not fit, `--held` are kept, and those of the responses behind them are made
again for every part: N (N / held + 1) / 2 gradients. `--more` also takes the kernel of so many responses by `blocks`
alone.

Budgets of a step of SGD on all probes, beside `evaluate`, the finetuning loop's own evaluation of them: by trapezoid
(two backward passes), by midpoint (one), and by midpoint where the change itself is known from two evaluations. The
step is .1 nats of its two responses long, by first order.

Times are the least of repeats that take turns; a way of more than 15 s is not repeated.
"""

import argparse
import csv
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.probes import probed, timed
from benchmarks.shapes import TIED, facts_of, model_of, responses_of
from gradatlas.finetuning.evaluate import evaluate
from gradatlas.finetuning.sequences import ResponseEncoder, log_probs
from gradatlas.gradients.plan import plan_batches
from gradatlas.kernels.along_runs import memory_bound
from gradatlas.kernels.blocks import Blocks
from gradatlas.kernels.budget import budget
from gradatlas.kernels.matrices import kernels

WAYS = ("ours", "pass", "alone", "block", "pair")
#: Seconds; a way that takes longer is not repeated.
LONG = 15.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--shape", choices=["toy", *TIED], default="toy", help="toy: the committed miniature")
    parser.add_argument("--responses", type=int, default=100, help="of the kernel")
    parser.add_argument("--held", type=int, default=0, help="gradients of autograd's ways at a time; 0: all")
    parser.add_argument("--more", type=int, default=0, help="responses of a larger kernel, by blocks alone")
    parser.add_argument("--prompts", type=int, default=10, help="probed prompts of the budget")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="of the kernel; default: all")
    parser.add_argument("--no-budget", action="store_true", help="the kernel alone")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--repeats", type=int, default=3, help="measurements; the least counts")
    parser.add_argument("--output", help="table to write (.csv); rows are added as they are measured")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    model, tokenizer = model_of(given.shape, given.device)
    if tokenizer:
        probes = probed(model, ResponseEncoder(tokenizer, 512), given.prompts)
        larger = probed(model, ResponseEncoder(tokenizer, 512), -(-given.more // 10)) if given.more else {}
        many = list(larger.values())[: given.more]
    else:
        probes = responses_of(model.config.vocab_size, 13 * given.prompts)
        many = list(responses_of(model.config.vocab_size, given.more, seed=1).values())
    some = list(probes.values())[:: max(1, len(probes) // given.responses)][: given.responses]
    rows = Rows(given.output, {"shape": given.shape, "threads": given.threads, **facts_of(given.device)})
    blocks = Blocks(model)
    clock = Clock(given.device, given.repeats)
    held = given.held or len(some)
    plain = Autograd(model, some, held)

    def ours(responses: list = some) -> torch.Tensor:
        return sum(kernels(blocks, responses, memory=memory_bound(given.device)).values())

    def one_pass() -> None:
        by_key = {str(place): each for place, each in enumerate(some)}
        for keys in plan_batches(by_key, 4096):
            blocks.run([by_key[key] for key in keys], lambda block, factor: None)

    every = {
        "ours": ("blocks", ours),
        "pass": ("blocks, one pass", one_pass),
        "alone": ("autograd, gradients alone", plain.alone),
        "block": ("autograd, a product a block", plain.by_blocks),
        "pair": ("autograd, a product a pair", plain.by_pairs),
    }
    ways = dict(every[name] for name in given.ways)
    made: dict[str, torch.Tensor | None] = {}
    tokens = sum(len(each.ids) for each in some)
    clock.measure({name: lambda name=name, way=way: made.update({name: way()}) for name, way in ways.items()},
                  lambda way, found: rows.add("kernel", len(some), tokens, way, found,
                                              **({"held": held} if "product" in way else {})))  # fmt: skip
    known = {name: each.double().cpu() for name, each in made.items() if each is not None}
    # A product a block, where it was measured.
    exact = known[min(known)]
    scale = exact.diagonal().sqrt()
    for name, each in known.items():
        worst = float(((each - exact) / scale / scale[:, None]).abs().max())
        print(f"{name}: largest difference of a cosine {worst:.1e}", flush=True)
    if not given.no_budget:
        budgets(model, blocks, probes, some[:2], clock, rows)
    if many:
        tokens = sum(len(each.ids) for each in many)
        clock.repeats = 1
        clock.measure({"blocks": lambda: ours(many)},
                      lambda way, found: rows.add("kernel", len(many), tokens, way, found))  # fmt: skip


def budgets(model: Any, blocks: Blocks, probes: dict, pulled: list, clock: "Clock", rows: "Rows") -> None:
    """Budgets of a step of SGD on `pulled`."""
    named = dict(model.named_parameters())
    model.requires_grad_(True)
    pull = torch.autograd.grad(log_probs(model, pulled).sum(), list(named.values()))
    step = 0.1 / sum(float((each * each).sum()) for each in pull)
    after = {name: each.detach() + step * along for (name, each), along in zip(named.items(), pull, strict=True)}
    del pull
    known: dict[str, float] = {}
    for rule in ("first_order", "trapezoid", "midpoint"):
        found = budget(blocks, after, probes, rule=rule)
        known = dict(zip(found.responses, found.measured.tolist(), strict=True))
        print(f"{rule}: gap {found.gap:.1e}, mean change {abs(found.measured).mean():.3f}", flush=True)
    ways = {
        "evaluate": lambda: evaluate(model, probes, 4096),
        "midpoint, known change": lambda: budget(blocks, after, probes, rule="midpoint", measured=known),
        "midpoint": lambda: budget(blocks, after, probes, rule="midpoint"),
        "trapezoid": lambda: budget(blocks, after, probes),
    }
    tokens = sum(len(each.ids) for each in probes.values())
    clock.measure(ways, lambda way, found: rows.add("budget", len(probes), tokens, way, found))


class Autograd:
    """The plain ways to the kernel of all parameters, with at most `held` gradients at a time."""

    def __init__(self, model: Any, responses: list, held: int):
        self.model, self.responses, self.held = model, responses, held

    def alone(self) -> None:
        for place in range(len(self.responses)):
            self._gradient(place)

    def by_pairs(self) -> torch.Tensor:
        return self._all(self._a_product_a_pair)

    def by_blocks(self) -> torch.Tensor:
        return self._all(self._a_product_a_block)

    def _gradient(self, place: int) -> tuple[torch.Tensor, ...]:
        self.model.requires_grad_(True)
        weights = list(self.model.parameters())
        return torch.autograd.grad(log_probs(self.model, [self.responses[place]]).sum(), weights)

    def _all(self, product: Callable[[list, list], torch.Tensor]) -> torch.Tensor:
        """The kernel (responses, responses), from `product` of two lists of rows, by parameter."""
        count, device = len(self.responses), self.model.device
        total = torch.zeros(count, count, device=device)
        weights = list(self.model.parameters())
        held = [torch.empty(self.held, each.numel(), device=device) for each in weights]
        for first in range(0, count, self.held):
            part = range(first, min(first + self.held, count))
            for row, place in enumerate(part):
                for kept, found in zip(held, self._gradient(place), strict=True):
                    kept[row] = found.flatten()
            rows = [kept[: len(part)] for kept in held]
            total[part.start : part.stop, part.start : part.stop] = product(rows, rows)
            for place in range(part.stop, count):
                column = product(rows, [each.view(1, -1) for each in self._gradient(place)])[:, 0]
                total[part.start : part.stop, place] = total[place, part.start : part.stop] = column
        return total

    @staticmethod
    def _a_product_a_block(one: list, other: list) -> torch.Tensor:
        return sum(each @ more.mT for each, more in zip(one, other, strict=True))

    @staticmethod
    def _a_product_a_pair(one: list, other: list) -> torch.Tensor:
        found = torch.zeros(len(one[0]), len(other[0]), device=one[0].device)
        for i in range(len(one[0])):
            for j in range(i if other is one else 0, len(other[0])):
                found[i, j] = sum(torch.dot(each[i], more[j]) for each, more in zip(one, other, strict=True))
                if other is one:
                    found[j, i] = found[i, j]
        return found


class Clock:
    """Seconds and peak memory of calls on one device."""

    def __init__(self, device: str, repeats: int):
        self.on_gpu, self.repeats = device == "cuda", repeats

    def measure(self, ways: dict[str, Callable], receive: Callable[[str, dict], None]) -> None:
        """Pass each way's least wall and CPU time, and its peak memory on a GPU; one that does not fit has none."""
        least: dict[str, tuple] = {}
        for _ in range(self.repeats):
            for name, work in list(ways.items()):
                if name in least and least[name][0] > LONG:
                    continue
                try:
                    found = self(work)
                except torch.OutOfMemoryError as error:
                    print(f"{name}: {str(error)[:160]}", flush=True)
                    del ways[name]
                    continue
                print(f"{name}: {found[0]:.3f} s, {found[2] / 2**30:.2f} GiB", flush=True)
                least[name] = tuple(map(min, least[name], found)) if name in least else found
        for name, (wall, cpu, peak, lasting) in least.items():
            memory = (
                {"peak_gib": round(peak / 2**30, 2), "before_gib": round(lasting / 2**30, 2)} if self.on_gpu else {}
            )
            receive(name, {"wall_s": round(wall, 4), "cpu_s": round(cpu, 4), **memory})

    def __call__(self, work: Callable) -> tuple[float, float, int, int]:
        """Wall time, CPU time, bytes at the peak, and bytes that were taken before."""
        if not self.on_gpu:
            return *timed(work), 0, 0
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        lasting = torch.cuda.memory_allocated()

        def done() -> None:
            work()
            torch.cuda.synchronize()

        torch.cuda.synchronize()
        return *timed(done), torch.cuda.max_memory_allocated(), lasting


class Rows:
    """The measured rows, added to a file as soon as they are known: a time limit loses none."""

    NAMES = ("task", "responses", "tokens", "way", "held", "wall_s", "cpu_s", "peak_gib", "before_gib")

    def __init__(self, path: str | None, facts: dict[str, Any]):
        self._path, self._facts = Path(path) if path else None, facts

    def add(self, task: str, responses: int, tokens: int, way: str, found: dict[str, float], **more: Any) -> None:
        row = {"task": task, "responses": responses, "tokens": tokens, "way": way, **found, **more, **self._facts}
        print(row, flush=True)
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = not self._path.exists()
        with open(self._path, "a", newline="") as file:
            writer = csv.DictWriter(file, [*self.NAMES, *self._facts], lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)


if __name__ == "__main__":
    main()
