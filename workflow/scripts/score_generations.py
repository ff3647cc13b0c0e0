"""Score free generations one by one: repetition, answers of other questions, correctness where the pairs tell it."""

from gradatlas.core.command import parser_for, run


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--run", nargs=2, action="append", required=True, metavar=("NAME", "FILE"), help="a run and its generations")
    add("--pairs", required=True, metavar="FILE", help="pairs table (.parquet)")
    add("--model", required=True, metavar="MODEL", help="folder or card of the model, for its tokenizer")
    add("--oracle", action="store_true", help="the pairs are the miniature's: its grammar tells what is right")
    add("--trust-remote-code", action="store_true", help="run tokenizer code from the checkpoint")
    add("--output", required=True, metavar="OUT", help="table to write (.parquet)")
    run(parser, score, argv)


def score(given):
    from gradatlas.finetuning.judging.scores import score_generations
    from gradatlas.finetuning.judging.tokens import tokens_with

    tokens_of = tokens_with(given.model, given.trust_remote_code)
    score_generations(dict(given.run), given.pairs, tokens_of, oracle=given.oracle, output=given.output)


if __name__ == "__main__":
    main()
