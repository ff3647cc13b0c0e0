"""Hold the claims on the study's own irrelevant responses against those on corrected ones: a figure and a table."""

import json

from gradatlas.core.command import parser_for, progress, run


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--claims", required=True, metavar="PARQUET", help="the claims table")
    add(
        "--cells",
        nargs="*",
        default=[],
        metavar="PARQUET",
        help="what the samples were, for the right labels among wrong",
    )
    add("--formats", nargs="+", required=True, metavar="FORMAT", help="any of vl.json, svg, png, html")
    add("--titles", default="{}", metavar="JSON", help="titles of models and datasets, by key")
    add("--figure", required=True, metavar="STEM", help="figure to write, without its format")
    add("--tables", required=True, metavar="STEM", help="writes STEM.csv and STEM.md")
    run(parser, write, argv)


def write(given):
    from gradatlas.figures.fixed import headline, write_fixed

    titles = json.loads(given.titles)
    progress(headline(write_fixed(given.claims, given.cells, given.figure, given.tables, given.formats, titles)))


if __name__ == "__main__":
    main()
