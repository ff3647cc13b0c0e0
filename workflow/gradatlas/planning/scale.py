"""The tables of docs/scale.md: the formulas from 1,000 to a million samples, from half a billion parameters to 70.

python -m gradatlas.planning.scale
"""

from collections.abc import Iterator, Sequence

from gradatlas.planning import costs
from gradatlas.planning.estimates import in_bytes
from gradatlas.planning.shapes import Shape
from gradatlas.planning.throughput import CORE, GPU

#: Parameters and shapes as in the models' config.json.
MODELS = {
    "Qwen1.5-0.5B": (463_987_712, Shape(24, 1024, 2816, 16, 16, 64, 151_936, 32_768, "bfloat16", True)),
    "Qwen2.5-1.5B": (1_543_714_304, Shape(28, 1536, 8960, 12, 2, 128, 151_936, 131_072, "bfloat16", True)),
    "Llama-3.1-8B": (8_030_261_248, Shape(32, 4096, 14_336, 32, 8, 128, 128_256, 131_072, "bfloat16", False)),
    "Qwen2.5-14B": (14_770_033_664, Shape(48, 5120, 13_824, 40, 8, 128, 152_064, 131_072, "bfloat16", False)),
    "Llama-3.1-70B": (70_553_706_496, Shape(80, 8192, 28_672, 64, 8, 128, 128_256, 131_072, "bfloat16", False)),
}
SAMPLES = (10**3, 10**4, 10**5, 10**6)
PROJECTIONS, TOKENS, BATCH = ("q", "k", "v", "o"), 512, 4096


def work() -> Iterator[list[str]]:
    """By model, FLOP of a sample's pass and spectra at three lengths."""
    yield ["model", *(f"{part}, {tokens} tokens" for tokens in (128, 512, 1024) for part in ("pass", "spectra"))]
    for name, (parameters, shape) in MODELS.items():
        cells = []
        for tokens in (128, 512, 1024):
            core, entries = costs.spectra_flop(shape, {tokens: 1}, PROJECTIONS)
            cells += [costs.pass_flop(parameters, shape, {tokens: 1}), core + entries]
        yield [name, *(f"{cell / 1e12:.3g} T" for cell in cells)]


def time() -> Iterator[list[str]]:
    """By model and number of samples of 512 tokens, hours of one GPU."""
    yield ["GPU-hours", *(f"{count:,} samples" for count in SAMPLES), "of these passes", "1,000 samples, core-hours"]
    for name, (parameters, shape) in MODELS.items():
        core, entries = costs.spectra_flop(shape, {TOKENS: 1}, PROJECTIONS)
        passes = costs.pass_flop(parameters, shape, {TOKENS: 1}) + entries
        one = {
            rate: costs.seconds([(passes, rate.passes), (core, rate.spectra)], 0, 0, 1) - costs.START
            for rate in (GPU, CORE)
        }
        hours = [_hours(one[GPU] * count) for count in SAMPLES]
        yield [name, *hours, f"{passes / GPU.passes / 1e12 / one[GPU]:.0%}", _hours(one[CORE] * 1000)]


def memory() -> Iterator[list[str]]:
    """By model and precision, memory of the weights and of a batch, and of one sample alone."""
    yield [
        "GPU memory",
        "weights, float32",
        "batch of 4,096 tokens",
        "one sample of 512",
        "weights, bfloat16",
        "batch",
        "one sample",
    ]
    for name, (parameters, shape) in MODELS.items():
        cells = []
        for dtype in ("float32", "bfloat16"):
            cells.append(costs.weight_bytes(parameters, dtype))
            cells += [costs.pass_bytes(shape, TOKENS, tokens, dtype, PROJECTIONS) for tokens in (BATCH, TOKENS)]
        yield [name, *map(in_bytes, cells)]


def disk() -> Iterator[list[str]]:
    """By model and number of samples, bytes of the spectra's table and of the journal together."""
    yield ["table and journal", *(f"{count:,} samples" for count in SAMPLES)]
    for name, (_, shape) in MODELS.items():
        sizes = [sum(costs.gradients_disk(count, shape.layers, len(PROJECTIONS))) for count in SAMPLES]
        yield [name, *map(in_bytes, sizes)]


def held() -> Iterator[list[str]]:
    """By model and number of samples, main memory of the numbers that one job of gradients holds."""
    yield ["main memory of one job", *(f"{count:,} samples" for count in SAMPLES)]
    for name, (_, shape) in MODELS.items():
        yield [name, *(in_bytes(costs.RECORD * count * shape.layers * len(PROJECTIONS)) for count in SAMPLES)]


TABLES = (work, time, memory, disk, held)


def markdown(rows: Iterator[Sequence[str]]) -> list[str]:
    """A table of Markdown."""
    head, *others = rows
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *others)]


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.2g}"


if __name__ == "__main__":
    print("\n\n".join("\n".join(markdown(table())) for table in TABLES))
