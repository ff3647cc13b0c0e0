"""What a 16-bit pass costs: the nuclear norms of a few samples, beside those of a float32 pass of the same model."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from gradatlas.core.command import progress
from gradatlas.core.machine import free_memory
from gradatlas.gradients.capture import Capture
from gradatlas.gradients.spectra import spectra
from gradatlas.models.tokens import Encoded

HALVES = ("bfloat16", "float16")
# Of the weights in float32, with what a short pass needs.
_SPARE = 1.2


def shortest(samples: Iterable[Encoded], count: int) -> list[Encoded]:
    """`count` of the samples, those with the fewest tokens: the same ones for the same texts."""
    return sorted(samples, key=lambda sample: (len(sample.ids), sample.ids, sample.response))[:count]


def rounding_error(
    capture: Capture, samples: Sequence[Encoded], load: Callable[[], Capture], loss_norm: str = "mean"
) -> dict[str, Any]:
    """Relative error of the nuclear norms of `samples` in the 16-bit pass of `capture`, for the tables' metadata.

    `load` gives a capture of the model in float32. Keys: `samples`, how many; `median` and `largest`, over samples,
    layers and projections; or `not_measured`, the reason, where float32 does not fit into memory beside the 16-bit
    model.
    """
    model = capture.model
    needed = _SPARE * 4 * sum(parameter.numel() for parameter in model.parameters())
    on_gpu = model.device.type == "cuda"
    # Weights are read into main memory first.
    free = min(free_memory(), torch.cuda.mem_get_info(model.device)[0] if on_gpu else float("inf"))
    if needed > free:
        return {"not_measured": f"float32 needs {needed / 1e9:.0f} GB, {free / 1e9:.0f} GB are free"}
    lower = _norms(capture, samples, loss_norm)
    try:
        norms = _norms(load(), samples, loss_norm)
    except torch.OutOfMemoryError:
        return {"not_measured": "float32 does not fit into the GPU's memory"}
    error = (lower - norms).abs() / norms
    error = error[error.isfinite()]
    if not len(error):
        return {"not_measured": "no nuclear norm is finite and above zero"}
    found = {"median": error.quantile(0.5), "largest": error.max()}
    dtype = str(model.dtype).removeprefix("torch.")
    progress(f"{dtype}: nuclear norms of {len(samples)} samples differ from float32 by {found['median']:.2g}")
    return {"samples": len(samples), **{name: float(f"{value:.3g}") for name, value in found.items()}}


def _norms(capture: Capture, samples: Sequence[Encoded], normalise: str) -> Tensor:
    """(samples, layers, projections) nuclear norms."""
    with capture:
        passes = (capture.run([sample], normalise)[0] for sample in samples)
        return torch.stack([spectra(done.factors, ["nuclear_norm"])[..., 0] for done in passes])
