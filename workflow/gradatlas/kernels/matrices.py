"""Kernels k_b(o, u) = <s_o, s_u> of all pairs of responses, for every block b; s is the gradient of log pi(y|x).

A block's kernel takes the cheaper of two exact ways, by their multiplications: from the factors of each pair,
sum((X X'^T) * (D D'^T)), T^2 (in + out) a pair; or from formed gradients D^T X, in * out a pair and T in * out a
response, some rows of the weight at a time. For more responses than tokens T the second is cheaper from
T = sqrt(in * out / (in + out)) on: 28 tokens at a width of 1,536.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import torch
from torch import Tensor

from gradatlas.finetuning.sequences import EncodedResponse, log_probs
from gradatlas.gradients.plan import plan_batches
from gradatlas.kernels.blocks import Block, Blocks, Score
from gradatlas.kernels.factors import Factor
from gradatlas.models.forward import length_regime


def kernels(
    blocks: Blocks,
    responses: Sequence[EncodedResponse],
    *,
    memory: int = 2**31,
    batch_tokens: int = 4096,
    score: Score = log_probs,
) -> dict[Block, Tensor]:
    """By block, the kernel (responses, responses), float64 on the CPU, symmetric and positive semidefinite.

    The sum over blocks is the kernel of all parameters. Two blocks with one weight (tied embeddings) have a third one
    for their cross terms, which is not semidefinite. `memory`: bytes for the factors of some blocks, and as many for
    formed gradients, beside a pass over `batch_tokens` tokens and, for pairs, four matrices of as many tokens squared;
    with less memory there are more passes. `score`: of `Blocks.run`.
    """
    by_key = {str(place): each for place, each in enumerate(responses)}
    batches = plan_batches(by_key, batch_tokens, length_regime(blocks.model.config))
    places = [int(key) for keys in batches for key in keys]
    order = torch.tensor(places).argsort()
    padded = sum(len(keys) * len(by_key[keys[0]].ids) for keys in batches)
    found: dict[Block, Tensor] = {}
    for units in _groups(blocks, padded, memory):
        kept: dict[Block, list[Factor]] = {block: [] for unit in units for block in unit}

        def receive(block: Block, factor: Factor, kept: dict[Block, list[Factor]] = kept) -> None:
            if block in kept:
                kept[block].append(factor)

        for keys in batches:
            blocks.run([by_key[key] for key in keys], receive, score)
        for unit in units:
            cross = [Block(None, " x ".join(block.name for block in unit))] if len(unit) > 1 else []
            made = _kernels([kept.pop(block) for block in unit], memory)
            found |= {block: each[order][:, order] for block, each in zip([*unit, *cross], made, strict=True)}
    return found


def _groups(blocks: Blocks, tokens: int, memory: int) -> Iterator[list[tuple[Block, ...]]]:
    """Units (a block, or two with one weight) in groups whose factors of all `tokens` fit into `memory`."""
    shared = {block for unit in blocks.shared for block in unit}
    group, used = [], 0
    for unit in (*blocks.shared, *((block,) for block in blocks.blocks if block not in shared)):
        size = sum(map(blocks.width, unit)) * tokens * 8
        if group and used + size > memory:
            yield group
            group, used = [], 0
        group.append(unit)
        used += size
    yield group


def _kernels(unit: Sequence[Sequence[Factor]], memory: int) -> list[Tensor]:
    """The kernel of each member of a unit, and of the cross terms of two; `unit`: by member, the batches' factors."""
    samples = sum(factor.samples for factor in unit[0])
    rows, columns = unit[0][0].size
    tokens = [sum(factor.tokens for factor in member) for member in unit]
    by_pairs = sum(total**2 * member[0].pair_cost for total, member in zip(tokens, unit, strict=True))
    if by_pairs > sum((samples**2 + total) * rows * columns for total in tokens):
        return _from_gradients(unit, max(1, memory // (8 * samples * columns * len(unit))))
    own = [_symmetric(_inner(member, member)) / 2 for member in unit]
    return [*own, *(_symmetric(_inner(*pair)) for pair in combinations(unit, 2))]


def _inner(one: Sequence[Factor], other: Sequence[Factor]) -> Tensor:
    """Of all pairs of samples, from their factors; of a member with itself, half of the pairs."""
    lines: list[list[Tensor]] = []
    for i, factor in enumerate(one):
        known = [line[i].mT for line in lines] if one is other else []
        lines.append([*known, *(factor.inner(each).double().cpu() for each in other[len(known) :])])
    return torch.cat([torch.cat(line, 1) for line in lines])


def _from_gradients(unit: Sequence[Sequence[Factor]], step: int) -> list[Tensor]:
    """From gradients, `step` rows of the weight at a time."""
    total: list[Tensor] = []
    for first in range(0, unit[0][0].size[0], step):
        rows = slice(first, first + step)
        formed = [torch.cat([factor.gradient(rows).flatten(1) for factor in member]) for member in unit]
        own = [_symmetric(each @ each.mT) / 2 for each in formed]
        made = [*own, *(_symmetric(one @ other.mT) for one, other in combinations(formed, 2))]
        made = [each.double().cpu() for each in made]
        total = [old + new for old, new in zip(total, made, strict=True)] if total else made
    return total


def _symmetric(cross: Tensor) -> Tensor:
    return cross + cross.mT
