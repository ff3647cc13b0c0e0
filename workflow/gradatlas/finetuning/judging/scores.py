"""Scores of single generations: repetition, answers borrowed from other questions, correctness.

`repetition` is seq-rep-4 of Welleck et al. (Neural Text Generation with Unlikelihood Training, ICLR 2020): the share of
4-grams of the response's tokens that occurred before. The response's text is tokenised again, by the model's tokenizer
and without the end token. A response of fewer than 4 tokens has repetition 0.

`borrowed` is the paper's hallucination: the answer contains what was learned as an answer to another question.
Miniature: a sentence of the response states the same fact about the same person as a training response (chosen or
rejected) to another question, among all pairs of split train. Other data: `RUN` words in a row occur in a training
response to another prompt, but neither in this prompt nor in a training response to it. Common phrases count too, so
compare the share with that before the first step.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
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

#: From a pair and a response to its prompt: whether it is borrowed, and whether it is right (None: unknown).
Scorer = Callable[[Pair, str], tuple[bool, bool | None]]


def score_generations(
    runs: Mapping[str, str], pairs: str, tokens_of: Callable[[str], Sequence[int]], *, oracle: bool, output: str | Path
) -> None:
    """Write the ``generation_scores`` table of one model's and seed's runs.

    `runs`: the ``generations`` table of every run, by name. `tokens_of`: the model's tokens of a text. `oracle`:
    whether the pairs are the miniature's. Generations without a response are left out and counted in the metadata, by
    run and status. Raises `InputError` for a table of another run, or with prompts that are not in the `pairs` table.
    """
    known = {pair["pair_id"]: pair for pair in read_table(PAIRS, pairs).to_pylist()}
    trained = [pair for pair in known.values() if pair["split"] == "train" and pair["status"] == "ok"]
    scorer = SCORERS["grammar" if oracle else "words"](trained)
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
        borrowed, correct = scorer(known[row["pair_id"]], row["response"])
        scores = {"repetition": repetition(tokens_of(row["response"])), "borrowed": borrowed, "correct": correct}
        rows.append({key: row[key] for key in GENERATION_SCORES.names if key in row} | scores)
    if left_out:
        progress("generations without a response: " + ", ".join(f"{why} {n}" for why, n in sorted(left_out.items())))
    facts = {"left_out": left_out, "gram": GRAM, "oracle": oracle, "chance": chance(known.values()) if oracle else None}
    write_table(GENERATION_SCORES, rows, output, facts)


def chance(pairs: Iterable[Pair]) -> float:
    """How often the miniature's held-out questions are answered right with the commonest value of their attribute.

    An answer that knows nothing of the person is right as often. `pairs`: of all splits; descriptions, which answer no
    question, take no part.
    """
    read = ((pair["split"], grammar.parse(pair["chosen"])) for pair in pairs if pair["status"] == "ok")
    answers = [(split, answer) for split, answer in read if answer]
    values = {answer.attribute: Counter() for _, answer in answers}
    for _, answer in answers:
        values[answer.attribute][answer.value] += 1
    commonest = {attribute: found.most_common(1)[0][0] for attribute, found in values.items()}
    asked = [answer for split, answer in answers if split == "held_out"]
    return sum(commonest[answer.attribute] == answer.value for answer in asked) / len(asked)


def read_generations(run: str, path: str) -> list[dict[str, Any]]:
    """The rows of a run's ``generations`` table; `InputError` for another run's."""
    rows = read_table(GENERATIONS, path).to_pylist()
    if others := {row["run"] for row in rows} - {run}:
        raise InputError(f"{path}: holds run {', '.join(sorted(others))}, not '{run}'; give the table of '{run}'")
    return rows


def repetition(tokens: Sequence[int], gram: int = GRAM) -> float:
    """The share of n-grams that occurred before in the text (seq-rep-n), 0 for a text without one.

    >>> repetition([1, 2, 1, 2, 1, 2, 1, 2])
    0.6
    """
    grams = [tuple(tokens[place : place + gram]) for place in range(len(tokens) - gram + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def by_grammar(trained: Sequence[Pair]) -> Scorer:
    """Scores the miniature's responses by the facts they state. Right: a complete, true answer to this question."""
    answers = [grammar.parse(pair[part]) for pair in trained for part in ("chosen", "rejected")]
    learned = {_fact(answer) for answer in answers if answer}

    def score(pair: Pair, response: str) -> tuple[bool, bool]:
        own = grammar.parse(pair["chosen"])
        if own is None:
            raise InputError(
                f"pair '{pair['pair_id']}': its chosen response is not of the miniature's grammar; set oracle to false"
            )
        question = (own.name, own.attribute)
        stated = (grammar.parse(sentence) for sentence in re.split(r"(?<=\.)\s+", response.strip()))
        others = (each for each in stated if each and (each.name, each.attribute) != question)
        return any(_fact(each) in learned for each in others), grammar.is_right(pair["chosen"], response)

    return score


def _fact(answer: grammar.Answer) -> tuple[str, str, str]:
    return answer.name, answer.attribute, answer.value


def by_words(trained: Sequence[Pair]) -> Scorer:
    """Scores any responses by `RUN` words in a row; whether they are right is unknown."""
    # Of all prompts: what is in the prompt's own responses is removed below.
    learned = {words for pair in trained for part in ("chosen", "rejected") for words in _word_runs(pair[part])}
    answered: dict[str, list[Pair]] = {}
    for pair in trained:
        answered.setdefault(pair["prompt"], []).append(pair)

    def score(pair: Pair, response: str) -> tuple[bool, None]:
        mine = [pair, *answered.get(pair["prompt"], [])]
        own = {words for each in mine for part in ("prompt", "chosen", "rejected") for words in _word_runs(each[part])}
        return bool((_word_runs(response) & learned) - own), None

    return score


def _word_runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    return {tuple(words[place : place + RUN]) for place in range(len(words) - RUN + 1)}


# A dict literal: the digest counts the chosen entry only, so an edit of the grammar leaves other pairs' scores.
SCORERS: dict[str, Callable[[Sequence[Pair]], Scorer]] = {"grammar": by_grammar, "words": by_words}
