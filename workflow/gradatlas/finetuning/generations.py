"""What a model says by itself along a run: free responses to prompts that it is trained on, and to held-out ones.

Every response has a stream of random numbers of its own, one a token, that turns into a token by the inverse of the
model's cumulative distribution. It depends on seed, pair and draw alone: not on run, step or what else is asked, so
that equal weights say the same, and what differs along a run or between runs is the weights' (common random numbers).
(The company in a batch still moves the last bits of a float32 probability, which all but never moves a token.)
"""

from collections.abc import Sequence
from random import Random
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from gradatlas.data.pairs import Pair, read_pairs
from gradatlas.finetuning.probes import ranked
from gradatlas.finetuning.processes import SINGLE_PROCESS, Processes
from gradatlas.finetuning.sequences import ResponseEncoder
from gradatlas.models.decoding import batch_key, continue_prompts
from gradatlas.study.seeds import seeded_hash


def generation_pairs(pairs: str, trained: Sequence[Pair], count: int, seed: int) -> list[Pair]:
    """The pairs whose prompts are asked: at most `count` of those `trained` on, at most as many held out.

    Probed ones come first.
    """
    return [pair for rows in (trained, read_pairs(pairs, "held_out")) for pair in ranked(rows, seed)[:count]]


def generate(
    model: Any,
    encoder: ResponseEncoder,
    asked: Sequence[Pair],
    *,
    seed: int,
    draws: int,
    max_tokens: int,
    batch_tokens: int,
    processes: Processes = SINGLE_PROCESS,
) -> list[dict]:
    """`draws` responses at temperature 1 to every prompt: the columns of the ``generations`` table from pair_id on.

    Only the tokenizer's end token ends one, as in training, whatever others the checkpoint's generation_config lists.
    At most `max_tokens` tokens, or what the prompt leaves of the window. `seed` names the random numbers.
    Batches are shared out among `processes`; all get all rows.

    Status ``too_long``: the prompt fills the window; ``nonfinite``: a logit was not a number, no response is kept.
    """
    heads = {pair["pair_id"]: encoder.encode_prompt(pair["prompt"]) for pair in asked}
    room = {key: min(max_tokens, encoder.max_length - len(head)) for key, head in heads.items()}
    rows = [{"pair_id": pair["pair_id"], "split": pair["split"], "draw": draw, "response": None, "tokens": None,
             "finished": None, "status": "too_long"} for pair in asked for draw in range(draws)]  # fmt: skip
    # Rows of a batch have one room, and what the model needs to have in common.
    key = batch_key(model, encoder.max_length)
    kinds = [(room[row["pair_id"]], key(place, len(heads[row["pair_id"]]))) for place, row in enumerate(rows)]
    fitting = [place for place, row in enumerate(rows) if room[row["pair_id"]] > 0]
    fitting.sort(key=lambda i: (kinds[i], -len(heads[rows[i]["pair_id"]]), rows[i]["pair_id"], rows[i]["draw"]))
    batches: list[list[dict]] = []
    kind = None
    for place in fitting:
        row, first = rows[place], batches[-1][0]["pair_id"] if batches else None
        if kind == kinds[place] and (len(heads[first]) + room[first]) * (len(batches[-1]) + 1) <= batch_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
        kind = kinds[place]
    answered = {}
    for batch in processes.share(batches):
        streams = [Random(seeded_hash(seed, f"generation {row['pair_id']} {row['draw']}")) for row in batch]
        _answer(model, encoder, batch, [heads[row["pair_id"]] for row in batch], room[batch[0]["pair_id"]], streams)
        answered |= {(row["pair_id"], row["draw"]): row for row in batch}
    answered = processes.gather(answered)
    return [answered.get((row["pair_id"], row["draw"]), row) for row in rows]


def _answer(
    model: Any,
    encoder: ResponseEncoder,
    batch: Sequence[dict],
    heads: Sequence[tuple[int, ...]],
    room: int,
    streams: Sequence[Random],
) -> None:
    """Fill in the rows of a batch."""
    drawn, end = _InverseSampling(streams), encoder.end
    said = continue_prompts(model, heads, [end], room, do_sample=False, logits_processor=[drawn])
    for row, ids, nonfinite in zip(batch, said, drawn.nonfinite, strict=True):
        if nonfinite:
            row["status"] = "nonfinite"
            continue
        finished = end in ids
        ids = ids[: ids.index(end)] if finished else ids
        text = encoder.tokenizer.decode(ids, skip_special_tokens=True)
        row |= {"response": text, "tokens": len(ids) + finished, "finished": finished, "status": "ok"}


class _InverseSampling(LogitsProcessor):
    """Leaves each row the one token that the next number of its stream falls on."""

    def __init__(self, streams: Sequence[Random]):
        self.streams = streams
        self.nonfinite = [False] * len(streams)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        below = torch.softmax(scores.double(), -1).cumsum(-1)
        number = torch.tensor([[stream.random()] for stream in self.streams], dtype=below.dtype, device=below.device)
        place = torch.searchsorted(below, number * below[:, -1:], right=True).clamp(max=scores.shape[-1] - 1)
        fine = below[:, -1].isfinite().tolist()
        self.nonfinite = [was or not now for was, now in zip(self.nonfinite, fine, strict=True)]
        return torch.full_like(scores, float("-inf")).scatter(1, place, 0.0)
