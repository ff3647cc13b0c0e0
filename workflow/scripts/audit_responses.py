"""Count what every response set holds: right labels, missing final answers, remains of cutting and the like."""

from gradatlas.core.command import parser_for, run


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--responses", nargs="+", required=True, metavar="FILE", help="responses tables of all datasets")
    add("--csv", required=True, metavar="OUT", help="table to write (.csv)")
    add("--parquet", required=True, metavar="OUT", help="the same (.parquet)")
    run(parser, audit, argv)


def audit(arguments):
    from gradatlas.data.audit import audit as work

    work(arguments.responses, arguments.csv, arguments.parquet)


if __name__ == "__main__":
    main()
