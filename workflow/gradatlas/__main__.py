"""The command line: ``gradatlas JOB``, or ``python -m gradatlas JOB``; one job a rule, and a few for people."""

from gradatlas.core.jobs import run

#: By name, where each job stands. A job is a function of paths and one settings value; its options are its arguments.
JOBS = {
    "fetch-source": "data",
    "fetch-dataset": "data",
    "build-responses": "data",
    "audit-responses": "data",
    "train-miniature": "miniature",
    "generate-detailed": "models",
    "count-tokens": "models",
    "fetch-model": "models",
    "write-untrained": "models",
    "measure-accuracy": "models",
    "pin": "models",
    "squeeze-softmax": "toys",
    "train-classifier": "toys",
    "clip-objective": "toys",
    "draw-toys": "toys",
    "measure-gradients": "gradients",
    "gather-shards": "gradients",
    "import-released": "gradients",
    "summarise-gradients": "statistics",
    "regress-gradients": "statistics",
    "draw-audit": "figures",
    "gather-evidence": "claims",
    "gather-dynamics-evidence": "claims",
    "gather-toy-evidence": "claims",
    "test-claims": "claims",
    "write-accuracy": "claims",
    "draw-figures": "figures",
    "draw-overview": "figures",
    "draw-claims": "figures",
    "compare-fixed": "figures",
    "write-tables": "figures",
    "write-gallery": "figures",
    "write-config": "study",
    "write-atlas": "page",
    "write-manifest": "page",
    "compare": "page",
    "build-pairs": "data",
    "write-rephrases": "finetuning",
    "build-probes": "finetuning",
    "finetune": "finetuning",
    "check-step": "kernels",
    "summarise-dynamics": "statistics",
    "draw-dynamics": "figures",
    "draw-seeds": "figures",
    "write-dynamics-table": "figures",
    "score-generations": "finetuning",
    "judge-generations": "finetuning",
    "summarise-generations": "statistics",
    "draw-generations": "figures",
}


def main() -> None:
    """Run the command line."""
    run(JOBS)


if __name__ == "__main__":
    main()
