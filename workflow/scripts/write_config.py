"""Write the effective config: what the config files, the command line and the defaults came to."""

import json

import yaml

from workflow.lib.checked import write_lines
from workflow.lib.command import parser_for, run
from workflow.lib.errors import InputError


def main(argv=None):
    parser = parser_for(__doc__)
    parser.add_argument("--config", required=True, metavar="JSON", help="the config")
    parser.add_argument("--output", required=True, metavar="OUT", help="file to write (.yaml)")
    run(parser, write, argv)


def write(arguments):
    try:
        config = json.loads(arguments.config)
    except json.JSONDecodeError as error:
        raise InputError(f"--config: not JSON ({error}); give the config as one JSON object") from None
    write_lines(arguments.output, yaml.safe_dump(config, sort_keys=True, allow_unicode=True), "# checksum: {}")


if __name__ == "__main__":
    main()
