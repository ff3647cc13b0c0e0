"""The exact spectrum and entries of G = D^T X from its two factors: of one sample, or of several at once.

`start` gives a GPU all its work and returns; the function that it returns waits for the numbers. On the CPU everything
is computed at once, some layers of a sample in each of as many threads as PyTorch has.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property, partial

import torch
from torch import Tensor

from gradatlas.gradients.capture import Factors, place_of
from gradatlas.gradients.cores import (
    EPS,
    Inputs,
    all_finite,
    core,
    exact_values,
    gram,
    later,
    roots,
    squares,
    unsafe,
)
from gradatlas.gradients.metrics import FROM_FACTORS, OF_MATRIX, Gradients, extremes
from gradatlas.gradients.symmetric import acting, eigenvalues, one_thread_each
from gradatlas.study.settings import METRICS

#: Eigenvalues (n, size), ascending, of symmetric matrices (n, size, size): a function that returns them on the CPU. Two
#: solvers may differ by `TOLERANCE`.
Solver = Callable[[Tensor], Callable[[], Tensor]]
#: Relative error of a nuclear norm, at most, whichever the solver; of an effective rank ten times that.
TOLERANCE = 1e-6

# Bytes of float64 copies of factors and products: of one of the CPU's threads; on a GPU; and of cores that are solved
# together there.
_CACHED, _COPIES, _CORES = 1 << 23, 1 << 30, 1 << 30
# Samples shorter than this part of the longest are not padded to it.
_ALIKE = 0.9
# Largest relative error of the squared Frobenius norm as a sum over pairs of tokens; above it, the singular values are
# used.
_CANCELLED = 1e-9
# What `unsafe` reads of a `Core`.
_BOUNDS = ("before", "total", "error")


@dataclass(frozen=True)
class Spectrum:
    """The gradients of one sample.

    `metrics` (layers, projections, metrics), float64 on the CPU, NaN for a layer without the projection. `sigma`: by
    layer and projection min(tokens, in, out) singular values, largest first; empty if not asked for.
    `finite`: whether all factors are; the metrics of others are no numbers.
    """

    metrics: Tensor
    sigma: list[list[Tensor]]
    finite: bool


def spectra(factors: Mapping[str, Factors], metrics: Sequence[str] = METRICS) -> Tensor:
    """The `metrics` of every layer and projection of one sample: (layers, projections, metrics), as in `Spectrum`.

    `factors`: by projection, `x` (tokens, in) and `d` (tokens, out) of each layer; projections in their order.
    """
    return decompose(factors, metrics, with_values=False).metrics


def decompose(
    factors: Mapping[str, Factors], metrics: Sequence[str] = METRICS, *, with_values: bool = True
) -> Spectrum:
    """The `metrics` of one sample and, `with_values`, its singular values."""
    (found,) = start([factors], metrics, with_values=with_values)()
    return found


def plainly(square: Tensor) -> Callable[[], Tensor]:
    """The `Solver` of PyTorch, on any device."""
    return later(eigenvalues(square))


def start(
    samples: Sequence[Mapping[str, Factors]],
    metrics: Sequence[str] = METRICS,
    *,
    with_values: bool = True,
    solve: Solver = plainly,
    hold: bool = True,
    batched: bool | None = None,
) -> Callable[[], list[Spectrum | None]]:
    """Begin the `metrics` and singular values of several samples; the function returned gives each one's `Spectrum`.

    `batched`: whether all samples' matrices are solved together, by `solve`, or those of some layers of one sample in
    each of the CPU's threads; None: together on a GPU.
    `hold=False` keeps no factors of the batch; a sample that needs them once more, for the exact route, is then None.
    Samples of unlike length, and factors on several devices, are allowed.
    """
    wanted = _Wanted(tuple(metrics), with_values or not FROM_FACTORS.issuperset(metrics))
    inputs = [each for at, factors in enumerate(samples) for each in _inputs(at, factors)]
    apart, together = [], []
    for each in inputs:
        (together if batched or (batched is None and each.x.is_cuda) else apart).append(each)
    parts = _by_threads([part for each in apart for part in each.split(each.layers_in(_CACHED))], wanted)
    for group in _of_alike_length(together):
        some = _together(group, wanted, solve)
        for part in some if not hold else ():
            part.inputs = []
        parts += some
    shapes = [(len(next(iter(factors.values())).x), list(factors)) for factors in samples]
    return partial(_gather, parts, shapes, len(metrics), with_values)


@dataclass(frozen=True)
class _Wanted:
    metrics: tuple[str, ...]
    spectral: bool


@dataclass
class _Input:
    """X (layers, tokens, in) of some layers of a sample, and by projection their D (layers, tokens, out)."""

    sample: int
    layers: range
    x: Tensor
    d: dict[str, Tensor]

    @property
    def kind(self) -> tuple:
        """Inputs of one kind are computed together."""
        return self.x.dtype, self.x.shape[2], tuple((name, d.shape[2]) for name, d in self.d.items())

    def layers_in(self, size: int) -> int:
        """How many layers' float64 copies and products fit into so many bytes, at least one."""
        tokens, columns = self.x.shape[1:]
        widths = columns + sum(d.shape[2] for d in self.d.values())
        return max(1, size // (8 * tokens * (widths + 6 * tokens)))

    def split(self, size: int) -> Iterator["_Input"]:
        """The same, of at most `size` layers each."""
        for at in range(0, len(self.layers), size):
            end = at + size
            yield _Input(
                self.sample, self.layers[at:end], self.x[at:end], {name: d[at:end] for name, d in self.d.items()}
            )


def _inputs(sample: int, factors: Mapping[str, Factors]) -> Iterator[_Input]:
    """Each X once, with all projections that read it: those of all layers in one stack, where there is one."""
    if all(isinstance(factor.x, Tensor) for factor in factors.values()):
        stacks = [{name: (factor.x, factor.d) for name, factor in factors.items()}]
    else:
        layers = range(len(next(iter(factors.values())).x))
        stacks = [
            {name: (part.x[at][None], part.d[at][None]) for name, part in factors.items() if part.x[at] is not None}
            for at in layers
        ]
    for first, stack in enumerate(stacks):
        found: dict[tuple, _Input] = {}
        for name, (x, d) in stack.items():
            found.setdefault(place_of(x), _Input(sample, range(first, first + len(x)), x, {})).d[name] = d
        yield from found.values()


@dataclass
class _Part:
    """The gradients of one projection of several inputs of one kind, n matrices in all.

    `facts`: numbers (n,) by name, on the CPU once called. `square`: cores (n, size, size), until they are solved.
    `values`: their eigenvalues (n, size), on the CPU once called; None where none are needed.
    """

    inputs: list[_Input]
    name: str
    wanted: _Wanted
    shape: tuple[int, int]
    exact: bool
    facts: Callable[[], dict[str, Tensor]]
    square: Tensor | None
    values: Callable[[], Tensor] | None = None

    def __post_init__(self):
        self.places = [(each.sample, layer) for each in self.inputs for layer in each.layers]
        self.tokens = torch.tensor([each.x.shape[1] for each in self.inputs for _ in each.layers])

    @cached_property
    def finished(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Metrics (n, metrics), singular values (n, size), and (n,) whether factors are finite and numbers known."""
        facts = self.facts()
        count = self.tokens.clamp_max(min(self.shape))
        sigma = torch.zeros(len(count), int(count.max()) if self.wanted.spectral else 0, dtype=torch.float64)
        if self.values is not None:
            values, rank = roots(self.values()), torch.minimum(count, facts["nonzero"])
            sigma = torch.nn.functional.pad(values, (0, sigma.shape[1] - values.shape[1]))
            # Of padding, and of tokens that add nothing; their zeros are rounded.
            sigma = sigma.masked_fill(torch.arange(sigma.shape[1]) >= rank[:, None], 0)
            again = unsafe(sigma, rank, facts["failed"], *(facts[name] for name in _BOUNDS))
        else:
            again = torch.full(count.shape, self.wanted.spectral) | facts.get("cancelled", torch.zeros(1)).bool()
        again, norm = again & facts["finite"].bool(), facts.get("norm")
        if again.any() and self.inputs:
            factors = [(x, d) for each in self.inputs for x, d in zip(each.x, each.d[self.name], strict=True)]
            sigma = torch.nn.functional.pad(sigma, (0, int(count.max()) - sigma.shape[1]))
            for at in again.nonzero()[:, 0].tolist():
                sigma[at] = 0
                sigma[at, : count[at]] = exact_values(*factors[at]).cpu()
            norm = None if norm is None else torch.where(again, sigma.norm(dim=1), norm)
            again = torch.zeros_like(again)
        of = Gradients(self.shape, self.exact, sigma, norm, facts)
        rows = [OF_MATRIX[name](of) for name in self.wanted.metrics]
        return torch.stack(rows, 1) if rows else sigma[:, :0], sigma, facts["finite"].bool(), ~again


def _parts(inputs: list[_Input], wanted: _Wanted, tokens: int) -> Iterator[_Part]:
    """The projections of inputs of one kind, padded to `tokens`; a GPU has its work queued, and none is waited for."""
    x = Inputs(_padded([each.x for each in inputs], tokens))
    for name in inputs[0].d:
        d = _padded([each.d[name] for each in inputs], tokens)
        facts, square = _facts(x, d, wanted)
        host = later(torch.stack([fact.double() for fact in facts.values()]))
        named = partial(lambda host, names: dict(zip(names, host(), strict=True)), host, list(facts))
        yield _Part(inputs, name, wanted, (d.shape[-1], x.x.shape[-1]), x.exact, named, square)


def _padded(factors: Sequence[Tensor], tokens: int) -> Tensor:
    """(layers of all, tokens, width), with zeros behind each factor's own tokens."""
    if all(each.shape[1] == tokens for each in factors):
        return torch.cat(list(factors)) if len(factors) > 1 else factors[0]
    out = factors[0].new_zeros(sum(map(len, factors)), tokens, factors[0].shape[2])
    for rows, each in zip(out.split([len(each) for each in factors]), factors, strict=True):
        rows[:, : each.shape[1]] = each
    return out


def _facts(x: Inputs, d: Tensor, wanted: _Wanted) -> tuple[dict[str, Tensor], Tensor | None]:
    """Numbers (n,) of each gradient from its factors; and the cores (n, size, size), None without a spectrum."""
    facts = {"finite": x.finite & all_finite(d), "nonzero": acting(x.x, d).sum(-1)}
    if "mean" in wanted.metrics:
        # The sum of an outer product's entries is the product of the two sums.
        facts["mean"] = (d.double().sum(-1) * x.x.double().sum(-1)).sum(-1) / (d.shape[-1] * x.x.shape[-1])
    if {"max", "min"} & {*wanted.metrics}:
        facts["min"], facts["max"] = extremes(x.x, d)
    if wanted.spectral and not x.exact:
        found = core(x, d)
        return {**facts, "failed": found.failed, **{name: getattr(found, name) for name in _BOUNDS}}, found.square
    if not wanted.spectral and "frobenius_norm" in wanted.metrics:
        # <G, G>; where the terms cancel, the singular values are used.
        square = (x.gram * gram(d.double())).sum((-2, -1))
        facts |= {"norm": square.sqrt(), "cancelled": ~(EPS * squares(x, d) <= _CANCELLED * square)}
    return facts, None


def _by_threads(inputs: Sequence[_Input], wanted: _Wanted) -> list[_Part]:
    """All parts of inputs on the CPU, each in one thread: small matrices gain nothing from two.

    The numbers of a sample do not depend on the batch's other samples, nor on the number of threads.
    """

    def of_one(each: _Input) -> list[_Part]:
        parts = list(_parts([each], wanted, each.x.shape[1]))
        _solve([part for part in parts if part.square is not None], plainly)
        for part in parts:
            part.finished  # noqa: B018 - here, since the exact route takes long where it is needed
        return parts

    with _one_thread_each() as share_out:
        return [part for parts in share_out(of_one, inputs) for part in parts]


@contextmanager
def _one_thread_each() -> Iterator[Callable]:
    """A `map` over as many threads as PyTorch has, in which each operation of PyTorch and NumPy uses one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with one_thread_each(), ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(threads)


def _of_alike_length(inputs: Iterable[_Input]) -> list[list[_Input]]:
    """Inputs on one device, of alike length, longest first."""
    groups: list[list[_Input]] = []
    for each in sorted(inputs, key=lambda one: (str(one.x.device), -one.x.shape[1])):
        first = groups[-1][0].x if groups else each.x
        if groups and first.device == each.x.device and each.x.shape[1] >= _ALIKE * first.shape[1]:
            groups[-1].append(each)
        else:
            groups.append([each])
    return groups


def _together(inputs: Sequence[_Input], wanted: _Wanted, solve: Solver) -> list[_Part]:
    """All parts of inputs on one GPU, of alike length: products in few calls, and cores of one size solved together."""
    tokens = inputs[0].x.shape[1]
    kinds: dict[tuple, list[_Input]] = {}
    for each in inputs:
        kinds.setdefault(each.kind, []).append(each)
    parts: list[_Part] = []
    waiting: list[_Part] = []
    for alike in kinds.values():
        # The first is the longest.
        size = alike[0].layers_in(_COPIES)
        for chunk in _chunks([part for each in alike for part in each.split(size)], size):
            found = list(_parts(chunk, wanted, tokens))
            parts += found
            waiting += [part for part in found if part.square is not None]
            if sum(part.square.nbytes for part in waiting) > _CORES:
                _solve(waiting, solve)
                waiting = []
    _solve(waiting, solve)
    return parts


def _chunks(inputs: Sequence[_Input], size: int) -> Iterator[list[_Input]]:
    """Lists of inputs of at most `size` layers in all."""
    chunk: list[_Input] = []
    for each in inputs:
        if chunk and sum(len(one.layers) for one in chunk) + len(each.layers) > size:
            yield chunk
            chunk = []
        chunk.append(each)
    yield chunk


def _solve(parts: Sequence[_Part], solve: Solver) -> None:
    sizes: dict[int, list[_Part]] = {}
    for part in parts:
        sizes.setdefault(part.square.shape[-1], []).append(part)
    for alike in sizes.values():
        values = cache(solve(torch.cat([part.square for part in alike])))
        at = 0
        for part in alike:
            part.values = partial(lambda values, at, end: values()[at:end], values, at, at + len(part.square))
            at += len(part.square)
            part.square = None


def _gather(
    parts: Sequence[_Part], shapes: Sequence[tuple[int, list[str]]], metrics: int, with_values: bool
) -> list[Spectrum | None]:
    """Each sample's spectrum, from parts that hold some matrices of several samples. Waits for the numbers."""
    layers, names = max(count for count, _ in shapes), shapes[0][1]
    found = torch.full((len(shapes), layers, len(names), metrics), torch.nan, dtype=torch.float64)
    finite, known = (torch.ones(len(shapes), dtype=torch.bool) for _ in range(2))
    empty = torch.empty(0, dtype=torch.float64)
    sigma = [[[empty] * len(names) for _ in range(count if with_values else 0)] for count, _ in shapes]
    for part in parts:
        rows, values, all_are, sure = part.finished
        place = names.index(part.name)
        samples, layer = torch.tensor(part.places).T
        found[samples, layer, place] = rows
        finite[samples[~all_are]] = False
        known[samples[~sure]] = False
        if with_values:
            size = part.tokens.clamp_max(min(part.shape)).tolist()
            for at, (sample, layer) in enumerate(part.places):
                sigma[sample][layer][place] = values[at, : size[at]]
    return [
        Spectrum(found[at, : shapes[at][0]], sigma[at], bool(finite[at])) if known[at] else None
        for at in range(len(shapes))
    ]
