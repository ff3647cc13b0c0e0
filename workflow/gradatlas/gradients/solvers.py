"""Eigenvalues of many small symmetric matrices on a GPU, by the route that is fastest there.

nvmath   cuSOLVER's batched routine (XsyevBatched) through NVIDIA's nvmath-python: `pip install 'gradatlas[gpu]'`
cupy     cuSOLVER's batched Jacobi routine through CuPy, if it is installed
torch    PyTorch, whose versions up to now solve one matrix after the other above 32 x 32
pool     LAPACK in the CPU's threads, while the GPU goes on with the next pass

The first cores of each size are solved by every route, and the fastest that agrees with LAPACK is used. The routes
differ by rounding (`gradatlas.gradients.spectra.TOLERANCE`), so a choice changes no key in the journal.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from gradatlas.core.command import progress
from gradatlas.gradients.cores import later
from gradatlas.gradients.spectra import Solver, plainly

# Matrices of a timing, and their entries; of routes that solve one after the other, few.
_TIMED, _ENTRIES, _FEW = 64, 1 << 23, 4
# Relative to the largest eigenvalue: rounding, as any backward stable method has it.
_AGREED = 1e-11
_ROUTES = ("nvmath", "cupy", "torch", "pool")
_ADVICE = "pip install 'gradatlas[gpu]' adds NVIDIA's batched solver, some 10 times as fast"


class FastestSolver:
    """A `Solver` that times its routes on the first cores of each size.

    `threads`: of the pool. `routes`: those to try. `facts`, by size (a power of two, rounded up): each route's seconds
    a matrix, or why it is not used, and the one `chosen`. A route that fails later is left, with a line of progress.
    """

    def __init__(self, threads: int, routes: tuple[str, ...] = _ROUTES):
        self._pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        self._threads = threads
        found = {"nvmath": _nvmath, "cupy": _cupy, "torch": plainly, "pool": self._by_pool}
        self._routes: dict[str, Solver] = {name: found[name] for name in routes}
        self._without: dict[str, str] = {}
        self.facts: dict[str, dict[str, Any]] = {}

    def __call__(self, square: Tensor) -> Callable[[], Tensor]:
        size = str(1 << (square.shape[-1] - 1).bit_length())
        if size not in self.facts:
            self.facts[size] = self._timed(square)
        facts = self.facts[size]
        while True:
            name = facts["chosen"] = min(self._routes, key=facts.get)
            try:
                return self._routes[name](square)
            except Exception as error:
                self._leave(name, error)
                facts |= self._without
                progress(f"eigenvalues: {name} fails ({self._without[name]}); the next fastest route is used")

    def _timed(self, square: Tensor) -> dict[str, Any]:
        """Each route's seconds a matrix on some of these; the fastest is `chosen`."""
        some = square[: max(_FEW, min(_TIMED, _ENTRIES // square.shape[-1] ** 2))]
        expected = torch.linalg.eigvalsh(some[:_FEW].cpu())
        seconds: dict[str, float] = {}
        for name, route in list(self._routes.items()):
            part = some[:_FEW] if name == "torch" else some
            try:
                values = route(part)()[:_FEW]
                error = (values - expected).abs().amax(1)
                if not (error <= _AGREED * expected.abs().amax(1)).all():
                    raise ArithmeticError(f"eigenvalues differ from LAPACK's by {float(error.max()):.1e}")
                _wait(square)
                begun = time.perf_counter()
                route(part)()
                seconds[name] = (time.perf_counter() - begun) / len(part)
            except Exception as error:
                self._leave(name, error)
        chosen = min(seconds, key=seconds.get)
        times = {name: float(f"{each:.3g}") for name, each in seconds.items()}
        advice = f"; {_ADVICE}" if square.is_cuda and chosen in ("torch", "pool") and "nvmath" in self._without else ""
        shown = ", ".join(f"{name} {each * 1e3:.3g} ms" for name, each in times.items())
        progress(f"eigenvalues of a matrix of {square.shape[-1]}: {shown}; {chosen} is used{advice}")
        return {**times, **self._without, "chosen": chosen}

    def _leave(self, name: str, error: Exception) -> None:
        """Use the route `name` no more. Raises `error` where it is a lack of memory, or no other route is left."""
        if isinstance(error, torch.OutOfMemoryError) or len(self._routes) == 1:
            raise error
        del self._routes[name]
        self._without[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"

    def _by_pool(self, square: Tensor) -> Callable[[], Tensor]:
        host = later(square)
        step = max(1, len(square) // (4 * self._threads))
        solve = torch.linalg.eigvalsh
        starts = range(0, len(square), step)
        parts = [self._pool.submit(lambda at: solve(host()[at : at + step]), at) for at in starts]
        return lambda: torch.cat([part.result() for part in parts])


@cache
def fastest_solver() -> FastestSolver:
    """The one of this process: its timings are used by all passes."""
    # One is left to queue the GPU's work.
    return FastestSolver(max(1, torch.get_num_threads() - 1))


def solver_of(model: Any) -> Solver:
    """For a model on a GPU the fastest one. On the CPU each matrix is solved in a thread of its own."""
    return fastest_solver() if model.device.type == "cuda" else plainly


def _wait(square: Tensor) -> None:
    if square.is_cuda:
        torch.cuda.synchronize(square.device)


def _cupy(square: Tensor) -> Callable[[], Tensor]:
    import cupy

    made = getattr(cupy.cuda.Stream, "from_external", None) or (
        lambda stream: cupy.cuda.ExternalStream(stream.cuda_stream)
    )
    with cupy.cuda.Device(square.device.index), made(torch.cuda.current_stream(square.device)):
        return later(torch.from_dlpack(cupy.linalg.eigvalsh(cupy.from_dlpack(square))))


def _nvmath(square: Tensor) -> Callable[[], Tensor]:
    """An eigenvalue that did not converge is NaN."""
    library, handle, settings = _cusolver(square.device.index if square.is_cuda else None)
    count, size, _ = square.shape
    # It is overwritten.
    square = square.clone()
    with torch.cuda.device(square.device):
        values = square.new_empty(count, size)
        failed = torch.empty(count, dtype=torch.int32, device=square.device)
        library.set_stream(handle, torch.cuda.current_stream(square.device).cuda_stream)
        # No eigenvectors (0), of the lower triangle (0), float64 (1).
        of = (handle, settings, 0, 0, size, 1, square.data_ptr(), size, 1, values.data_ptr(), 1)
        on_device, on_host = library.xsyev_batched_buffer_size(*of, count)
        device, host = square.new_empty(on_device, dtype=torch.uint8), torch.empty(on_host, dtype=torch.uint8)
        work = (device.data_ptr(), on_device, host.data_ptr(), on_host, failed.data_ptr())
        library.xsyev_batched(*of, *work, count)
        copied = later(values.masked_fill_(failed[:, None] != 0, torch.nan))
    # The host's buffer may be read until the work is done.
    return partial(lambda copied, host: copied(), copied, host)


@cache
def _cusolver(device: int | None) -> tuple[Any, int, int]:
    if device is None:
        raise RuntimeError("no NVIDIA GPU")
    from nvmath.bindings import cusolverDn as library

    with torch.cuda.device(device):
        return library, library.create(), library.create_params()
