"""Draw the verdicts as a matrix, and write them as a table to read."""

import json

from gradatlas.core.command import parser_for, run


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--claims", required=True, metavar="PARQUET", help="the claims table")
    add("--formats", nargs="+", required=True, metavar="FORMAT", help="any of vl.json, svg, png, html")
    add("--titles", default="{}", metavar="JSON", help="titles of models and datasets, by key")
    add("--figure", required=True, metavar="STEM", help="figure to write, without its format")
    add("--dynamics-figure", required=True, metavar="STEM", help="the second study's figure to write")
    add("--markdown", required=True, metavar="FILE", help="table to write")
    run(parser, draw, argv)


def draw(arguments):
    from gradatlas.figures.verdicts import draw_verdicts, write_verdicts
    from gradatlas.figures.verdicts_dynamics import draw_verdicts as draw_dynamics

    titles = json.loads(arguments.titles)
    draw_verdicts(arguments.claims, arguments.figure, arguments.formats, titles)
    draw_dynamics(arguments.claims, arguments.dynamics_figure, arguments.formats, titles)
    write_verdicts(arguments.claims, arguments.markdown)


if __name__ == "__main__":
    main()
