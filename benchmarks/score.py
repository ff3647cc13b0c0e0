"""What `score` costs beside a bare forward and backward of the same file, and the memory that it needs for a long file.

  python -m benchmarks.score --output benchmarks/results     # about 10 minutes on two cores

trained   bare: gradients of all weights, logits of all tokens, as in a trainer's step without its optimiser
frozen    bare: frozen weights, backward to the embeddings, logits of the responses alone
score     the job on a loaded model: spectra, loss without the prompt, tables and page

All read the same rows in batches of alike length (4096 tokens), in turn, in one process with two threads. Times are
processor seconds, the least of the repeats: what else the machine does is no part of them. Llama-like models with
random weights, attention heads of 64, d_ff 2.75 times the width, vocabulary 32,000, float32. Memory: peak resident
memory of a process of its own that scores N short rows on a tiny model.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import polars as pl
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from gradatlas.api.scoring import score_data
from gradatlas.core.files import ROOT
from gradatlas.data.made_up.miniature import held_out
from gradatlas.data.training.read import rows_of
from gradatlas.gradients.plan import plan_batches
from gradatlas.models.loading import load_tokenizer
from gradatlas.scores.measure import Scorer, chunks
from gradatlas.scores.settings import Settings

SETTINGS = Settings(prompt="plain", device="cpu")
WIDTHS, LAYERS = (512, 1024), 4


def model_of(width: int, layers: int, vocabulary: int = 32_000) -> LlamaForCausalLM:
    torch.manual_seed(0)
    heads = max(1, width // 64)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
    )
    return LlamaForCausalLM(config)


def file_of(rows: int) -> list[dict]:
    """Prompts with responses of one to five joined texts."""
    texts = [
        (one.instructions["detailed"], one.responses["detailed", "correct"])
        for one in held_out("mini_arithmetic", 400, 0)
    ]
    random = Random(0)
    drawn = [random.sample(texts, 1 + at % 5) for at in range(rows)]
    return [{"prompt": some[0][0], "completion": " ".join(text for _, text in some)} for some in drawn]


def bare(model, batches, trained: bool) -> None:
    model.requires_grad_(trained)
    for batch in batches:
        longest = max(len(sample.ids) for sample in batch)
        ids = torch.tensor([[*sample.ids, *[sample.ids[-1]] * (longest - len(sample.ids))] for sample in batch])
        counted = torch.tensor([[*sample.response, *[False] * (longest - len(sample.ids))] for sample in batch])
        first = 0 if trained else int(counted.any(0).nonzero()[0]) - 1
        embedded = model.get_input_embeddings()(ids)
        embedded = embedded if trained else embedded.detach().requires_grad_()
        logits = model(inputs_embeds=embedded, use_cache=False, logits_to_keep=longest - first).logits[:, :-1]
        targets = ids.masked_fill(~counted, -100)[:, first + 1 :]
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").backward()
        model.zero_grad()


def spent(call) -> float:
    begun = time.process_time()
    call()
    return time.process_time() - begun


def one_width(width: int, rows: int, repeats: int) -> dict:
    model, tokenizer = model_of(width, LAYERS).train(), load_tokenizer(ROOT / "resources/miniature/base")
    given = file_of(rows)
    scorer = Scorer(model, tokenizer, SETTINGS)
    batches = []
    for chunk in chunks(scorer.items(rows_of(given, SETTINGS, "rows"))):
        samples = {at: item.sample for at, item in enumerate(chunk)}
        batches += [[samples[at] for at in batch] for batch in plan_batches(samples, SETTINGS.batch_tokens)]
    lengths = sorted(len(sample.ids) for batch in batches for sample in batch)

    def scored():
        with tempfile.TemporaryDirectory() as folder:
            score_data(model, given, Path(folder), SETTINGS, tokenizer=tokenizer)

    calls = {
        "trained": lambda: bare(model, batches, True),
        "frozen": lambda: bare(model, batches, False),
        "score": scored,
    }
    times: dict[str, float] = {}
    bare(model, batches[-1:], True)
    for _ in range(repeats):
        # In turn, so that a busy moment of the machine touches all alike.
        for name, call in calls.items():
            times[name] = min(times.get(name, float("inf")), spent(call))
    return {
        "width": width,
        "layers": LAYERS,
        "rows": rows,
        "tokens": sum(lengths),
        "median_tokens": lengths[rows // 2],
        "longest": lengths[-1],
        **{f"{name}_s": round(value, 2) for name, value in times.items()},
        "score_per_trained": round(times["score"] / times["trained"], 3),
        "score_per_frozen": round(times["score"] / times["frozen"], 3),
    }


def stream(rows: int) -> None:
    """In a process of its own: score so many short rows on a tiny model, and print the peak memory."""
    torch.set_num_threads(1)
    tokenizer = load_tokenizer(ROOT / "resources/miniature/base")
    model = model_of(32, 4, len(tokenizer))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        with open(path, "w") as file:
            for at in range(rows):
                file.write(
                    json.dumps({"prompt": f"What is {at} plus 3?", "completion": f" {at} + 3 = {at + 3}."}) + "\n"
                )
        begun = time.process_time()
        score_data(model, path, Path(folder) / "out", SETTINGS, tokenizer=tokenizer)
        seconds = time.process_time() - begun
        size = sum(each.stat().st_size for each in Path(folder, "out").rglob("*") if each.is_file())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"rows": rows, "seconds": round(seconds, 1), "peak_mb": peak // 1024, "folder_mb": size >> 20}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--stream", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--only", type=int, help="score so many rows in this process")
    options = parser.parse_args()
    if options.only:
        stream(options.only)
        return
    torch.set_num_threads(2)
    options.output.mkdir(parents=True, exist_ok=True)
    if options.rows:
        found = []
        for width in options.widths:
            found.append(one_width(width, options.rows, options.repeats))
            print(found[-1], flush=True)
        pl.DataFrame(found).write_csv(options.output / "score.csv")
    lines = []
    for rows in options.stream:
        command = [sys.executable, "-m", "benchmarks.score", "--only", str(rows)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        lines.append(json.loads(done.stdout.splitlines()[-1]))
        print(lines[-1], flush=True)
    if lines:
        pl.DataFrame(lines).write_csv(options.output / "score_memory.csv")


if __name__ == "__main__":
    main()
