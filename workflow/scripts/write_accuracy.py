"""Gather all models' accuracy tables into one: CSV (every digit) and Markdown (two digits).

  python -m workflow.scripts.write_accuracy --accuracy results/accuracy/mini.parquet \\
      --csv results/tables/accuracy.csv --markdown results/tables/accuracy.md
"""

from gradatlas.core.command import parser_for, progress, run


def main(argv=None):
    """Run the command line."""
    parser = parser_for(__doc__)
    parser.add_argument("--accuracy", required=True, nargs="+", metavar="PARQUET", help="tables of measure_accuracy")
    parser.add_argument("--csv", required=True, metavar="FILE", help="tidy table to write")
    parser.add_argument("--markdown", required=True, metavar="FILE", help="readable table to write")
    run(parser, write, argv)


def write(given):
    """Write the two files that the arguments name."""
    # Imported late, so that --help and a mistyped argument answer at once.
    from gradatlas.claims.ability import write_accuracy

    write_accuracy(given.accuracy, given.csv, given.markdown)
    progress(f"{len(given.accuracy)} models: {given.csv}, {given.markdown}")


if __name__ == "__main__":
    main()
