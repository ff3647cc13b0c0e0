"""Find a model's files and write its card (JSON): where they are, what they are, their checksums.

SRC is a local folder, or a hub id ORG/NAME: then the files at --revision are downloaded, or taken in place from
FOLDER/models/ORG/NAME of a --mirror FOLDER. A gated model needs an accepted licence and HF_TOKEN.
"""

from workflow.lib.command import parser_for, run


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--model", required=True, metavar="KEY", help="the model's key in config/models.tsv")
    add("--source", required=True, metavar="SRC", help="model folder (./..., /..., ~...) or hub id ORG/NAME")
    add("--revision", default="", metavar="SHA", help="commit of the hub id (workflow.scripts.pin fills the sheet)")
    add("--mirror", default="", metavar="FOLDER", help="folder that holds models/ORG/NAME; others are passed over")
    add("--snapshots", default="resources/models/snapshots", metavar="FOLDER", help="where downloads are kept")
    add("--sums", metavar="FILE", help="first compare every file that this list names, in the form of sha256sum")
    add("--output", required=True, metavar="CARD", help="card to write (.json)")
    run(parser, fetch, argv)


def fetch(arguments):
    from workflow.lib.files import check_sums
    from workflow.lib.models.snapshots import fetch as work

    if arguments.sums:
        check_sums(arguments.sums)
    work(
        arguments.model,
        arguments.source,
        arguments.revision,
        arguments.output,
        arguments.mirror,
        arguments.snapshots,
    )


if __name__ == "__main__":
    main()
