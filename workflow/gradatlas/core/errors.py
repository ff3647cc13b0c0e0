"""Errors of the user's input: one line that names file, row and key, and says what to do."""

import difflib
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager


class InputError(Exception):
    """The user's input cannot be used. The message is one line that says what to do.

    Jobs print it on standard error and end with exit code 2 (`gradatlas.core.jobs`). A user's name and password in an
    address are left out.
    """

    def __init__(self, message: str):
        super().__init__(re.sub(r"(?<=://)[^/\s@]*@", "***@", " ".join(str(message).split())))


@contextmanager
def user_errors() -> Iterator[None]:
    """Outside jobs: end the process with the one line of an `InputError` of the block, and exit code 2."""
    try:
        yield
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def check_same_number(**files: Sequence) -> None:
    """`InputError` where the options (the arguments' names) give different numbers of files."""
    if len({len(each) for each in files.values()}) > 1:
        counts = ", ".join(f"--{option} {len(each)}" for option, each in files.items())
        raise InputError(f"different numbers of files are given ({counts}); give one of each")


def nearest(name: str, known: Iterable[str]) -> str:
    """A phrase for an unknown name: the nearest known name, if one is near, and all known names.

    >>> nearest("gms8k", ["aqua", "gsm8k"])
    "did you mean 'gsm8k'? Known: aqua, gsm8k"
    """
    names = sorted(known)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    question = f"did you mean '{close[0]}'? " if close else ""
    return f"{question}Known: {', '.join(names) or 'none'}"
