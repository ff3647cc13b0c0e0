"""Write Detailed responses for a dataset that has none, with a local model or an OpenAI-compatible endpoint.

Answers are kept one by one in --kept: a later run asks for what is missing alone. The endpoint's key is read from an
environment variable and written nowhere.
"""

from gradatlas.core.command import parser_for, run
from gradatlas.data.responses.arguments import add_source_arguments, source_of
from gradatlas.models.writer_arguments import add_writer_arguments, writer_of


def main(argv=None):
    parser = parser_for(__doc__)
    add_source_arguments(parser)
    add_writer_arguments(parser)
    add = parser.add_argument
    add("--prompt", required=True, metavar="TEXT", help="what to ask; {instruction} stands for the question")
    add("--kept", required=True, metavar="FILE", help="answers so far (.jsonl)")
    add("--output", required=True, metavar="OUT", help="file to write (.jsonl)")
    run(parser, generate, argv)


def generate(given):
    from gradatlas.core.device import lease

    # Before torch is imported, until the process ends.
    held = None if given.endpoint or given.device == "cpu" else lease()
    from gradatlas.data.responses.detailed import write_detailed
    from gradatlas.data.responses.reading import read

    samples = read(source_of(given))
    write_detailed(given.dataset, samples, given.prompt, writer_of(given), given.kept, given.output)
    if held:
        held.release()


if __name__ == "__main__":
    main()
