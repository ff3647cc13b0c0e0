"""A user's error: one line that names the file, the row, the key and the mend."""

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """Something the user gave cannot be used; the message is one line, with the mend in it.

    Scripts print it on standard error and end with exit code 2 (``gradatlas.core.command``).
    """

    def __init__(self, message: str):
        super().__init__(" ".join(str(message).split()))


def check_choice(option: str, value: str, known: Iterable[str]) -> None:
    """`InputError` where an option's value is none of the `known` ones."""
    if value not in known:
        raise InputError(f"{option} '{value}' is not known; choose one of {', '.join(known)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """A phrase for an unknown name: the nearest match if there is one, and all known names.

    >>> nearest("gms8k", ["aqua", "gsm8k"])
    "did you mean 'gsm8k'? Known: aqua, gsm8k"
    """
    names = sorted(known)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    question = f"did you mean '{close[0]}'? " if close else ""
    return f"{question}Known: {', '.join(names) or 'none'}"
