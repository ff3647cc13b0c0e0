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
    "build-pairs": "data",
    "write-rephrases": "finetuning",
    "build-probes": "finetuning",
    "finetune": "finetuning",
    "check-step": "kernels",
    "summarise-dynamics": "statistics",
    "draw-dynamics": "figures.dynamics",
    "draw-seeds": "figures.dynamics",
    "write-dynamics-table": "figures.dynamics",
    "score-generations": "finetuning",
    "judge-generations": "finetuning",
    "summarise-generations": "statistics",
    "draw-generations": "figures.dynamics",
}


def main() -> None:
    """Run the command line."""
    run(JOBS)


if __name__ == "__main__":
    main()
