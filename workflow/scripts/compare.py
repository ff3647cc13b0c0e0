"""Report what moved between two results folders: numbers of every table, and every verdict.

  python -m workflow.scripts.compare results_before results_after

Ends with exit code 0 where nothing differs, 1 where something does. Rows are matched by their names, layers, steps and
the like; texts, counts and real numbers are compared.
"""

import sys

from gradatlas.core.command import parser_for, run


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("first", metavar="RESULTS_A", help="results folder")
    add("second", metavar="RESULTS_B", help="results folder to compare with it")
    add("--tolerance", type=float, default=0.0, help="relative difference up to which numbers count as equal")
    add("--output", metavar="CSV", help="also write the differences as a table")
    run(parser, work, argv)


def work(given):
    from gradatlas.core.compare import compare, report, verdict_changes, write_changes

    changes = compare(given.first, given.second, given.tolerance)
    verdicts = verdict_changes(given.first, given.second)
    if given.output:
        write_changes(changes, given.output)
    print("\n".join(report(changes, verdicts)))
    if changes or verdicts:
        sys.exit(1)


if __name__ == "__main__":
    main()
