"""What a sample is: one question, posed once per variant, and the responses a model may be trained on."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Sample:
    """One question of a dataset, paired over its variants by `sample_id`.

    `instructions` maps a variant to its prompt; the prompts of one sample differ by the format cue alone.
    `gold` is the final answer's label, None where a sample has none (knowledge). `responses` maps
    (variant, relation) to a response, which begins right after the prompt and its separator. `options` maps what the
    question offers to be answered to the text it stands for; empty for an open question.
    """

    sample_id: str
    instructions: Mapping[str, str]
    gold: str | None
    responses: Mapping[tuple[str, str], str]
    options: Mapping[str, str] = field(default_factory=dict)


#: What precedes the label at the end of a Simplified or Detailed response, as in the study's own data.
FINAL = "\nThe final answer is "


def with_final(reasoning: str, label: str) -> str:
    """A reasoned response: the steps, a new line, and the label in one fixed phrase."""
    return f"{reasoning}{FINAL}{label}"


def label_of(response: str) -> str:
    """The label a response ends with: all after the last `FINAL`, or the whole of a bare answer."""
    return response.rsplit(FINAL, 1)[-1].strip()
