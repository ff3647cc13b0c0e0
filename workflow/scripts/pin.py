"""Fill empty revisions with the hub's current commit hashes: of models in the sheet, or of datasets' mappings.

Run it on a machine with a network, look at the hashes, and commit the files. Revisions that are there stay.
"""

from gradatlas.core.command import parser_for, run


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--sheet", default="config/models.tsv", metavar="TSV", help="sheet of models")
    add("--model", nargs="+", default=[], metavar="KEY", help="only these rows (default: all)")
    add("--mapping", nargs="+", default=[], metavar="YAML", help="pin these mappings' datasets instead of models")
    run(parser, pin, argv)


def pin(arguments):
    if arguments.mapping:
        from gradatlas.data.tabular import pin_mapping

        found = {path: pin_mapping(path) for path in arguments.mapping}
        found = {path: commit for path, commit in found.items() if commit}
    else:
        from gradatlas.models.snapshots import pin as work

        found = work(arguments.sheet, arguments.model)
    for name, commit in found.items():
        print(f"{name}\t{commit}")
    if not found:
        print("nothing to pin: every hub row asked for has a revision")


if __name__ == "__main__":
    main()
