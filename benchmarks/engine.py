"""What exact spectra cost beside the bare pass, and beside the study's own way, side by side in one run.

  python -m benchmarks.engine --output benchmarks/results     # about 6 minutes on two cores

bare        frozen weights, forward and backward to all block inputs, the same batch, loss on the responses
spectra     the same, and all metrics but mean, max and min (`without`), or all of them (`with`)
before      as `without`, with the spectra.py of an older version (`--before FILE`)
reference   one sample at a time: full weight gradients of Q, K, V and O, full SVD with U and V

Llama-like models with random weights: full attention heads of 64 (the hardest case: K and V as wide as Q), d_ff 2.75
times the width, vocabulary 32,000; half of the tokens are response. Times are the least of the repeats.
"""

import argparse
import importlib.util
import math
import platform
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from gradatlas.gradients.capture import Capture
from gradatlas.gradients.spectra import METRICS, spectra, start
from gradatlas.models.tokens import Encoded

LAYERS, BATCH, VOCABULARY = 4, 2, 32_000
CHEAP = tuple(name for name in METRICS if name not in ("mean", "max", "min"))
WIDTHS, TOKENS = (1024, 1536, 2048), (128, 256, 512)


def model_of(width: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=LAYERS,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
    )
    return LlamaForCausalLM(config).eval()


def batch_of(tokens: int) -> list[Encoded]:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(0, VOCABULARY, (BATCH, tokens), generator=generator).tolist()
    mask = tuple(i >= tokens // 2 for i in range(tokens))
    return [Encoded(tuple(row), mask, False) for row in rows]


def bare(model, batch) -> None:
    ids = torch.tensor([sample.ids for sample in batch])
    first = ids.shape[1] // 2 - 1
    embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
    logits = model(inputs_embeds=embedded, use_cache=False, logits_to_keep=ids.shape[1] - first).logits[:, :-1]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, first + 1 :].flatten(), reduction="sum")
    loss.backward()


def ours(capture, batch, metrics) -> None:
    start([done.factors for done in capture.run(batch)], metrics, with_values=False)()


def older(capture, batch, spectra) -> None:
    for done in capture.run(batch):
        spectra(done.factors, CHEAP)


def module_of(path: str):
    """A file of another version as a module."""
    spec = importlib.util.spec_from_file_location("older_spectra", path)
    module = sys.modules["older_spectra"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def reference(model, sample) -> None:
    weights = [
        getattr(layer.self_attn, f"{name}_proj").weight.requires_grad_()
        for layer in model.model.layers
        for name in "qkvo"
    ]
    ids = torch.tensor([sample.ids])
    first = ids.shape[1] // 2 - 1
    logits = model(input_ids=ids, use_cache=False).logits[0, first:-1]
    torch.nn.functional.cross_entropy(logits, ids[0, first + 1 :]).backward()
    for weight in weights:
        torch.linalg.svd(weight.grad, full_matrices=False)
        weight.grad = None
        weight.requires_grad_(False)


def least(call, repeats: int) -> float:
    # With one thread, processor time: other jobs on the machine do not count.
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds = []
    for _ in range(repeats):
        begun = clock()
        call()
        seconds.append(clock() - begun)
    return min(seconds)


def one_shape(width: int, tokens: int, repeats: int, before=None, slow: bool = True) -> dict:
    model = model_of(width).requires_grad_(False)
    batch = batch_of(tokens)
    plain = least(lambda: reference(model, batch[0]), 1) * BATCH if slow else math.nan
    times = {}
    bare(model, batch)
    # Turn about, so that a noisy moment hits all alike.
    capture_model = model_of(width)
    capture = Capture(capture_model)
    ours(capture, batch, CHEAP)
    calls = {
        "bare": lambda: bare(model, batch),
        "without": lambda: ours(capture, batch, CHEAP),
        "with": lambda: ours(capture, batch, METRICS),
    }
    if before:
        calls["before"] = lambda: older(capture, batch, before.spectra)
    for _ in range(repeats):
        for name, call in calls.items():
            times[name] = min(times.get(name, float("inf")), least(call, 1))
    done = capture.run(batch[:1])[0]
    gradients = [(part.d[0].mT @ part.x[0]) for part in done.factors.values()]
    alone = least(lambda: spectra(done.factors, CHEAP), repeats) / LAYERS
    full = least(lambda: [torch.linalg.svd(g, full_matrices=False) for g in gradients], 1) if slow else math.nan
    return {
        "width": width,
        "tokens": tokens,
        **{f"{name}_s": value for name, value in times.items()},
        "reference_s": plain,
        "without_per_bare": times["without"] / times["bare"],
        "with_per_bare": times["with"] / times["bare"],
        "before_per_bare": times["before"] / times["bare"] if before else None,
        "speed_up": plain / times["with"],
        "bound": plain / times["bare"],
        "share_of_bound": times["bare"] / times["with"],
        "spectra_s_per_layer": alone,
        "full_svd_s_per_layer": full,
        "spectra_speed_up": full / alone,
    }


def peak(kind: str, width: int, tokens: int) -> None:
    """Print the most memory in MiB that this process held during a pass of `kind` (Linux)."""
    model = model_of(width)
    batch = batch_of(tokens)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of making the model
    if kind == "bare":
        bare(model.requires_grad_(False), batch)
    else:
        ours(Capture(model), batch, METRICS)
    held = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(int(held.split()[1]) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="benchmarks/results", help="folder for engine.parquet, .csv and .svg")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS)
    parser.add_argument("--peak", nargs=3, metavar=("KIND", "WIDTH", "TOKENS"), help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="without the study's own way and full SVDs")
    parser.add_argument("--before", help="spectra.py of an older version, timed beside this one")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    before = module_of(given.before) if given.before else None
    if given.peak:
        peak(given.peak[0], int(given.peak[1]), int(given.peak[2]))
        return
    rows = []
    for width in given.widths:
        for tokens in given.tokens:
            row = one_shape(width, tokens, given.repeats, before, not given.quick)
            command = [sys.executable, "-m", "benchmarks.engine", "--threads", str(given.threads), "--peak"]
            for kind in ("bare", "ours"):
                done = subprocess.run(
                    [*command, kind, str(width), str(tokens)], capture_output=True, text=True, check=True
                )
                row[f"{kind}_peak_mib"] = float(done.stdout.split()[-1])
            row["peak_per_bare"] = row["ours_peak_mib"] / row["bare_peak_mib"]
            machine = {"machine": platform.processor() or platform.machine(), "threads": given.threads}
            rows.append({**row, "layers": LAYERS, "batch": BATCH, **machine, "torch": torch.__version__})
            print(
                {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}, flush=True
            )
    write(pl.DataFrame(rows), Path(given.output))


def write(frame: pl.DataFrame, folder: Path) -> None:
    """The measured rows as Parquet and CSV, and a chart of the ratios."""
    import altair as alt

    folder.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(folder / "engine.parquet")
    frame.write_csv(folder / "engine.csv")
    names = {"without_per_bare": "without mean, max, min", "with_per_bare": "all metrics"}
    long = frame.unpivot(list(names), index=["width", "tokens"]).with_columns(pl.col("variable").replace(names))
    chart = (
        alt.Chart(long, width=170, height=200)
        .mark_line(point=True)
        .encode(
            x=alt.X("tokens:O", title="Tokens", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("value:Q", title="Time, bare pass = 1", scale=alt.Scale(domainMin=1, zero=False)),
            color=alt.Color("variable:N", title="Metrics", legend=alt.Legend(labelLimit=0)),
            column=alt.Column("width:O", title="Width"),
        )
    )
    chart.save(folder / "engine.svg")


if __name__ == "__main__":
    main()
