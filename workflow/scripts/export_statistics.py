"""Write the gradients tables of one dataset in the format of the study's released statistics (JSON Lines)."""

from gradatlas.core.command import parser_for, run


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--samples", nargs="+", required=True, metavar="FILE", help="samples tables, one per model")
    add("--spectra", nargs="+", required=True, metavar="FILE", help="spectra tables, in the same order")
    add("--responses", required=True, metavar="FILE", help="the responses table they were measured on")
    add("--output", nargs=4, action="append", required=True, metavar=("MODEL", "VARIANT", "RELATION", "OUT"))
    run(parser, export, argv)


def export(given):
    from gradatlas.core.errors import InputError
    from gradatlas.data.exchange import export_tables

    if len(given.samples) != len(given.spectra):
        raise InputError(f"--samples names {len(given.samples)} tables, --spectra {len(given.spectra)}; give as many")
    outputs = {(model, variant, relation): path for model, variant, relation, path in given.output}
    export_tables(given.samples, given.spectra, given.responses, outputs)


if __name__ == "__main__":
    main()
