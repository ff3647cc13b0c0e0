"""Measure what a miniature can do on held-out questions: accuracy, edited questions, recall of people.

Greedy exact match with Wilson 95 % bounds, by dataset and variant, as Parquet or CSV (by the suffix).
"""

from gradatlas.core import command


def main() -> None:
    parser = command.parser_for(__doc__)
    parser.add_argument("--model", required=True, metavar="DIR", help="folder of the model, or its card (.json)")
    parser.add_argument("--name", required=True, help="name of the model in the table")
    parser.add_argument("--output", required=True, metavar="FILE", help="table to write: .parquet or .csv")
    parser.add_argument("--chat", action="store_true", help="ask through the model's chat template")
    parser.add_argument("--datasets", nargs="+", metavar="NAME", help="miniature datasets (default: all)")
    parser.add_argument("--questions", type=int, default=500, help="held-out questions per task (default 500)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw of questions (default 0)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    command.run(parser, _measure)


def _measure(arguments) -> None:
    from gradatlas.data.made_up.miniature import DATASETS
    from gradatlas.miniature.exam import measure, write
    from gradatlas.models.loading import locate

    rows = measure(
        locate(arguments.model).path,
        arguments.name,
        arguments.chat,
        arguments.questions,
        arguments.seed,
        arguments.threads,
        arguments.datasets or list(DATASETS),
    )
    write(rows, arguments.output)


if __name__ == "__main__":
    main()
