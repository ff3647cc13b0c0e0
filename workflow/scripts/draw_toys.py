"""Draw the figures of the toys, and index.json, a list of them.

python -m workflow.scripts.draw_toys --tables results/dynamics/toys --formats svg png --output results/figures/toys
"""

from gradatlas.core.command import parser_for, run


def main(argv=None):
    """Run the command line."""
    parser = parser_for(__doc__)
    parser.add_argument("--tables", required=True, metavar="DIR", help="folder with toy_*.parquet")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write the figures to")
    parser.add_argument("--formats", required=True, nargs="+", metavar="FORMAT", help="any of vl.json, svg, png, html")
    run(parser, draw, argv)


def draw(given):
    """Draw what the arguments ask for."""
    from gradatlas.toys.charts.draw import draw

    draw(given.tables, given.output, given.formats)


if __name__ == "__main__":
    main()
