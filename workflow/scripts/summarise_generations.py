"""Summarise one model's free generations over prompts: repetition, borrowed answers, win rates, with 95 % intervals."""

from gradatlas.core.command import parser_for, run


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--model", required=True, help="the model's name")
    add("--scores", required=True, metavar="FILE", help="scores of all runs (.parquet)")
    add("--judgements", metavar="FILE", help="judgements of them (.parquet)")
    add(
        "--run",
        nargs=2,
        action="append",
        required=True,
        metavar=("NAME", "START"),
        help="a run, and the one it starts from (or a dash)",
    )
    add("--draws", type=int, required=True, help="bootstrap draws")
    add("--seed", type=int, required=True, help="seed of the bootstrap")
    add("--output", required=True, metavar="OUT", help="table to write (.parquet)")
    run(parser, summarise, argv)


def summarise(given):
    from gradatlas.statistics.generations import summarise_generations

    starts = {name: "" if start == "-" else start for name, start in given.run}
    summarise_generations(given.model, given.scores, given.judgements, starts, given.output, given.draws, given.seed)


if __name__ == "__main__":
    main()
