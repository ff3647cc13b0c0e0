"""Gradatlas: what a piece of fine-tuning data does to each layer of a language model.

The names below are imported on first use, so that ``import gradatlas`` needs no PyTorch.
"""

from importlib import import_module
from typing import Any

_PLACES = {
    "score": "gradatlas.api.calls",
    "measure": "gradatlas.api.calls",
    "inner_products": "gradatlas.api.calls",
    "GradientSpectra": "gradatlas.api.spectra_callback",
    "Reading": "gradatlas.study.settings",
    "ResponseProbes": "gradatlas.api.probes_callback",
}
__all__ = [*_PLACES]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'gradatlas' has no attribute '{name}'; it has {', '.join(_PLACES)}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
