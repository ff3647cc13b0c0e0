"""The command line: ``gradatlas JOB``, or ``python -m gradatlas JOB``; one job per rule, and a few for people."""

import re
from pathlib import Path

from gradatlas.core.jobs import run


def _jobs() -> dict[str, str]:
    """The room of each job, by the job's name: public functions of the rooms' ``jobs.py``, found without an import.

    A job is a function of paths and one settings value; its options are its arguments.
    """
    files = sorted(Path(__file__).parent.glob("*/jobs.py"))
    found = {file.parent.name: re.findall(r"^def ([a-z]\w*)", file.read_text("utf-8"), re.MULTILINE) for file in files}
    return {name.replace("_", "-"): room for room, names in found.items() if room != "core" for name in names}


JOBS = _jobs()


def main() -> None:
    """Run the command line."""
    run(JOBS)


if __name__ == "__main__":
    main()
