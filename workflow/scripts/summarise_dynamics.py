"""Summarise one model's finetuning runs over probes: means and 95 % bootstrap intervals, step by step."""

from gradatlas.core.command import parser_for, run


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--model", required=True, help="the model's name")
    add(
        "--run",
        nargs=3,
        action="append",
        required=True,
        metavar=("NAME", "START", "FILE"),
        help="a run, the one it starts from (or a dash), and its dynamics table",
    )
    add("--draws", type=int, required=True, help="bootstrap draws")
    add("--seed", type=int, required=True, help="seed of the bootstrap")
    add("--output", required=True, metavar="OUT", help="table to write (.parquet)")
    run(parser, summarise, argv)


def summarise(given):
    from gradatlas.statistics.dynamics import summarise_runs

    runs = {name: path for name, _, path in given.run}
    starts = {name: "" if start == "-" else start for name, start, _ in given.run}
    summarise_runs(given.model, runs, starts, given.output, given.draws, given.seed)


if __name__ == "__main__":
    main()
