"""What a gradients job has to do: its rows, their keys in the journal, and its batches."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow.lib.corpora.published import read_entries
from workflow.lib.errors import InputError
from workflow.lib.gradients.tokens import Encoded
from workflow.lib.seeds import seeded_hash
from workflow.lib.tables import read_table


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
    table = read_table("responses", path)
    columns = ("dataset", "sample_id", "variant", "relation", "instruction", "response")
    rows = [Row(**{name: row[name] for name in columns}) for row in table.to_pylist() if row["status"] == "ok"]
    if not rows:
        raise InputError(f"{path}: holds no response that can be measured; look at its status column")
    return rows


def limit_rows(rows: Sequence[Row], limit: int | None, seed: int | None) -> list[Row]:
    """The rows of `limit` samples: the first ones, or with a `seed` the ones a seeded hash of `sample_id` ranks first.

    All variants and relations of a sample stay together, and a smaller limit's samples are among a larger one's.
    """
    if limit is None:
        return list(rows)
    if limit < 1:
        raise InputError(f"limit is {limit}; ask for at least 1 sample")
    ids = list(dict.fromkeys(row.sample_id for row in rows))
    if seed is not None:
        ids.sort(key=lambda sample_id: seeded_hash(seed, sample_id))
    kept = set(ids[:limit])
    return [row for row in rows if row.sample_id in kept]


def key_of(sample: Encoded, context: Mapping[str, Any]) -> str:
    """The journal's key: a hash of all that a sample's numbers depend on."""
    facts = json.dumps([sample.ids, sample.response, sorted(context.items())])
    return hashlib.sha256(facts.encode()).hexdigest()


def plan_batches(samples: Mapping[str, Encoded], batch_tokens: int) -> list[list[str]]:
    """Cut the keys of `samples` into batches of alike length, of at most `batch_tokens` tokens with padding.

    The plan depends on the samples alone, never on what a journal already holds, so that a resumed job forms the
    same batches. Longest first: what does not fit into memory shows at once.
    """
    order = sorted(samples, key=lambda key: (-len(samples[key].ids), key))
    batches: list[list[str]] = []
    for key in order:
        if batches and len(samples[batches[-1][0]].ids) * (len(batches[-1]) + 1) <= batch_tokens:
            batches[-1].append(key)
        else:
            batches.append([key])
    return batches
