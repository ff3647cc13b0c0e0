"""Write the script that interactive figures share: Vega, Vega-Lite and Vega-Embed in one file, for use offline.

python -m workflow.scripts.write_vega --output results/figures/vega.js
"""

from gradatlas.core.command import parser_for, run


def main(argv=None):
    """Run the command line."""
    parser = parser_for(__doc__)
    parser.add_argument("--output", required=True, metavar="JS", help="file to write")
    run(parser, write, argv)


def write(given):
    """Write the file that the argument names."""
    # Imported late, so that --help and a mistyped argument answer at once.
    from gradatlas.charts.save import write_bundle

    write_bundle(given.output)


if __name__ == "__main__":
    main()
