"""Regress log nuclear norm on log loss and log response tokens: what is left between the variants of a response."""

from gradatlas.core.command import parser_for, run


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--statistics", nargs="+", required=True, metavar="DIR", help="folders that summarise_gradients wrote")
    add("--draws", type=int, required=True, help="bootstrap draws")
    add("--seed", type=int, required=True, help="seed of the bootstrap")
    add("--output", required=True, metavar="OUT", help="regression table to write (.parquet)")
    add("--csv", required=True, metavar="OUT", help="the same (.csv)")
    run(parser, regress, argv)


def regress(arguments):
    from gradatlas.statistics.regression import regress as work

    work(arguments.statistics, arguments.output, arguments.csv, arguments.draws, arguments.seed)


if __name__ == "__main__":
    main()
