"""Draw what several seeds of one model's finetuning runs show together."""

import json

from gradatlas.core.command import parser_for, run


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add(
        "--curves", nargs="+", required=True, metavar="FILE", help="curves of summarise_dynamics, one a seed (.parquet)"
    )
    add("--runs", required=True, type=json.loads, metavar="JSON", help="rows of config/runs.tsv, by name")
    add("--title", required=True, metavar="TEXT", help="the model, as readers see it")
    add("--formats", nargs="+", required=True, metavar="FORMAT", help="any of vl.json, svg, png, html")
    add("--output", required=True, metavar="DIR", help="folder to write the figures to")
    run(parser, draw, argv)


def draw(given):
    from gradatlas.figures.dynamics.draw import draw_seeds

    draw_seeds(given.curves, given.runs, given.title, given.output, given.formats)


if __name__ == "__main__":
    main()
