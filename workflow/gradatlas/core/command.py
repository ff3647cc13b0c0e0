"""Lines of progress."""

import sys


def progress(line: str) -> None:
    """One line of progress, at once, also when standard error is a log file."""
    print(line, file=sys.stderr, flush=True)
