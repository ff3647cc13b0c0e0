"""Push one label of a softmax down and write what becomes of the others: the paper's five cases, a control, sweeps.

python -m workflow.scripts.squeeze_softmax --draws 100 --seed 0 --output results/dynamics/toys
"""

from gradatlas.core.command import parser_for, run


def main(argv=None):
    """Run the command line."""
    parser = parser_for(__doc__)
    parser.add_argument("--draws", type=int, required=True, help="random softmaxes of each sweep")
    parser.add_argument("--seed", type=int, required=True, help="seed of the sweeps; the cases have the paper's")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for toy_squeeze*.parquet")
    run(parser, squeeze, argv)


def squeeze(given):
    """Write the tables that the arguments ask for."""
    from gradatlas.toys.write import write_squeeze

    write_squeeze(given.output, given.draws, given.seed)


if __name__ == "__main__":
    main()
