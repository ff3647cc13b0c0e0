"""Judges: which of two answers to a prompt is better, in both orders.

- `Oracle`, of the miniature's grammar: the right answer before the wrong one, then the one that is not degenerate, then
  the one that ended by itself; alike, a tie.
- `Asked`, a model behind an OpenAI-compatible endpoint, as in the study: a sentence of comparison, then A, B or TIE;
  asked twice, the answers exchanged.
- `reward.Reward`, a sequence classifier with one output: the higher score of prompt and answer; equal, a tie.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gradatlas.core.errors import InputError
from gradatlas.data.generation.completions import Completion, Writer, complete_all

#: Repetition from which on an answer is degenerate: half of its 4-grams have been there before.
DEGENERATE = 0.5
OUTCOMES = ("run", "baseline", "tie")
#: Whom a judge prefers with the run's answer shown first, and second; None where that cannot be read.
Preference = tuple[str | None, str | None]


@dataclass(frozen=True)
class Answer:
    """A response with what its scores say; `correct` is None where nobody can tell."""

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
    """`name` stands in the table; `facts` are all that its verdicts depend on."""

    name: str
    facts: Mapping[str, Any]

    def prefer(self, contests: Sequence[Contest]) -> list[Preference]:
        """The preference in each contest."""


def verdict_of(preference: Preference) -> str | None:
    """What both orders say: a tie where they disagree, None where one of them cannot be read."""
    forward, backward = preference
    if forward is None or backward is None:
        return None
    return forward if forward == backward else "tie"


def better(run: Any, baseline: Any) -> Preference:
    """The greater of two values, a tie where they are alike: no order matters."""
    said = "tie" if run == baseline else "run" if run > baseline else "baseline"
    return said, said


class Oracle:
    """The miniature's judge, who knows all answers."""

    name = "oracle"
    facts: Mapping[str, Any] = {"judge": "oracle", "degenerate": DEGENERATE}

    def prefer(self, contests: Sequence[Contest]) -> list[Preference]:
        """By truth, degenerate repetition and an end, in this order; `InputError` where nobody knows the answers."""
        if any(answer.correct is None for contest in contests for answer in (contest.run, contest.baseline)):
            raise InputError(
                "judge oracle: nobody knows the answers to these pairs; take another judge (dynamics.judge)"
            )
        return [better(self._rank(contest.run), self._rank(contest.baseline)) for contest in contests]

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
_LAST = re.compile(r"(?:[^:\n]{0,40}:)?\W*(A|B|TIE)\W*", re.I)


class Asked:
    """A model that is asked; `writer`: an endpoint, `kept`: the file that keeps its answers."""

    def __init__(self, writer: Writer, kept: str | Path):
        self.writer, self.kept = writer, kept
        self.name, self.facts = str(writer.facts["model"]), {"judge": "endpoint", **writer.facts, "request": REQUEST}

    def prefer(self, contests: Sequence[Contest]) -> list[Preference]:
        """Ask in both orders."""
        asked = {}
        for place, contest in enumerate(contests):
            texts = contest.run.text.strip(), contest.baseline.text.strip()
            for order, (first, second) in (("forward", texts), ("backward", texts[::-1])):
                asked[f"{place} {order}"] = REQUEST.format(prompt=contest.prompt.strip(), first=first, second=second)
        told = complete_all(asked, self.writer, self.kept)
        sides = {"forward": ("run", "baseline"), "backward": ("baseline", "run")}
        read = {key: _named(told[key], *sides[key.split()[1]]) for key in asked}
        return [(read[f"{place} forward"], read[f"{place} backward"]) for place in range(len(contests))]


def _named(answer: Completion, first: str, second: str) -> str | None:
    """Whom the last line names; None where it names nobody, or the answer was cut off."""
    found = _LAST.fullmatch(answer.text.strip().splitlines()[-1]) if answer.finished else None
    return {"A": first, "B": second, "TIE": "tie"}[found[1].upper()] if found else None
