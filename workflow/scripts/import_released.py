"""Read released gradient statistics of one model and dataset into the gradients tables.

Files come from a folder (that holds grads_exp/ or what is in it) or from a dataset of the hub at a pinned revision.
"""

from gradatlas.core.command import parser_for, run


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--released", required=True, metavar="PLACE", help="folder, or hub dataset ORG/NAME")
    add("--revision", default="", metavar="COMMIT", help="commit of a hub dataset")
    add("--file", nargs=3, action="append", required=True, metavar=("VARIANT", "RELATION", "PATH"))
    add("--model-name", required=True, help="the model's name in the tables")
    add("--responses", required=True, metavar="FILE", help="the dataset's responses table")
    add("--samples", required=True, metavar="OUT", help="samples table to write (.parquet)")
    add("--spectra", required=True, metavar="OUT", help="spectra table to write (.parquet)")
    add("--cache", default="resources/statistics", metavar="DIR", help="where downloads from the hub are kept")
    add("--limit", type=int, help="take only this many samples")
    add("--limit-seed", type=int, help="draw them by a seeded hash instead of taking the first")
    add("--purpose", default="study", help="'pipeline check': a model on data it was never meant for")
    run(parser, work, argv)


def work(given):
    from gradatlas.data.exchange import import_released
    from gradatlas.data.places import find_released

    files = {
        (variant, relation): find_released(given.released, given.revision, path, given.cache)
        for variant, relation, path in given.file
    }
    import_released(
        files,
        given.model_name,
        given.responses,
        given.samples,
        given.spectra,
        purpose=given.purpose,
        revision=given.revision,
        limit=given.limit,
        seed=given.limit_seed,
    )


if __name__ == "__main__":
    main()
