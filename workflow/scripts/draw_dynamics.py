"""Draw one model's finetuning runs: probes of each run, chains of runs compared, norms, one step's prediction."""

from workflow.lib.command import parser_for, run


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--curves", required=True, metavar="FILE", help="curves of summarise_dynamics (.parquet)")
    add("--one-step", metavar="FILE", help="table of check_step (.parquet)")
    add(
        "--run",
        nargs=3,
        action="append",
        required=True,
        metavar=("NAME", "START", "TITLE"),
        help="a run, the one it starts from (or a dash), and its name to readers",
    )
    add("--formats", nargs="+", required=True, metavar="FORMAT", help="any of vl.json, svg, png, html")
    add("--output", required=True, metavar="DIR", help="folder to write the figures to")
    run(parser, draw, argv)


def draw(given):
    from workflow.lib.figures.dynamics import draw_dynamics

    titles = {name: title for name, _, title in given.run}
    starts = {name: "" if start == "-" else start for name, start, _ in given.run}
    draw_dynamics(given.curves, given.one_step, titles, starts, given.output, given.formats)


if __name__ == "__main__":
    main()
