"""Weights in 8 or 4 bits by bitsandbytes: exact products with the dequantised weights.

The package's own modules are not differentiable functions of dequantised weights: 8-bit ones round their input to 8
bits too, 4-bit ones on a CPU may have no gradient. Here y = W x and its gradient W^T d both take the dequantised W,
which is made anew for each product, so that no layer's W is kept between them.
"""

import logging
import sys
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from gradatlas.core.errors import InputError

# PEFT imports the package wherever it is installed. Its warning is about kernels for its own products on a CPU.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def quantising(bits: str) -> dict[str, Any]:
    """Arguments of loading that quantise linear layers to `bits`, ``8bit`` or ``4bit``.

    Raises `InputError` where the package is not installed.
    """
    check_installed(f"--quantise {bits}")
    from transformers import BitsAndBytesConfig

    return {"quantization_config": BitsAndBytesConfig(**{f"load_in_{bits}": True}, bnb_4bit_quant_type="nf4")}


def check_installed(place: str) -> None:
    """`InputError` where bitsandbytes is not installed."""
    if find_spec("bitsandbytes") is None:
        raise InputError(f"{place}: package bitsandbytes is not installed; pip install '.[quantised]' in a checkout")


def is_quantised(module: nn.Module) -> bool:
    """Whether a module holds a weight that bitsandbytes has quantised."""
    package = sys.modules.get("bitsandbytes")
    return package is not None and isinstance(module, package.nn.Linear4bit | package.nn.Linear8bitLt)


def weight_of(module: nn.Module) -> Tensor:
    """The weight (out, in) of a linear module, dequantised where it is quantised."""
    if not is_quantised(module):
        return module.weight
    weight = module.weight
    if isinstance(module, sys.modules["bitsandbytes"].nn.Linear4bit):
        return sys.modules["bitsandbytes"].functional.dequantize_4bit(weight.data, weight.quant_state)
    # The first pass of the package's own module moves the scales from the weight to the module.
    scales = module.state.SCB if weight.SCB is None else weight.SCB
    return weight.data * (scales / 127)[:, None]


class _Product(torch.autograd.Function):
    """y = W x with the dequantised W of a module."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: nn.Module) -> Tensor:
        ctx.module = module
        return x @ weight_of(module).to(x.dtype).mT

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor, None]:
        return d @ weight_of(ctx.module).to(d.dtype), None


def use_exact_products(model: nn.Module) -> None:
    """Replace the forward pass of the quantised modules of `model`."""
    kinds: dict[type, type] = {}
    for module in filter(is_quantised, list(model.modules())):
        kind = type(module)
        # A class of its own, as PEFT knows quantised modules by their class.
        module.__class__ = kinds.setdefault(kind, type(kind.__name__, (kind,), {"forward": _forward}))


def _forward(module: Any, x: Tensor) -> Tensor:
    y = _Product.apply(x, module)
    return y if module.bias is None else y + module.bias.to(y.dtype)
