"""Write the untrained twin of a hub model: its config and tokenizer, and weights at their seeded random start.

No weights are downloaded: config and tokenizer come from the hub at --revision, or from models/ORG/NAME of a --mirror.
"""

from gradatlas.core.command import parser_for, run


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--model", required=True, metavar="KEY", help="the twin's key in config/models.tsv")
    add("--source", required=True, metavar="ORG/NAME", help="hub id of the model whose twin it is")
    add("--revision", default="", metavar="SHA", help="commit of the hub id")
    add("--mirror", default="", metavar="FOLDER", help="folder that holds models/ORG/NAME; others are passed over")
    add("--snapshots", default="resources/models/snapshots", metavar="FOLDER", help="where downloads are kept")
    add("--seed", type=int, required=True, help="seed of the weights")
    add("--trust-remote-code", action="store_true", help="run model code that comes with the checkpoint")
    add("--output", required=True, metavar="FOLDER", help="model folder to write")
    run(parser, write, argv)


def write(given):
    from gradatlas.models.untrained import write_untrained

    where = (given.mirror, given.snapshots, given.trust_remote_code)
    write_untrained(given.model, given.source, given.revision, given.seed, given.output, *where)


if __name__ == "__main__":
    main()
