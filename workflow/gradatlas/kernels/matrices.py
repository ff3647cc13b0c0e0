"""Kernels k_b(o, u) = <s_o, s_u> of all pairs of responses, for every block b; s is the gradient of log pi(y|x).

A block's kernel takes the cheaper of two exact ways, by their multiplications: from the factors of each pair,
sum((X X'^T) * (D D'^T)), T^2 (in + out) a pair; or from formed gradients D^T X, in * out a pair and T in * out a
response, some rows of the weight at a time. For more responses than tokens T the second is cheaper from
T = sqrt(in * out / (in + out)) on: 28 tokens at a width of 1,536.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import combinations

import torch
from torch import Tensor

from gradatlas.finetuning.sequences import EncodedResponse, log_probs
from gradatlas.gradients.plan import plan_batches
from gradatlas.kernels.blocks import Block, Blocks, Score
from gradatlas.kernels.factors import Factor
from gradatlas.models.forward import length_regime

#: Bytes of formed gradients at a time: fixed, as the order of a sum decides its last digits.
FORMED = 2**28

Unit = tuple[Block, ...]


def kernels(
    blocks: Blocks,
    responses: Sequence[EncodedResponse],
    *,
    memory: float = 2**31,
    batch_tokens: int = 4096,
    score: Score = log_probs,
) -> dict[Block, Tensor]:
    """By block, the kernel (responses, responses), float64 on the CPU, symmetric and positive semidefinite.

    The sum over blocks is the kernel of all parameters. Two blocks with one weight (tied embeddings) have a third one
    for their cross terms, which is not semidefinite. `memory`: bytes for the factors of some blocks, beside `FORMED`
    for formed gradients, a pass over `batch_tokens` tokens and, for pairs, four matrices of as many tokens squared;
    with less memory there are more passes, and the same bytes. `score`: of `Blocks.run`.
    """
    return dict(kernels_by_block(blocks, responses, memory=memory, batch_tokens=batch_tokens, score=score))


def kernels_by_block(
    blocks: Blocks,
    responses: Sequence[EncodedResponse],
    *,
    memory: float = 2**31,
    batch_tokens: int = 4096,
    known: Collection[Block] = (),
    score: Score = log_probs,
) -> Iterator[tuple[Block, Tensor]]:
    """As `kernels`, one block after the other; without those that are `known`."""
    by_key = {str(place): each for place, each in enumerate(responses)}
    batches = plan_batches(by_key, batch_tokens, length_regime(blocks.model.config))
    places = [int(key) for keys in batches for key in keys]
    order = torch.tensor(places).argsort()
    wanted = [unit for unit in units(blocks) if not {*unit, *cross_terms(unit)} <= {*known}]
    for group in _groups(blocks, wanted, _padded(by_key, batches), memory):
        kept: dict[Block, list[Factor]] = {block: [] for unit in group for block in unit}

        def receive(block: Block, factor: Factor, kept: dict[Block, list[Factor]] = kept) -> None:
            if block in kept:
                kept[block].append(factor)

        for keys in batches:
            blocks.run([by_key[key] for key in keys], receive, score)
        for unit in group:
            made = _kernels([kept.pop(block) for block in unit])
            for block, each in zip([*unit, *cross_terms(unit)], made, strict=True):
                if block not in known:
                    yield block, each[order][:, order]


def units(blocks: Blocks) -> list[Unit]:
    """The blocks whose kernels are made together: each alone, or two with one weight."""
    shared = {block for unit in blocks.shared for block in unit}
    return [*blocks.shared, *((block,) for block in blocks.blocks if block not in shared)]


def cost(
    blocks: Blocks, responses: Sequence[EncodedResponse], *, memory: float = 2**31, batch_tokens: int = 4096
) -> tuple[int, float]:
    """Passes over all responses, and floating-point operations of passes and products, by their count."""
    by_key = {str(place): each for place, each in enumerate(responses)}
    tokens = _padded(by_key, plan_batches(by_key, batch_tokens, length_regime(blocks.model.config)))
    passes = sum(1 for _ in _groups(blocks, units(blocks), tokens, memory))
    weights = sum(each.numel() for each in blocks.model.parameters())
    # 2 forward, 2 backward to activations.
    flop = 4 * passes * weights * tokens
    for unit in units(blocks):
        for block in unit:
            size = blocks.size(block)
            ways = _multiplications(tokens if len(size) > 1 else len(responses), len(responses), size)
            flop += 2 * min(ways)
    return passes, float(flop)


def _multiplications(tokens: int, samples: int, size: Sequence[int]) -> tuple[float, float]:
    """Of a block's kernel: from the factors of each pair, and from formed gradients."""
    rows, columns = (*size, 1)[:2]
    return tokens**2 * sum(size), (samples**2 + tokens) * rows * columns


def cross_terms(unit: Unit) -> list[Block]:
    """The block of the cross terms of two blocks with one weight; none of a block alone."""
    return [Block(None, " x ".join(block.name for block in unit))] if len(unit) > 1 else []


def _padded(by_key: dict[str, EncodedResponse], batches: Sequence[Sequence[str]]) -> int:
    """Tokens of all batches, with padding."""
    return sum(len(keys) * max(len(by_key[key].ids) for key in keys) for keys in batches)


def _groups(blocks: Blocks, wanted: Sequence[Unit], tokens: int, memory: float) -> Iterator[list[Unit]]:
    """Units in groups whose factors of all `tokens` fit into `memory`."""
    group, used = [], 0
    # Factors are float64 in a float64 pass, else float32.
    number = 8 if any(each.dtype == torch.float64 for each in blocks.model.parameters()) else 4
    for unit in wanted:
        size = sum(map(blocks.width, unit)) * tokens * number
        if group and used + size > memory:
            yield group
            group, used = [], 0
        group.append(unit)
        used += size
    if group:
        yield group


def _kernels(unit: Sequence[Sequence[Factor]]) -> list[Tensor]:
    """The kernel of each member of a unit, and of the cross terms of two; `unit`: by member, the batches' factors."""
    samples = sum(factor.samples for factor in unit[0])
    rows, columns = unit[0][0].size
    tokens = [sum(factor.tokens for factor in member) for member in unit]
    by_pairs = sum(total**2 * member[0].pair_cost for total, member in zip(tokens, unit, strict=True))
    if by_pairs > sum((samples**2 + total) * rows * columns for total in tokens):
        return _from_gradients(unit, max(1, FORMED // (8 * samples * columns * len(unit))))
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
        # Copied to the CPU once: on a GPU each copy waits for all products before it.
        made = [each.double() for each in made]
        total = [old + new for old, new in zip(total, made, strict=True)] if total else made
    return [each.cpu() for each in total]


def _symmetric(cross: Tensor) -> Tensor:
    return cross + cross.mT
