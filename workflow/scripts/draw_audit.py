"""Draw the audit: what share of each response set states the right answer or is damaged."""

from gradatlas.core.command import parser_for, run


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--audit", required=True, metavar="FILE", help="the audit table (.parquet)")
    add("--formats", nargs="+", required=True, metavar="FORMAT", help="any of vl.json, svg, png, pdf")
    add("--output", required=True, metavar="STEM", help="file to write, without its format")
    run(parser, draw, argv)


def draw(arguments):
    from gradatlas.figures.audit import draw_audit

    draw_audit(arguments.audit, arguments.output, arguments.formats)


if __name__ == "__main__":
    main()
