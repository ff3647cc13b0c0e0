"""The glossary (docs/glossary.md): the page's tooltips, and its list of terms."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup, escape

from gradatlas.charts.names import VARIANTS
from gradatlas.core.errors import InputError

_ROW = re.compile(r"\| (?P<term>[^|]+) \| (?P<keys>`[^|]+`) \| (?P<meaning>[^|]+) \|")


class Term(NamedTuple):
    """A term as readers meet it, the keys of tables and config files that mean it, and its meaning."""

    name: str
    keys: tuple[str, ...]
    meaning: str


class Glossary:
    """The terms in their order. Those of the first table are explained within texts too."""

    def __init__(self, first: Iterable[Term] = (), others: Iterable[Term] = ()):
        first = tuple(first)
        self.terms = (*first, *others)
        self.meanings = {key: term.meaning for term in self.terms for key in term.keys}
        self._within = dict(pair for term in first for pair in _spellings(term))
        words = "|".join(map(re.escape, sorted(self._within, key=len, reverse=True)))
        self._pattern = re.compile(rf"\b(?:{words})\b") if words else None

    def named(self, key: str) -> Markup:
        """A key as it is, with its meaning as a tooltip where it has one."""
        if key not in self.meanings:
            return escape(key)
        return Markup('<abbr title="{}">{}</abbr>').format(self.meanings[key], key)

    def explained(self, text: str) -> Markup:
        """The text, escaped; each term has its meaning as a tooltip where it occurs first."""
        if self._pattern is None:
            return escape(text)
        parts, end, seen = [], 0, set()
        for found in self._pattern.finditer(text):
            meaning = self._within[found[0]]
            if meaning not in seen:
                seen.add(meaning)
                abbreviation = Markup('<abbr title="{}">{}</abbr>').format(meaning, found[0])
                parts += [escape(text[end : found.start()]), abbreviation]
                end = found.end()
        return Markup("").join([*parts, escape(text[end:])])


def read_glossary(path: str | Path) -> Glossary:
    """The terms of a Markdown file with tables of term, keys and meaning; `InputError` where it has none."""
    try:
        first, *others = (_terms(table) for table in Path(path).read_text(encoding="utf-8").split("|---|---|---|")[1:])
    except (OSError, ValueError):
        raise InputError(f"{path}: no table of term, key and meaning; restore the file") from None
    return Glossary(first, (term for table in others for term in table))


def _terms(table: str) -> list[Term]:
    rows = _ROW.finditer(table)
    return [
        Term(row["term"], tuple(re.findall("`([^`]+)`", row["keys"])), row["meaning"].replace("`", "")) for row in rows
    ]


def _spellings(term: Term) -> Iterable[tuple[str, str]]:
    """As the term is written in a text: without what is in brackets, and within a sentence.

    "none" and "detailed" are words of any text, so variants are terms with their capital only.
    """
    name = term.name.split(" (")[0]
    yield name, term.meaning
    if not set(term.keys) & set(VARIANTS) and not name.isupper():
        yield name[0].lower() + name[1:], term.meaning
