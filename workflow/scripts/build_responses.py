"""Build one dataset's responses table: every sample, variant and relation."""

from gradatlas.core.command import parser_for, run
from gradatlas.data.responses.arguments import add_source_arguments, source_of


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add_source_arguments(parser)
    add("--variants", nargs="+", required=True, help="variants to build, in order")
    add(
        "--relations",
        nargs="+",
        required=True,
        help="correct, published, wrong_chain (where the data have them), and what is built here: see "
        "workflow/gradatlas/data/responses/README.md",
    )
    add("--recipe", nargs="*", default=[], help="of the reference builder: a base map, then splitters")
    add("--output", required=True, metavar="OUT", help="responses table to write (.parquet)")
    run(parser, build, argv)


def build(arguments):
    from gradatlas.data.responses.build import build_responses

    build_responses(source_of(arguments), arguments.variants, arguments.relations, arguments.recipe, arguments.output)


if __name__ == "__main__":
    main()
