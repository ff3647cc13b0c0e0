"""Summarise one dataset's spectra over samples: curves, MAD, RD, each with a 95 % bootstrap interval."""

from gradatlas.core.command import parser_for, run


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--dataset", required=True, help="the dataset's name")
    add("--samples", nargs="+", required=True, help="samples tables, one per model")
    add("--spectra", nargs="+", required=True, help="spectra tables, in the same order")
    add("--responses", help="the responses table that was measured: counts its right labels")
    add("--draws", type=int, required=True, help="bootstrap draws")
    add("--seed", type=int, required=True, help="seed of the bootstrap")
    add("--output", required=True, metavar="DIR", help="folder for the tables (.parquet)")
    run(parser, summarise, argv)


def summarise(arguments):
    from gradatlas.core.errors import InputError
    from gradatlas.statistics.summarise import summarise as work

    if len(arguments.samples) != len(arguments.spectra):
        raise InputError(
            f"--samples names {len(arguments.samples)} tables, --spectra {len(arguments.spectra)}; "
            "give one of each per model"
        )
    work(
        arguments.dataset,
        arguments.samples,
        arguments.spectra,
        arguments.output,
        arguments.draws,
        arguments.seed,
        arguments.responses,
    )


if __name__ == "__main__":
    main()
