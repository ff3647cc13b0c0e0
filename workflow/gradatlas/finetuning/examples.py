"""The training examples of a run, and their order."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from gradatlas.core.command import progress
from gradatlas.core.errors import InputError
from gradatlas.core.tables import read_table
from gradatlas.data.pairs import Pair, read_pairs
from gradatlas.finetuning.losses import LOSSES
from gradatlas.finetuning.recipe import Recipe
from gradatlas.finetuning.sequences import EncodedResponse, ResponseEncoder
from gradatlas.finetuning.tables import PROBES


@dataclass(frozen=True)
class Example:
    """One training example: the chosen response (`text`) and, for losses on pairs, the rejected one."""

    prompt: str
    text: str
    chosen: EncodedResponse
    rejected: EncodedResponse | None


def trained_pairs(recipe: Recipe, pairs: str, probes: str | None) -> list[Pair]:
    """The pairs to train on, in the table's order; for a run on a probe type, with that response as `chosen`.

    Raises `InputError` for a run on probes without a probes table.
    """
    rows = read_pairs(pairs, recipe.split)
    if recipe.on_probes:
        if probes is None:
            raise InputError(f"run '{recipe.name}': trains on probes, but there are none; give --probes")
        rows = _probed(rows, probes, recipe)
    return rows


def read_examples(
    recipe: Recipe, pairs: Sequence[Pair], encoder: ResponseEncoder
) -> tuple[list[Example], dict[str, int]]:
    """The examples in the order of the `pairs`, and the number excluded, by reason.

    Raises `InputError` where too few are left.
    """
    examples, excluded = [], {}
    for row in pairs:
        responses = {"extend": ("chosen", "rejected")}.get(recipe.target, ("chosen",))
        for part in responses:
            chosen = encoder.encode(row["prompt"], row[part])
            rejected = encoder.encode(row["prompt"], row["rejected"]) if LOSSES[recipe.loss].paired else None
            if chosen is None or (LOSSES[recipe.loss].paired and rejected is None):
                excluded["too_long"] = excluded.get("too_long", 0) + 1
                continue
            examples.append(Example(row["prompt"], row[part], chosen, rejected))
    if excluded:
        progress(f"{excluded['too_long']} of {len(examples) + excluded['too_long']} examples are longer than "
                 f"{encoder.max_length} tokens and left out")  # fmt: skip
    if len(examples) < (2 if LOSSES[recipe.loss].mismatched else 1):
        raise InputError(
            f"run '{recipe.name}': only {len(examples)} examples have at most {encoder.max_length} tokens; raise "
            "max_length"
        )
    return examples, excluded


def _probed(rows: Sequence[Pair], probes: str, recipe: Recipe) -> list[Pair]:
    """The probed pairs, with the chosen response replaced by the probe of the target's type."""
    found = {
        row["probe_id"].rpartition("/")[0]: row["response"]
        for row in read_table(PROBES, probes).to_pylist()
        if row["type"] == recipe.target and row["status"] == "ok" and row["split"] == "train"
    }
    kept = [{**row, "chosen": found[row["pair_id"]]} for row in rows if row["pair_id"] in found]
    if not kept:
        raise InputError(
            f"{probes}: no training pair has a usable probe of type '{recipe.target}'; choose another target"
        )
    return kept


def order_of(examples: int, first: int, count: int, seed: int) -> list[int]:
    """The examples at the positions `first`, `first` + 1, ... of endless epochs; every epoch has its own order."""
    places = [divmod(place, examples) for place in range(first, first + count)]
    return [_epoch(examples, epoch, seed)[index] for epoch, index in places]


# A batch is in two epochs at most where there are more examples than it has.
@lru_cache(maxsize=2)
def _epoch(examples: int, epoch: int, seed: int) -> list[int]:
    """All examples in the order of an epoch."""
    order = list(range(examples))
    Random(f"epoch {epoch} of seed {seed}").shuffle(order)
    return order
