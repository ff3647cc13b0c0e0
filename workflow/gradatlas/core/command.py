"""How every script ends: 0 done, 2 the user's error in one line, 1 (a traceback) ours."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from gradatlas.core.errors import InputError


def run(
    parser: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace], Any],
    argv: Sequence[str] | None = None,
) -> None:
    """Parse the arguments, do the work, and turn an `InputError` into one line and exit code 2."""
    arguments = parser.parse_args(argv)
    try:
        work(arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


class _Parser(argparse.ArgumentParser):
    """A wrong argument is a user's error like any other: one line, without the usage."""

    def error(self, message: str):
        self.exit(2, f"error: {message}; see --help\n")


def parser_for(doc: str | None) -> argparse.ArgumentParser:
    """An argument parser whose ``--help`` is the script's own docstring."""
    return _Parser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def progress(line: str) -> None:
    """One line of progress, at once, also when standard error is a log file."""
    print(line, file=sys.stderr, flush=True)
