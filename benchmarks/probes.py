"""Evaluating many probes in batches by length beside one at a time, as the study's code does, side by side in one run.

  python -m benchmarks.probes          # about a minute

The committed miniature, probes of its grammar (13 types to a prompt), the finetuning loop's own evaluation. Times are
the least of the repeats; *one at a time* reads and measures every response with its prompt, as the study's loop does.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from workflow.lib.dynamics import grammar
from workflow.lib.dynamics.evaluate import evaluate, measures
from workflow.lib.dynamics.pairs import write_pairs
from workflow.lib.dynamics.probes import build_probes, grammar_rephrases, read_probes, write_probes
from workflow.lib.dynamics.sequences import Speech, response_logits
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
    with torch.no_grad():
        alone = least(
            lambda: [measures(*response_logits(model, [spoken])) for spoken in responses.values()], given.repeats
        )
    print(f"one at a time              {alone[0]:7.2f} s, {alone[1]:7.2f} CPU s")
    for batch in (1024, 4096, 16384):
        wall, cpu = least(lambda batch=batch: evaluate(model, responses, batch), given.repeats)
        print(
            f"batches of {batch:6,} tokens   {wall:7.2f} s, {cpu:7.2f} CPU s: {alone[0] / wall:5.1f} times faster, "
            f"{alone[1] / cpu:5.1f} in CPU time"
        )


def least(work, repeats: int) -> tuple[float, float]:
    """The least of several wall times and CPU times, in seconds."""
    times = []
    for _ in range(repeats):
        begun = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
    return min(wall for wall, _ in times), min(cpu for _, cpu in times)


if __name__ == "__main__":
    main()
