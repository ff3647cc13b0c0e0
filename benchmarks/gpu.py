"""What exact spectra cost on a GPU beside the bare pass: by solver, precision and shape; peak memory; errors.

  python -m benchmarks.gpu                                # one GPU, under 10 minutes
  python -m benchmarks.gpu --device cpu --shapes toy --tokens 16 32 --batch-tokens 64 --repeats 1   # does it run?
  python -m benchmarks.gpu --only-write                   # Parquet, chart and table from the CSV alone

bare      frozen weights, forward and backward to all block inputs, loss on the response half
engine    the same, with X and D recorded, and all metrics but mean, max and min (`without`), or all of them (`with`)

Shapes of real models with random weights made on the device, of 2 and of 4 layers. The time of the full depth is that
of 4 layers, and for each layer more half of what 2 more take. `--batch-tokens` tokens a batch; half of a sample's
tokens are response. Times are the least of the repeats, each of four batches, with one ahead, as in a job.
"""

import argparse
import csv
import gc
import json
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import shapes
from gradatlas.gradients.capture import Capture
from gradatlas.gradients.metrics import OF_MATRIX
from gradatlas.gradients.solvers import FastestSolver
from gradatlas.gradients.spectra import start
from gradatlas.models.tokens import Encoded

METRICS = tuple(OF_MATRIX)
CHEAP = tuple(name for name in METRICS if name not in ("mean", "max", "min"))
SHORT, LONG, BATCHES = 2, 4, 4
#: Samples of the job whose batches are halved.
HALVED = 64
#: Those of real models, and a tiny one that a CPU can try.
SHAPES = shapes.SHAPES | {
    "toy": ("Llama", 6, {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 128,
                         "num_attention_heads": 4, "num_key_value_heads": 2}),
}  # fmt: skip
DEFAULT = ("Qwen2-1.5B", "gemma-2-2b", "Llama-3.1-8B")
MINIATURE = Path(__file__).resolve().parents[1] / "resources/miniature/base"


class Rows:
    """The measured rows, in the file as soon as they are known: a time limit loses none. A row is (what, value)s."""

    NAMES = ("section", "model", "tokens", "samples", "precision", "route", "what", "value")

    def __init__(self, path: Path, facts: dict[str, Any]):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "w", newline="")  # noqa: SIM115 - open until the end
        self._writer = csv.DictWriter(self._file, [*self.NAMES, *facts], lineterminator="\n")
        self._writer.writeheader()
        self._facts = facts

    def add(self, section: str, values: dict[str, Any], **about: Any) -> None:
        for what, value in values.items():
            self._writer.writerow({"section": section, "what": what, "value": value, **about, **self._facts})
        self._file.flush()
        shown = {what: float(f"{value:.3g}") if isinstance(value, float) else value for what, value in values.items()}
        print(section, *about.values(), shown, flush=True)


def model_of(shape: str, dtype: torch.dtype, device: str, layers: int = LONG) -> Any:
    kind, _, sizes = SHAPES[shape]
    return shapes.random_model(kind, layers, sizes, device).to(dtype).requires_grad_(False)


def batch_of(vocabulary: int, tokens: int, count: int) -> list[Encoded]:
    rows = torch.randint(0, vocabulary, (count, tokens), generator=torch.Generator().manual_seed(1)).tolist()
    mask = tuple(at >= tokens // 2 for at in range(tokens))
    return [Encoded(tuple(row), mask, False) for row in rows]


def bare(model: Any, batch: Sequence[Encoded]) -> None:
    ids = torch.tensor([sample.ids for sample in batch], device=model.device)
    first = ids.shape[1] // 2 - 1
    embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
    logits = model(inputs_embeds=embedded, use_cache=False, logits_to_keep=ids.shape[1] - first).logits[:, :-1]
    loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, first + 1 :].flatten())
    loss.backward()


def engine(capture: Capture, batch: Sequence[Encoded], metrics: Sequence[str], solve: Any, again: list[float]) -> None:
    """`BATCHES` batches as a job does them: the next pass is queued before a batch's numbers are waited for.

    `again` gets the part of the samples that are measured once more, alone, since squares were not exact enough.
    """

    def begun(samples: Sequence[Encoded], hold: bool) -> Callable[[], list]:
        factors = [done.factors for done in capture.run(samples)]
        return start(factors, metrics, with_values=False, solve=solve, hold=hold)

    def finish(found: list) -> None:
        doubtful = [sample for sample, one in zip(batch, found, strict=True) if one is None]
        again.append(len(doubtful) / len(batch))
        for sample in doubtful:
            begun([sample], hold=True)()

    waiting = None
    for _ in range(BATCHES):
        queued = begun(batch, hold=False)
        if waiting:
            finish(waiting())
        waiting = queued
    finish(waiting())


class Timer:
    """Seconds and peak bytes of calls on one device."""

    def __init__(self, device: str, repeats: int):
        self.on_gpu, self.repeats = device == "cuda", repeats

    def __call__(self, call: Callable[[], Any], per: int = 1) -> float:
        """The least seconds of a call, a `per`-th of it, after one that is not timed."""
        call()
        seconds = []
        for _ in range(self.repeats):
            self.wait()
            begun = time.perf_counter()
            call()
            self.wait()
            seconds.append((time.perf_counter() - begun) / per)
        return min(seconds)

    def wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()

    def peak(self, call: Callable[[], Any]) -> int | None:
        """Most bytes in tensors during a call, the model's weights among them."""
        if not self.on_gpu:
            return None
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        call()
        self.wait()
        return torch.cuda.max_memory_allocated()


def measure_shape(
    rows: Rows, timer: Timer, model: Any, shape: str, tokens: int, count: int, precision: str, solve: Any, route: str
) -> None:
    """One row set: bare and engine at both depths, scaled to the full one."""
    layers, batch = model.model.layers, batch_of(model.config.vocab_size, tokens, count)
    seconds: dict[str, list[float]] = {}
    again: list[float] = []
    try:
        for depth in (SHORT, LONG):
            model.model.layers, model.config.num_hidden_layers = layers[:depth], depth
            with Capture(model) as capture:
                calls = {
                    "bare": (partial(bare, model, batch), 1),
                    "recorded": (partial(capture.run, batch), 1),
                    "without": (partial(engine, capture, batch, CHEAP, solve, again), BATCHES),
                    "with": (partial(engine, capture, batch, METRICS, solve, again), BATCHES),
                }
                for name, (call, per) in calls.items():
                    seconds.setdefault(name, []).append(timer(call, per))
                if depth == LONG:
                    peaks = {name: timer.peak(calls[name][0]) for name in ("bare", "with")}
    finally:
        model.model.layers, model.config.num_hidden_layers = layers, LONG
    full = {name: long + (SHAPES[shape][1] - LONG) * (long - short) / 2 for name, (short, long) in seconds.items()}
    values: dict[str, Any] = {
        f"{name}_per_bare_of_{LONG}_layers": seconds[name][1] / seconds["bare"][1] for name in ("without", "with")
    }
    if min(full.values()) > 0:
        values |= {f"{name}_s": value for name, value in full.items()}
        values |= {f"{name}_per_bare": full[name] / full["bare"] for name in ("recorded", "without", "with")}
        values["samples_per_s"] = count / full["without"]
    else:
        print(f"{shape}, {tokens} tokens: {LONG} layers took no longer than {SHORT}; not scaled up", flush=True)
    values["measured_again"] = sum(again) / len(again)
    if peaks["bare"]:
        values |= {f"{name}_peak_gib": peak / 2**30 for name, peak in peaks.items()}
    about = {"model": shape, "tokens": tokens, "samples": count, "precision": precision, "route": route}
    rows.add("engine", values, **about)


def measure_solvers(rows: Rows, timer: Timer, device: str, sizes: Sequence[int], routes: Sequence[str]) -> None:
    """Seconds a matrix of each route, for as many matrices as a batch has, up to 512 MiB of them."""
    for size in sizes:
        x = torch.randn(min(1024, (1 << 26) // size**2), size, size, device=device, dtype=torch.float64)
        square = x @ x.mT
        for route in routes:
            # One after the other: few show it.
            part = square[:8] if route == "torch" else square
            try:
                solve = FastestSolver(torch.get_num_threads(), (route,))
                seconds = timer(lambda solve=solve, part=part: solve(part.clone())(), len(part))
            except Exception as error:
                print("solver", size, route, f"{type(error).__name__}: {error}"[:200], flush=True)
                continue
            rows.add("solver", {"seconds_a_matrix": seconds}, tokens=size, samples=len(part), route=route)


def measure_errors(rows: Rows, shape: str, device: str, tokens: int, solve: Any) -> None:
    """Relative error of nuclear norms against a float64 pass: median and largest over samples, layers, projections."""
    batch = batch_of(SHAPES[shape][2]["vocab_size"], tokens, 2)

    def norms(dtype: torch.dtype) -> torch.Tensor:
        model = model_of(shape, torch.float64, device).to(dtype)
        found = start(
            [done.factors for done in Capture(model).run(batch)], ("nuclear_norm",), with_values=False, solve=solve
        )
        return torch.stack([one.metrics for one in found()])

    exact = norms(torch.float64)
    for precision, dtype in PRECISIONS.items():
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        error = (norms(dtype) / exact - 1).abs()
        torch.backends.cuda.matmul.allow_tf32 = False
        values = {"error_median": float(error.median()), "error_largest": float(error.max())}
        rows.add("error", values, model=shape, tokens=tokens, samples=2, precision=precision)


PRECISIONS = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def measure_halving(rows: Rows, device: str) -> None:
    """A job on the miniature whose first batch does not fit into the memory that it may use."""
    from gradatlas.gradients.measure import measure
    from gradatlas.gradients.settings import Settings

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        entries = [
            {"instruction": f"What is {n} + {n}?", "input": "", "output": f"{n} + {n} = {2 * n}. " * 12}
            for n in range(HALVED)
        ]
        (place / "made.json").write_text(json.dumps(entries))

        def seconds(name: str, batch_tokens: int) -> float:
            begun = time.perf_counter()
            settings = Settings(device="cuda" if device == "cuda" else "cpu", batch_tokens=batch_tokens)
            paths = (str(place / f"{name}.{table}.parquet") for table in ("samples", "spectra"))
            measure(str(MINIATURE), str(place / "made.json"), *paths, settings)
            return time.perf_counter() - begun

        fits = seconds("fits", 2048)
        if device != "cuda":
            rows.add("halving", {"fits_s": fits})
            return
        torch.cuda.empty_cache()
        held = torch.cuda.memory_reserved() + (384 << 20)
        torch.cuda.set_per_process_memory_fraction(held / torch.cuda.get_device_properties(0).total_memory)
        try:
            halved = seconds("halved", 1 << 20)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        import pyarrow.parquet as pq

        ours, theirs = (
            pq.read_table(place / f"{name}.spectra.parquet")["nuclear_norm"].to_numpy() for name in ("halved", "fits")
        )
        rows.add("halving", {"fits_s": fits, "halved_s": halved, "largest_change": float(abs(ours / theirs - 1).max())})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", type=Path, default=Path("benchmarks/results"), help="folder of gpu.csv and the rest"
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=DEFAULT)
    parser.add_argument("--tokens", type=int, nargs="+", default=[64, 128, 256, 512, 1024])
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--routes", nargs="+", default=["nvmath", "cupy", "torch", "pool"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=9, help="no section begins after this time")
    parser.add_argument("--only-write", action="store_true", help="write from the CSV that is there, measure nothing")
    given = parser.parse_args()
    path = given.output / "gpu.csv"
    if not given.only_write:
        measure_all(given, path)
    write(path)


def measure_all(given: argparse.Namespace, path: Path) -> None:
    ends = time.monotonic() + 60 * given.minutes
    if given.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no NVIDIA GPU that this PyTorch can use; --device cpu --shapes toy shows that it runs")
    name = torch.cuda.get_device_name() if given.device == "cuda" else platform.processor() or platform.machine()
    version = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    rows = Rows(
        path,
        {
            "device": name,
            "torch": torch.__version__,
            "cuda": torch.version.cuda or "",
            "threads": torch.get_num_threads(),
            "code": version.stdout.strip(),
        },
    )
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    timer = Timer(given.device, given.repeats)
    solve = FastestSolver(torch.get_num_threads(), tuple(given.routes))
    middle = sorted(given.tokens)[len(given.tokens) // 2]

    def sections():
        yield lambda: measure_solvers(rows, timer, given.device, given.tokens, given.routes)
        for shape in given.shapes:
            models: list[Any] = []

            def made(shape: str = shape, models: list = models) -> Any:
                if not models:
                    models.append(model_of(shape, torch.float32, given.device))
                return models[0]

            for tokens in given.tokens:
                count = max(1, given.batch_tokens // tokens)
                yield lambda made=made, shape=shape, tokens=tokens, count=count: measure_shape(
                    rows, timer, made(), shape, tokens, count, "float32", solve, "fastest"
                )
            count = max(1, given.batch_tokens // middle)
            for precision in ("tf32", "bfloat16"):

                def of_precision(precision=precision, made=made, shape=shape, count=count) -> None:
                    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
                    model = made().to(PRECISIONS[precision])
                    measure_shape(rows, timer, model, shape, middle, count, precision, solve, "fastest")
                    torch.backends.cuda.matmul.allow_tf32 = False

                yield of_precision
            models.clear()
            yield lambda shape=shape: measure_errors(rows, shape, given.device, middle, solve)
        yield lambda: measure_halving(rows, given.device)
        shape, models, count = given.shapes[0], [], max(1, given.batch_tokens // middle)
        for route in given.routes:
            one = FastestSolver(torch.get_num_threads(), (route,))

            def by_route(shape=shape, models=models, count=count, one=one, route=route) -> None:
                models[:] = models or [model_of(shape, torch.float32, given.device)]
                measure_shape(rows, timer, models[0], shape, middle, count, "float32", one, route)

            yield by_route

    for section in sections():
        if time.monotonic() > ends:
            print(f"stopped after {given.minutes} minutes", flush=True)
            return
        try:
            section()
        except Exception as error:
            print(f"left out: {type(error).__name__}: {error}"[:400], flush=True)
        gc.collect()
        if given.device == "cuda":
            torch.cuda.empty_cache()


def write(path: Path) -> None:
    """Parquet, chart and Markdown table beside the CSV."""
    import altair as alt
    import polars as pl

    frame = pl.read_csv(path, schema_overrides={"value": pl.Float64})
    frame.write_parquet(path.with_suffix(".parquet"))
    found = frame.filter(pl.col("section") == "engine").pivot(
        "what", index=["device", "code", "model", "precision", "route", "tokens", "samples"], values="value"
    )
    # Missing where noise allowed no scaling, and on a CPU.
    expected = ("bare_s", "recorded_per_bare", "without_per_bare", "with_per_bare", "samples_per_s", "with_peak_gib")
    missing = [name for name in (*expected, "bare_peak_gib") if name not in found.columns]
    found = found.with_columns(pl.lit(None, pl.Float64).alias(name) for name in missing)
    found = found.filter(pl.col("bare_s").is_not_null())
    lines = [
        "| GPU, version | model | precision | solver | tokens | bare, a batch | recorded | all but mean, max, min | "
        "all metrics | samples/s | peak memory |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found.iter_rows(named=True):
        peak = row["with_peak_gib"]
        lines.append(
            f"| {row['device']}, {row['code']} | {row['model']} | {row['precision']} | {row['route']} | "
            f"{row['samples']} x {row['tokens']} | "
            f"{row['bare_s']:.3g} s | {row['recorded_per_bare']:.2f} | {row['without_per_bare']:.2f} | "
            f"{row['with_per_bare']:.2f} | {row['samples_per_s']:.3g} | "
            + (f"{peak:.1f} GiB ({peak / row['bare_peak_gib']:.2f} x bare) |" if peak else "|")
        )
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")
    names = {"without_per_bare": "spectrum alone", "with_per_bare": "all metrics"}
    long = found.filter((pl.col("route") == "fastest") & (pl.col("precision") == "float32")).unpivot(
        list(names), index=["model", "tokens"]
    )
    chart = (
        alt.Chart(long.with_columns(pl.col("variable").replace(names)), width=170, height=200)
        .mark_line(point=True)
        .encode(
            x=alt.X("tokens:O", title="Tokens", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("value:Q", title="Time, bare pass = 1", scale=alt.Scale(domainMin=1, zero=False)),
            color=alt.Color("variable:N", title="Metrics", legend=alt.Legend(labelLimit=0)),
            column=alt.Column("model:N", title=None),
        )
    )
    # Text is wider in a browser than where it was measured.
    chart.properties(padding={"left": 5, "top": 5, "right": 40, "bottom": 15}).save(path.with_suffix(".svg"))


if __name__ == "__main__":
    main()
