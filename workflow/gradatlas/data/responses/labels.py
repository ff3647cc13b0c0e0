"""The final answer that a response states, and when two answers are the same."""

import re
from fractions import Fraction

from gradatlas.data.samples import FINAL
from gradatlas.study.relations import GOLD_VARIANT


def stated_answer(response: str, variant: str) -> str | None:
    """The label of a response: a None response itself, the text after the last "The final answer is", or None.

    The last occurrence counts, as two published StrategyQA responses contain the phrase twice. The new line before it
    is optional, as the published shuffles lose it.
    """
    if variant == "none":
        return response
    _, phrase, answer = response.rpartition(FINAL.lstrip())
    return answer.strip().removesuffix(".") if phrase else None


def boxed(response: str) -> str | None:
    r"""The content of the last ``\boxed{...}`` (or ``\fbox``) of a MATH solution, braces matched; None without one.

    >>> boxed(r"so \boxed{\frac{1}{2}}.")
    '\\frac{1}{2}'
    """
    span = boxed_span(response)
    return response[slice(*span)] if span else None


def boxed_span(response: str) -> tuple[int, int] | None:
    r"""Start and end of the content of the last ``\boxed{...}`` (or ``\fbox``); None without one."""
    for command in (r"\boxed", r"\fbox"):
        start = response.rfind(command)
        if start < 0:
            continue
        depth, begin = 0, None
        for i in range(start + len(command), len(response)):
            if response[i] == "{":
                depth += 1
                begin = i + 1 if begin is None else begin
            elif response[i] == "}":
                depth -= 1
                if depth == 0 and begin is not None:
                    return begin, i
            elif begin is None and not response[i].isspace():
                # `\boxed 5`: a single token without braces.
                return i, i + len(response[i:].split()[0].rstrip("$."))
    return None


# Readers of gold answers, by the name in the `gold` column of datasets.tsv: (variant, reader).
_GOLD_READERS = {
    "none": lambda response: response,
    "final_answer": lambda response: stated_answer(response, "simplified"),
    "boxed": boxed,
}
GOLD = {name: (variant, _GOLD_READERS[name]) for name, variant in GOLD_VARIANT.items()}


def read_label(response: str, variant: str, gold: str) -> str | None:
    r"""The answer that a response states; None where it cannot be read, or the data have no answers.

    `gold`: the dataset's (`GOLD`). The fixed phrase is preferred to a ``\boxed{}``; a Detailed response without either
    has no readable answer.
    """
    if not gold:
        return None
    answer = boxed(response) if gold == "boxed" else stated_answer(response, variant)
    return boxed(response) if answer is None else answer


# Notation that is removed from a number or formula, in this order.
_LATEX = (
    (re.compile(r"\\[dt]frac"), r"\\frac"),
    (re.compile(r"\\(?:left|right|!|,|;|:|quad|displaystyle)(?![a-zA-Z])"), ""),
    (re.compile(r"\\?[$%]|\\\\|\^\\circ|°|\s"), ""),
    (re.compile(r"\\frac([0-9a-z])"), r"\\frac{\1}"),
    (re.compile(r"(\\frac\{[^{}]*\})([0-9a-z])"), r"\1{\2}"),
)
# Words within a formula: a unit after a number, else part of the answer.
_WORDS = r"\\(?:text(?:bf|it|rm|normal)?|mbox|math(?:rm|bf|it))\{"
_UNIT = re.compile(
    r"((?:\d|\\pi|\\(?:frac\{[^{}]*\}|sqrt)\{[^{}]*\})(?:\\[,;:! ]|~|\s)*)"
    rf"{_WORDS}\s*[a-z][^{{}},;()]*\}}(?:\^\{{?\d\}}?)?(?=(?:\\?[$%.]|\s)*(?:[,;)\]]|\Z))",
    re.IGNORECASE,
)
_WRAPPED = re.compile(rf"{_WORDS}([^{{}}]*)\}}")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_FRACTION = re.compile(r"(-?)\\frac\{(\d+)\}\{(\d+)\}")
# Without exponents: 1e999999999 must not be expanded.
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+|\d+/0*[1-9]\d*)")
_WORD = re.compile(r"[a-z]{2,}")
# Longest text that is converted to a number; Python refuses thousands of digits.
_LONGEST = 500


def canonical(answer: str) -> str:
    r"""An answer in canonical notation: without case, white space, units, thousands separators and LaTeX variants.

    Numbers become exact fractions; formulas lose their spaces, words keep theirs. A ``\text{...}`` after a number is
    its unit, any other one is part of the answer.

    >>> canonical("$1,050.0"), canonical(r"\dfrac92"), canonical("4.5"), canonical("x = 1"), canonical("In  crowd.")
    ('1050', '9/2', '9/2', 'x=1', 'in crowd')
    """
    return _plain(answer) or " ".join(answer.casefold().split())


def _plain(answer: str) -> str:
    text, before = _UNIT.sub(r"\1", answer), None
    while text != before:
        text, before = _WRAPPED.sub(r"\1", text), text
    text = text.strip().removesuffix(".").strip()
    plain = text.casefold().replace("{,}", ",")
    for pattern, replacement in _LATEX:
        plain = pattern.sub(replacement, plain)
    plain = _THOUSANDS.sub("", plain)
    fraction = _FRACTION.fullmatch(plain)
    number = f"{fraction[1]}{fraction[2]}/{fraction[3]}" if fraction else plain
    if len(number) < _LONGEST and _NUMBER.fullmatch(number):
        return str(Fraction(number))
    words = _WORD.search(text.casefold())
    # "in crowd" is not "incrowd".
    return " ".join(text.casefold().split()) if words and "\\" not in text else plain


def same_answer(one: str, other: str) -> bool:
    """Whether two answers are equal, or differ only in notation."""
    return canonical(one) == canonical(other)
