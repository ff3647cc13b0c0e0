"""Draw the README's pictures anew from the figures of the default run (needs requirements-dev.txt).

  python -m workflow.scripts.write_gallery --figures results/figures --chosen docs/gallery/figures.txt \\
      --output docs/gallery
"""

from gradatlas.core.command import parser_for, progress, run


def main(argv=None):
    """Run the command line."""
    parser = parser_for(__doc__)
    parser.add_argument("--figures", required=True, metavar="DIR", help="folder of all figures, with their .vl.json")
    parser.add_argument("--chosen", required=True, metavar="FILE", help="the figures to show, one a line")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write the pictures to")
    run(parser, write, argv)


def write(given):
    """Write the pictures."""
    # Imported late, so that --help and a mistyped argument answer at once.
    from gradatlas.charts.pictures import write_gallery

    names = write_gallery(given.chosen, given.figures, given.output)
    progress(f"{len(names)} pictures in {given.output}")


if __name__ == "__main__":
    main()
