"""Work, memory, disk and time of the jobs that read a model: the formulas that rules, `plan` and docs/scale.md share.

FLOP count a multiplication and an addition as two. Derivation: gradients/README.md, Cost.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from gradatlas.planning.shapes import QUANTISED, WIDTHS, Shape

#: Copies of the weights while a model is trained: weights, gradients, an optimiser's two moments, a saved state.
TRAINING = 5
#: Main memory of a process with its libraries, and what CUDA adds to it; bytes, measured.
LIBRARIES, CUDA = 550e6, 3e9
#: Copies of the logits in a pass: as they are, in float32, their softmax, its gradient.
LOGITS = 4
#: Numbers of a layer for each token that a pass keeps, in units of its width and of its feed-forward width.
OF_WIDTH, OF_FEEDFORWARD = 6, 3
#: Copies of the squares of a sample's tokens that spectra need in float64, for one projection of all layers.
SQUARES = 5
#: Seconds until a job's first sample, and of each sample and layer beside the arithmetic, measured on the miniature.
START, LAYER = 20, 0.005
#: Bytes on disk of one gradient in the spectra table, of one number in the journal, and of a sample in both.
SPECTRUM, NUMBER, SAMPLE_BYTES = 75, 8, 300
METRICS = 9
#: Main memory of one gradient's numbers, all of which a job holds until it writes its tables; bytes, measured.
RECORD = 750
Lengths = Mapping[int, int]


def pass_flop(parameters: int, shape: Shape | None, lengths: Lengths) -> float:
    """FLOP of forward and backward passes with frozen weights over samples: `lengths` has their number by tokens.

    Each linear layer takes two products of 2 FLOP a weight and token, the output layer too; attention takes 12 T^2
    times its width in each layer (kernels that skip masked pairs, half of that). Without a shape, attention is left out
    and all parameters count.
    """
    tokens = sum(length * count for length, count in lengths.items())
    if shape is None:
        return 4 * parameters * tokens
    # The embeddings are looked up, not multiplied; the output layer is.
    multiplied = parameters - (0 if shape.tied else shape.vocabulary * shape.width)
    squares = sum(length**2 * count for length, count in lengths.items())
    return 4 * multiplied * tokens + 12 * shape.heads * shape.head * shape.layers * squares


def spectra_flop(shape: Shape, lengths: Lengths, projections: Sequence[str]) -> tuple[float, float]:
    """FLOP of Gram matrices, products and eigenvalues of all layers' gradients, and of the products D^T X."""
    core = entries = 0.0
    # Q, K and V have one input, gate and up another.
    inputs = {"q": "x", "k": "x", "v": "x", "gate": "y", "up": "y"}
    for length, count in lengths.items():
        formed = set()
        for name in projections:
            rows, columns = shape.matrix(name)
            least = min(length, rows, columns)
            sums = 0.6 * length**2 * rows + length**2 * least + length * least**2 + 4 / 3 * least**3
            # A of LoRA has the input of its projection; B has one of its own.
            source = name if name.endswith(".lora_b") else inputs.get(name.partition(".")[0], name.partition(".")[0])
            if source not in formed:
                formed.add(source)
                sums += 0.6 * length**2 * columns + length**3 / 3
            core += 2 * sums * count
            entries += 2 * length * rows * columns * count
    return core * shape.layers, entries * shape.layers


def pass_bytes(shape: Shape, longest: int, batch_tokens: int, dtype: str, projections: Sequence[str]) -> float:
    """Memory of one batch's pass, or of its spectra where they need more, without the weights.

    `longest`: tokens of a sample, which is a batch of its own where it exceeds `batch_tokens`.
    """
    tokens, number = max(batch_tokens, longest), WIDTHS[dtype]
    wide = max(4, number)
    kept = OF_WIDTH * max(shape.width, shape.heads * shape.head) + OF_FEEDFORWARD * shape.feedforward
    factors = sum(sum(shape.matrix(name)) for name in projections)
    layers = shape.layers * (kept + factors) * number
    spectra = SQUARES * 8 * shape.layers * longest**2 + shape.layers * longest * factors * 8
    return max(tokens * (layers + LOGITS * wide * shape.vocabulary), tokens * shape.layers * factors * wide + spectra)


def weight_bytes(parameters: int, dtype: str, quantise: str = "") -> float:
    """Bytes of a model's weights in memory."""
    return parameters * (QUANTISED[quantise] if quantise else WIDTHS[dtype])


def host_bytes(weights: float, on_gpu: bool, work: float) -> float:
    """Main memory of a job: libraries and weights; `work`, of passes or training, is there too where no GPU has it."""
    return LIBRARIES + weights + (CUDA if on_gpu else work)


def gradients_disk(samples: int, layers: int, projections: int, metrics: int = METRICS) -> tuple[float, float]:
    """Bytes of a job's tables, and of its journal."""
    return (
        samples * (layers * projections * SPECTRUM + SAMPLE_BYTES / 4),
        samples * (layers * projections * metrics * NUMBER + SAMPLE_BYTES),
    )


def seconds(flop: Iterable[tuple[float, float]], samples: int, layers: int, threads: int) -> float:
    """Seconds of a job: `flop`, each with its TFLOP/s for one core or GPU, on so many of them; start and samples."""
    return START + samples * layers * LAYER + sum(each / rate / 1e12 for each, rate in flop) / threads


def minutes(seconds: float, most: float = math.inf) -> int:
    """A job's time limit: three times the estimate, at least half an hour, in steps of 10 minutes."""
    return int(min(most, max(30, math.ceil(3 * seconds / 600) * 10)))
