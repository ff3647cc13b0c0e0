"""One pass over a batch: the inputs X and output gradients D of every layer's projections.

For a linear layer with inputs X (tokens x in) and output gradients D (tokens x out), the gradient of its weight is
D^T X; so X and D, which a pass has at hand anyway, are all that is needed. Weights are frozen during a pass: no weight
gradient is ever formed.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from workflow.lib.errors import InputError
from workflow.lib.gradients.decoders import ATTENTION, Projection, find_layers, shapes_of
from workflow.lib.gradients.forward import evaluating, run_forward
from workflow.lib.gradients.tokens import Encoded

PROJECTIONS = ATTENTION

# float16 has no number below 2^-24: a response token's loss goes backward times this, whatever the loss is divided by.
HALF_SCALE = 2**4


@dataclass(frozen=True)
class Factors:
    """One sample's factors of one projection, by layer: `x` (tokens, in) and `d` (tokens, out).

    Each is one stack (layers, tokens, width) where all layers have one shape. Where they do not, it is a tuple, with
    None for a layer that has no such projection. float32, or float64 where the pass is.
    """

    x: Tensor | tuple[Tensor | None, ...]
    d: Tensor | tuple[Tensor | None, ...]

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """`x` and `d` of every layer that has the projection: one pair of stacks, or a pair a layer."""
        if isinstance(self.x, Tensor):
            return [(self.x, self.d)]
        return [(x, d) for x, d in zip(self.x, self.d, strict=True) if x is not None]


@dataclass(frozen=True)
class Pass:
    """One sample's result: its `loss`, each response token's cross-entropy, and the factors of each projection.

    `token_losses` (response tokens,) float64 on the CPU, in the order of the tokens.
    """

    loss: float
    token_losses: Tensor
    factors: dict[str, Factors]

    @property
    def loss_concentration(self) -> float | None:
        """(sum l)^2 / (n sum l^2): 1 where losses are alike, 1/n where one token holds all; None where all are 0."""
        squares = float(self.token_losses.square().sum())
        return float(self.token_losses.sum()) ** 2 / (len(self.token_losses) * squares) if squares else None


class Capture:
    """Runs batches through a model with frozen weights and keeps X and D of each projection.

    >>> with Capture(model) as capture:
    ...     passes = capture.run(batch)

    The block leaves the model as it was: training mode of each module, `requires_grad` of each parameter, no hook, no
    gradient; also where it raises. Blocks nest, and `run` outside of a block opens one for itself.

    `projections`: any of q, k, v, o, gate, up, down. `mapping`: where they are, if they cannot be found
    (`find_layers`). Raises `InputError` on a model that is not understood.
    """

    def __init__(self, model: Any, projections: Sequence[str] = PROJECTIONS, mapping: str | None = None):
        self.model, self.projections = model, tuple(projections)
        self.layers: list[dict[str, Projection]] = find_layers(model, projections, mapping)
        shapes = shapes_of(self.layers, self.projections)
        self._even = all(len(set(each)) == 1 for each in shapes.values())
        self._half = next(model.parameters()).dtype == torch.float16
        self._columns = [{name: _index(layer[name].columns, model.device) for name in layer} for layer in self.layers]
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
        # With all weights frozen, the graph has to start somewhere: at the embeddings. A copy, as a model may scale
        # them in place.
        return output.requires_grad_().clone() if self._running else None

    def _keep(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        # Other passes of the block, such as `generate`, are none of ours.
        if not self._running:
            return
        self._x[module] = args[0].detach()
        if output.requires_grad:
            output.register_hook(lambda gradient: self._d.__setitem__(module, gradient.detach()))

    def run(self, batch: Sequence[Encoded], normalise: str = "mean") -> list[Pass]:
        """Forward and backward of each sample's own mean response cross-entropy, all in one padded batch.

        Padding stands on the right, where causal attention lets no real token see it, and each sample's factors
        are cut to its own tokens, so it contributes exactly nothing; it repeats the sample's last token, as another
        one's numbers could be none. Samples do not see each other, so the
        gradient of the sum of their losses is each one's own. Raises `InputError` where no gradient reaches a
        projection.
        """
        if not self._blocks:
            with self:
                return self.run(batch, normalise)
        device = self.model.device
        longest = max(len(sample.ids) for sample in batch)
        ids = torch.empty(len(batch), longest, dtype=torch.long)
        counted = torch.zeros(len(batch), longest, dtype=torch.bool)
        for row, sample in enumerate(batch):
            ids[row] = sample.ids[-1]
            ids[row, : len(sample.ids)] = torch.tensor(sample.ids)
            counted[row, : len(sample.ids)] = torch.tensor(sample.response)
        ids, counted = ids.to(device), counted.to(device)
        # Logits only from the last prompt token on: over a vocabulary they cost more than a block.
        first = int(counted[:, 1:].any(0).nonzero()[0])
        try:
            self._running = True
            with torch.inference_mode(False), torch.enable_grad():
                logits = run_forward(self.model, ids, logits=longest - first)[:, :-1]
                if logits.dtype in (torch.bfloat16, torch.float16):
                    logits = logits.float()
                targets = ids.masked_fill(~counted, -100)[:, first + 1 :]
                losses = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
                losses = losses.view_as(targets)
                means = losses.sum(1) / ((targets != -100).sum(1) if normalise == "mean" else 1)
                scales = [self._scale(sum(sample.response[1:]) if normalise == "mean" else 1) for sample in batch]
                (means * means.new_tensor(scales)).sum().backward()
            if unreached := [path for module, path in self._modules.items() if module not in self._d]:
                raise InputError(
                    f"model '{getattr(self.model.config, '_name_or_path', '')}': no gradient reaches {unreached[0]} "
                    f"({len(unreached)} modules in all): the model's own code cuts the graph (detach, no_grad) or "
                    "skips the module; leave its projection out, or describe another with --mapping"
                )
            shape = ids.shape
            # Some layers see a batch flattened to (batch * tokens, width).
            for kept in (self._x, self._d):
                kept.update({module: factor.reshape(*shape, -1) for module, factor in kept.items()})
            each = [row[kept].double().cpu() for row, kept in zip(losses.detach(), targets != -100, strict=True)]
            return [
                Pass(float(means[row].detach()), each[row], self._cut(row, len(sample.ids), scales[row]))
                for row, sample in enumerate(batch)
            ]
        finally:
            self._running = False
            self._x.clear()
            self._d.clear()

    def _scale(self, divisor: int) -> int:
        """What a float16 pass multiplies a loss by before the backward pass: a power of two, so nothing is rounded."""
        return HALF_SCALE << (divisor - 1).bit_length() if self._half else 1

    def _cut(self, row: int, tokens: int, scale: int) -> dict[str, Factors]:
        # Projections that read the same input (Q, K and V) get the same tensor.
        inputs: dict[tuple, Tensor] = {}
        factors = {}
        for name in self.projections:
            x: list[Tensor | None] = []
            d: list[Tensor | None] = []
            for layer, columns in zip(self.layers, self._columns, strict=True):
                module = layer[name].module if name in layer else None
                x.append(None if module is None else self._x[module])
                d.append(None if module is None else self._d[module][row, :tokens, columns[name]])
            if self._even:
                place = tuple(map(place_of, x))
                if place not in inputs:
                    inputs[place] = _at_least_float32(torch.stack([each[row, :tokens] for each in x]))
                stack = _at_least_float32(torch.stack(d))
                factors[name] = Factors(inputs[place], stack / scale if scale > 1 else stack)
                continue
            for each in x:
                if each is not None and place_of(each) not in inputs:
                    inputs[place_of(each)] = _at_least_float32(each[row, :tokens])
            factors[name] = Factors(
                tuple(None if each is None else inputs[place_of(each)] for each in x),
                tuple(None if each is None else _at_least_float32(each) / scale for each in d),
            )
        return factors


def place_of(x: Tensor) -> tuple:
    """What is equal for two views of the same numbers."""
    return x.data_ptr(), x.shape, x.stride()


def _at_least_float32(factor: Tensor) -> Tensor:
    """16-bit factors as float32: their products would lose what the pass still has."""
    return factor.float() if factor.dtype in (torch.bfloat16, torch.float16) else factor


def _index(columns: Tensor | None, device: torch.device) -> slice | Tensor:
    """The output features as a slice where they are adjacent: it takes a view, an index makes a copy."""
    if columns is None:
        return slice(None)
    first, last = int(columns[0]), int(columns[-1])
    return slice(first, last + 1) if last - first + 1 == len(columns) else columns.to(device)
