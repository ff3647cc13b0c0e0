"""The options listed in a question, and the check of its answer against them."""

import re
from collections.abc import Callable, Mapping

from gradatlas.core.errors import InputError
from gradatlas.data.samples import Sample

_MARK = re.compile(r"options\s*:", re.IGNORECASE)
# New lines in instructions of the published files are a backslash and an n.
_LINES = re.compile(r"\\n|\n")
_LETTERED = re.compile(r"(?:[-*]\s*)?(\([A-Z]\))\s*(.*)")
_NAMED = re.compile(r"[-*]\s*(Sentence [A-Z])\s*:\s*(.*)")
_PLAIN = re.compile(r"[-*]\s+(.+)")


def listed_options(instruction: str) -> dict[str, str]:
    r"""The options' texts, by label: the lines after the last "Options:".

    The label of ``(A) 22`` is ``(A)``, of ``- Sentence A: "..."`` it is ``Sentence A``, of ``- bank`` its text. New
    lines may be written as backslash-n. Empty where nothing is listed.

    >>> listed_options(r"Where?\nOptions:\n- bank\n- shore")
    {'bank': 'bank', 'shore': 'shore'}
    """
    options: dict[str, str] = {}
    _, *listed = _MARK.split(instruction)
    for line in _LINES.split(listed[-1]) if listed else ():
        line = line.strip()
        labelled = _LETTERED.fullmatch(line) or _NAMED.fullmatch(line)
        plain = _PLAIN.fullmatch(line)
        if labelled:
            options[labelled[1]] = labelled[2].strip().strip('"')
        elif plain:
            options[plain[1]] = plain[1]
    return options


#: Readers of a question's options, by the name in the `options` column of datasets.tsv.
OPTIONS: dict[str, Callable[[str], dict[str, str]]] = {
    "": lambda instruction: {},
    "listed": listed_options,
    "yes_no": lambda instruction: {},
}


def chosen(options: Mapping[str, str], answer: str) -> str | None:
    """The option that an answer names, ignoring case and white space; None where it names none."""
    return next((option for option in options if _same(option, answer)), None)


def _same(one: str, other: str) -> bool:
    return one.casefold().split() == other.casefold().split()


def check_answer(sample: Sample, options: str, where: str) -> None:
    """`InputError` naming `where` for a gold answer that is not one of the sample's options."""
    known = ("yes", "no") if options == "yes_no" else tuple(sample.options)
    if len(known) < 2:
        raise InputError(
            f"{where}: its question lists no options after 'Options:'; list them, one per line, or leave the dataset's "
            "options column empty"
        )
    if not any(_same(sample.gold, option) for option in known):
        raise InputError(f"{where}: answers {sample.gold!r}, which is not among the options {', '.join(known)}; fix it")
