"""Write the rephrases of probed responses, and unrelated texts, with a local model or an OpenAI-compatible endpoint.

Answers are kept one by one in --kept: a later run asks for what is missing alone. The endpoint's key is read from an
environment variable and written nowhere.
"""

from gradatlas.core.command import parser_for, run
from gradatlas.models.writer_arguments import add_writer_arguments, writer_of


def main(argv=None):
    parser = parser_for(__doc__)
    add_writer_arguments(parser)
    add = parser.add_argument
    add("--pairs", required=True, metavar="FILE", help="pairs table (.parquet)")
    add("--train", type=int, required=True, help="probed prompts that are trained on")
    add("--held-out", type=int, required=True, help="probed prompts that are never trained on")
    add("--seed", type=int, required=True, help="seed of the draw of probes")
    add("--kept", required=True, metavar="FILE", help="answers so far (.jsonl)")
    add("--output", required=True, metavar="OUT", help="file to write (.jsonl)")
    run(parser, write, argv)


def write(given):
    from gradatlas.core.device import lease

    # Before torch is imported, until the process ends.
    held = None if given.endpoint or given.device == "cpu" else lease()
    from gradatlas.finetuning.probes import probed_pairs
    from gradatlas.finetuning.rephrases import write_rephrases

    pairs = probed_pairs(given.pairs, given.train, given.held_out, given.seed)
    write_rephrases(pairs, writer_of(given), given.kept, given.output)
    if held:
        held.release()


if __name__ == "__main__":
    main()
