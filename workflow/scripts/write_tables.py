"""Write the MAD and RD tables of all datasets, as CSV (every digit) and Markdown (three digits).

  python -m workflow.scripts.write_tables --statistics results/statistics/gsm8k results/statistics/aqua \\
      --mad-csv results/tables/mad.csv --mad-md results/tables/mad.md \\
      --rd-csv results/tables/rd.csv --rd-md results/tables/rd.md
"""

from workflow.lib.command import parser_for, progress, run


def main(argv=None):
    """Run the command line."""
    parser = parser_for(__doc__)
    parser.add_argument("--statistics", required=True, nargs="+", metavar="DIR", help="folders with mad and rd tables")
    for kind in ("mad", "rd"):
        parser.add_argument(f"--{kind}-csv", required=True, metavar="FILE", help=f"tidy {kind.upper()} table to write")
        parser.add_argument(
            f"--{kind}-md", required=True, metavar="FILE", help=f"readable {kind.upper()} table to write"
        )
    run(parser, write, argv)


def write(given):
    """Write the four files that the arguments name."""
    # Imported late, so that --help and a mistyped argument answer at once.
    from workflow.lib.figures.tables import write_tables

    write_tables("mad", given.statistics, given.mad_csv, given.mad_md)
    write_tables("rd", given.statistics, given.rd_csv, given.rd_md)
    progress(f"{len(given.statistics)} datasets: {given.mad_csv}, {given.mad_md}, {given.rd_csv}, {given.rd_md}")


if __name__ == "__main__":
    main()
