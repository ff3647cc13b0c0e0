"""Draw one model's free generations along its runs: win rates, repetition, answers of other questions."""

from gradatlas.core.command import parser_for, run


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--curves", required=True, metavar="FILE", help="curves of summarise_generations (.parquet)")
    add("--published", required=True, metavar="TSV", help="the study's own win rates (config/published_dynamics.tsv)")
    add(
        "--run",
        nargs=3,
        action="append",
        required=True,
        metavar=("NAME", "START", "TITLE"),
        help="a run, the one it starts from (or a dash), and its name to readers",
    )
    add("--title", required=True, help="the model, or model and seed, as readers see it")
    add("--formats", nargs="+", required=True, metavar="FORMAT", help="any of vl.json, svg, png, html")
    add("--output", required=True, metavar="DIR", help="folder to write the figures to")
    run(parser, draw, argv)


def draw(given):
    from pathlib import Path

    from gradatlas.figures.generations import draw_generations
    from gradatlas.study.config import read_sheet

    titles = {name: title for name, _, title in given.run}
    starts = {name: "" if start == "-" else start for name, start, _ in given.run}
    schemas = Path(__file__).resolve().parents[1] / "schemas"
    published = list(read_sheet(Path(given.published), schemas / "published_dynamics.schema.yaml", None).values())
    draw_generations(given.curves, titles, starts, published, given.title, given.output, given.formats)


if __name__ == "__main__":
    main()
