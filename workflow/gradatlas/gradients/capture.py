"""One pass over a batch: the inputs X and output gradients D of every layer's projections.

For a linear layer with inputs X (tokens x in) and output gradients D (tokens x out), the gradient of its weight is
D^T X; so X and D, which a pass has at hand anyway, are all that is needed. Weights are frozen: no weight gradient
is ever formed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradatlas.core.errors import InputError
from gradatlas.models.decoders import ATTENTION, Projection, find_layers
from gradatlas.models.forward import run_forward
from gradatlas.models.tokens import Encoded

PROJECTIONS = ATTENTION

# float16 has no number below 2^-24: a response token's loss goes backward times this, whatever the loss is divided by.
HALF_SCALE = 2**4


@dataclass(frozen=True)
class Factors:
    """One sample's factors of one projection in all layers: `x` (layers, tokens, in), `d` (layers, tokens, out).

    float32, or float64 where the pass is.
    """

    x: Tensor
    d: Tensor


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
    """Runs batches through a frozen model and keeps X and D of each projection.

    `projections`: any of q, k, v, o, gate, up, down. `mapping`: where they are, if they cannot be found
    (`find_layers`). Raises `InputError` on a model that is not understood, or whose layers differ in width.
    """

    def __init__(self, model: Any, projections: Sequence[str] = PROJECTIONS, mapping: str | None = None):
        self.model = model.eval().requires_grad_(False)
        self.layers: list[dict[str, Projection]] = find_layers(model, projections, mapping)
        for name in projections:
            shapes = [layer[name].shape for layer in self.layers]
            if len(set(shapes)) > 1:
                odd = next(index for index, shape in enumerate(shapes) if shape != shapes[0])
                raise InputError(
                    f"model '{model.config._name_or_path}': {name} is {shapes[0]} in layer 0 and {shapes[odd]} in "
                    f"layer {odd}; leave {name} out of the projections, as its layers cannot be compared"
                )
        self._half = next(model.parameters()).dtype == torch.float16
        self._columns = [{name: _index(layer[name].columns, model.device) for name in layer} for layer in self.layers]
        # By module; a fused one serves several projections.
        self._x: dict[nn.Module, Tensor] = {}
        self._d: dict[nn.Module, Tensor] = {}
        for module in {part.module: None for layer in self.layers for part in layer.values()}:
            module.register_forward_hook(self._keep)
        # With all weights frozen, the graph has to start somewhere: at the embeddings. A copy, as a model may scale
        # them in place.
        model.get_input_embeddings().register_forward_hook(lambda module, args, output: output.requires_grad_().clone())

    def _keep(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        self._x[module] = args[0].detach()
        output.register_hook(lambda gradient: self._d.__setitem__(module, gradient.detach()))

    def run(self, batch: Sequence[Encoded], normalise: str = "mean") -> list[Pass]:
        """Forward and backward of each sample's own mean response cross-entropy, all in one padded batch.

        Padding stands on the right, where causal attention lets no real token see it, and each sample's factors
        are cut to its own tokens, so it contributes exactly nothing; it repeats the sample's last token, as another
        one's numbers could be none. Samples do not see each other, so the
        gradient of the sum of their losses is each one's own.
        """
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
            logits = run_forward(self.model, ids, logits=longest - first)[:, :-1]
            if logits.dtype in (torch.bfloat16, torch.float16):
                logits = logits.float()
            targets = ids.masked_fill(~counted, -100)[:, first + 1 :]
            losses = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
            losses = losses.view_as(targets)
            means = losses.sum(1) / ((targets != -100).sum(1) if normalise == "mean" else 1)
            scales = [self._scale(sum(sample.response[1:]) if normalise == "mean" else 1) for sample in batch]
            (means * means.new_tensor(scales)).sum().backward()
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
            self._x.clear()
            self._d.clear()

    def _scale(self, divisor: int) -> int:
        """What a float16 pass multiplies a loss by before the backward pass: a power of two, so nothing is rounded."""
        return HALF_SCALE << (divisor - 1).bit_length() if self._half else 1

    def _cut(self, row: int, tokens: int, scale: int) -> dict[str, Factors]:
        stacks: dict[tuple[int, ...], Tensor] = {}
        factors = {}
        for name in self.layers[0]:
            modules = [layer[name].module for layer in self.layers]
            # Projections that read the same input (Q, K and V) get the same stack.
            inputs = [self._x[module] for module in modules]
            place = tuple(x.data_ptr() for x in inputs)
            if place not in stacks:
                stacks[place] = _at_least_float32(torch.stack([x[row, :tokens] for x in inputs]))
            d = [
                self._d[module][row, :tokens, columns[name]]
                for module, columns in zip(modules, self._columns, strict=True)
            ]
            stack = _at_least_float32(torch.stack(d))
            factors[name] = Factors(stacks[place], stack / scale if scale > 1 else stack)
        return factors


def _at_least_float32(factor: Tensor) -> Tensor:
    """16-bit factors as float32: their products would lose what the pass still has."""
    return factor.float() if factor.dtype in (torch.bfloat16, torch.float16) else factor


def _index(columns: Tensor | None, device: torch.device) -> slice | Tensor:
    """The output features as a slice where they are adjacent: it takes a view, an index makes a copy."""
    if columns is None:
        return slice(None)
    first, last = int(columns[0]), int(columns[-1])
    return slice(first, last + 1) if last - first + 1 == len(columns) else columns.to(device)
