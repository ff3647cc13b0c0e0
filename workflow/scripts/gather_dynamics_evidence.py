"""Measure what every claim of the second study is about, on a model's runs or the toys: numbers, no verdict yet."""

import json

from workflow.lib.command import parser_for, run

# What a seed's folder may hold beside its runs.
TABLES = ("one_step", "generation_scores", "judgements")


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--pairs", help="the pairs' name")
    add("--model", help="the model's name")
    add("--kind", default="base", help="its kind")
    add("--run", nargs=3, action="append", default=[], metavar=("SEED", "NAME", "PARQUET"), help="a run's dynamics")
    add("--runs", type=json.loads, default={}, metavar="JSON", help="the runs' rows of config/runs.tsv, by name")
    for name in TABLES:
        help_ = f"a seed's {name} table"
        add(
            f"--{name.replace('_', '-')}", nargs=2, action="append", default=[], metavar=("SEED", "PARQUET"), help=help_
        )
    add("--toys", metavar="FOLDER", help="the toys' tables; without --pairs")
    add("--images", default="digits", help="of the toys: the source of the classifier's images (toys.images.source)")
    add("--claims", required=True, metavar="TSV", help="the claims' sheet")
    add("--schema", required=True, metavar="YAML", help="its schema")
    add("--draws", type=int, default=2000, help="bootstrap draws")
    add("--seed", type=int, default=0, help="seed of the bootstrap")
    add("--output", required=True, metavar="FILE", help="evidence table to write (.parquet)")
    run(parser, gather, argv)


def gather(arguments):
    from workflow.lib.errors import InputError
    from workflow.lib.statistics.dynamics_claims.evidence import read_claims
    from workflow.lib.statistics.dynamics_claims.gather import gather_runs, gather_toys

    claims = read_claims(arguments.claims, arguments.schema)
    if bool(arguments.toys) == bool(arguments.run):
        raise InputError("give --toys, or --pairs, --model and one --run or more")
    if arguments.toys:
        gather_toys(arguments.toys, claims, arguments.output, arguments.images)
        return
    rooms = {}
    for seed, name, path in arguments.run:
        rooms.setdefault(int(seed), {"runs": {}})["runs"][name] = path
    for table in TABLES:
        for seed, path in getattr(arguments, table):
            rooms.setdefault(int(seed), {"runs": {}})[table] = path
    gather_runs(
        arguments.pairs,
        arguments.model,
        arguments.kind,
        rooms,
        arguments.runs,
        claims,
        arguments.output,
        arguments.draws,
        arguments.seed,
    )


if __name__ == "__main__":
    main()
