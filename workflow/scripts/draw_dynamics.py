"""Draw one model's and seed's finetuning runs: each run's probes, and runs beside one another by what they answer."""

import json

from gradatlas.core.command import parser_for, run


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--curves", required=True, metavar="FILE", help="curves of summarise_dynamics (.parquet)")
    add("--tables", required=True, metavar="DIR", help="folder with a folder a run: dynamics.parquet, training.parquet")
    add("--one-step", metavar="FILE", help="table of check_step (.parquet)")
    add("--runs", required=True, type=json.loads, metavar="JSON", help="rows of config/runs.tsv, by name")
    add("--title", required=True, metavar="TEXT", help="the model and seed, as readers see them")
    add("--formats", nargs="+", required=True, metavar="FORMAT", help="any of vl.json, svg, png, html")
    add("--output", required=True, metavar="DIR", help="folder to write the figures to")
    run(parser, draw, argv)


def draw(given):
    from gradatlas.figures.dynamics.draw import draw_dynamics

    draw_dynamics(given.curves, given.tables, given.one_step, given.runs, given.title, given.output, given.formats)


if __name__ == "__main__":
    main()
