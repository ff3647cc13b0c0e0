"""One pass over a batch: the inputs X and output gradients D of every layer's Q, K, V and O.

For a linear layer with inputs X (tokens x in) and output gradients D (tokens x out), the gradient of its weight is
D^T X; so X and D, which a pass has at hand anyway, are all that is needed. Weights are frozen: no weight gradient
is ever formed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from workflow.lib.errors import InputError
from workflow.lib.gradients.tokens import Encoded

PROJECTIONS = ("q", "k", "v", "o")


@dataclass(frozen=True)
class Factors:
    """One sample's factors of one projection in all layers: `x` (layers, tokens, in), `d` (layers, tokens, out)."""

    x: Tensor
    d: Tensor


@dataclass(frozen=True)
class Pass:
    """One sample's result: mean response cross-entropy `loss`, and the factors of each projection."""

    loss: float
    factors: dict[str, Factors]


def find_projections(model: nn.Module) -> list[dict[str, nn.Linear]]:
    """The q, k, v and o linear layers of every decoder layer, first layer first.

    Any Llama-like decoder: attention modules that hold ``q_proj, k_proj, v_proj, o_proj`` as plain linear layers.
    Raises `InputError` naming what was seen instead.
    """
    found = []
    for _, module in model.named_modules():
        parts = {name: getattr(module, f"{name}_proj", None) for name in PROJECTIONS}
        if all(isinstance(part, nn.Linear) for part in parts.values()):
            found.append(parts)
    expected = getattr(model.config, "num_hidden_layers", None)
    if not found or len(found) != expected:
        kinds = {type(module).__name__ for _, module in model.named_modules()}
        seen = ", ".join(sorted(kind for kind in kinds if "ttention" in kind)) or "none"
        raise InputError(
            f"model '{model.config._name_or_path}' ({type(model).__name__}): found q_proj, k_proj, v_proj and o_proj "
            f"in {len(found)} of {expected} layers (attention modules seen: {seen}); only Llama-like decoders are "
            "supported"
        )
    return found


class Capture:
    """Runs batches through a frozen model and keeps X and D of each projection."""

    def __init__(self, model: Any):
        self.model = model.eval().requires_grad_(False)
        self.layers = find_projections(model)
        self._x: dict[tuple[int, str], Tensor] = {}
        self._d: dict[tuple[int, str], Tensor] = {}
        for index, parts in enumerate(self.layers):
            for name, module in parts.items():
                module.register_forward_hook(self._hook(index, name))
        # With all weights frozen, the graph has to start somewhere: at the embeddings.
        model.get_input_embeddings().register_forward_hook(lambda module, args, output: output.requires_grad_())

    def _hook(self, index: int, name: str):
        def keep(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            self._x[index, name] = args[0].detach()
            output.register_hook(lambda gradient: self._d.__setitem__((index, name), gradient.detach()))

        return keep

    def run(self, batch: Sequence[Encoded], normalise: str = "mean") -> list[Pass]:
        """Forward and backward of each sample's own mean response cross-entropy, all in one padded batch.

        Padding stands on the right, where causal attention lets no real token see it, and each sample's factors
        are cut to its own tokens, so it contributes exactly nothing. Samples do not see each other, so the
        gradient of the sum of their losses is each one's own.
        """
        device = self.model.device
        longest = max(len(sample.ids) for sample in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.long)
        attention = torch.zeros(len(batch), longest, dtype=torch.long)
        counted = torch.zeros(len(batch), longest, dtype=torch.bool)
        for row, sample in enumerate(batch):
            ids[row, : len(sample.ids)] = torch.tensor(sample.ids)
            attention[row, : len(sample.ids)] = 1
            counted[row, : len(sample.ids)] = torch.tensor(sample.response)
        ids, attention, counted = ids.to(device), attention.to(device), counted.to(device)
        # Logits only from the last prompt token on: over a vocabulary they cost more than a block.
        first = int(counted[:, 1:].any(0).nonzero()[0])
        try:
            output = self.model(
                input_ids=ids, attention_mask=attention, use_cache=False, logits_to_keep=longest - first
            )
            logits = output.logits[:, :-1]
            if logits.dtype in (torch.bfloat16, torch.float16):
                logits = logits.float()
            targets = ids.masked_fill(~counted, -100)[:, first + 1 :]
            losses = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
            losses = losses.view_as(targets)
            means = losses.sum(1) / ((targets != -100).sum(1) if normalise == "mean" else 1)
            means.sum().backward()
            return [self._cut(row, len(sample.ids), float(means[row].detach())) for row, sample in enumerate(batch)]
        finally:
            self._x.clear()
            self._d.clear()

    def _cut(self, row: int, tokens: int, loss: float) -> Pass:
        layers = range(len(self.layers))
        # Q, K and V read the same input: one stack serves all three.
        x_qkv = torch.stack([self._x[i, "q"][row, :tokens] for i in layers])
        x_o = torch.stack([self._x[i, "o"][row, :tokens] for i in layers])
        factors = {
            name: Factors(x_o if name == "o" else x_qkv, torch.stack([self._d[i, name][row, :tokens] for i in layers]))
            for name in PROJECTIONS
        }
        return Pass(loss, factors)
