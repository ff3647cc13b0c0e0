"""Fill the empty revision cells of the hub models in the sheet with the hub's current commit hashes.

Run it on a machine with a network, look at the hashes, and commit the sheet. Rows that have a revision stay.
"""

from workflow.lib.command import parser_for, run


def main(argv=None):
    parser = parser_for(__doc__)
    parser.add_argument("--sheet", default="config/models.tsv", metavar="TSV", help="sheet of models")
    parser.add_argument("--model", nargs="+", default=[], metavar="KEY", help="only these rows (default: all)")
    run(parser, pin, argv)


def pin(arguments):
    from workflow.lib.models.snapshots import pin as work

    found = work(arguments.sheet, arguments.model)
    for model, commit in found.items():
        print(f"{model}\t{commit}")
    if not found:
        print("nothing to pin: every hub row asked for has a revision")


if __name__ == "__main__":
    main()
