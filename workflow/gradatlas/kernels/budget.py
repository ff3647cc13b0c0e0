"""The budget of a change of weights: each block's part of the change of log pi(y|x).

Along the straight line W(t) from the weights before to those after, by dW = W(1) - W(0),

    log pi after - log pi before = int_0^1 sum_b <s_b(t), dW_b> dt,    s_b = the gradient of log pi for block b,

for any optimiser, clipping and batch. <s_b, dW_b> of a linear layer is sum_t d_t^T dW_b x_t: one backward pass of the
responses at each t of a rule, and no kernel. Along a run the parts of all intervals add up to the whole change, and the
gradients at an end of an interval serve the changes before and after it (`budgets`).

| rule | passes with gradient | without | error, in the size h of the change |
|---|---|---|---|
| first_order | 1 | 1 | h^2 |
| trapezoid | 2 | 0 | h^3 |
| midpoint | 1 | 2 | h^3, half of the trapezoid's with the other sign |
| simpson | 3 | 0 | h^5 |
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    "simpson": ((0.0, 1 / 6), (0.5, 4 / 6), (1.0, 1 / 6)),
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
    before = weights_of(blocks.model)
    followed, passes = _Responses(blocks, responses, batch_tokens), dict(RULES[rule])
    directions = _directions(blocks, before, after)
    parts = {block: np.zeros(len(responses)) for block in directions}
    scores = {}
    try:
        for t in sorted({*passes} if measured else {*passes, 0.0, 1.0}):
            _set_weights(blocks.model, {name: _between(before[name], after[name], t) for name in before})
            if t not in passes:
                scores[t] = followed.scores()
                continue
            scores[t], (found,) = followed.along([directions])
            for block, part in found.items():
                parts[block] += passes[t] * part
    finally:
        _set_weights(blocks.model, before)
    change = np.array([measured[key] for key in responses]) if measured else scores[1.0] - scores[0.0]
    return Budget(tuple(responses), parts, change)


def budgets(
    blocks: Blocks,
    path: Iterable[Mapping[str, Tensor]],
    responses: Mapping[str, EncodedResponse],
    *,
    batch_tokens: int = 4096,
) -> Iterator[tuple[Budget, Budget]]:
    """The budget of each change along a `path` of weights, by first order and by Simpson's rule.

    One pass at each point of the path, and one in the middle of each change. Arguments and errors as of `budget`. Two
    points of the path are held at a time.
    """
    before, followed = weights_of(blocks.model), _Responses(blocks, responses, batch_tokens)
    keys = tuple(responses)
    points, change, known = iter(path), {}, None
    point = next(points, None)
    try:
        while point is not None:
            following = next(points, None)
            ahead = _directions(blocks, point, following) if following is not None else {}
            _set_weights(blocks.model, point)
            scores, (last, first) = followed.along([change, ahead])
            if known is not None:
                scored, begun, middle = known
                parts = {block: (begun[block] + 4 * middle[block] + last[block]) / 6 for block in last}
                yield Budget(keys, begun, scores - scored), Budget(keys, parts, scores - scored)
            if following is not None:
                _set_weights(blocks.model, {name: _between(point[name], following[name], 0.5) for name in point})
                known = scores, first, followed.along([ahead])[1][0]
            change, point = ahead, following
    finally:
        _set_weights(blocks.model, before)


class _Responses:
    """Responses by key, in batches."""

    def __init__(self, blocks: Blocks, responses: Mapping[str, EncodedResponse], batch_tokens: int):
        self.blocks, self.responses = blocks, responses
        self.places = {key: place for place, key in enumerate(responses)}
        self.batches = plan_batches(responses, batch_tokens, length_regime(blocks.model.config))

    def along(self, directions: Sequence[Mapping[Block, Tensor]]) -> tuple[np.ndarray, list[dict[Block, np.ndarray]]]:
        """log pi, (responses,); and for each of several changes, by block, <s_b, dW_b>, (responses,): one pass."""
        scores = np.zeros(len(self.places))
        parts = [{block: np.zeros(len(self.places)) for block in each} for each in directions]
        for keys in self.batches:
            at = [self.places[key] for key in keys]

            def receive(block: Block, factor: Factor, at: list[int] = at) -> None:
                for direction, part in zip(directions, parts, strict=True):
                    if block in direction:
                        part[block][at] = factor.along(direction[block]).double().cpu()

            scores[at] = self.blocks.run([self.responses[key] for key in keys], receive).double().cpu()
        return scores, parts

    @torch.no_grad()
    def scores(self) -> np.ndarray:
        """log pi, (responses,)."""
        found = np.zeros(len(self.places))
        for keys in self.batches:
            scored = log_probs(self.blocks.model, [self.responses[key] for key in keys])
            found[[self.places[key] for key in keys]] = scored.double().cpu()
        return found


def weights_of(model: Any) -> dict[str, Tensor]:
    """Copies of a model's parameters, by name; of whole numbers none."""
    return {name: each.detach().clone() for name, each in model.named_parameters() if each.is_floating_point()}


def _directions(blocks: Blocks, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[Block, Tensor]:
    """By block, the change of its weights, at least float32; blocks that did not change are left out."""
    for name, each in before.items():
        if name not in after or after[name].shape != each.shape:
            raise InputError(
                f"the weights after the change: {name} is missing or has another shape; give those of the same model"
            )
    device = blocks.model.device
    changes = {name: _difference(after[name].detach().to(device), each.to(device)) for name, each in before.items()}
    changes = {name: change for name, change in changes.items() if change.any()}
    return {block: blocks.change(block, changes) for block in blocks.blocks if blocks.parameter(block) in changes}


def _difference(after: Tensor, before: Tensor) -> Tensor:
    """At least float32."""
    kind = torch.promote_types(before.dtype, torch.float32)
    return after.to(kind) - before.to(kind)


def _between(before: Tensor, after: Tensor, t: float) -> Tensor:
    """W(t) on the line between two weights."""
    if t in (0, 1):
        return after if t else before
    return (before + t * _difference(after.to(before.device), before)).to(before.dtype)


@torch.no_grad()
def _set_weights(model: Any, weights: Mapping[str, Tensor]) -> None:
    for name, own in model.named_parameters():
        if name in weights:
            own.copy_(weights[name])
