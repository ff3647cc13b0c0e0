"""Count the tokens of every response set, for the tokenizers that are on this machine; nothing is downloaded."""

from workflow.lib.command import parser_for, run


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--model", nargs=4, action="append", default=[], metavar=("NAME", "PROMPT", "SOURCE", "REVISION"))
    add("--responses", nargs="+", required=True, metavar="FILE", help="responses tables")
    add("--max-length", type=int, required=True, metavar="TOKENS", help="the window")
    add("--compat", default="none", help="none or reference: how texts are tokenised")
    add("--mirror", default="", metavar="DIR", help="folder that may hold models/ORG/NAME")
    add("--output", required=True, metavar="OUT", help="table to write (.csv)")
    run(parser, count, argv)


def count(arguments):
    from workflow.lib.audit.tokens import Model, count_tokens

    models = [
        # A dash stands for no revision: an empty argument would be lost on the way through the shell.
        Model(name, source, "" if revision == "-" else revision, prompt == "chat")
        for name, prompt, source, revision in arguments.model
    ]
    count_tokens(
        models, arguments.responses, arguments.max_length, arguments.compat, arguments.output, arguments.mirror
    )


if __name__ == "__main__":
    main()
