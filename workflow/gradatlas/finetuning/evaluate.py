"""What a model believes of many responses, batched by length: the numbers that the dynamics study follows.

Sums and means over the tokens of a response, its end token among them. Along every response's *own* prefix:
``argmax_log_prob`` sums the log-probability of the likeliest token at each place, and the others are means over places.
(The study's published argmax curves come from an error: its code kept the value of the last type, shuffled words.)
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from gradatlas.finetuning.processes import SINGLE_PROCESS, Processes
from gradatlas.finetuning.sequences import EncodedResponse, shared_logits
from gradatlas.models.forward import length_regime

#: Columns of the ``dynamics`` table that are measured here, in its order.
MEASURES = ("log_prob_sum", "log_prob_mean", "argmax_log_prob", "rest_log_mass", "entropy", "a_norm", "g_norm")


@torch.no_grad()
def evaluate(
    model: Any, responses: Mapping[str, EncodedResponse], batch_tokens: int, processes: Processes = SINGLE_PROCESS
) -> dict[str, dict[str, float]]:
    """`MEASURES` of every response, by its key and in the order given; `batch_tokens`: of one batch, with padding.

    Responses to one prompt share a pass over it, through the model's cache, where it keeps one. Batches are shared out
    among `processes`; all get all numbers.
    """
    found: dict[str, dict[str, float]] = {}
    for keys in processes.share(batch_by_length(responses, batch_tokens, length_regime(model.config))):
        batch = [responses[key] for key in keys]
        table = measures(*shared_logits(model, batch)).double()
        for key, rows in zip(keys, table.split([encoded.tokens for encoded in batch]), strict=True):
            values = dict(zip(("log_prob", "argmax", *MEASURES[3:]), zip(*rows.tolist(), strict=True), strict=True))
            means = [sum(values[name]) / len(rows) for name in MEASURES[3:]]
            total = sum(values["log_prob"])
            found[key] = dict(zip(MEASURES, (total, total / len(rows), sum(values["argmax"]), *means), strict=True))
    everyones = processes.gather(found)
    return {key: everyones[key] for key in responses}


def batch_by_length(
    responses: Mapping[str, EncodedResponse], batch_tokens: int, regime: Callable[[int], int]
) -> list[list[str]]:
    """The keys in batches whose prompts are of one length, the longest first, responses of alike length together.

    `regime`: what of a model depends on a sequence's length (`length_regime`); no batch holds sequences of two.
    """
    order = sorted(responses, key=lambda key: (-responses[key].start, -responses[key].tokens, responses[key].ids, key))
    kinds = {key: (encoded.start, regime(len(encoded.ids))) for key, encoded in responses.items()}
    batches: list[list[str]] = []
    for key in order:
        first = batches[-1][0] if batches else None
        alike = first is not None and kinds[first] == kinds[key]
        if alike and len(responses[first].ids) * (len(batches[-1]) + 1) <= batch_tokens:
            batches[-1].append(key)
        else:
            batches.append([key])
    return batches


def measures(logits: Tensor, targets: Tensor) -> Tensor:
    """By token (rows): log pi(y), log pi(y*), log(1 - pi(y*)), entropy, ||A||_F and ||pi - e_y||; y* is the argmax.

    `logits` (tokens, vocabulary), `targets` (tokens). A = I - 1 pi^T, so ||A||_F^2 = V - 2 + V ||pi||^2 (the paper's
    equation 2 and after).
    """
    log_pi = torch.log_softmax(logits, -1)
    pi = log_pi.exp()
    own = log_pi.gather(-1, targets[:, None])[:, 0]
    top, place = log_pi.max(-1)
    # All but the argmax, summed as they are: at a peak 1 - pi(y*) would round to 0.
    rest = log_pi.scatter(-1, place[:, None], float("-inf")).logsumexp(-1)
    entropy = torch.special.entr(pi).sum(-1)
    squares, size = (pi * pi).sum(-1), logits.shape[-1]
    a_norm = (size - 2 + size * squares).clamp(min=0).sqrt()
    others = (squares - own.exp() ** 2).clamp(min=0)
    g_norm = (others + torch.expm1(own) ** 2).sqrt()
    return torch.stack([own, top, rest, entropy, a_norm, g_norm], dim=1)
