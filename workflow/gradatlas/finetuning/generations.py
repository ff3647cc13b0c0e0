"""Free responses of a model along a run, to prompts that it is trained on and to held-out ones.

Common random numbers: every response has its own stream, one number per token, from which the inverse of the model's
cumulative distribution gives the token. A stream depends on seed, pair and draw only, so that equal weights give equal
responses, and differences along a run or between runs come from the weights. (The other rows of a batch may change the
last bits of a float32 probability, and so, very rarely, a token.)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from gradatlas.core.errors import InputError
from gradatlas.core.tables import read_metadata, read_table, write_table
from gradatlas.data.pairs import Pair, read_pairs
from gradatlas.finetuning.probes import ranked
from gradatlas.finetuning.processes import SINGLE_PROCESS, Processes
from gradatlas.finetuning.sequences import ResponseEncoder
from gradatlas.finetuning.tables import GENERATIONS
from gradatlas.models.decoding import batch_key, continue_prompts
from gradatlas.models.loading import choose_device, load, locate
from gradatlas.study.seeds import seeded_hash


def generation_pairs(pairs: str, trained: Sequence[Pair], count: int, seed: int) -> list[Pair]:
    """The pairs whose prompts get free responses: at most `count` of the `trained` ones, and as many held out.

    Pairs with probes come first, unless these come from files.
    """
    return [pair for rows in (trained, read_pairs(pairs, "held_out")) for pair in ranked(rows, seed)[:count]]


def generate_start(
    model: str,
    pairs: str,
    output: str | Path,
    *,
    seed: int,
    prompts: int,
    draws: int,
    max_length: int,
    truncation: str,
    max_new_tokens: int,
    batch_tokens: int,
    device: str,
    dtype: str,
    trust_remote_code: bool,
) -> None:
    """Write the ``generations`` table of a model before any run, to all prompts that a run from it may answer.

    Its run has no name. The runs take their own prompts' rows from it (`read_start`).
    """
    device, start = choose_device(device), locate(model)
    torch.use_deterministic_algorithms(device == "cpu")
    network, tokenizer = load(start.path, dtype=dtype, device=device, trust_remote_code=trust_remote_code)
    encoder = ResponseEncoder(tokenizer, window_of(network, max_length), network, truncation)
    prompted = generation_pairs(pairs, read_pairs(pairs, "train"), prompts, seed)
    rows = generate(network, encoder, prompted, seed=seed, draws=draws, max_tokens=max_new_tokens,
                    batch_tokens=batch_tokens)  # fmt: skip
    moment = {"run": "", "seed": seed, "step": 0, "examples": 0}
    facts = {"model": start.digest, "seed": seed, "max_new_tokens": max_new_tokens, "window": encoder.max_length}
    facts |= {"truncation": truncation, "dtype": dtype}
    write_table(GENERATIONS, [{**moment, **row} for row in rows], output, facts)


def read_start(path: str, facts: Mapping[str, Any]) -> dict[tuple[str, int], dict]:
    """The responses of a table's last step, by pair and draw: the columns of the table from pair_id on.

    Raises `InputError` where the table's metadata differ from the `facts`: the model and what else decides a response.
    """
    found = read_metadata(path, GENERATIONS)
    for key, value in facts.items():
        if found.get(key) != value:
            raise InputError(
                f"{path}: its last free responses are of another {key} ({found.get(key)}, not {value}); "
                "give those of the model that the run starts from, or none"
            )
    rows = read_table(GENERATIONS, path).to_pylist()
    last = max((row["step"] for row in rows), default=0)
    moment = ("run", "seed", "step", "examples")
    return {
        (row["pair_id"], row["draw"]): {key: value for key, value in row.items() if key not in moment}
        for row in rows
        if row["step"] == last
    }


def window_of(model: Any, max_length: int) -> int:
    """The tokens that a model reads at most."""
    return min(max_length, getattr(model.config, "max_position_embeddings", max_length))


def generate(
    model: Any,
    encoder: ResponseEncoder,
    pairs: Sequence[Pair],
    *,
    seed: int,
    draws: int,
    max_tokens: int,
    batch_tokens: int,
    processes: Processes = SINGLE_PROCESS,
) -> list[dict]:
    """`draws` responses at temperature 1 to every prompt: the columns of the ``generations`` table from pair_id on.

    Only the tokenizer's end token ends a response, as in training, whatever the checkpoint's generation_config lists.
    A response has at most `max_tokens` tokens, or what the prompt leaves of the window, and is cut at the next turn.
    `seed`: of the random numbers. Batches are distributed over `processes`; all get all rows.

    Status ``too_long``: the prompt fills the window. ``nonfinite``: a logit was not finite; no response is kept.
    """
    prompts = {pair["pair_id"]: encoder.encode_prompt(pair["prompt"]) for pair in pairs}
    limits = {key: min(max_tokens, encoder.max_length - len(ids)) for key, ids in prompts.items()}
    rows = [{"pair_id": pair["pair_id"], "split": pair["split"], "draw": draw, "response": None, "tokens": None,
             "finished": None, "status": "too_long"} for pair in pairs for draw in range(draws)]  # fmt: skip
    # Rows of a batch have the same limit and the same `batch_key`.
    key = batch_key(model, encoder.max_length)
    kinds = [(limits[row["pair_id"]], key(place, len(prompts[row["pair_id"]]))) for place, row in enumerate(rows)]
    fitting = [place for place, row in enumerate(rows) if limits[row["pair_id"]] > 0]
    fitting.sort(key=lambda i: (kinds[i], -len(prompts[rows[i]["pair_id"]]), rows[i]["pair_id"], rows[i]["draw"]))
    batches: list[list[dict]] = []
    kind = None
    for place in fitting:
        row, first = rows[place], batches[-1][0]["pair_id"] if batches else None
        if kind == kinds[place] and (len(prompts[first]) + limits[first]) * (len(batches[-1]) + 1) <= batch_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
        kind = kinds[place]
    answered = {}
    for batch in processes.share(batches):
        streams = [Random(seeded_hash(seed, f"generation {row['pair_id']} {row['draw']}")) for row in batch]
        limit = limits[batch[0]["pair_id"]]
        _respond(model, encoder, batch, [prompts[row["pair_id"]] for row in batch], limit, streams)
        answered |= {(row["pair_id"], row["draw"]): row for row in batch}
    answered = processes.gather(answered)
    return [answered.get((row["pair_id"], row["draw"]), row) for row in rows]


def _respond(
    model: Any,
    encoder: ResponseEncoder,
    batch: Sequence[dict],
    prompts: Sequence[tuple[int, ...]],
    max_new_tokens: int,
    streams: Sequence[Random],
) -> None:
    """Fill in the rows of a batch."""
    sampling, end = _InverseSampling(streams), encoder.end
    responses = continue_prompts(model, prompts, [end], max_new_tokens, do_sample=False, logits_processor=[sampling])
    for row, ids, nonfinite in zip(batch, responses, sampling.nonfinite, strict=True):
        if nonfinite:
            row["status"] = "nonfinite"
            continue
        kept = encoder.cut(ids)
        row |= {"response": encoder.text(ids), "tokens": len(kept), "finished": kept[-1] == end, "status": "ok"}


class _InverseSampling(LogitsProcessor):
    """Allows each row only the token that the next number of its stream selects."""

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
