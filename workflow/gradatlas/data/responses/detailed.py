"""Detailed responses for data without them: written by a model, accepted where their answer is the gold answer."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gradatlas.core.checked import write_lines
from gradatlas.core.command import progress
from gradatlas.core.errors import InputError
from gradatlas.data.generation.completions import Completion, Writer, complete_all
from gradatlas.data.options import chosen
from gradatlas.data.responses.labels import boxed, same_answer
from gradatlas.data.samples import Sample

PLACE = "{instruction}"
# In the forms that models write: any case, with a colon, in bold.
_FINAL = re.compile(r"final answer(?:\*\*)?(?:\s+is\b\s*:?|\s*:)", re.IGNORECASE)
_LETTER = re.compile(r"\(([A-Z])\)")
_WITH_UNIT = re.compile(
    r"(.*\d)\s+(?!(?:hundred|thousand|[mb]illion|trillion|dozen)\b)[A-Za-z]+(?: [A-Za-z]+)?", re.IGNORECASE
)


def write_detailed(
    dataset: str, samples: Sequence[Sample], prompt: str, writer: Writer, kept: str | Path, output: str | Path
) -> None:
    """Write one JSON line per sample: the writer's answer to `prompt`, and whether it is accepted.

    `prompt` contains ``{instruction}``. A response is ``accepted`` where its final answer is the gold answer (or the
    text of the gold option), and otherwise ``rejected`` with a reason: another answer, no readable answer, or cut off
    at the limit of tokens. Without gold answers every finished response is accepted. The log has the share of rejected
    ones. `kept`: file of the answers so far, see `complete_all`.
    """
    if PLACE not in prompt:
        raise InputError(f"settings.prompt has no {PLACE}; add it where the question belongs")
    prompts = {s.sample_id: prompt.replace(PLACE, next(iter(s.instructions.values()))) for s in samples}
    answers = complete_all(prompts, writer, kept)
    lines = []
    for sample in samples:
        answer = answers[sample.sample_id]
        stated = stated_by(answer.text)
        reason = _reason(sample, answer, stated)
        lines.append(
            {
                "sample_id": sample.sample_id,
                "status": "rejected" if reason else "accepted",
                "reason": reason,
                "stated": stated,
                "gold": sample.gold,
                "response": answer.text,
                "prompt": prompts[sample.sample_id],
                "template": prompt,
                "writer": dict(writer.facts),
            }
        )
    write_lines(output, "".join(json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n" for line in lines))
    reasons = Counter(line["reason"] for line in lines if line["reason"])
    rejected = sum(reasons.values())
    why = "".join(f"; {reason}: {count}" for reason, count in sorted(reasons.items()))
    progress(f"{dataset}: {rejected} of {len(lines)} responses rejected ({rejected / len(lines):.1%}){why}")


def stated_by(text: str) -> str | None:
    r"""The final answer that a written response states: after its last "final answer", or in its last ``\boxed{}``."""
    found = list(_FINAL.finditer(text))
    if not found:
        return boxed(text)
    stated = (text[found[-1].end() :].strip().splitlines() or [""])[0].strip("*_` ")
    stated = stated.removesuffix(".").removeprefix(r"\(").removesuffix(r"\)").strip()
    return boxed(stated) or stated.strip("$").removesuffix(".").strip("*_` ") or None


def _reason(sample: Sample, answer: Completion, stated: str | None) -> str:
    """The reason why a response is rejected; empty where it is accepted."""
    if not answer.finished:
        return "cut off"
    if sample.gold is None:
        return ""
    if stated is None:
        return "no final answer"
    text = sample.options.get(chosen(sample.options, sample.gold) or "", sample.gold)
    right = [sample.gold, text, f"{sample.gold} {text}"]
    lettered = _LETTER.fullmatch(sample.gold.strip())
    if lettered:
        right += [lettered[1], f"{lettered[1]}) {text}", f"{lettered[1]}. {text}"]
    readings = [stated]
    with_unit = _WITH_UNIT.fullmatch(stated.strip())
    if with_unit and sample.gold.strip()[-1:].isdigit():
        # `12 apples` for 12.
        readings.append(with_unit[1])
    return "" if any(same_answer(each, other) for each in readings for other in right) else "another answer"
