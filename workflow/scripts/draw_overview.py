"""Draw what all datasets of a study show together: heatmaps of MAD and RD, and families of datasets as one figure.

  python -m workflow.scripts.draw_overview --statistics results/statistics/gsm8k results/statistics/wiki_popular \\
      --dataset gsm8k GSM8K - - - --dataset wiki_popular "Wikipedia (popular)" wiki Popular - \\
      --formats vl.json svg png --output results/figures/all-datasets
"""

from gradatlas.core.command import parser_for, run

_ROW = ("NAME", "TITLE", "FAMILY", "MEMBER", "TOP")


def main(argv=None):
    """Run the command line."""
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--statistics", required=True, nargs="+", metavar="DIR", help="folders with curves, mad, rd, rd_layers, cells")
    add(
        "--dataset",
        nargs=5,
        action="append",
        required=True,
        metavar=_ROW,
        help="a dataset, in order; a dash for no family, no name within it, or no end of the study's axis",
    )
    add(
        "--model-title",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "TEXT"),
        help="a model's name to readers",
    )
    add("--accuracy", nargs="*", default=[], metavar="PARQUET", help="tables of measure_accuracy")
    add("--paper-axes", action="store_true", help="the study's own axes, in figures of its own form")
    add("--output", required=True, metavar="DIR", help="folder to write the figures to")
    add("--formats", required=True, nargs="+", metavar="FORMAT", help="any of vl.json, svg, png, pdf, html")
    add("--bundle", metavar="JS", help="the script that all html files share (write_vega)")
    run(parser, draw, argv)


def draw(given):
    """Draw what the arguments ask for."""
    # Imported late, so that --help and a mistyped argument answer at once.
    from gradatlas.figures.overview import Dataset, draw_overview

    rows = [[name, title, *("" if cell == "-" else cell for cell in cells)] for name, title, *cells in given.dataset]
    datasets = [Dataset(*words, int(top) if top else None) for *words, top in rows]
    titles = dict(given.model_title)
    draw_overview(
        given.statistics,
        datasets,
        given.output,
        given.formats,
        titles,
        given.paper_axes,
        given.bundle,
        given.accuracy,
    )


if __name__ == "__main__":
    main()
