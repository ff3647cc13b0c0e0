r"""Tables as LaTeX (booktabs, longtable), of text that may hold anything.

pdfLaTeX knows a few hundred characters: all others are written as commands, or as their code points.
"""

import re
import unicodedata
from collections.abc import Sequence

_COMMANDS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    # Keys are long words: a line may end within one.
    "_": r"\_\allowbreak{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "−": r"\(-\)",
    "–": "--",
    "’": "'",
    "·": r"\(\cdot\)",
    "→": r"\(\to\)",
    "×": r"\(\times\)",
    "σ": r"\(\sigma\)",
    "≤": r"\(\le\)",
    "≥": r"\(\ge\)",
    # A bracket at the head of a row would be an option of the row end before it.
    "[": "{[}",
    "]": "{]}",
    "\n": " ",
}


def escaped(text: str) -> str:
    """Text that LaTeX sets as it stands.

    >>> escaped("50 % of a_b")
    '50 \\\\% of a\\\\_b'
    """
    return "".join(_set(character) for character in text)


def preamble(text: str) -> str:
    """The comment that a file of tables begins with: what it needs, and what it holds."""
    needs = (
        r"% \usepackage{array,booktabs,longtable}, then \input this file; the tables fit a plain article, portrait. "
    )
    return needs + re.sub(r"\s+", " ", text) + "\n"


def longtable(caption: str, columns: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """One table that may run over pages; `columns` as in LaTeX's own tables (``llrr``).

    A row of one cell spans the table, as the heading of the rows below it.
    """
    head = _line([rf"\textbf{{{escaped(cell)}}}" for cell in header]) + "\n\\midrule"
    return "\n".join(
        [
            r"{\scriptsize\setlength{\tabcolsep}{3pt}",
            rf"\begin{{longtable}}{{@{{}}{columns}@{{}}}}",
            rf"\caption{{{escaped(caption)}.}}\\",
            r"\toprule",
            head,
            r"\endfirsthead",
            r"\toprule",
            head,
            r"\endhead",
            r"\bottomrule",
            r"\endfoot",
            *(
                _line([escaped(cell) for cell in row]) if len(row) > 1 else _spanning(row[0], len(header))
                for row in rows
            ),
            r"\end{longtable}}",
            "",
        ]
    )


def _line(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _spanning(text: str, columns: int) -> str:
    # The star: no page ends below a heading.
    return rf"\addlinespace \multicolumn{{{columns}}}{{l}}{{\textit{{{escaped(text)}}}}} \\*"


def _set(character: str) -> str:
    if character in _COMMANDS:
        return _COMMANDS[character]
    if " " <= character <= "~":
        return character
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    # Western letters are known to pdfLaTeX; of others their plain form, or their code point.
    if "\u00c0" <= character <= "\u00ff" and character not in "ÐðÞþ÷":
        return character
    # The plain form of a wide backslash is LaTeX's own.
    return escaped(plain) if plain.isprintable() and plain else f"{{[}}U+{ord(character):04X}{{]}}"
