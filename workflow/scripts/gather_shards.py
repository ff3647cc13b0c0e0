"""Gather the tables of one gradients job from the shards that it was cut into (measure_gradients --shard)."""

from gradatlas.core.command import parser_for, run

TABLE = "a table: its name (samples, spectra, ...), the file to write, and its parts; repeatable"


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--table", nargs="+", action="append", required=True, metavar="NAME OUT PART", help=TABLE)
    add("--run", nargs="+", default=[], metavar="OUT PART", help="the same of time, host and device (.json)")
    run(parser, gather, argv)


def gather(arguments):
    from gradatlas.core.errors import InputError
    from gradatlas.core.tables import SCHEMAS
    from gradatlas.gradients.shards import gather as work

    for name, *files in arguments.table:
        if name not in SCHEMAS or len(files) < 2:
            raise InputError(f"--table {name}: give a table's name, the file to write and its parts")
    tables = {name: files for name, *files in arguments.table}
    if "samples" not in tables:
        raise InputError("--table samples is missing; the other tables' rows are ordered by it")
    work(
        {name: parts for name, (_, *parts) in tables.items()},
        {name: output for name, (output, *_) in tables.items()},
        arguments.run[1:],
        arguments.run[0] if arguments.run else "",
    )


if __name__ == "__main__":
    main()
