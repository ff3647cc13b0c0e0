"""Adapters (PEFT) of a model in memory: which of its modules they add, and switching them off.

An adapter layer wraps a linear module as `base_layer` and adds modules of its own. The base layer is measured: X is what
it reads and D the gradient of what it gives, so the adapter's effect is in the pass.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


def adapter_layers(module: nn.Module) -> dict[str, nn.Module]:
    """The adapter layers in `module` by path; none where PEFT was never imported."""
    tuners = sys.modules.get("peft.tuners.tuners_utils")
    if tuners is None:
        return {}
    return {path: each for path, each in module.named_modules() if isinstance(each, tuners.BaseTunerLayer)}


def without_adapters(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """`module.named_modules()` without the modules that adapters add."""
    fronts = [f"{path}." if path else "" for path in adapter_layers(module)]
    for path, each in module.named_modules():
        inside = (path.removeprefix(front) for front in fronts if path.startswith(front) and path != front)
        if all(rest.partition(".")[0] == "base_layer" for rest in inside):
            yield path, each


@contextmanager
def adapters_off(model: Any) -> Iterator[None]:
    """`model` with its adapters off, so that its base layers act alone; merged ones stay, as their weights hold them."""
    layers = [each for each in adapter_layers(model).values() if not each.merged and not each._disable_adapters]
    try:
        for each in layers:
            # Not `enable_adapters`, which also changes requires_grad.
            each._disable_adapters = True
        yield
    finally:
        for each in layers:
            each._disable_adapters = False
