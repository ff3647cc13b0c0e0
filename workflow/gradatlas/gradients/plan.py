"""What a gradients job has to do: its rows, their keys in the journal, and its batches."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradatlas.core.errors import InputError
from gradatlas.core.tables import read_table
from gradatlas.data.published import read_entries
from gradatlas.data.tables import RESPONSES
from gradatlas.gradients.subsets import Subset, take
from gradatlas.models.tokens import Encoded, Encoder
from gradatlas.study.seeds import seeded_hash


@dataclass(frozen=True)
class Row:
    """One response to measure, as the responses table names it."""

    dataset: str
    sample_id: str
    variant: str
    relation: str
    instruction: str
    response: str


def read_rows(path: str | Path) -> list[Row]:
    """The rows of a responses table (Parquet), or of a JSON list of {instruction, input, output}.

    Of a table, rows without a response (status other than ``ok``) are left out. A list's rows get their index as
    `sample_id`, the relation ``correct`` and the variant ``natural``; the dataset is the file's name.
    """
    path = Path(path)
    if path.suffix == ".json":
        entries = read_entries(path)
        return [
            Row(path.stem, str(i), "natural", "correct", entry.instruction, entry.response)
            for i, entry in enumerate(entries)
        ]
    if path.suffix != ".parquet":
        raise InputError(f"{path}: neither a responses table (.parquet) nor a JSON list (.json); give one of these")
    # One of a rule, or one that a user has made or edited.
    table = read_table(RESPONSES, path, own=False)
    columns = ("dataset", "sample_id", "variant", "relation", "instruction", "response")
    rows = [Row(**{name: row[name] for name in columns}) for row in table.to_pylist() if row["status"] == "ok"]
    if not rows:
        raise InputError(f"{path}: holds no response that can be measured; look at its status column")
    return rows


def limit_rows(rows: Sequence[Row], limit: int | None, seed: int | None) -> list[Row]:
    """The rows of `limit` samples: the first ones, or with a `seed` the ones a seeded hash of `sample_id` ranks first.

    All variants and relations of a sample stay together, and a smaller limit's samples are among a larger one's.
    """
    kept = drawn_ids((row.sample_id for row in rows), limit, seed)
    return [row for row in rows if row.sample_id in kept]


def drawn_ids(ids: Iterable[str], limit: int | None, seed: int | None) -> set[str]:
    """The ids of `limit` samples, as `limit_rows` draws them; all without a `limit`."""
    ordered = list(dict.fromkeys(ids))
    if limit is not None and seed is not None:
        ordered.sort(key=lambda sample_id: seeded_hash(seed, sample_id))
    return set(ordered[:limit])


@dataclass(frozen=True)
class Item:
    """One row of the samples table: a response, the tokens its loss is taken over, and what the model reads.

    `prompt_tokens` is counted before a subset of the response's tokens was taken.
    """

    row: Row
    loss_tokens: str
    sample: Encoded
    prompt_tokens: int

    @property
    def name(self) -> str:
        """What a message calls it."""
        name = f"{self.row.dataset} {self.row.sample_id} {self.row.variant} {self.row.relation}"
        return name if self.loss_tokens == "all" else f"{name} {self.loss_tokens}"


def expand_rows(
    rows: Sequence[Row], encoder: Encoder, subsets_of: Callable[[str, str], Sequence[Subset]], seed: int
) -> list[Item]:
    """Every row with every subset of its tokens that is measured of its variant and relation, row by row.

    Matched draws take as many tokens as the same sample's None response has: the one of the same relation, or else
    the correct one. Raises `InputError` where there is none.
    """
    encoded = [encoder.encode(row.instruction, row.response) for row in rows]
    lengths = {
        (row.sample_id, row.relation): sample.response_tokens
        for row, sample in zip(rows, encoded, strict=True)
        if row.variant == "none"
    }
    items = []
    for row, sample in zip(rows, encoded, strict=True):
        name = f"{row.dataset} {row.sample_id} {row.variant} {row.relation}"
        for subset in subsets_of(row.variant, row.relation):
            count = lengths.get((row.sample_id, row.relation), lengths.get((row.sample_id, "correct")))
            if subset.matched and count is None:
                raise InputError(
                    f"--loss-tokens random:matched: dataset '{row.dataset}', sample '{row.sample_id}' has no response "
                    "of variant 'none' to match; measure that variant too, or ask for random:K"
                )
            chosen = take(sample, subset, seed=seed, name=name, count=count)
            items.append(Item(row, subset.name, chosen, sample.prompt_tokens))
    return items


def key_of(sample: Encoded, context: Mapping[str, Any]) -> str:
    """The journal's key: a hash of what the model reads, then one of `context`, all else that its numbers depend on.

    In this order, since `plan_batches` orders samples of equal length by their keys: batches depend on the texts alone,
    and another digest of the code moves no sample to another batch.
    """
    parts = (json.dumps([sample.ids, sample.response]), json.dumps(sorted(context.items())))
    return "".join(hashlib.sha256(part.encode()).hexdigest() for part in parts)


def plan_batches(
    samples: Mapping[str, Encoded], batch_tokens: int, regime: Callable[[int], int] = lambda tokens: 0
) -> list[list[str]]:
    """Cut the keys of `samples` into batches of alike length, of at most `batch_tokens` tokens with padding.

    `regime`: what of a model depends on a sample's length (`length_regime`); no batch holds samples of two.
    The plan depends on the samples alone, never on what a journal already holds, so that a resumed job forms the
    same batches. Longest first: what does not fit into memory shows at once.
    """
    order = sorted(samples, key=lambda key: (-len(samples[key].ids), key))
    batches: list[list[str]] = []
    for key in order:
        longest = len(samples[batches[-1][0]].ids) if batches else 0
        alike = regime(longest) == regime(len(samples[key].ids))
        if batches and alike and longest * (len(batches[-1]) + 1) <= batch_tokens:
            batches[-1].append(key)
        else:
            batches.append([key])
    return batches


def share_of(batches: Sequence[list[str]], shard: tuple[int, int]) -> list[list[str]]:
    """The batches of shard (i, n), i from 1: every n-th one, so that each shard has long and short samples.

    Whole batches of one plan: the shards' numbers are those of a single job, to the last bit.
    """
    part, parts = shard
    return list(batches[part - 1 :: parts])
