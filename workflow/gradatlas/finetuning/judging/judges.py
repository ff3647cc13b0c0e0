"""Judges: which of two answers to a prompt is better, in both orders.

- `Oracle`, for the miniature: prefers a right answer, then one that is not degenerate, then one that ended by itself;
  otherwise a tie.
- `EndpointJudge`, a model behind an OpenAI-compatible endpoint, as in the study: one sentence of comparison, then A, B
  or TIE. It is asked twice, with the answers in both orders; equal answers are a tie without a request.
- `reward.RewardJudge`, a sequence classifier with one output: the higher score wins; equal scores are a tie.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gradatlas.core.errors import InputError
from gradatlas.data.generation.completions import Completion, Writer, complete_all
from gradatlas.data.made_up import grammar

#: An answer is degenerate from this repetition on: half of its 4-grams occurred before.
DEGENERATE = 0.5
#: The preferred side with the run's answer shown first, and shown second; None where the judge's answer is unreadable.
Preference = tuple[str | None, str | None]


@dataclass(frozen=True)
class Answer:
    """A response with its scores; `correct` is None where the right answer is unknown."""

    text: str
    finished: bool
    repetition: float
    correct: bool | None


@dataclass(frozen=True)
class Contest:
    """Two answers to a prompt: the run's and the baseline's."""

    prompt: str
    run: Answer
    baseline: Answer


class Judge(Protocol):
    """`name`: in the table. `facts`: everything that the verdicts depend on."""

    name: str
    facts: Mapping[str, Any]

    def prefer(self, contests: Sequence[Contest]) -> list[Preference]:
        """The preference in each contest."""

    def right(self, chosen: str, response: str) -> bool | None:
        """Whether a response is right, by the `chosen` one to the same prompt; None: unknown."""
        return None


def verdict_of(preference: Preference) -> str | None:
    """The verdict of both orders: a tie where they disagree, None where one is unreadable."""
    forward, backward = preference
    if forward is None or backward is None:
        return None
    return forward if forward == backward else "tie"


def better(run: Any, baseline: Any) -> Preference:
    """Prefers the greater value; equal values are a tie. The order of presentation does not matter."""
    side = "tie" if run == baseline else "run" if run > baseline else "baseline"
    return side, side


class Oracle(Judge):
    """Judges the miniature's answers by its grammar."""

    name = "oracle"
    facts: Mapping[str, Any] = {"judge": "oracle", "degenerate": DEGENERATE}

    def prefer(self, contests: Sequence[Contest]) -> list[Preference]:
        """By correctness, repetition and a proper end, in this order; `InputError` without known answers."""
        if any(answer.correct is None for contest in contests for answer in (contest.run, contest.baseline)):
            raise InputError(
                "judge oracle: the right answers to these pairs are unknown; choose another judge (dynamics.judge)"
            )
        return [better(self._rank(contest.run), self._rank(contest.baseline)) for contest in contests]

    def right(self, chosen: str, response: str) -> bool:
        """Whether it is a complete, true answer to the question of the chosen one."""
        return grammar.is_right(chosen, response)

    @staticmethod
    def _rank(answer: Answer) -> tuple[bool, bool, bool]:
        return bool(answer.correct), answer.repetition < DEGENERATE, answer.finished


REQUEST = """Somebody asked an assistant what stands below, and got two answers. Which of them helps more?

--- What was asked
{prompt}

--- Answer A
{first}

--- Answer B
{second}

---
First compare the two answers in one sentence. Then write a last line that holds nothing but A, B, or TIE where \
neither is better."""
# The last line, with or without such words as "More helpful:" before.
_LAST = re.compile(r"(?:[^:\n]{0,40}:)?\W*(?:(?:answer|option|response)\s+)?(A|B|TIE)\W*", re.I)


class EndpointJudge(Judge):
    """A model behind an endpoint (`writer`); `kept`: the file of its answers."""

    def __init__(self, writer: Writer, kept: str | Path):
        self.writer, self.kept = writer, kept
        self.name, self.facts = str(writer.facts["model"]), {"judge": "endpoint", **writer.facts, "request": REQUEST}

    def prefer(self, contests: Sequence[Contest]) -> list[Preference]:
        """Ask in both orders, where the answers differ."""
        requests = {}
        for place, contest in enumerate(contests):
            texts = contest.run.text.strip(), contest.baseline.text.strip()
            if texts[0] == texts[1]:
                continue
            for order, (first, second) in (("forward", texts), ("backward", texts[::-1])):
                requests[f"{place} {order}"] = REQUEST.format(prompt=contest.prompt.strip(), first=first, second=second)
        answers = complete_all(requests, self.writer, self.kept)
        sides = {"forward": ("run", "baseline"), "backward": ("baseline", "run")}
        read = {key: _preferred(answers[key], *sides[key.split()[1]]) for key in requests}
        orders = [(f"{place} forward", f"{place} backward") for place in range(len(contests))]
        return [(read.get(one, "tie"), read.get(other, "tie")) for one, other in orders]


def _preferred(answer: Completion, first: str, second: str) -> str | None:
    """The side that the last line names; None where it names none, or the answer was cut off."""
    *_, last = ["", *answer.text.strip().splitlines()]
    found = _LAST.fullmatch(last) if answer.finished else None
    return {"A": first, "B": second, "TIE": "tie"}[found[1].upper()] if found else None
