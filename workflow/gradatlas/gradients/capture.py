"""One pass over a batch: the inputs X and output gradients D of every layer's projections.

For a linear layer with inputs X (tokens x in) and output gradients D (tokens x out), the gradient of its weight is
D^T X. X and D occur in every pass, and nothing else is needed. Weights are frozen: no weight gradient is formed.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gradatlas.core.errors import InputError
from gradatlas.models.decoders import ATTENTION, Projection, find_layers, lora_of, shapes_of
from gradatlas.models.forward import device_of, evaluating, run_forward
from gradatlas.models.tokens import Encoded

# float16 has no number below 2^-24: in the backward pass, the loss of a response token is multiplied by this.
HALF_SCALE = 2**4


@dataclass(frozen=True)
class Factors:
    """One sample's factors of one projection, by layer: `x` (tokens, in) and `d` (tokens, out).

    Each is one stack (layers, tokens, width) where all layers have the same shape and device, else a tuple with one
    tensor per layer, each where its layer is, None for a layer without the projection. float64 in a float64 pass, else
    float32.
    """

    x: Tensor | tuple[Tensor | None, ...]
    d: Tensor | tuple[Tensor | None, ...]

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """`x` and `d` of every layer that has the projection: one pair of stacks, or one pair per layer."""
        if isinstance(self.x, Tensor):
            return [(self.x, self.d)]
        return [(x, d) for x, d in zip(self.x, self.d, strict=True) if x is not None]


@dataclass(frozen=True)
class Pass:
    """One sample's result: its `loss`, the cross-entropy of each response token, and the factors of each projection.

    `token_losses`: (response tokens,), float64 on the CPU, in the order of the tokens.
    """

    loss: float
    token_losses: Tensor
    factors: dict[str, Factors]

    @property
    def loss_concentration(self) -> float | None:
        """(sum l)^2 / (n sum l^2): 1 for equal losses, 1/n where one token has all the loss; None where all are 0."""
        squares = float(self.token_losses.square().sum())
        return float(self.token_losses.sum()) ** 2 / (len(self.token_losses) * squares) if squares else None


class Capture:
    """Runs batches through a model with frozen weights and records X and D of each projection.

    >>> with Capture(model) as capture:
    ...     passes = capture.run(batch)

    After the block, also after an error, the model is unchanged: training mode of each module, `requires_grad` of each
    parameter, no hook, no gradient. Blocks nest, and `run` outside of a block opens its own.

    `projections`: any of q, k, v, o, gate, up, down. `mapping`: their modules, if they cannot be found (`find_layers`).
    `lora`: of a model with adapters, ``merged`` for its own matrices, ``separate`` for the matrices A and B of LoRA
    beside them (``q.lora_a``, ``q.lora_b``, ...), ``alone`` for A and B in their place. Raises `InputError` for a model
    whose projections, or whose A and B, are not found.
    """

    def __init__(
        self,
        model: Any,
        projections: Sequence[str] = ATTENTION,
        mapping: str | None = None,
        lora: Literal["merged", "separate", "alone"] = "merged",
    ):
        self.model, self.projections = model, tuple(projections)
        self.layers: list[dict[str, Projection]] = find_layers(model, projections, mapping)
        if lora != "merged":
            parts = lora_of(model, self.layers)
            named = [f"{name}.{part}" for name in projections for part in ("lora_a", "lora_b")]
            own = self.projections if lora == "separate" else ()
            self.projections = (*own, *(name for name in named if any(name in each for each in parts)))
            self.layers = [layer | each if own else each for layer, each in zip(self.layers, parts, strict=True)]
        shapes = shapes_of(self.layers, self.projections)
        devices = {part.module.weight.device for layer in self.layers for part in layer.values()}
        self._even = len(devices) == 1 and all(len(set(each)) == 1 for each in shapes.values())
        self._half = next(model.parameters()).dtype == torch.float16
        self._columns = [{name: _index(part) for name, part in layer.items()} for layer in self.layers]
        self._modules = {part.module: part.path for layer in self.layers for part in layer.values()}
        self._blocks: list[ExitStack] = []
        self._running = False
        # By module; a fused one serves several projections.
        self._x: dict[nn.Module, Tensor] = {}
        self._d: dict[nn.Module, Tensor] = {}

    def __enter__(self) -> "Capture":
        with ExitStack() as block:
            block.enter_context(evaluating(self.model, frozen=True))
            if not self._blocks:
                hooks = [module.register_forward_hook(self._keep) for module in self._modules]
                hooks.append(self.model.get_input_embeddings().register_forward_hook(self._begin))
                for hook in hooks:
                    block.callback(hook.remove)
            self._blocks.append(block.pop_all())
        return self

    def __exit__(self, *error: Any) -> None:
        self._blocks.pop().__exit__(*error)

    def _begin(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        # All weights are frozen, so the graph starts at the embeddings. A copy, as a model may scale them in place.
        return output.requires_grad_().clone() if self._running else None

    def _keep(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        # The block may contain other passes, such as `generate`.
        if not self._running:
            return
        self._x[module] = args[0].detach().to(output.device)
        if output.requires_grad:
            output.register_hook(lambda gradient: self._d.__setitem__(module, gradient.detach()))

    def run(self, batch: Sequence[Encoded], normalise: str = "mean") -> list[Pass]:
        """One forward and backward pass over a padded batch, with each sample's mean response cross-entropy as loss.

        Padding is on the right, where no token of a causal decoder attends to it, and factors are cut to each sample's
        own tokens: padding contributes nothing. It repeats the sample's last token, since another token's embedding
        could be NaN. Samples are independent, so the gradient of the summed loss is each sample's own.
        `normalise`: ``mean``, or ``sum`` over the response tokens. Raises `InputError` where no gradient reaches a
        projection.
        """
        if not self._blocks:
            with self:
                return self.run(batch, normalise)
        longest = max(len(sample.ids) for sample in batch)
        ids = torch.empty(len(batch), longest, dtype=torch.long)
        counted = torch.zeros(len(batch), longest, dtype=torch.bool)
        for row, sample in enumerate(batch):
            ids[row] = sample.ids[-1]
            ids[row, : len(sample.ids)] = torch.tensor(sample.ids)
            counted[row, : len(sample.ids)] = torch.tensor(sample.response)
        # Logits only from the last prompt token on: with a large vocabulary they cost more than a layer.
        first = int(counted[:, 1:].any(0).nonzero()[0])
        kept = counted[:, first + 1 :]
        targets = ids.masked_fill(~counted, -100)[:, first + 1 :]
        ids, targets = (each.to(device_of(self.model)) for each in (ids, targets))
        divisors = kept.sum(1).tolist() if normalise == "mean" else [1] * len(batch)
        scales = [self._scale(divisor) for divisor in divisors]
        try:
            self._running = True
            with torch.inference_mode(False), torch.enable_grad():
                logits = run_forward(self.model, ids, logits=longest - first)[:, :-1]
                if logits.dtype in (torch.bfloat16, torch.float16):
                    logits = logits.float()
                targets = targets.to(logits.device)
                losses = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
                losses = losses.view_as(targets)
                means = losses.sum(1) / losses.new_tensor(divisors)
                (means * means.new_tensor(scales)).sum().backward()
            if unreached := [path for module, path in self._modules.items() if module not in self._d]:
                raise InputError(
                    f"model '{getattr(self.model.config, '_name_or_path', '')}': no gradient reaches {unreached[0]} "
                    f"({len(unreached)} modules in all): the model's own code cuts the graph (detach, no_grad) or "
                    "skips the module; leave its projection out, or describe another with --mapping"
                )
            shape = ids.shape
            # Some layers get a batch flattened to (batch * tokens, width).
            for recorded in (self._x, self._d):
                recorded.update({module: factor.reshape(*shape, -1) for module, factor in recorded.items()})
            factors = self._cut([len(sample.ids) for sample in batch], scales)
            each, means = losses.detach().double().cpu(), means.detach().tolist()
            return [Pass(means[row], each[row][kept[row]], factors[row]) for row in range(len(batch))]
        finally:
            self._running = False
            self._x.clear()
            self._d.clear()

    def _scale(self, divisor: int) -> int:
        """The factor of the loss in a float16 backward pass: a power of two, so that nothing is rounded."""
        return HALF_SCALE << (divisor - 1).bit_length() if self._half else 1

    def _cut(self, lengths: Sequence[int], scales: Sequence[int]) -> list[dict[str, Factors]]:
        """Each sample's factors: views of the whole batch's."""
        # Projections that read the same input (Q, K and V) get the same tensor.
        inputs: dict[tuple, Tensor] = {}
        whole: dict[str, tuple[Sequence[Tensor | None], Sequence[Tensor | None]]] = {}
        for name in self.projections:
            x: list[Tensor | None] = []
            d: list[Tensor | None] = []
            for layer, columns in zip(self.layers, self._columns, strict=True):
                module = layer[name].module if name in layer else None
                x.append(None if module is None else self._x[module])
                d.append(None if module is None else self._d[module][..., columns[name]])
            if self._even:
                place = tuple(map(place_of, x))
                if place not in inputs:
                    inputs[place] = _at_least_float32(torch.stack(x))
                whole[name] = inputs[place], self._unscaled(torch.stack(d), scales)
                continue
            for each in x:
                if each is not None and place_of(each) not in inputs:
                    inputs[place_of(each)] = _at_least_float32(each)
            whole[name] = (
                [None if each is None else inputs[place_of(each)] for each in x],
                [None if each is None else self._unscaled(each, scales) for each in d],
            )
        return [
            {name: Factors(*(_sample(row, tokens, factor) for factor in pair)) for name, pair in whole.items()}
            for row, tokens in enumerate(lengths)
        ]

    def _unscaled(self, d: Tensor, scales: Sequence[int]) -> Tensor:
        d = _at_least_float32(d)
        return d / d.new_tensor(scales)[:, None, None] if self._half else d


def _sample(row: int, tokens: int, factor: Tensor | Sequence[Tensor | None]) -> Tensor | tuple[Tensor | None, ...]:
    """One sample's part of a stack (layers, samples, tokens, width), or of each layer's (samples, tokens, width)."""
    if isinstance(factor, Tensor):
        return factor[:, row, :tokens]
    return tuple(None if each is None else each[row, :tokens] for each in factor)


def place_of(x: Tensor) -> tuple:
    """A key that is equal for two views of the same memory."""
    return x.data_ptr(), x.shape, x.stride()


def _at_least_float32(factor: Tensor) -> Tensor:
    """16-bit factors as float32: products in 16 bits would lose precision."""
    return factor.float() if factor.dtype in (torch.bfloat16, torch.float16) else factor


def _index(part: Projection) -> slice | Tensor:
    """The output features, as a slice where they are adjacent: a slice makes a view, an index a copy."""
    if part.columns is None:
        return slice(None)
    first, last = int(part.columns[0]), int(part.columns[-1])
    adjacent = last - first + 1 == len(part.columns)
    return slice(first, last + 1) if adjacent else part.columns.to(part.module.weight.device)
