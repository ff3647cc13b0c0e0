r"""Cutting a response into sentences, into rationale and ending, and into the units of the published files."""

import re
from dataclasses import dataclass

from gradatlas.data.samples import FINAL

#: Splitters of the published irrelevant responses, by the name in the `recipe` column of datasets.tsv: at dots not
#: between digits, at new lines, at new lines including backslash-n, and at ends of sentences that are not an initial or
#: a short abbreviation.
SPLITTERS = {
    "dot": re.compile(r"(?<!\d)\.(?!\d)"),
    "line": re.compile(r"\n"),
    "backslash": re.compile(r"\\n|\n"),
    "sentence": re.compile(r"(?<!\b[A-Z]\.)(?<![A-Z][a-z]\.)(?<=[.!?])\s+"),
}
_GAP = re.compile(r"((?<=[.!?])\s+|(?<=[.!?][*)\"'”’])\s+|\s*\n\s*)")
# Display formulas, drawings and code are not cut.
_BLOCK = re.compile(
    r"\\\[.*?\\\]|\$\$.*?\$\$|\\begin\{(\w+\*?)\}.*?\\end\{\1\}|\[asy\].*?\[/asy\]|```.*?```", re.DOTALL
)
# Not a sentence: a number or bullet of a list, an initial, an abbreviation.
_PART = re.compile(
    r"(?:[-*#(]*\s*)?(?:\d{1,3}[.)]|[A-Za-z][.)]|[-*]|e\.g\.|i\.e\.|(?:\S+\s)*(?:e\.g|i\.e|Mr|Mrs|Dr|St|vs)\.)"
)


def units(response: str, splitter: str) -> list[str]:
    """The units of the reference algorithm: split (`SPLITTERS`), stripped, empty ones dropped."""
    return [unit for part in SPLITTERS[splitter].split(response) if (unit := part.strip())]


@dataclass(frozen=True)
class Text:
    """Sentences, and the white space after each (none after the last)."""

    sentences: tuple[str, ...]
    gaps: tuple[str, ...]

    def with_sentences(self, sentences: list[str]) -> str:
        """The text with other sentences and the same white space."""
        return "".join(part for pair in zip(sentences, self.gaps, strict=True) for part in pair)


def split_text(text: str) -> Text:
    """Cut at the ends of sentences and lines, without loss: joined again, the parts are `text`.

    Numbers of lists, initials and abbreviations stay with the text after them.
    """
    blocks = [found.span() for found in _BLOCK.finditer(text)]
    sentences: list[str] = []
    gaps: list[str] = []
    start = 0
    for gap in _GAP.finditer(text):
        sentence = text[start : gap.start()]
        inside = any(first < gap.start() < last for first, last in blocks)
        listed = "\n" not in gap[0] and _PART.fullmatch(sentence)
        if sentence and not inside and not listed:
            sentences.append(sentence)
            gaps.append(gap[0])
            start = gap.end()
    if text[start:]:
        sentences.append(text[start:])
        gaps.append("")
    return Text(tuple(sentences), tuple(gaps))


def split_ending(response: str, variant: str, gold: str) -> tuple[str, str]:
    """(rationale, ending): the ending states the answer; joined they are the response.

    A None response is an ending only. The ending begins with the new line before the fixed phrase, or else with the
    white space before the sentence of the last ``\\boxed{}``, or before the last sentence. Data without gold answers
    have no ending.
    """
    if not gold:
        return response, ""
    if variant == "none":
        return "", response
    rationale, phrase, answer = response.rpartition(FINAL)
    if phrase:
        return rationale, phrase + answer
    text = split_text(response)
    last = max((i for i, sentence in enumerate(text.sentences) if "\\boxed" in sentence), default=-1) % len(
        text.sentences
    )
    rationale = "".join(s + g for s, g in zip(text.sentences[:last], text.gaps[:last], strict=True)).rstrip()
    return rationale, response[len(rationale) :]
