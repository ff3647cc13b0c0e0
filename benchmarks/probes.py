"""Evaluating many probes in batches by length beside one at a time, as the study's code does, side by side in one run.

  python -m benchmarks.probes --prompts 500 --output benchmarks/results      # as many as the study's; some ten minutes
  python -m benchmarks.probes                                                # 40, about a minute

The committed miniature, probes of its grammar (the study's 12 types to a prompt), the finetuning loop's own evaluation.
Times are the least of the repeats, and all ways take turns; *one at a time* reads and measures every response with its
prompt, as the study's loop does.
"""

import argparse
import platform
import tempfile
import time
from pathlib import Path

import torch

from gradatlas.core.tables import write_table
from gradatlas.data.made_up import grammar
from gradatlas.data.pairs import write_pairs
from gradatlas.finetuning.evaluate import evaluate, measures
from gradatlas.finetuning.probes import build_probes, grammar_rephrases, read_probes
from gradatlas.finetuning.sequences import EncodedResponse, ResponseEncoder, response_logits
from gradatlas.finetuning.tables import PROBES
from gradatlas.models.loading import load

MODEL = Path(__file__).parents[1] / "resources/miniature/base"


BATCHES = (1024, 4096, 16384)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=40, help="probed prompts; the study has 500")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--repeats", type=int, default=3, help="measurements; the least counts")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="tokens in a batch")
    parser.add_argument("--output", help="folder for probes.csv")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model, tokenizer = load(str(MODEL), dtype="float32", device="cpu")
    responses = probed(model, ResponseEncoder(tokenizer, 512), given.prompts)
    tokens = sum(len(encoded.ids) for encoded in responses.values())
    print(f"{len(responses)} responses, {tokens} tokens, {given.threads} threads", flush=True)

    def alone() -> None:
        with torch.no_grad():
            for encoded in responses.values():
                measures(*response_logits(model, [encoded]))

    ways = {"one at a time": alone}
    ways |= {f"batches of {size} tokens": lambda size=size: evaluate(model, responses, size) for size in given.batches}
    least = dict.fromkeys(ways, (float("inf"), float("inf")))
    for _ in range(given.repeats):
        for name, work in ways.items():
            least[name] = tuple(map(min, least[name], timed(work)))
    size = {"prompts": given.prompts, "responses": len(responses), "tokens": tokens, "threads": given.threads}
    rows = [
        {**size, "way": name, "wall_s": wall, "cpu_s": cpu,
         "times_faster": least["one at a time"][0] / wall, "times_less_cpu": least["one at a time"][1] / cpu}
        for name, (wall, cpu) in least.items()
    ]  # fmt: skip
    for row in rows:
        print(f"{row['way']:24} {row['wall_s']:7.2f} s, {row['cpu_s']:7.2f} CPU s: {row['times_faster']:5.2f} times "
              f"faster, {row['times_less_cpu']:5.2f} in CPU time")  # fmt: skip
    if given.output:
        # Here, as a machine with a GPU may lack it, and other benchmarks use the functions below.
        import polars as pl
        import polars.selectors as cs

        facts = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
        frame = pl.DataFrame([{**row, **facts} for row in rows]).with_columns(cs.float().round(3))
        Path(given.output).mkdir(parents=True, exist_ok=True)
        frame.write_csv(Path(given.output) / "probes.csv")


def probed(model, encoder: ResponseEncoder, prompts: int) -> dict[str, EncodedResponse]:
    """Responses of the study's types to so many prompts of the grammar."""
    with tempfile.TemporaryDirectory() as folder:
        pairs, probes = f"{folder}/pairs.parquet", f"{folder}/probes.parquet"
        write_pairs(grammar.pairs(max(200, prompts), 20, 0, 0, 0.75), pairs, {})
        sizes = {"train": prompts, "held_out": 0, "seed": 0, "max_new_tokens": 40}
        write_table(PROBES, build_probes(pairs, model, encoder, grammar_rephrases(0), **sizes), probes, {})
        watched, _ = read_probes(probes, encoder)
    return {key: encoded for key, (row, encoded) in watched.items() if row["type"] != "self_rephrase"}


def timed(work) -> tuple[float, float]:
    """Wall time and CPU time in seconds."""
    begun = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begun[0], time.process_time() - begun[1]


if __name__ == "__main__":
    main()
