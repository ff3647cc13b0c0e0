"""The budget of a change of weights: each block's part of the change of log pi(y|x).

Along the straight line W(t) from the weights before to those after, by dW = W(1) - W(0),

    log pi after - log pi before = int_0^1 sum_b <s_b(t), dW_b> dt,    s_b = the gradient of log pi for block b,

for any optimiser, clipping and batch. <s_b, dW_b> of a linear layer is sum_t d_t^T dW_b x_t: one backward pass of the
responses at each t of a rule, and no kernel. Along a run the parts of all intervals add up to the whole change.

| rule | passes with gradient | without | error, in the size h of the change |
|---|---|---|---|
| first_order | 1 | 1 | h^2 |
| trapezoid | 2 | 0 | h^3 |
| midpoint | 1 | 2 | h^3, half of the trapezoid's with the other sign |
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradatlas.core.errors import InputError
from gradatlas.finetuning.sequences import EncodedResponse, log_probs
from gradatlas.gradients.plan import plan_batches
from gradatlas.kernels.blocks import Block, Blocks
from gradatlas.kernels.factors import Factor
from gradatlas.models.forward import length_regime

#: By name, the (t, weight) of a rule of integration over t from 0 to 1.
RULES: dict[str, tuple[tuple[float, float], ...]] = {
    "first_order": ((0.0, 1.0),),
    "trapezoid": ((0.0, 0.5), (1.0, 0.5)),
    "midpoint": ((0.5, 1.0),),
}


@dataclass(frozen=True)
class Budget:
    """Changes of log pi by response, each (responses,): `parts` by block, and `measured`."""

    responses: tuple[str, ...]
    parts: dict[Block, np.ndarray]
    measured: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """(responses,): the sum over blocks."""
        return sum(self.parts.values(), np.zeros(len(self.responses)))

    @property
    def gap(self) -> float:
        """||predicted - measured|| / ||measured|| over responses: 0 where the budget closes; NaN without a change."""
        size = float(np.linalg.norm(self.measured))
        return float(np.linalg.norm(self.predicted - self.measured)) / size if size else float("nan")

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row per response and block; `measured` is the whole change, the same for all blocks."""
        for block, part in self.parts.items():
            for key, predicted, measured in zip(self.responses, part.tolist(), self.measured.tolist(), strict=True):
                yield {"probe_id": key, **block._asdict(), "predicted": predicted, "measured": measured}


def budget(
    blocks: Blocks,
    after: Mapping[str, Tensor],
    responses: Mapping[str, EncodedResponse],
    *,
    rule: str = "trapezoid",
    measured: Mapping[str, float] | None = None,
    batch_tokens: int = 4096,
) -> Budget:
    """The budget of `responses`, by key, from the weights of the model of `blocks` to `after`.

    `after`: parameters by the names of `Module.named_parameters`; the model has its own weights again at the end.
    Blocks that did not change have no part. `measured`: the change of log pi of each response, where it is known (from
    the evaluations of a run), which saves passes. `batch_tokens`: tokens of a batch, with padding. Raises `InputError`
    for weights of another model.
    """
    own = {name: each for name, each in blocks.model.named_parameters() if each.is_floating_point()}
    for name, each in own.items():
        if name not in after or after[name].shape != each.shape:
            raise InputError(
                f"the weights after the change: {name} is missing or has another shape; give those of the same model"
            )
    changes = {name: _difference(after[name].detach().to(each.device), each.detach()) for name, each in own.items()}
    changes = {name: change for name, change in changes.items() if change.any()}
    directions = {block: blocks.change(block, changes) for block in blocks.blocks if blocks.parameter(block) in changes}
    places = {key: place for place, key in enumerate(responses)}
    batches = plan_batches(responses, batch_tokens, length_regime(blocks.model.config))
    parts = {block: torch.zeros(len(places), dtype=torch.float64) for block in directions}
    ends = {t: torch.zeros(len(places), dtype=torch.float64) for t in (0.0, 1.0)}
    passes = dict(RULES[rule])
    for t in sorted({*passes} if measured else {*passes, *ends}):
        with _weights_at(t, own, changes, after):
            for keys in batches:
                batch, at = [responses[key] for key in keys], [places[key] for key in keys]

                def receive(block: Block, factor: Factor, at: list[int] = at, t: float = t) -> None:
                    if block in directions:
                        parts[block][at] += passes[t] * factor.along(directions[block]).double().cpu()

                scores = blocks.run(batch, receive) if t in passes else _scores(blocks.model, batch)
                if t in ends:
                    ends[t][at] = scores.double().cpu()
    change = [measured[key] for key in responses] if measured else (ends[1.0] - ends[0.0]).tolist()
    return Budget(tuple(responses), {block: part.numpy() for block, part in parts.items()}, np.array(change))


def _difference(after: Tensor, before: Tensor) -> Tensor:
    """At least float32."""
    kind = torch.promote_types(before.dtype, torch.float32)
    return after.to(kind) - before.to(kind)


@torch.no_grad()
def _scores(model: Any, batch: list[EncodedResponse]) -> Tensor:
    return log_probs(model, batch)


@contextmanager
def _weights_at(
    t: float, own: Mapping[str, Tensor], changes: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> Iterator[None]:
    """The model with the weights W(t); its own again at the end, also after an error."""
    kept = {name: own[name].detach().clone() for name in changes} if t else {}
    try:
        with torch.no_grad():
            for name, before in kept.items():
                own[name].copy_(after[name] if t == 1 else before + t * changes[name])
        yield
    finally:
        with torch.no_grad():
            for name, before in kept.items():
                own[name].copy_(before)
