"""Train one miniature model: base, random (its twin before the first step) or instruct (from a base).

Writes config.json, model.safetensors, the tokenizer's files, training_log.csv and training.json to a folder.
"""

from gradatlas.core import command


def main() -> None:
    parser = command.parser_for(__doc__)
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write the model to")
    parser.add_argument("--kind", required=True, help="base, random or instruct")
    parser.add_argument("--seed", required=True, help="whole number: initial weights and order of documents")
    parser.add_argument("--steps", required=True, help="training steps of 1,024 tokens; 0 for random")
    parser.add_argument("--base", metavar="DIR", help="the base model's folder, for instruct")
    parser.add_argument("--threads", default=1, help="CPU threads (default 1); the bytes depend on it")
    command.run(parser, _train)


def _train(arguments) -> None:
    from gradatlas.miniature.training import train

    train(arguments.output, arguments.seed, arguments.steps, arguments.kind, arguments.base, threads=arguments.threads)


if __name__ == "__main__":
    main()
