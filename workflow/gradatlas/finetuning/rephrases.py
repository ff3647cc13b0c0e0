"""Rephrases of real data, written by a local model or an endpoint and kept in a file.

The study used GPT-3.5-turbo at temperature 0.7. Here it is any writer of `gradatlas.data.generation`; the wording of
the requests is ours. Every text is kept, so that a rerun requests only missing ones.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from gradatlas.core.checked import write_lines
from gradatlas.core.errors import InputError
from gradatlas.data.formats import checked_lines
from gradatlas.data.generation.completions import Writer, complete_all
from gradatlas.data.pairs import Pair
from gradatlas.finetuning.probes import Rephrases, grammar_rephrases, no_rephrases
from gradatlas.study.probe_types import REPHRASED

PROMPTS = {
    "semantic": "Say the text below in other words, as different as you can, its meaning unchanged. Answer with the "
    "new text alone.\n\n{text}",
    "format": "Keep the form of the text below (its kind of sentences, its length, its tone), but change what it says "
    "as much as you can. Answer with the new text alone.\n\n{text}",
    "unrelated": "Write about anything you like in exactly {words} words. Answer with the text alone.",
}
_NAMED = 3  # missing rows named in the error


def from_cache(path: str | Path, pairs: Sequence[Pair]) -> Rephrases:
    """The rephrases of `pairs` in a JSON Lines file of {pair_id, type, text}; an empty text is an empty answer.

    Raises `InputError` for damaged, duplicate and missing rows, naming them.
    """
    kept: dict[tuple[str, str], str] = {}
    for number, row in enumerate(checked_lines(path, "write_rephrases", own=False)):
        place, text = (row.get("pair_id"), row.get("type")), row.get("text")
        if not all(isinstance(each, str) for each in (*place, text)):
            raise InputError(f"{path}, row {number}: pair_id, type or text is not a text; fix the row")
        if place in kept:
            raise InputError(f"{path}, row {number}: second {place[1]} of '{place[0]}'; remove one row")
        kept[place] = text
    wanted = [(pair["pair_id"], name) for pair in pairs for name in REPHRASED]
    missing = [f"{name} of '{pair_id}'" for pair_id, name in wanted if (pair_id, name) not in kept]
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise InputError(
            f"{path}: {', '.join(missing[:_NAMED])}{more} missing; add the lines, or write the rephrases again"
        )
    return lambda pair, name: kept[pair["pair_id"], name]


def write_rephrases(pairs: Sequence[Pair], writer: Writer, kept: str | Path, output: str | Path) -> None:
    """Let `writer` write every type for every pair, into the file that `from_cache` reads; answers stay in `kept`."""
    requests = {(pair["pair_id"], name): _request(pair, name) for pair in pairs for name in REPHRASED}
    answers = complete_all({"\t".join(key): text for key, text in requests.items()}, writer, kept)
    rows = [
        {"pair_id": pair_id, "type": name, "text": answers[f"{pair_id}\t{name}"].text} for pair_id, name in requests
    ]
    write_lines(output, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _request(pair: Pair, name: str) -> str:
    part, _, kind = name.partition("_")
    if name == "unrelated":
        return PROMPTS[name].format(words=len(pair["chosen"].split()))
    return PROMPTS[kind].format(text=pair[part].strip())


# By where they come from. A dict literal: the digest counts the chosen entry only.
REPHRASES: dict[str, Callable[[Sequence[Pair], Path | None, int], Rephrases]] = {
    "": lambda pairs, path, seed: no_rephrases,
    "file": lambda pairs, path, seed: from_cache(path, pairs),
    "grammar": lambda pairs, path, seed: grammar_rephrases(seed),
}
