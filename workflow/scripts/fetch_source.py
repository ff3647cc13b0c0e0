"""Fetch one published data file, from its address or from a mirror, and check its SHA-256 before it is placed."""

from gradatlas.core.command import parser_for, run


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--url", required=True, help="https address of the folder that PATH is in (or of the file itself)")
    add("--path", required=True, help="the file below URL or the mirror, such as cot_500/gsm8k_train_no_cot.json")
    add("--sha256", required=True, metavar="HEX", help="checksum that the file must have")
    add("--output", required=True, metavar="FILE", help="where to place it")
    add("--mirror", default="", metavar="PLACE", help="folder or http(s) address that holds PATH: used instead of URL")
    add(
        "--timeout", type=float, default=30.0, metavar="SECONDS", help="give a transfer up after so long without a byte"
    )
    add("--attempts", type=int, default=5, metavar="N", help="how often to try; cut transfers are resumed")
    run(parser, fetch, argv)


def fetch(arguments):
    from gradatlas.core.errors import InputError
    from gradatlas.data.sources import fetch as work

    if arguments.timeout <= 0 or arguments.attempts < 1:
        raise InputError("--timeout and --attempts: give a time above 0 and at least one attempt")
    work(
        arguments.url,
        arguments.path,
        arguments.sha256,
        arguments.output,
        arguments.mirror or None,
        timeout=arguments.timeout,
        attempts=arguments.attempts,
    )


if __name__ == "__main__":
    main()
