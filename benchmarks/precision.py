"""What each precision of the pass gives and costs, side by side in one run.

  python -m benchmarks.precision --output benchmarks/results     # a minute or two

exact     the model in float64, autograd's own weight gradients of Q, K, V and O, one sample at a time, full SVD
float32, float64, bfloat16, float16
          the engine, with the pass (weights included) in that precision and the spectra as it takes them from there

On the committed miniature with detailed responses of its own grammar, and on Llamas with random weights and tokens:
a wider one, and one with a large vocabulary and a long response, whose mean loss has small gradients. Errors are
relative, over samples, layers and projections; left out are gradients below 1e-6 of their sample's largest, which are
rounding of zero. Times are processor time of a pass and its spectra, all metrics, the least of the repeats: other jobs
on the machine count for little.
"""

import argparse
import platform
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from gradatlas.data.jobs import ResponseSettings, build_responses
from gradatlas.gradients.capture import Capture
from gradatlas.gradients.plan import read_rows
from gradatlas.gradients.spectra import METRICS, spectra
from gradatlas.models.tokens import Encoded, Encoder

MINIATURE = "resources/miniature/base"
DTYPES = ("float32", "float64", "bfloat16", "float16")
NORMS = ("nuclear_norm", "sigma_max", "frobenius_norm")
FLOOR = 1e-6
SAMPLES = 8
WIDTH, LAYERS, VOCABULARY, BATCH, TOKENS = 512, 2, 2048, 2, 128
LONG_WIDTH, LONG_LAYERS, LONG_VOCABULARY, LONG_TOKENS, LONG_PROMPT = 256, 4, 32_000, 1024, 24


def miniature(dtype: torch.dtype) -> Any:
    return AutoModelForCausalLM.from_pretrained(MINIATURE, dtype=dtype)


def random_llama(dtype: torch.dtype, width: int, layers: int, vocabulary: int) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
    )
    return LlamaForCausalLM(config).to(dtype)


def random_tokens(samples: int, tokens: int, prompt: int, vocabulary: int) -> list[Encoded]:
    rows = torch.randint(0, vocabulary, (samples, tokens), generator=torch.Generator().manual_seed(1)).tolist()
    return [Encoded(tuple(row), tuple(i >= prompt for i in range(tokens)), False) for row in rows]


def detailed() -> list[Encoded]:
    """The miniature's detailed responses to questions that it was not trained on."""
    encoder = Encoder(AutoTokenizer.from_pretrained(MINIATURE), chat=False, max_length=1024)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/mini_arithmetic.parquet"
        kinds = {"variants": ["detailed"], "relations": ["correct"]}
        settings = ResponseSettings(reader="miniature", gold="none", seed=0, questions=SAMPLES, **kinds)
        build_responses(dataset="mini_arithmetic", output=Path(path), settings=settings)
        return [encoder.encode(row.instruction, row.response) for row in read_rows(path)]


def exact(model: Any, sample: Encoded) -> torch.Tensor:
    """(layers, projections, norms), the slow way."""
    modules = [[getattr(layer.self_attn, f"{name}_proj") for name in "qkvo"] for layer in model.model.layers]
    ids = torch.tensor([sample.ids])
    losses = torch.nn.functional.cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none")
    weights = [module.weight for layer in modules for module in layer]
    gradients = torch.autograd.grad(losses[torch.tensor(sample.response[1:])].mean(), weights)
    found = []
    for gradient in gradients:
        sigma = torch.linalg.svdvals(gradient)
        found.append(torch.stack([sigma.sum(), sigma[0], sigma.norm()]))
    return torch.stack(found).view(len(modules), 4, len(NORMS))


def measured(capture: Capture, batch: Sequence[Encoded]) -> torch.Tensor:
    """(samples, layers, projections, metrics)."""
    return torch.stack([spectra(done.factors) for done in capture.run(batch)])


def compare(name: str, make: Any, batch: Sequence[Encoded], repeats: int) -> list[dict]:
    model = make(torch.float64).eval()
    truth = torch.stack([exact(model, sample) for sample in batch])
    largest = truth[..., NORMS.index("frobenius_norm")].amax((1, 2), keepdim=True)
    counted = truth[..., NORMS.index("frobenius_norm")] >= FLOOR * largest
    columns = [METRICS.index(norm) for norm in NORMS]
    captures = {dtype: Capture(make(getattr(torch, dtype))) for dtype in DTYPES}
    errors = {
        dtype: (measured(capture, batch)[..., columns] / truth - 1).abs()[counted]
        for dtype, capture in captures.items()
    }
    seconds = dict.fromkeys(DTYPES, float("inf"))
    # Turn about, so that a noisy moment hits all alike.
    for _ in range(repeats):
        for dtype, capture in captures.items():
            begun = time.process_time()
            measured(capture, batch)
            seconds[dtype] = min(seconds[dtype], time.process_time() - begun)
    rows = [
        {
            "model": name,
            "precision": dtype,
            **{f"{norm}_median": float(errors[dtype][:, i].median()) for i, norm in enumerate(NORMS)},
            **{f"{norm}_largest": float(errors[dtype][:, i].max()) for i, norm in enumerate(NORMS)},
            "time_per_float32": seconds[dtype] / seconds["float32"],
            "gradients": int(counted.sum()),
            "left_out": int((~counted).sum()),
        }
        for dtype in DTYPES
    ]
    print(*rows, sep="\n", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="benchmarks/results", help="folder for precision.csv")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = compare("miniature", miniature, detailed(), given.repeats)
    rows += compare(
        f"random, width {WIDTH}",
        lambda dtype: random_llama(dtype, WIDTH, LAYERS, VOCABULARY),
        random_tokens(BATCH, TOKENS, TOKENS // 2, VOCABULARY),
        given.repeats,
    )
    rows += compare(
        f"random, vocabulary {LONG_VOCABULARY}",
        lambda dtype: random_llama(dtype, LONG_WIDTH, LONG_LAYERS, LONG_VOCABULARY),
        random_tokens(1, LONG_TOKENS, LONG_PROMPT, LONG_VOCABULARY),
        given.repeats,
    )
    machine = {
        "machine": platform.processor() or platform.machine(),
        "threads": given.threads,
        "torch": torch.__version__,
    }
    frame = pl.DataFrame([{**row, **machine} for row in rows])
    folder = Path(given.output)
    folder.mkdir(parents=True, exist_ok=True)
    frame.write_csv(folder / "precision.csv")


if __name__ == "__main__":
    main()
