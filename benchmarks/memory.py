"""Memory of jobs on the CPU, for the formulas of planning/costs.py.

  python -m benchmarks.memory --output FILE.csv

Each study has one made-up model (random weights, the miniature's tokenizer) and one dataset of texts that fill most of
a window of 512 tokens; every job that reads the model is run once.
"""

import argparse
import csv
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.graph import make
from gradatlas.core.files import ROOT

#: Width, layers, feed-forward width and vocabulary of each model; the committed miniature first.
SHAPES = ((128, 6, 384, 1512), (256, 4, 688, 32_000), (512, 8, 1376, 32_000), (1024, 12, 2752, 32_000))
JOBS = ("measure-gradients", "score", "finetune", "check-step")
# Long answers, so that a batch of 4,096 tokens is full, and most of its logits count.
SAMPLES, WORDS, WINDOW = 8, 300, 512
# Imported by every process of the workflow. Snakemake's own benchmarks look too seldom for jobs of some seconds.
NOTE = """import atexit, resource, sys
def note():
    with open("peaks.txt", "a") as file:
        print(*sys.argv[1:2], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=file)
atexit.register(note)
"""
# Pairs have at most 64 tokens, so that they nearly fill their window too.
DYNAMICS = {"runs": ["smoke_dpo"], "models": ["m0"], "train": 8, "held_out": 4, "base_documents": 4, "probes": 3,
            "held_out_probes": 1, "max_new_tokens": 6, "generate_prompts": 2, "max_length": 72,
            "one_step": {"updates": 1, "probes": 1, "halvings": 1}}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="table to write (.csv)")
    parser.add_argument("--shapes", type=int, nargs="+", default=range(len(SHAPES)), help="only these, from 0")
    given = parser.parse_args()
    done: list[dict] = []
    for shape in given.shapes:
        with tempfile.TemporaryDirectory() as folder:
            done += measured(Path(folder) / "study", *SHAPES[shape])
        with open(given.output, "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, done[0], lineterminator="\n")
            table.writeheader()
            table.writerows(done)


def measured(folder: Path, width: int, layers: int, feedforward: int, vocabulary: int) -> Iterator[dict]:
    """Run a study's jobs, and yield the peak of each kind in MB."""
    data = {"dataset": "texts", "source": "texts.jsonl", "max_length": WINDOW}
    make(folder, 1, 1, samples="all", controls="none", dynamics=DYNAMICS, formats=["svg"])
    study = folder / "study.yaml"
    config = json.loads(study.read_text()) | {"max_length": WINDOW}
    config["datasets"] = [*config["datasets"], data]
    study.write_text(json.dumps(config))
    if width != SHAPES[0][0]:
        write_model(folder / "models/m0", width, layers, feedforward, vocabulary)
    write_texts(folder)
    (folder / "workflow/sitecustomize.py").write_text(NOTE)
    targets = ["gradients", "score", "results/dynamics/mini_qa/m0/seed_0/one_step.parquet"]
    targets.append("results/dynamics/mini_qa/m0/seed_0/smoke_dpo/status.json")
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", "study.yaml", "--", *targets]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
    parameters = json.loads((folder / "resources/models/m0.json").read_text())["parameters"]
    shape = {"width": width, "layers": layers, "feedforward": feedforward, "vocabulary": vocabulary}
    noted = [line.split() for line in (folder / "peaks.txt").read_text().splitlines()]
    for job in JOBS:
        peak = max(int(kilobytes) * 1024 for name, kilobytes in noted if name == job)
        yield {"job": job, **shape, "parameters": parameters, "peak_mb": round(peak / 1e6)}


def write_model(folder: Path, width: int, layers: int, feedforward: int, vocabulary: int) -> None:
    """A Llama-like model with random weights and the miniature's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    heads = width // 64
    config = LlamaConfig(
        hidden_size=width, num_hidden_layers=layers, intermediate_size=feedforward, vocab_size=vocabulary,
        num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=2048, bos_token_id=0,
        eos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    shutil.rmtree(folder)
    LlamaForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(ROOT / "resources/miniature/base" / name, folder)


def write_texts(folder: Path) -> None:
    """The dataset's questions and the training file, of the miniature's words."""
    rng = random.Random(0)
    words = ["three", "plus", "two", "is", "five", "and", "the", "answer", "born", "in", "a"]
    halves = [[" ".join(rng.choices(words, k=count)) for count in (10, WORDS)] for _ in range(SAMPLES)]
    rows = [{"question": a, "short": "five", "answer": "five", "long": b} for a, b in halves]
    pairs = [{"instruction": a, "output": b} for a, b in halves]
    for name, each in (("own0.jsonl", rows), ("texts.jsonl", pairs)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in each))


if __name__ == "__main__":
    main()
