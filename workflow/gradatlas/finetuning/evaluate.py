"""Log-probabilities and related measures of responses under a model, batched by length.

Sums and means are over the tokens of a response, including its end token. ``argmax_log_prob`` is the sum of the
log-probability of the likeliest token at each position, along the response's own prefix; the other measures are means
over positions. (The study's published argmax curves come from an error: its code kept the value of the last type,
shuffled words.)
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
    """`MEASURES` of every response, by key, in the given order. `batch_tokens`: tokens of a batch, with padding.

    Responses to the same prompt share one pass over it, if the model has a cache. Batches are distributed over
    `processes`; each process gets all results.
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
    gathered = processes.gather(found)
    return {key: gathered[key] for key in responses}


def batch_by_length(
    responses: Mapping[str, EncodedResponse], batch_tokens: int, regime: Callable[[int], int]
) -> list[list[str]]:
    """The keys in batches: prompts of equal length, longest first, responses of similar length together.

    `regime`: `length_regime` of the model; all sequences of a batch have the same.
    """
    order = sorted(responses, key=lambda key: (-responses[key].start, -responses[key].tokens, responses[key].ids, key))
    kinds = {key: (encoded.start, regime(len(encoded.ids))) for key, encoded in responses.items()}
    batches: list[list[str]] = []
    for key in order:
        first = batches[-1][0] if batches else None
        same_kind = first is not None and kinds[first] == kinds[key]
        if same_kind and len(responses[first].ids) * (len(batches[-1]) + 1) <= batch_tokens:
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
    # A sum over all but the argmax: for a peaked pi, 1 - pi(y*) would round to 0.
    rest = log_pi.scatter(-1, place[:, None], float("-inf")).logsumexp(-1)
    entropy = torch.special.entr(pi).sum(-1)
    squares, size = (pi * pi).sum(-1), logits.shape[-1]
    a_norm = (size - 2 + size * squares).clamp(min=0).sqrt()
    others = (squares - own.exp() ** 2).clamp(min=0)
    g_norm = (others + torch.expm1(own) ** 2).sqrt()
    return torch.stack([own, top, rest, entropy, a_norm, g_norm], dim=1)
