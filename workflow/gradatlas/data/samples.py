"""Samples: one question, with an instruction per variant, and its responses."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Sample:
    """One question of a dataset, with the same `sample_id` in all variants.

    `instructions`: by variant, the prompt; the prompts of one sample differ only by the format cue. `gold`: the right
    answer, None without one (knowledge). `responses`: by (variant, relation). `options`: the texts of the question's
    options, by label; empty for an open question.
    """

    sample_id: str
    instructions: Mapping[str, str]
    gold: str | None
    responses: Mapping[tuple[str, str], str]
    options: Mapping[str, str] = field(default_factory=dict)


#: The text before the answer at the end of a Simplified or Detailed response, as in the study's data.
FINAL = "\nThe final answer is "


def with_final(reasoning: str, label: str) -> str:
    """A reasoned response: the steps, a new line, and the label in one fixed phrase."""
    return f"{reasoning}{FINAL}{label}"


def label_of(response: str) -> str:
    """The answer at the end of a response: all text after the last `FINAL`, or the whole text."""
    return response.rsplit(FINAL, 1)[-1].strip()
