"""Frobenius norms of the kernel of the logits, by Gaussian vectors.

Of two responses, the kernel K = J_o J_u^T maps (tokens of u x vocabulary) to (tokens of o x vocabulary); J is the
Jacobian of a response's logits with respect to the parameters. K is too large to form. For independent w and v, all
entries normal with mean 0 and variance 1,

    w^T K v = <J_o^T w, J_u^T v>,    E[(w^T K v)^2] = ||K||_F^2:

an inner product of two gradients, of <w, logits of o> and of <v, logits of u>, taken from their factors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradatlas.core.errors import InputError
from gradatlas.finetuning.sequences import EncodedResponse, response_logits
from gradatlas.kernels.blocks import Block, Blocks
from gradatlas.kernels.gaussian import SquaredNorm, of_products
from gradatlas.kernels.matrices import kernels
from gradatlas.study.seeds import seeded_hash


@dataclass(frozen=True)
class Drawn(EncodedResponse):
    """A response with the seed of a Gaussian vector over its logits."""

    seed: int


def squared_norms(
    blocks: Blocks, responses: Sequence[EncodedResponse], *, draws: int = 16, seed: int = 0, **options: Any
) -> dict[Block | None, SquaredNorm]:
    """||K_ou||_F^2 of all pairs (o, u), each (responses, responses): of all parameters (None), and of every block.

    Every response has `draws` vectors w and as many v; an estimate is the mean over all pairs of them. (o, u) and
    (u, o) have the same norm; where o and u differ, their estimates are independent. Norms of blocks do not add up, as
    kernels do. 2 x `draws` gradients a response; `options`: of `kernels`. Raises `InputError` for less than two draws.
    """
    if draws < 2:
        raise InputError(f"draws: {draws} give no standard error; give 2 or more")
    each = 2 * draws
    drawn = [
        Drawn(one.ids, one.start, int.from_bytes(seeded_hash(seed, f"{place} {draw}")[:8]) >> 1)
        for place, one in enumerate(responses)
        for draw in range(each)
    ]
    by_block = kernels(blocks, drawn, score=projected_logits, **options)
    found: dict[Block | None, SquaredNorm] = {}
    for block, products in ({None: sum(by_block.values())} | by_block).items():
        pairs = products.view(len(responses), each, len(responses), each)[:, :draws, :, draws:].transpose(1, 2)
        found[block] = of_products(pairs)
    return found


def projected_logits(model: Any, batch: Sequence[Drawn]) -> Tensor:
    """(responses,): each one's <w, logits> over its tokens and the vocabulary, with gradient."""
    logits, _ = response_logits(model, batch)
    parts = logits.split([each.tokens for each in batch])
    return torch.stack([(part * _gaussian(part, each.seed)).sum() for part, each in zip(parts, batch, strict=True)])


def _gaussian(like: Tensor, seed: int) -> Tensor:
    """Drawn on the CPU, so that it is the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)
