"""What a run is trained on: its examples, and the order in which they come."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from gradatlas.core.command import progress
from gradatlas.core.errors import InputError
from gradatlas.core.tables import read_table
from gradatlas.data.pairs import Pair, read_pairs
from gradatlas.finetuning.losses import loss_named
from gradatlas.finetuning.recipe import Recipe
from gradatlas.finetuning.sequences import EncodedResponse, ResponseEncoder
from gradatlas.finetuning.tables import PROBES


@dataclass(frozen=True)
class Example:
    """What one place of a batch is: a response to pull up and, for losses on pairs, one to push down.

    `text` is that of the response to pull up.
    """

    pair_id: str
    prompt: str
    text: str
    chosen: EncodedResponse
    rejected: EncodedResponse | None


def trained_pairs(recipe: Recipe, pairs: str, probes: str | None) -> list[Pair]:
    """The pairs to train on, in the table's order; for a target of a probe type, that is what is `chosen`.

    Raises `InputError` for a run on probes without any.
    """
    rows = read_pairs(pairs, recipe.split)
    if recipe.on_probes:
        if probes is None:
            raise InputError(f"run '{recipe.name}': is trained on the probes, but none are given; give --probes")
        rows = _probed(rows, probes, recipe)
    return rows


def read_examples(
    recipe: Recipe, pairs: Sequence[Pair], encoder: ResponseEncoder
) -> tuple[list[Example], dict[str, int]]:
    """The examples in the order of the `pairs`, and how many were left out, by reason.

    Raises `InputError` where too few are left.
    """
    examples, excluded = [], {}
    for row in pairs:
        responses = {"extend": ("chosen", "rejected")}.get(recipe.target, ("chosen",))
        for part in responses:
            said = encoder.encode(row["prompt"], row[part])
            other = encoder.encode(row["prompt"], row["rejected"]) if loss_named(recipe.loss).paired else None
            if said is None or (loss_named(recipe.loss).paired and other is None):
                excluded["too_long"] = excluded.get("too_long", 0) + 1
                continue
            examples.append(Example(row["pair_id"], row["prompt"], row[part], said, other))
    if excluded:
        progress(f"{excluded['too_long']} of {len(examples) + excluded['too_long']} examples exceed the window of "
                 f"{encoder.max_length} tokens and are left out")  # fmt: skip
    if len(examples) < (2 if loss_named(recipe.loss).mismatched else 1):
        raise InputError(
            f"run '{recipe.name}': {len(examples)} examples fit the window of {encoder.max_length}; raise max_length"
        )
    return examples, excluded


def _probed(rows: Sequence[Pair], probes: str, recipe: Recipe) -> list[Pair]:
    """The probed pairs, their chosen response replaced by the target's type."""
    found = {
        row["probe_id"].rpartition("/")[0]: row["response"]
        for row in read_table(PROBES, probes).to_pylist()
        if row["type"] == recipe.target and row["status"] == "ok" and row["split"] == "train"
    }
    kept = [{**row, "chosen": found[row["pair_id"]]} for row in rows if row["pair_id"] in found]
    if not kept:
        raise InputError(f"{probes}: no usable probe of type '{recipe.target}' belongs to a pair to train on")
    return kept


def order_of(examples: int, first: int, count: int, seed: int) -> list[int]:
    """Which examples stand at the places `first`, `first` + 1, ... of endless epochs, each in an order of its own."""
    shuffled: dict[int, list[int]] = {}
    found = []
    for place in range(first, first + count):
        epoch, index = divmod(place, examples)
        if epoch not in shuffled:
            shuffled[epoch] = list(range(examples))
            Random(f"epoch {epoch} of seed {seed}").shuffle(shuffled[epoch])
        found.append(shuffled[epoch][index])
    return found
