"""Lines of progress."""

import sys


def progress(line: str) -> None:
    """Print one line of progress to standard error, unbuffered."""
    print(line, file=sys.stderr, flush=True)
