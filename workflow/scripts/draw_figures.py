"""Draw all layer-gradient figures of one dataset.

  python -m workflow.scripts.draw_figures --statistics results/statistics/gsm8k --dataset gsm8k --title GSM8K \\
      --formats vl.json svg png --output results/figures/gsm8k

For every model and relation in the tables: {model}.{relation}.panels (the study's own figure), .variants (variants
overlaid), .samples (their distribution), for irrelevant responses .compared (against the correct ones), for a
model with a partner .instructed (against that); {model}.all.relations; and index.json, a list of them.
"""

from workflow.lib.command import parser_for, run


def main(argv=None):
    """Run the command line."""
    parser = parser_for(__doc__)
    parser.add_argument("--statistics", required=True, metavar="DIR", help="folder with curves, mad, rd, rd_layers")
    parser.add_argument("--dataset", required=True, metavar="NAME", help="the dataset's key in the tables")
    parser.add_argument("--title", required=True, metavar="TEXT", help="the dataset's name as readers know it")
    parser.add_argument(
        "--model-title",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "TEXT"),
        help="a model's name to readers",
    )
    parser.add_argument("--accuracy", nargs="*", default=[], metavar="PARQUET", help="tables of measure_accuracy")
    parser.add_argument(
        "--pair",
        nargs=2,
        action="append",
        default=[],
        metavar=("MODEL", "PARTNER"),
        help="a model and the one it is compared with",
    )
    parser.add_argument(
        "--prompt",
        nargs=2,
        action="append",
        default=[],
        metavar=("MODEL", "FORM"),
        help="the form of a model's prompts: plain or chat",
    )
    parser.add_argument("--paper-axes", action="store_true", help="the study's own axes, in figures of its own form")
    parser.add_argument("--paper-top", type=int, metavar="N", help="end of its axis of norms, if not 100 and 30")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write the figures to")
    parser.add_argument("--formats", required=True, nargs="+", metavar="FORMAT", help="vl.json, svg, png, pdf, html")
    parser.add_argument("--bundle", metavar="JS", help="the script that all html files share (write_vega)")
    run(parser, draw, argv)


def draw(given):
    """Draw what the arguments ask for."""
    # Imported late, so that --help and a mistyped argument answer at once.
    from workflow.lib.figures import gallery

    gallery.draw(
        given.statistics,
        given.dataset,
        given.title,
        given.output,
        given.formats,
        model_titles=dict(given.model_title),
        accuracy=given.accuracy,
        partners_of=dict(given.pair),
        prompts=dict(given.prompt),
        paper_axes=given.paper_axes,
        paper_top=given.paper_top,
        bundle=given.bundle,
    )


if __name__ == "__main__":
    main()
