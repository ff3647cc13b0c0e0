"""SFT on one variant of the first study's responses, with snapshots where runs on all variants can be compared.

Runs on short and long responses see different numbers of tokens in as many updates. So each has snapshots at equal
updates, and at the updates at which it has seen as many response tokens as the run on the longest responses has there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from gradatlas.core.checked import read_json, write_json
from gradatlas.core.command import progress
from gradatlas.core.errors import InputError
from gradatlas.core.tables import read_table, write_table
from gradatlas.data.pairs import write_pairs
from gradatlas.data.responses.prompts import base_prompt
from gradatlas.data.tables import RESPONSES
from gradatlas.finetuning.examples import order_of
from gradatlas.finetuning.finetune import finetune
from gradatlas.finetuning.recipe import Recipe
from gradatlas.finetuning.sequences import ResponseEncoder
from gradatlas.finetuning.tables import PROBES
from gradatlas.models.loading import load, locate
from gradatlas.study.seeds import seeded_hash

#: By what two runs are compared: updates, or response tokens seen.
AXES = ("updates", "tokens")
PLACES = "places.json"


@dataclass(frozen=True)
class Questions:
    """Some questions of a dataset: prompts and correct responses by question and variant, and each one's split."""

    prompts: dict[tuple[str, str], str]
    responses: dict[tuple[str, str], str]
    split: dict[str, str]

    @classmethod
    def read(cls, path: str | Path, variants: Sequence[str], train: int, held_out: int, seed: int) -> "Questions":
        """Of a responses table, `train` questions to learn and `held_out` others, drawn by `seed`.

        `InputError` for too few questions with all `variants`.
        """
        rows = [row for row in read_table(RESPONSES, path).to_pylist()
                if row["status"] == "ok" and row["relation"] == "correct" and row["variant"] in variants]  # fmt: skip
        responses = {(row["sample_id"], row["variant"]): row["response"] for row in rows}
        prompts = {(row["sample_id"], row["variant"]): base_prompt(row["instruction"]) for row in rows}
        keys = dict.fromkeys(row["sample_id"] for row in rows)
        whole = [key for key in keys if all((key, variant) in responses for variant in variants)]
        drawn = sorted(whole, key=lambda key: seeded_hash(seed, f"bridge {key}"))[: train + held_out]
        if len(drawn) < train + held_out:
            raise InputError(
                f"{path}: {len(whole)} questions have responses of the variants {', '.join(variants)}; lower "
                f"bridge.train and bridge.held_out, together {train + held_out}"
            )
        split = {key: "train" if place < train else "held_out" for place, key in enumerate(drawn)}
        return cls(prompts, responses, split)


def train_on_variant(
    model: str,
    responses: str | Path,
    output: str | Path,
    journal: str | Path,
    *,
    variant: str,
    variants: Sequence[str],
    train: int,
    held_out: int,
    updates: int,
    stages: int,
    seed: int,
    max_length: int,
    batch_tokens: int = 4096,
    device: str = "cpu",
    dtype: str = "float32",
    trust_remote_code: bool = False,
    **recipe: Any,
) -> None:
    """Train `model` on the correct responses of one of `variants`, into the folder `output` (`finetune`).

    Beside a run's files: ``pairs.parquet``, ``probes.parquet`` (the responses of all variants, by type) and
    ``places.json``: the steps of snapshots by `AXES`, `stages` of each. The longest variant has `updates`; the others
    go on until they have seen as many response tokens. `recipe`: other settings of a run.
    """
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    questions = Questions.read(responses, variants, train, held_out, seed)
    pairs, probes = folder / "pairs.parquet", folder / "probes.parquet"
    # SFT needs no rejected response; a pair needs another text.
    other = next(each for each in variants if each != variant)
    write_pairs(
        [
            {"pair_id": key, "split": split, "prompt": questions.prompts[key, variant],
             "chosen": questions.responses[key, variant], "rejected": questions.responses[key, other]}
            for key, split in questions.split.items()
        ],
        pairs, {"variant": variant},
    )  # fmt: skip
    rows = [
        {"probe_id": f"{key}/{each}", "split": split, "type": each, "prompt": questions.prompts[key, each],
         "response": questions.responses[key, each], "sources": [key], "status": "ok"}
        for key, split in questions.split.items() for each in variants
    ]  # fmt: skip
    write_table(PROBES, rows, probes, {"variants": list(variants)})
    how = {"device": device, "dtype": dtype, "trust_remote_code": trust_remote_code}
    network, tokenizer = load(locate(model).path, **how)
    encoder = ResponseEncoder(tokenizer, max_length, network)
    del network
    lengths = {
        each: [encoder.encode_any(questions.prompts[key, each], questions.responses[key, each]).tokens
               for key, split in questions.split.items() if split == "train"]
        for each in variants
    }  # fmt: skip
    places = places_of(lengths, variant, updates, stages, recipe["batch_size"], seed)
    steps = sorted({step for each in places.values() for step in each})
    progress(f"SFT on {variant}: {steps[-1]} updates, snapshots at {', '.join(map(str, steps))}")
    chosen = Recipe(name=f"sft_{variant}", seed=seed, steps=steps[-1], evaluate_every=steps[-1], **recipe)
    finetune(
        model, str(pairs), folder, journal, chosen, probes=str(probes), snapshots=steps[:-1], max_length=max_length,
        batch_tokens=batch_tokens, **how,
    )  # fmt: skip
    write_json(folder / PLACES, {"variant": variant, **places})


def places_of(
    lengths: dict[str, list[int]], variant: str, updates: int, stages: int, batch_size: int, seed: int
) -> dict[str, list[int]]:
    """The steps of snapshots by `AXES`, of SFT on a variant: at equal updates, and at equal response tokens.

    `lengths`: response tokens of the trained examples, by variant. The longest variant has both at the same steps.
    """
    equal = [max(1, round(updates * place / stages)) for place in range(1, stages + 1)]
    longest = max(lengths, key=lambda each: sum(lengths[each]))
    wanted = [_seen(lengths[longest], step, batch_size, seed)[-1] for step in equal]
    # The shortest batch has some tokens: enough steps.
    most = updates * -(-max(lengths[longest]) // max(1, min(lengths[variant])))
    seen = _seen(lengths[variant], most, batch_size, seed)
    return {"updates": equal, "tokens": [next(i + 1 for i, n in enumerate(seen) if n >= each) for each in wanted]}


def _seen(lengths: Sequence[int], steps: int, batch_size: int, seed: int) -> list[int]:
    """Response tokens seen after each step."""
    order = order_of(len(lengths), 0, steps * batch_size, seed)
    sums = list(accumulate(lengths[place] for place in order))
    return sums[batch_size - 1 :: batch_size]


def read_places(folder: str | Path) -> dict[str, Any]:
    """What `train_on_variant` wrote to ``places.json``."""
    return read_json(Path(folder) / PLACES, "train_bridge")
