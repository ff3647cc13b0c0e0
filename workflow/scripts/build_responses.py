"""Build one dataset's responses table: every sample, variant and relation."""

from workflow.lib.command import parser_for, run


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--dataset", required=True, help="the dataset's name")
    add("--reader", required=True, help="published (JSON lists) or miniature (procedural)")
    add("--source", nargs=3, action="append", default=[], metavar=("VARIANT", "RELATION", "FILE"))
    add("--checksum", nargs=2, action="append", default=[], metavar=("FILE", "SHA256"), help="what a file must be")
    add("--variants", nargs="+", required=True, help="variants to build, in order")
    add(
        "--relations",
        nargs="+",
        required=True,
        help="correct, published, wrong_chain (where the data have them), and what is built here: see "
        "workflow/lib/responses/README.md",
    )
    add("--gold", default="", help="where gold answers are found: none, final_answer, boxed; empty: nowhere")
    add("--options", default="", help="what questions offer: listed (after 'Options:'), yes_no; empty: open")
    add("--recipe", nargs="*", default=[], help="of the reference builder: a base map, then splitters")
    add("--seed", type=int, required=True, help="seed of the builders and of the miniature's questions")
    add("--questions", type=int, default=1, help="held-out questions of a miniature dataset")
    add("--output", required=True, metavar="OUT", help="responses table to write (.parquet)")
    run(parser, build, argv)


def build(arguments):
    from workflow.lib.errors import InputError
    from workflow.lib.files import sha256_of
    from workflow.lib.responses.build import build_responses

    for path, wanted in arguments.checksum:
        if (found := sha256_of(path)) != wanted:
            raise InputError(
                f"{path}: its sha256 is {found}, config/sources.tsv says {wanted}; mend the file or the row"
            )
    build_responses(
        dataset=arguments.dataset,
        reader=arguments.reader,
        sources={(variant, relation): path for variant, relation, path in arguments.source},
        variants=arguments.variants,
        relations=arguments.relations,
        gold=arguments.gold,
        options=arguments.options,
        recipe=arguments.recipe,
        seed=arguments.seed,
        questions=arguments.questions,
        output=arguments.output,
    )


if __name__ == "__main__":
    main()
