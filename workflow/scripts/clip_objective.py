"""Push one label of a softmax down, step by step, by DPO's rejected side and by the clipped objective of PPO and GRPO.

python -m workflow.scripts.clip_objective --output results/dynamics/toys/toy_clip.parquet
"""

from gradatlas.core.command import parser_for, run


def main(argv=None):
    """Run the command line."""
    parser = parser_for(__doc__)
    parser.add_argument("--output", required=True, metavar="FILE", help="table to write (.parquet)")
    run(parser, compare, argv)


def compare(given):
    """Write the table that the arguments name."""
    from gradatlas.toys.write import write_clip

    write_clip(given.output)


if __name__ == "__main__":
    main()
