"""What is told of one generation by itself: repetition, answers taken from other questions, correctness.

`repetition` is seq-rep-4 of Welleck et al. (Neural Text Generation with Unlikelihood Training, ICLR 2020): one less the
share of distinct 4-grams among all 4-grams of the response's tokens. The tokens are the model's own, of the response's
text tokenised anew, without the end token; a response of fewer than 4 has no 4-gram and repeats nothing.

`borrowed` is the paper's hallucination: an answer to this question made of what another one was answered in training.
In the miniature's grammar: a sentence of the response states what a training response (chosen or rejected) to another
trained question states, the same fact of the same person; trained are all pairs of split train, whatever part of them a
run saw. Of other data: a run of `RUN` words stands in a training response to another prompt and neither in the own
prompt nor in a training response to it. Everyday phrases count too there, so the share is to be held against the one
before the first step.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gradatlas.core.command import progress
from gradatlas.core.errors import InputError
from gradatlas.core.tables import read_table, write_table
from gradatlas.data.made_up import grammar
from gradatlas.data.pairs import Pair
from gradatlas.data.tables import PAIRS
from gradatlas.finetuning.tables import GENERATION_SCORES, GENERATIONS

GRAM = 4
RUN = 6

#: From a pair and a response to its prompt: whether the answer is another question's, and whether it is right (None:
#: nobody can tell).
Scorer = Callable[[Pair, str], tuple[bool, bool | None]]


def score_generations(
    runs: Mapping[str, str], pairs: str, tokens_of: Callable[[str], Sequence[int]], *, oracle: bool, output: str | Path
) -> None:
    """Write the ``generation_scores`` table of one model's and seed's runs.

    `runs`: the ``generations`` table of every run, by name. `tokens_of`: the model's tokens of a text. `oracle`:
    whether the pairs are the miniature's. Generations without a response take no part; the metadata count them by run
    and status. Raises `InputError` for a table of another run, or of prompts that the `pairs` table does not have.
    """
    known = {pair["pair_id"]: pair for pair in read_table(PAIRS, pairs).to_pylist()}
    trained = [pair for pair in known.values() if pair["split"] == "train" and pair["status"] == "ok"]
    reader = by_grammar(trained) if oracle else by_words(trained)
    rows, left_out = [], {}
    for row in (row for name, path in runs.items() for row in read_generations(name, path)):
        if row["status"] != "ok":
            reason = f"{row['run']}/{row['status']}"
            left_out[reason] = left_out.get(reason, 0) + 1
            continue
        if row["pair_id"] not in known:
            raise InputError(
                f"{runs[row['run']]}: prompt '{row['pair_id']}' is not in {pairs}; give the pairs of the run"
            )
        borrowed, correct = reader(known[row["pair_id"]], row["response"])
        told = {"repetition": repetition(tokens_of(row["response"])), "borrowed": borrowed, "correct": correct}
        rows.append({key: row[key] for key in GENERATION_SCORES.names if key in row} | told)
    if left_out:
        progress("generations without a response: " + ", ".join(f"{why} {n}" for why, n in sorted(left_out.items())))
    write_table(GENERATION_SCORES, rows, output, {"left_out": left_out, "gram": GRAM, "oracle": oracle})


def read_generations(run: str, path: str) -> list[dict[str, Any]]:
    """The rows of a run's ``generations`` table; `InputError` for another run's."""
    rows = read_table(GENERATIONS, path).to_pylist()
    if others := {row["run"] for row in rows} - {run}:
        raise InputError(f"{path}: holds run {', '.join(sorted(others))}, not '{run}'; give its own")
    return rows


def repetition(tokens: Sequence[int], gram: int = GRAM) -> float:
    """The share of n-grams that stood in the text before (seq-rep-n), 0 where there is none.

    >>> repetition([1, 2, 1, 2, 1, 2, 1, 2])
    0.6
    """
    grams = [tuple(tokens[place : place + gram]) for place in range(len(tokens) - gram + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def by_grammar(trained: Sequence[Pair]) -> Scorer:
    """Of the miniature's responses, by what they state. Right: a whole answer of the grammar to this very question."""
    answers = [grammar.parse(pair[part]) for pair in trained for part in ("chosen", "rejected")]
    told = {_fact(answer) for answer in answers if answer}

    def read(pair: Pair, response: str) -> tuple[bool, bool]:
        own = grammar.parse(pair["chosen"])
        if own is None:
            raise InputError(f"pair '{pair['pair_id']}': its chosen response is not of the miniature's grammar")
        asked = (own.name, own.attribute)
        answer = grammar.parse(response)
        correct = answer is not None and (answer.name, answer.attribute) == asked and answer.right
        stated = (grammar.parse(sentence) for sentence in re.split(r"(?<=\.)\s+", response.strip()))
        return any(each and (each.name, each.attribute) != asked and _fact(each) in told for each in stated), correct

    return read


def _fact(answer: grammar.Answer) -> tuple[str, str, str]:
    return answer.name, answer.attribute, answer.value


def by_words(trained: Sequence[Pair]) -> Scorer:
    """Of any responses, by runs of `RUN` words; nobody can tell whether they are right."""
    # What stands in an own response is taken out below, so whose a run is need not be known.
    told = {run for pair in trained for part in ("chosen", "rejected") for run in _runs(pair[part])}
    answered: dict[str, list[Pair]] = {}
    for pair in trained:
        answered.setdefault(pair["prompt"], []).append(pair)

    def read(pair: Pair, response: str) -> tuple[bool, None]:
        mine = [pair, *answered.get(pair["prompt"], [])]
        own = {run for each in mine for part in ("prompt", "chosen", "rejected") for run in _runs(each[part])}
        return bool((_runs(response) & told) - own), None

    return read


def _runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    return {tuple(words[place : place + RUN]) for place in range(len(words) - RUN + 1)}
