"""Fetch the rows of a hub dataset at a pinned revision, or from a mirror, as Parquet."""

from gradatlas.core.command import parser_for, run


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--dataset", required=True, help="the dataset's name in messages")
    add("--source", required=True, metavar="ORG/NAME", help="the dataset on the hub")
    add("--name", default="", help="its configuration, where it has several")
    add("--revision", default="", metavar="COMMIT", help="commit hash of 40 digits")
    add("--split", required=True, help="rows to take, such as train[:500]")
    add("--mirror", default="", metavar="DIR", help="folder that holds datasets/ORG/NAME: used instead of the hub")
    add("--where", default="", help="what asks for it, in messages; its mapping without")
    add("--folder", default="", help="of a dataset that keeps its parts in folders")
    add("--output", required=True, metavar="OUT", help="file to write (.parquet)")
    run(parser, fetch, argv)


def fetch(given):
    from gradatlas.data.tabular import fetch_rows

    fetch_rows(
        given.dataset,
        given.source,
        given.name,
        given.revision,
        given.split,
        given.output,
        given.mirror,
        given.where,
        given.folder,
    )


if __name__ == "__main__":
    main()
