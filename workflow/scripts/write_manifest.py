"""Gather what every gradients table was measured with, and check that the tables agree."""

import json

from workflow.lib.command import parser_for, run
from workflow.lib.files import write_text


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--samples", nargs="+", required=True, help="samples tables of all models and datasets")
    add("--responses", nargs="+", required=True, help="responses tables")
    add("--sources", nargs="*", default=[], help="files that the responses were made from")
    add("--statistics", nargs="*", default=[], help="cells tables of summarise_gradients")
    add("--output", required=True, metavar="OUT", help="manifest to write (.json)")
    run(parser, write, argv)


def write(arguments):
    from workflow.lib.provenance import manifest

    facts = manifest(arguments.samples, arguments.responses, arguments.sources, arguments.statistics)
    write_text(arguments.output, json.dumps(facts, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
