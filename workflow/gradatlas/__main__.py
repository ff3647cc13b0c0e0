"""The command line: ``gradatlas JOB``, or ``python -m gradatlas JOB``; one job per rule, and a few for people."""

import inspect
import re
import sys
from pathlib import Path

from gradatlas.core.warm import run_in_copy

# Before the imports that the copy has already made.
if __name__ == "__main__" and (_code := run_in_copy()) is not None:
    sys.exit(_code)

from gradatlas.core.jobs import run


def _jobs() -> dict[str, tuple[str, str]]:
    """By job, its room and its docstring: public functions of the rooms' ``jobs.py``.

    They are found without an import. A job is a function of paths and one settings value: its options.
    """
    found = {}
    for file in sorted(Path(__file__).parent.glob("*/jobs.py")):
        # The first line holds the name; the first string is the docstring.
        for text in re.split(r"^def (?=[a-z])", file.read_text("utf-8"), flags=re.MULTILINE)[1:]:
            name = text.partition("(")[0].replace("_", "-")
            found[name] = (file.parent.name, inspect.cleandoc(text.split('"""')[1]))
    return {name: job for name, job in found.items() if job[0] != "core"}


_FOUND = _jobs()
JOBS = {name: room for name, (room, _) in _FOUND.items()}
DESCRIPTIONS = {name: text for name, (_, text) in _FOUND.items()}


def main() -> None:
    """Run the command line."""
    run(JOBS, descriptions=DESCRIPTIONS)


if __name__ == "__main__":
    main()
