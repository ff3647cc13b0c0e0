"""Rephrases of real data: from a file that keeps them, which a local model or an endpoint writes.

The study asked GPT-3.5-turbo at temperature 0.7; here any writer of `gradatlas.data.generation` will do, and every text
is kept, so that a rerun asks for nothing twice. The requests are ours, to the same end.
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
_NAMED = 3  # missing rows that a message names


def from_cache(path: str | Path, pairs: Sequence[Pair]) -> Rephrases:
    """The rephrases of `pairs` out of a JSON Lines file of {pair_id, type, text}; an empty text is an empty answer.

    Raises `InputError` for a damaged row, for one that is there twice, and for missing rows, naming them.
    """
    kept: dict[tuple[str, str], str] = {}
    for number, row in enumerate(checked_lines(path, "write_rephrases", own=False)):
        place, text = (row.get("pair_id"), row.get("type")), row.get("text")
        if not all(isinstance(each, str) for each in (*place, text)):
            raise InputError(f"{path}, row {number}: pair_id, type and text have to be texts; fix the row")
        if place in kept:
            raise InputError(f"{path}, row {number}: {place[1]} of '{place[0]}' is there twice; remove one row")
        kept[place] = text
    wanted = [(pair["pair_id"], name) for pair in pairs for name in REPHRASED]
    missing = [f"{name} of '{pair_id}'" for pair_id, name in wanted if (pair_id, name) not in kept]
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise InputError(
            f"{path}: lacks {', '.join(missing[:_NAMED])}{more}; add the lines, or write the rephrases again"
        )
    return lambda pair, name: kept[pair["pair_id"], name]


def write_rephrases(pairs: Sequence[Pair], writer: Writer, kept: str | Path, output: str | Path) -> None:
    """Ask `writer` for every type of every pair, and write the file that `from_cache` reads; answers stay in `kept`."""
    asked = {f"{pair['pair_id']}\t{name}": _request(pair, name) for pair in pairs for name in REPHRASED}
    told = complete_all(asked, writer, kept)
    rows = [dict(zip(("pair_id", "type"), key.split("\t"), strict=True)) | {"text": told[key].text} for key in asked]
    write_lines(output, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _request(pair: Pair, name: str) -> str:
    part, _, kind = name.partition("_")
    if name == "unrelated":
        return PROMPTS[name].format(words=len(pair["chosen"].split()))
    return PROMPTS[kind].format(text=pair[part].strip())


# By where they come from. Written out, so that an edit of the grammar leaves probes of other pairs as they are.
REPHRASES: dict[str, Callable[[Sequence[Pair], Path | None, int], Rephrases]] = {
    "": lambda pairs, path, seed: no_rephrases,
    "file": lambda pairs, path, seed: from_cache(path, pairs),
    "grammar": lambda pairs, path, seed: grammar_rephrases(seed),
}
