"""PEFT adapters of a model in memory: finding the modules that they add, and switching them off.

An adapter layer wraps a linear module as `base_layer` and adds its own modules. The base layer is measured: X is its
input and D the gradient of its output, in a pass that includes the adapter. So are, on request, the two matrices of
LoRA, y = W x + s B (A x): of A, X is the layer's input and D is s D_y B; of B, X is A x and D is s D_y.
"""

import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from gradatlas.models.forward import evaluating, random_ids, run_forward
from gradatlas.models.quantised import is_quantised

_ADVICE = "call merge_and_unload() on the model and measure the merged one"


def adapter_layers(module: nn.Module) -> dict[str, nn.Module]:
    """The adapter layers in `module`, by path; none where PEFT is not imported."""
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
    """`model` with its adapters off. Merged adapters stay, as they are part of the weights."""
    layers = [each for each in adapter_layers(model).values() if not each.merged and not each._disable_adapters]
    try:
        for each in layers:
            # `enable_adapters` would also change requires_grad.
            each._disable_adapters = True
        yield
    finally:
        for each in layers:
            each._disable_adapters = False


def adapter_problem(model: Any, layers: Collection[Collection[tuple[str, nn.Module]]]) -> str:
    """The reason why the modules, (path, module) by layer, cannot be measured with the model's adapters; empty if none.

    One pass over random tokens, with the adapters on, checks that the gradient of every module under an adapter is
    D^T X of its own input and output. Some kinds of adapter use the base weight in another way.
    """
    active = getattr(model, "active_peft_config", None) if hasattr(model, "peft_config") else None
    if active is not None and active.is_prompt_learning:
        return f"its adapter of kind {active.peft_type.value} adds tokens in front of a sample; unload it first"
    under = {}
    for each in adapter_layers(model).values():
        under[each.get_base_layer()] = type(each).__name__
        under |= dict.fromkeys(_of_lora(each).values(), type(each).__name__)
    if reason := _unchecked(model, layers):
        return reason
    if not any(module in under for layer in layers for _, module in layer):
        return ""
    seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}
    hooks = [
        module.register_forward_hook(lambda module, args, output: seen.__setitem__(module, (args[0], output)))
        for layer in layers
        for _, module in layer
        if module in under
    ]
    try:
        with evaluating(model), torch.inference_mode(False), torch.enable_grad():
            for layer in layers:
                for _, module in layer:
                    if not is_quantised(module):
                        module.weight.requires_grad_(True)
            ids = random_ids(model)
            logits = run_forward(model, ids, logits=ids.shape[1]).float()
            target = (logits * torch.linspace(-1, 1, logits.shape[-1], device=logits.device)).sum()
            for layer in layers:
                for path, module in dict(layer).items():
                    if module in under and not is_quantised(module) and not _agrees(module, seen.get(module), target):
                        return (
                            f"the adapter {under[module]} of {path} uses the base layer's weight in another way than "
                            f"the layer's product, whose gradient is measured; {_ADVICE}"
                        )
    finally:
        for hook in hooks:
            hook.remove()
    return ""


def lora_modules(model: Any, module: nn.Module) -> dict[str, nn.Module]:
    """The modules `lora_a` and `lora_b` of the active adapter of a linear `module`; none of one without LoRA.

    Raises `ValueError` with the reason where they are not a part of the pass.
    """
    for path, each in adapter_layers(model).items():
        found = _of_lora(each) if each.get_base_layer() is module else {}
        if found and (each.merged or each._disable_adapters):
            raise ValueError(f"the adapter of {path} is {'merged' if each.merged else 'off'}, so A and B are not used")
        if found:
            return found
    return {}


def _of_lora(layer: Any) -> dict[str, nn.Module]:
    """A and B of an adapter layer's active adapter, where it is a LoRA of a linear module."""
    parts = {"lora_a": getattr(layer, "lora_A", {}), "lora_b": getattr(layer, "lora_B", {})}
    active = [name for name in layer.active_adapters if all(name in each for each in parts.values())]
    found = {name: each[active[0]] for name, each in parts.items()} if len(active) == 1 else {}
    return found if all(isinstance(each, nn.Linear) for each in found.values()) else {}


def _unchecked(model: Any, layers: Collection[Collection[tuple[str, nn.Module]]]) -> str:
    """The reason why a quantised weight under an adapter, which autograd cannot check, cannot be measured."""
    measured = {module for layer in layers for _, module in layer}
    for path, each in adapter_layers(model).items():
        plain = bool(_of_lora(each)) and not any(each.lora_variant.values())
        if each.get_base_layer() in measured and is_quantised(each.get_base_layer()) and not plain:
            kind = type(each).__name__
            return f"the adapter {kind} of {path} is not a plain LoRA, and the weight is quantised; {_ADVICE}"
    return ""


def _agrees(module: nn.Module, pair: tuple[Tensor, Tensor] | None, target: Tensor) -> bool:
    """Whether autograd's gradient of the weight is D^T X."""
    if pair is None or not pair[1].requires_grad:
        return False
    x, y = pair
    d, gradient = torch.autograd.grad(target, [y, module.weight], retain_graph=True, allow_unused=True)
    if d is None or gradient is None:
        return False
    formed = d.flatten(0, -2).double().mT @ x.detach().flatten(0, -2).double()
    gradient = (gradient.mT if isinstance(module, Conv1D) else gradient).double()
    allowed = 1e-3 if module.weight.dtype.itemsize > 2 else 0.1
    return bool((formed - gradient).norm() <= allowed * gradient.norm())
