"""Measure what every claim is about on one dataset: numbers, intervals and p-values of all models, no verdict yet."""

import json

from workflow.lib.command import parser_for, run


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--dataset", required=True, help="the dataset's name")
    add("--task", default="other", help="its kind of task")
    add("--samples", nargs="+", required=True, help="samples tables, one per model; also of datasets compared with")
    add("--spectra", nargs="+", required=True, help="spectra tables, in the same order")
    add("--models", required=True, metavar="JSON", help="by model, its kind, partner and seed")
    add("--claims", required=True, metavar="TSV", help="the claims' sheet")
    add("--schema", required=True, metavar="YAML", help="its schema")
    add("--draws", type=int, required=True, help="bootstrap draws")
    add("--seed", type=int, required=True, help="seed of the bootstrap")
    add("--output", required=True, metavar="FILE", help="evidence table to write (.parquet)")
    add("--accuracy", default="", metavar="FILE", help="which of two responses is likelier, to write (.parquet)")
    run(parser, gather, argv)


def gather(arguments):
    from workflow.lib.errors import InputError
    from workflow.lib.statistics.claims.evidence import read_claims
    from workflow.lib.statistics.claims.gather import gather as work

    if len(arguments.samples) != len(arguments.spectra):
        raise InputError(
            f"--samples names {len(arguments.samples)} tables, --spectra {len(arguments.spectra)}; give one of each"
        )
    work(
        arguments.dataset,
        arguments.samples,
        arguments.spectra,
        json.loads(arguments.models),
        read_claims(arguments.claims, arguments.schema),
        arguments.output,
        arguments.draws,
        arguments.seed,
        arguments.accuracy,
        arguments.task,
    )


if __name__ == "__main__":
    main()
