"""The command line: ``gradatlas JOB``, or ``python -m gradatlas JOB``; one job a rule, and a few for people."""

from gradatlas.core.jobs import run

#: By name, where each job stands. A job is a function of paths and one settings value; its options are its arguments.
JOBS = {
    "squeeze-softmax": "toys",
    "train-classifier": "toys",
    "clip-objective": "toys",
    "draw-toys": "toys",
    "summarise-gradients": "statistics",
    "regress-gradients": "statistics",
}


def main() -> None:
    """Run the command line."""
    run(JOBS)


if __name__ == "__main__":
    main()
