"""The gradient of log pi(y|x) with respect to every parameter of a model, by block, from one padded pass.

A block is a linear layer's weight (q k v o gate up down where they are found, also as parts of a fused module), an
embedding, the output layer, a norm's gain, or a bias. Hooks take each module's input and output gradient; weights are
frozen, and no weight gradient is formed. Of a tied embedding both uses are blocks, and their gradients add up.

How a module's output depends on its parameters follows from the module itself: a norm's normalised input is its output
with gain 1 minus that with gain 0 (so w and 1 + w are alike), an embedding's ids and scale its outputs with other
weights. `Blocks` compares all of it once with autograd.
"""

import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers.pytorch_utils import Conv1D

from gradatlas.core.errors import InputError
from gradatlas.finetuning.sequences import EncodedResponse, log_probs
from gradatlas.kernels.factors import Factor, Product, Rows, Vector
from gradatlas.models.decoders import ATTENTION, Projection, find_layers
from gradatlas.models.forward import evaluating, random_ids
from gradatlas.models.probe import size_of
from gradatlas.study.settings import PROJECTIONS


class Block(NamedTuple):
    """A block's `layer` (None outside of the layers) and `name`: ``q``, ``embedding``, ``q_proj.bias``, ..."""

    layer: int | None
    name: str


class _Part(NamedTuple):
    """A block as a part of a parameter: output features `columns` (None: all) of `name` in `Module.named_parameters`.

    `transposed`: whether the parameter is (in, out).
    """

    block: Block
    parameter: str
    columns: Tensor | None = None
    transposed: bool = False


Receive = Callable[[Block, Factor], None]
Score = Callable[[Any, Sequence[EncodedResponse]], Tensor]


class Blocks:
    """Runs batches of responses through a model and passes every block's `Factor` to a function.

    `blocks`: all of them, in the model's order. `shared`: the embedding and the output layer where they are tied, whose
    gradients add up.
    After each `run` the model is unchanged. The constructor takes the gradient of all parameters once, by autograd.
    Raises `InputError` for a parameter whose gradient the blocks do not give, such as those of experts, convolutions
    and recurrent states, or of other modules that share a weight or are used twice.
    """

    def __init__(self, model: Any):
        self.model = model
        self._busy = False
        self._parts = _find_parts(model)
        self._of = {part.block: part for parts in self._parts.values() for each in parts.values() for part in each}
        self.blocks = list(self._of)
        tied = (Block(None, "embedding"), Block(None, "output"))
        same = self._of.keys() >= set(tied) and self.parameter(tied[0]) == self.parameter(tied[1])
        self.shared = [tied] if same else []
        self._check()

    def parameter(self, block: Block) -> str:
        """The name of the parameter that a block is (a part of)."""
        return self._of[block].parameter

    def change(self, block: Block, changes: Mapping[str, Tensor]) -> Tensor:
        """A block's part of changes by parameter: (out, in), or (width,)."""
        part = self._of[block]
        whole = changes[part.parameter]
        whole = whole.mT if part.transposed else whole
        return whole if part.columns is None else whole[part.columns.to(whole.device)]

    def size(self, block: Block) -> tuple[int, ...]:
        """The shape of a block's part of its parameter, (out, in) or (width,)."""
        part = self._of[block]
        shape = tuple(self.model.get_parameter(part.parameter).shape)
        shape = shape[::-1] if part.transposed else shape
        return shape if part.columns is None else (len(part.columns), *shape[1:])

    def width(self, block: Block) -> int:
        """Numbers that a token has in a block's factors, at most."""
        return sum(self.size(block))

    def run(self, batch: Sequence[EncodedResponse], receive: Receive, score: Score = log_probs) -> Tensor:
        """One forward and backward pass over responses of one `length_regime`; returns log pi, (responses,).

        `receive` gets each block with its factors when the gradient arrives; what it does not keep is freed.
        Factors are float64 in a float64 pass, else float32. `score`: another function of model and batch, one number a
        response, in place of log pi; factors and result are its.
        """
        with ExitStack() as block, torch.inference_mode(False), torch.enable_grad():
            block.enter_context(evaluating(self.model, frozen=True))
            for module in self._parts:
                hook = partial(self._keep, receive, len(batch))
                block.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
            scores = score(self.model, batch)
            scores.sum().backward()
        return scores.detach()

    def _keep(
        self, receive: Receive, samples: int, module: nn.Module, args: tuple, kwargs: dict, output: Any
    ) -> Tensor | None:
        if self._busy or not isinstance(output, Tensor):
            return None
        embedding = isinstance(module, nn.Embedding)
        if embedding:
            # The graph starts here. A sample each, as positions are looked up once; a copy, as models scale in place.
            output = output.expand(samples, *output.shape[1:]).contiguous().requires_grad_().clone()
        if not output.requires_grad:
            return None
        with torch.no_grad():
            factors = _of_embedding if embedding else _of_linear if _is_linear(module) else _of_vector
            made = factors(partial(self._with, module, args, kwargs), module, args, samples)

        def arrived(gradient: Tensor) -> None:
            for name, parts in self._parts[module].items():
                for part in parts:
                    d = _precise(gradient.detach())
                    receive(part.block, made(name, d if part.columns is None else d[..., part.columns.to(d.device)]))

        output.register_hook(arrived)
        return output if embedding else None

    def _with(self, module: nn.Module, args: tuple, kwargs: dict, **weights: Tensor) -> Tensor:
        """The module's output with other weights, without hooks of this class."""
        self._busy = True
        try:
            return functional_call(module, weights, args, kwargs)
        finally:
            self._busy = False

    def _check(self) -> None:
        """Compare with autograd: the gradient of a weighted sum of log pi of two texts, along a random direction."""
        parameters = {name: each for name, each in self.model.named_parameters() if each.is_floating_point()}
        first, second, *_ = random_ids(self.model).tolist()
        batch = [EncodedResponse(tuple(first), 1), EncodedResponse(tuple(second[:-1]), 2)]
        # Powers of two, so that rounding in the backward pass is the same.
        weights = (1.0, -0.5)
        uses = Counter(parts[0].parameter for each in self._parts.values() for parts in each.values())
        tied = {self.parameter(block) for pair in self.shared for block in pair}
        found = {name: 0.0 if uses[name] < 2 or name in tied else float("nan") for name in parameters}
        seen: set[Block] = set()

        def receive(block: Block, factor: Factor) -> None:
            name = self.parameter(block)
            along = factor.along(self.change(block, {name: _direction(name, parameters[name])}))
            # Two uses of a module would be two factors of one block.
            found[name] += float("nan") if block in seen else float(along @ along.new_tensor(weights))
            seen.add(block)

        self.run(batch, receive)
        with evaluating(self.model), torch.inference_mode(False), torch.enable_grad():
            for each in parameters.values():
                each.requires_grad_(True)
            total = sum(weight * score for weight, score in zip(weights, log_probs(self.model, batch), strict=True))
            taken = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
        gradients = {name: _precise(each) for name, each in zip(parameters, taken, strict=True) if each is not None}
        norms = {name: float(each.norm()) for name, each in gradients.items()}
        # A bias of keys has no gradient but rounding errors. Some models compute in float32 in any pass.
        floor = 0.01 * sum(norm**2 for norm in norms.values()) ** 0.5
        allowed = max(torch.finfo(each.dtype).eps for each in (*parameters.values(), torch.zeros(()))) ** 0.5
        for name, gradient in gradients.items():
            expected = float((gradient * _direction(name, parameters[name])).sum())
            if not abs(found[name] - expected) <= allowed * (norms[name] + floor):
                named = getattr(self.model.config, "_name_or_path", "")
                raise InputError(
                    f"model '{named}': the gradient of {name} does not follow from inputs and output gradients of "
                    "linear layers, embeddings, gains and biases, each used once; choose a decoder of these"
                )


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | Conv1D)


def _find_parts(model: Any) -> dict[nn.Module, dict[str, list[_Part]]]:
    """By module and name of its own parameter, the blocks."""
    projections = _projections(model)
    paths = {module: path for path, module in model.named_modules()}
    firsts = [next(iter(layer.values())) for layer in projections]
    layers = [paths[part.module].removesuffix(part.path) for part in firsts]
    of_module: dict[nn.Module, list[Projection]] = {}
    for part in (part for layer in projections for part in layer.values()):
        of_module.setdefault(part.module, []).append(part)
    # A tied weight has one name.
    parameters = {id(weight): name for name, weight in model.named_parameters()}
    names = {model.get_input_embeddings(): "embedding", model.get_output_embeddings(): "output"}
    found: dict[nn.Module, dict[str, list[_Part]]] = {}
    for module, path in paths.items():
        own = dict(module.named_parameters(recurse=False))
        vectors = not any(module.children()) and all(weight.ndim == 1 for weight in own.values())
        if not own or not (vectors or _is_linear(module) or isinstance(module, nn.Embedding)):
            continue
        layer = next((place for place, front in enumerate(layers) if path.startswith(front)), None)
        within = path if layer is None else path.removeprefix(layers[layer])
        known = of_module.get(module, [])
        found[module] = {}
        for name, weight in own.items():
            end = "" if name == "weight" else f".{name}"
            plain = f"{names[module]}{end}" if module in names else f"{within}.{name}"
            named = [(f"{part.name}{end}", part.columns) for part in known]
            named += [(plain, rest) for rest in _rest(known)]
            transposed = isinstance(module, Conv1D) and weight.ndim == 2
            found[module][name] = [
                _Part(Block(layer, block), parameters[id(weight)], columns, transposed) for block, columns in named
            ]
    return found


def _rest(projections: Sequence[Projection]) -> list[Tensor | None]:
    """The output features of a module that belong to none of its projections, if there are any."""
    if not projections:
        return [None]
    if any(part.columns is None for part in projections):
        return []
    free = torch.ones(size_of(projections[0].module)[0], dtype=torch.bool)
    free[torch.cat([part.columns for part in projections])] = False
    return [free.nonzero()[:, 0]] if free.any() else []


def _projections(model: Any) -> list[dict[str, Projection]]:
    """The projections by layer, as far as they are found; else a linear layer is named by its module."""
    for wanted in (PROJECTIONS, (*ATTENTION, "up", "down"), ATTENTION):
        with suppress(InputError):
            return find_layers(model, wanted)
    return []


def _of_linear(
    outputs: Callable[..., Tensor], module: nn.Module, args: tuple, samples: int
) -> Callable[[str, Tensor], Factor]:
    x = _precise(args[0].detach())
    x = x.reshape(samples, -1, x.shape[-1])

    def made(name: str, d: Tensor) -> Factor:
        d = d.reshape(samples, -1, d.shape[-1])
        return Product(x, d) if name == "weight" else Vector(d.sum(1))

    return made


def _of_embedding(
    outputs: Callable[..., Tensor], module: nn.Embedding, args: tuple, samples: int
) -> Callable[[str, Tensor], Factor]:
    size, like = module.weight.shape, module.weight.new_empty(0, dtype=_precise(module.weight[:0]).dtype)
    # Its outputs where each row is 1, and where each row is its own number.
    scale = outputs(weight=like.new_ones(1, 1).expand(size))
    rows = outputs(weight=torch.arange(size[0], dtype=like.dtype, device=like.device)[:, None].expand(size))
    ids = (rows / scale)[..., 0].round().long()
    scale = torch.where((ids == module.padding_idx)[..., None], 0, scale) if module.padding_idx is not None else scale
    return lambda name, d: Rows(ids.expand(samples, -1), d * scale, size[0])


def _of_vector(
    outputs: Callable[..., Tensor], module: nn.Module, args: tuple, samples: int
) -> Callable[[str, Tensor], Factor]:
    zeros = {name: torch.zeros_like(weight) for name, weight in module.named_parameters()}
    none = outputs(**zeros)
    units = {name: outputs(**zeros | {name: torch.ones_like(zero)}) - none for name, zero in zeros.items()}

    def made(name: str, d: Tensor) -> Factor:
        return Vector((d * units[name]).reshape(samples, -1, d.shape[-1]).sum(1))

    return made


def _precise(factor: Tensor) -> Tensor:
    """16-bit numbers as float32."""
    return factor.float() if factor.dtype in (torch.bfloat16, torch.float16) else factor


def _direction(name: str, weight: Tensor) -> Tensor:
    generator = torch.Generator(weight.device).manual_seed(zlib.crc32(name.encode()))
    return torch.randn(weight.shape, generator=generator, device=weight.device, dtype=_precise(weight[:0]).dtype)
