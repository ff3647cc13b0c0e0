"""Ways to the singular values of D^T X on a CPU, side by side in one run: what each takes, and what it changes.

  python -m benchmarks.eigenvalues --output benchmarks/results/eigenvalues.csv     # about six minutes of processor time

On the models of `benchmarks.engine`, and on real text of the committed miniature. Processor time (other jobs on the
machine count for little), the least of interleaved repeats, one thread a matrix as in the engine. Parts:

eigenvalues   of a layer's cores L^T (D D^T) L: PyTorch's LAPACK (MKL), SciPy's and its two-stage one (OpenBLAS)
products      the Gram matrix D D^T, and L^T W L for W = D D^T
sample        all singular values of a sample from its factors, with the engine's steps added one after the other
text          tokens of the miniature's responses that can be left out

`ms`: a matrix. `per_bare`: all matrices of a batch, bare pass = 1. `change`: largest relative change of a nuclear norm
against QR of both factors and an SVD. `share`: of spectra by QR (sample), or of tokens left out (text).
"""

import argparse
import ctypes
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, product
from pathlib import Path

import numpy as np
import polars as pl
import scipy
import torch
from scipy.linalg import blas, lapack
from torch import Tensor
from transformers import AutoTokenizer

from benchmarks.engine import BATCH, LAYERS, TOKENS, WIDTHS, bare, batch_of, model_of
from benchmarks.precision import MINIATURE, miniature
from gradatlas.data.jobs import ResponseSettings, build_responses
from gradatlas.gradients.capture import Capture
from gradatlas.gradients.cores import exact_values
from gradatlas.gradients.plan import read_rows
from gradatlas.gradients.symmetric import EPS, acting, congruence, eigenvalues, gram, moved, one_thread_each, shifted
from gradatlas.models.tokens import Encoder

UNSAFE, LEFT_OUT = 1e-6, 1e-7
MATRICES = 4 * LAYERS * BATCH


def two_stage(square: np.ndarray) -> np.ndarray:
    """LAPACK's dsyevd_2stage, which SciPy does not offer, from the OpenBLAS that it ships; for measuring only."""
    (path,) = Path(scipy.__file__).parent.parent.glob("scipy.libs/libscipy_openblas-*")
    size, info = len(square), ctypes.c_int()
    values, integers = np.empty(size), np.empty(size, np.int32)

    def call(matrix: np.ndarray, work: np.ndarray, length: int) -> None:
        at = [each.ctypes.data_as(ctypes.c_void_p) for each in (matrix, values, work, integers)]
        n, lwork, liwork = (ctypes.byref(ctypes.c_int(each)) for each in (size, length, size))
        routine = ctypes.CDLL(str(path)).scipy_dsyevd_2stage_
        routine(b"N", b"L", n, at[0], n, at[1], at[2], lwork, at[3], liwork, ctypes.byref(info), 1, 1)

    call(square, needed := np.empty(1), -1)
    call(square.copy(order="F"), np.empty(int(needed[0])), int(needed[0]))
    assert info.value == 0
    return values


def newton_schulz(square: Tensor) -> Tensor:
    """The trace of the root alone, by products (coupled Newton-Schulz), to 1e-8; at most 60 iterations."""
    scale = square.norm()
    root, inverse = square / scale, torch.eye(len(square), dtype=square.dtype)
    for _ in range(60):
        step = 1.5 * torch.eye(len(square), dtype=square.dtype) - 0.5 * inverse @ root
        before, root, inverse = root.trace(), root @ step, step @ inverse
        if abs(root.trace() - before) < 1e-8 * before:
            break
    return (root.trace() * scale.sqrt()).square()[None]


EIGENVALUES: dict[str, Callable] = {
    "torch eigvalsh (MKL dsyevd)": torch.linalg.eigvalsh,
    "numpy eigvalsh (OpenBLAS dsyevd), ours": eigenvalues,
    "the same in float32": lambda m: torch.linalg.eigvalsh(m.float()),
    "scipy dsyevr": lambda m: lapack.dsyevr(m.numpy(), compute_v=0, lower=1)[0],
    "scipy dsytrd, dsterf": lambda m: lapack.dsterf(*lapack.dsytrd(m.numpy(), lower=1, lwork=64 * len(m))[1:3])[0],
    "two-stage (OpenBLAS dsyevd_2stage)": lambda m: two_stage(m.numpy()),
    "eigenvectors too (torch eigh)": lambda m: torch.linalg.eigh(m)[0],
    "nuclear norm alone, Newton-Schulz": newton_schulz,
}
# Of D with rows scaled by |x_t|, W = D D^T in full, and L.
PRODUCTS: dict[str, Callable] = {
    "gram: plain": lambda of: of[0] @ of[0].mT,
    "gram: columns of 128": lambda of: in_columns(of[0]),
    "gram: numpy, ours": lambda of: gram(of[0]),
    "gram: scipy dsyrk": lambda of: blas.dsyrk(1.0, of[0].numpy().T, trans=1, lower=1),
    "L^T W L: plain": lambda of: of[2].mT @ (of[1] @ of[2]),
    "L^T W L: ours": lambda of: congruence(*of[1:]),
    "L^T W L: scipy dsygst": lambda of: lapack.dsygst(of[1].numpy(), of[2].numpy(), itype=2, lower=1),
    "W L alone: plain": lambda of: of[1] @ of[2],
    "W L alone: scipy dtrmm": lambda of: blas.dtrmm(1.0, of[2].numpy(), of[1].numpy(), side=1, lower=1),
}
# What the engine does, one step after the other.
STEPS = (
    "plain products",
    "+ bound after the spectrum",
    "+ L^T W L in blocks",
    "+ acting tokens only",
    "+ Gram matrices and eigenvalues by numpy",
)


def in_columns(x: Tensor, size: int = 128) -> Tensor:
    out = x.new_empty(len(x), len(x))
    for at in range(0, len(x), size):
        block = x[at:] @ x[at : at + size].mT
        out[at:, at : at + size], out[at : at + size, at:] = block, block.mT
    return out


def prepared(x: Tensor, product: Callable = gram) -> tuple[Tensor, Tensor, Tensor, float]:
    """K of unit rows, |x_t|, L and the shift."""
    lengths = x.double().square().sum(1).sqrt()
    unit = product(x.double() / lengths.clamp_min(1e-300)[:, None])
    shift = len(x) * EPS
    unit.diagonal().fill_(1 + shift)
    return unit, lengths, torch.linalg.cholesky_ex(unit)[0], shift


def by_grams(layer: list[tuple[Tensor, Tensor]], steps: int) -> Iterator[tuple[Tensor, bool]]:
    """Of each projection of a layer: its singular values, and whether QR was needed. One X is prepared once."""
    product, solve = (gram, eigenvalues) if steps > 4 else (in_columns, torch.linalg.eigvalsh)
    shared: dict[int, tuple] = {}
    for x, d in layer:
        kept = acting(x, d)
        rank = kept.sum()
        if steps > 3 and rank < 7 / 8 * len(x):
            unit, lengths, lower, shift = prepared(x[kept], product)
            rows = d[kept].double()
        else:
            if x.data_ptr() not in shared:
                shared[x.data_ptr()] = prepared(x, product)
            unit, lengths, lower, shift = shared[x.data_ptr()]
            rows = d.double()
        weights = product(rows * lengths[:, None])
        square = congruence(weights, lower) if steps > 2 else lower.mT @ (weights @ lower)
        sigma = solve(square).clamp_min(0).sqrt().flip(-1)
        bounds = shifted(unit, weights, shift)
        if steps > 1:
            sigma[rank:] = 0
        bound = moved(sigma, rank, *bounds) if steps > 1 else bounds[0]
        yield (sigma, False) if bound <= UNSAFE * sigma.sum() else (exact_values(x, d), True)


def timed(calls: dict[str, Callable], repeats: int) -> tuple[dict[str, float], dict[str, list]]:
    """Least processor seconds of each and what it returned; turn about, so that a noisy moment hits all alike."""
    best, found = dict.fromkeys(calls, float("inf")), {}
    for _ in range(repeats):
        for name, call in calls.items():
            begun = time.process_time()
            found[name] = call()
            best[name] = min(best[name], time.process_time() - begun)
    return best, found


def one_shape(width: int, tokens: int, threads: int, repeats: int) -> Iterator[dict]:
    torch.set_num_threads(1)
    model, batch = model_of(width), batch_of(tokens)
    factors = Capture(model).run(batch[:1])[0].factors
    model.requires_grad_(False)
    layers = [[(part.x[at], part.d[at]) for part in factors.values()] for at in range(LAYERS)]
    exact = torch.stack([torch.stack([exact_values(x, d).sum() for x, d in layer]) for layer in layers])
    one = []
    for x, d in layers[1]:
        _, lengths, lower, _ = prepared(x)
        scaled = d.double() * lengths[:, None]
        one.append((scaled, gram(scaled), lower, lower.mT @ gram(scaled) @ lower))

    def in_threads() -> None:
        torch.set_num_threads(threads)
        bare(model, batch)
        torch.set_num_threads(1)

    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:

        def over(each: list, routes: dict[str, Callable], more: dict[str, Callable]) -> tuple[dict, dict]:
            calls = {name: lambda route=route: list(pool.map(route, each)) for name, route in routes.items()}
            return timed({**calls, **more}, repeats)

        ways = {name: lambda layer, at=at: list(by_grams(layer, at)) for at, name in enumerate(STEPS, 1)}
        ways["QR and SVD"] = lambda layer: [(exact_values(x, d), True) for x, d in layer]
        times, found = over(layers, ways, {"bare": in_threads})
        unit = times.pop("bare")

        def row(part: str, route: str, seconds: float, count: int, **more: float) -> dict:
            shape = {"width": width, "tokens": tokens, "threads": threads, "part": part, "route": route}
            return {**shape, "ms": 1e3 * seconds / count, "per_bare": seconds / count * MATRICES / unit, **more}

        for name, seconds in times.items():
            sigma, slow = zip(*chain(*found[name]), strict=True)
            change = (torch.stack([each.sum() for each in sigma]) / exact.flatten() - 1).abs().max()
            yield row("sample", name, seconds, len(slow), change=float(change), share=sum(slow) / len(slow))
        times, found = over([square for *_, square in one], EIGENVALUES, {})
        for name, seconds in times.items():
            norms = [torch.as_tensor(values).double().clamp_min(0).sqrt().sum() for values in found[name]]
            yield row("eigenvalues", name, seconds, 4, change=float((torch.stack(norms) / exact[1] - 1).abs().max()))
        for name, seconds in over([each[:3] for each in one], PRODUCTS, {})[0].items():
            yield row("products", name, seconds, 4)


def text(samples: int) -> Iterator[dict]:
    """Tokens of real responses that add nothing to a gradient, and those that add at most `LEFT_OUT` of it together.

    The nuclear norm is at least the Frobenius norm, which is known from the Gram matrices before any spectrum; leaving
    out tokens changes it by at most the sum of their |x_t| |d_t|.
    """
    model, tokenizer = miniature(torch.float32), AutoTokenizer.from_pretrained(MINIATURE)
    encoder = Encoder(tokenizer, chat=False, max_length=1024)
    for variant in ("none", "simplified", "detailed"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "mini_arithmetic.parquet"
            kinds = {"variants": [variant], "relations": ["correct"]}
            settings = ResponseSettings(reader="miniature", gold="none", seed=0, questions=samples, **kinds)
            build_responses(dataset="mini_arithmetic", output=path, settings=settings)
            batch = [encoder.encode(each.instruction, each.response) for each in read_rows(str(path))]
        total = nothing = little = change = 0.0
        for done in Capture(model).run(batch):
            for x, d in ((x, d) for part in done.factors.values() for x, d in zip(part.x, part.d, strict=True)):
                size = x.double().norm(dim=1) * d.double().norm(dim=1)
                order = size.argsort()
                kept = order[size[order].cumsum(0) > LEFT_OUT * (d.double().mT @ x.double()).norm()]
                total, nothing = total + len(x), nothing + int((size == 0).sum())
                little += len(x) - len(kept)
                norms = [float(exact_values(x[at], d[at]).sum()) for at in (slice(None), kept)]
                change = max(change, abs(norms[1] / norms[0] - 1)) if norms[0] else change
        mean = round(total / len(batch) / model.config.num_hidden_layers / 4)
        shape = {"width": model.config.hidden_size, "tokens": mean, "part": "text"}
        yield {**shape, "route": f"{variant}: zero rows", "share": nothing / total}
        yield {**shape, "route": f"{variant}: at most 1e-7 together", "share": little / total, "change": change}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="benchmarks/results/eigenvalues.csv")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--samples", type=int, default=8, help="responses of the miniature")
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS)
    parser.add_argument("--threads", type=int, nargs="+", default=(1, 2))
    given = parser.parse_args()
    rows = []
    with one_thread_each():
        shapes = product(given.widths, given.tokens, given.threads)
        for row in chain(*(one_shape(*shape, given.repeats) for shape in shapes), text(given.samples)):
            rows.append(row)
            print(*row.values(), flush=True)
            pl.DataFrame(rows, infer_schema_length=None).write_csv(given.output)


if __name__ == "__main__":
    main()
