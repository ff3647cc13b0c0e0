"""Evaluating many probes in batches by length beside one at a time, as the study's code does, side by side in one run.

  python -m benchmarks.probes          # about a minute

The committed miniature, probes of its grammar (13 types to a prompt), the finetuning loop's own evaluation. Times are
the least of the repeats; `one at a time` is the same code with batches of one response.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from workflow.lib.dynamics import grammar
from workflow.lib.dynamics.evaluate import evaluate
from workflow.lib.dynamics.pairs import write_pairs
from workflow.lib.dynamics.probes import build_probes, grammar_rephrases, read_probes, write_probes
from workflow.lib.dynamics.sequences import Speech
from workflow.lib.models.loading import load

MODEL = Path(__file__).parents[1] / "resources/miniature/base"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=40, help="probed prompts")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--repeats", type=int, default=3, help="measurements; the least counts")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model, tokenizer = load(str(MODEL), dtype="float32", device="cpu")
    speech = Speech(tokenizer, 512)
    with tempfile.TemporaryDirectory() as folder:
        pairs, probes = f"{folder}/pairs.parquet", f"{folder}/probes.parquet"
        write_pairs(grammar.pairs(max(200, given.prompts), 20, 0, 0, 0.75), pairs, {})
        sizes = {"train": given.prompts, "held_out": 0, "seed": 0, "max_new_tokens": 40}
        write_probes(build_probes(pairs, model, speech, grammar_rephrases(0), **sizes), probes, {})
        watched, _ = read_probes(probes, speech)
    responses = {key: spoken for key, (_, spoken) in watched.items()}
    tokens = sum(len(spoken.ids) for spoken in responses.values())
    print(f"{len(responses)} responses, {tokens} tokens, {given.threads} threads")
    alone = least(lambda: evaluate(model, responses, 1), given.repeats)
    for batch in (1024, 4096, 16384):
        together = least(lambda batch=batch: evaluate(model, responses, batch), given.repeats)
        print(
            f"batches of {batch:6,} tokens {together:7.2f} s, one at a time {alone:7.2f} s, {alone / together:5.1f} x"
        )


def least(work, repeats: int) -> float:
    """The least of several wall times, in seconds."""
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times)


if __name__ == "__main__":
    main()
