"""The command-line arguments that say where a dataset's samples come from, for every script that reads them."""

import json

from workflow.lib.errors import InputError
from workflow.lib.files import sha256_of


def add_source_arguments(parser):
    """The arguments that say where a dataset's samples come from; `source_of` reads them."""
    add = parser.add_argument
    add("--dataset", required=True, help="the dataset's name")
    add("--reader", required=True, help="published (JSON lists), mapped (anyone's columns) or miniature (procedural)")
    add("--source", nargs=3, action="append", default=[], metavar=("VARIANT", "RELATION", "FILE"))
    add("--checksum", nargs=2, action="append", default=[], metavar=("FILE", "SHA256"), help="what a file must be")
    add("--rows", default="", metavar="FILE", help="of a mapped dataset: JSON, JSON Lines, CSV or Parquet")
    add("--mapping", default="", metavar="JSON", help="of a mapped dataset: which column is what")
    add("--detailed", default="", metavar="FILE", help="Detailed responses that generate_detailed wrote")
    add("--gold", default="", help="where gold answers are found: none, final_answer, boxed; empty: nowhere")
    add("--options", default="", help="what questions offer: listed (after 'Options:'), yes_no; empty: open")
    add("--normalise-newlines", action="store_true", help="write backslash-n in instructions as a new line")
    add("--seed", type=int, required=True, help="seed of the builders and of the miniature's questions")
    add("--questions", type=int, default=1, help="held-out questions of a miniature dataset")


def source_of(arguments):
    """The `Source` that the arguments name, its files' stated checksums verified."""
    # Late, so that --help answers at once.
    from workflow.lib.responses.reading import Source

    for path, wanted in arguments.checksum:
        if (found := sha256_of(path)) != wanted:
            raise InputError(
                f"{path}: its sha256 is {found}, config/sources.tsv says {wanted}; delete a fetched file and run again "
                "(rule fetch_source), or correct your own file or its row"
            )
    return Source(
        dataset=arguments.dataset,
        reader=arguments.reader,
        files={(variant, relation): path for variant, relation, path in arguments.source},
        rows=arguments.rows,
        mapping=json.loads(arguments.mapping or "{}"),
        gold=arguments.gold,
        options=arguments.options,
        detailed=arguments.detailed,
        normalise_newlines=arguments.normalise_newlines,
        seed=arguments.seed,
        questions=arguments.questions,
    )
