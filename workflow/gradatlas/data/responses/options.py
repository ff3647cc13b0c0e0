"""Choosing a wrong option of a question."""

from collections.abc import Mapping

from gradatlas.data.options import chosen
from gradatlas.data.responses.labels import same_answer
from gradatlas.study.seeds import seeded_hash


def other_option(options: Mapping[str, str], gold: str, sample_id: str, seed: int) -> str | None:
    """A wrong option, drawn by a seeded hash of the sample; None where there is none.

    An option with the right option's text (AQuA lists some twice) is not wrong.
    """
    right = options.get(chosen(options, gold) or "", gold)
    wrong = [label for label, text in options.items() if not same_answer(label, gold) and not same_answer(text, right)]
    return min(wrong, key=lambda label: seeded_hash(seed, f"{sample_id} {label}"), default=None)
