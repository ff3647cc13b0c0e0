"""Reach the verdicts: all evidence of a run, corrected for the number of tests, beside what the models can do."""

from workflow.lib.command import parser_for, progress, run


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--evidence", nargs="+", required=True, metavar="PARQUET", help="tables of gather_evidence")
    add(
        "--accuracy", nargs="*", default=[], metavar="PARQUET", help="tables of measure_accuracy and of gather_evidence"
    )
    add("--claims", required=True, metavar="TSV", help="the claims' sheet")
    add("--schema", required=True, metavar="YAML", help="its schema")
    add("--dynamics-claims", nargs=2, metavar=("TSV", "YAML"), help="the second study's sheet and its schema")
    add(
        "--prompt", nargs=2, action="append", default=[], metavar=("MODEL", "FORM"),
        help="the form of a model's prompts: plain or chat",
    )  # fmt: skip
    add("--output", required=True, metavar="STEM", help="writes STEM.parquet, STEM.csv and STEM.json")
    run(parser, decide, argv)


def decide(arguments):
    from workflow.lib.figures import ability
    from workflow.lib.figures.names import variants_in_order
    from workflow.lib.statistics.claims.evidence import read_claims
    from workflow.lib.statistics.claims.verdicts import VERDICTS, Ability
    from workflow.lib.statistics.claims.verdicts import decide as work
    from workflow.lib.statistics.dynamics_claims.evidence import read_claims as read_dynamics_claims

    known = ability.abilities(ability.read(arguments.accuracy))
    able = {
        key: Ability(
            {name: it.shares[name][0] for name in variants_in_order(it.shares)},
            {name for name in it.shares if it.masters(name)},
            {name for name, (_, low, _) in it.shares.items() if low <= it.chance},
            it.chance,
            it.test,
        )
        for key, it in known.items()
    }
    claims = read_claims(arguments.claims, arguments.schema)
    claims += read_dynamics_claims(*arguments.dynamics_claims) if arguments.dynamics_claims else []
    table = work(arguments.evidence, claims, able, arguments.output, dict(arguments.prompt))
    counts = ", ".join(f"{(table['verdict'] == verdict).sum()} {verdict}" for verdict in VERDICTS)
    progress(f"{table.height} tests of {table['claim'].n_unique()} claims: {counts}")


if __name__ == "__main__":
    main()
