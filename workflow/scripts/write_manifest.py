"""Gather what every table was made with, and check that the tables agree."""

from workflow.lib.checked import write_json
from workflow.lib.command import parser_for, run

LEARNER = "a finetuned model: its name, its card, its runs' tables and status.json; repeatable"


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--samples", nargs="*", default=[], help="samples tables of all models and datasets")
    add("--responses", nargs="*", default=[], help="responses tables")
    add("--sources", nargs="*", default=[], help="files that the responses were made from")
    add("--statistics", nargs="*", default=[], help="cells tables of summarise_gradients")
    add("--learner", nargs="+", action="append", default=[], metavar="NAME CARD FILE", help=LEARNER)
    add("--pairs", nargs="*", default=[], help="pairs tables that these were finetuned on")
    add("--toys", nargs="*", default=[], help="tables of the toys")
    add("--output", required=True, metavar="OUT", help="manifest to write (.json)")
    run(parser, write, argv)


def write(arguments):
    from workflow.lib.errors import InputError
    from workflow.lib.provenance import manifest

    for learner in arguments.learner:
        if len(learner) < 2:
            raise InputError(f"--learner {learner[0]}: give its card after its name, and then its tables")
    facts = manifest(
        arguments.samples,
        arguments.responses,
        arguments.sources,
        arguments.statistics,
        {name: (card, files) for name, card, *files in arguments.learner},
        arguments.pairs,
        arguments.toys,
    )
    write_json(arguments.output, facts)


if __name__ == "__main__":
    main()
