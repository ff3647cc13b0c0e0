"""Build preference pairs (prompt, chosen, rejected): of the miniature's grammar, or from rows by a mapping.

  python -m workflow.scripts.build_pairs --name mini_qa --reader miniature --train 200 --held-out 60 --base 4800 \\
      --rejected-rarity 0.75 --seed 0 --output pairs.parquet

With --reader mapped, --train-rows and --held-out-rows are files of rows and --mapping says which column is what
(workflow/schemas/pairs.schema.yaml, as JSON).
"""

import json
from pathlib import Path

from workflow.lib.command import parser_for, run


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--name", required=True, help="the pairs' name")
    add("--reader", required=True, choices=["miniature", "mapped"], help="where pairs come from")
    add("--train", type=int, required=True, help="pairs to train on, at most")
    add("--held-out", type=int, required=True, help="pairs whose prompts are never trained on, at most")
    add("--base", type=int, default=0, help="miniature: documents that the base model is warmed up on")
    add("--rejected-rarity", type=float, default=0.0, help="miniature: how unlikely rejected wordings are, 0 to 1")
    add("--train-rows", metavar="FILE", help="mapped: rows to train on (.json, .jsonl, .csv, .parquet)")
    add("--held-out-rows", metavar="FILE", help="mapped: rows that are held out")
    add("--mapping", type=json.loads, metavar="JSON", help="mapped: the checked mapping")
    add("--seed", type=int, required=True, help="seed of the draw")
    add("--output", required=True, metavar="OUT", help="pairs table to write (.parquet)")
    run(parser, build, argv)


def build(given):
    from workflow.lib.dynamics import grammar
    from workflow.lib.dynamics.pairs import mapped_pairs, write_pairs
    from workflow.lib.errors import InputError

    facts = {"pairs": given.name, "seed": given.seed}
    if given.reader == "miniature":
        rows = grammar.pairs(given.train, given.held_out, given.base, given.seed, given.rejected_rarity)
        write_pairs(rows, given.output, {**facts, "rejected_rarity": given.rejected_rarity})
        return
    if not (given.train_rows and given.held_out_rows and given.mapping):
        raise InputError("--reader mapped needs --train-rows, --held-out-rows and --mapping; give all three")
    from workflow.lib.corpora.tabular import WHOLE, read_rows
    from workflow.lib.dynamics.plan import check_prompt
    from workflow.lib.study import checked

    schema = Path(__file__).resolve().parents[2] / "workflow/schemas/pairs.schema.yaml"
    mapping = checked(given.mapping, schema, "--mapping")
    check_prompt(mapping, "--mapping")
    rows = []
    for split, path, limit in (
        ("train", given.train_rows, given.train),
        ("held_out", given.held_out_rows, given.held_out),
    ):
        # Rows of the hub were cut when they were fetched.
        own = path in (mapping["source"], mapping["held_out"])
        cut = mapping[f"{split}_split"] if own else "train"
        where = path if cut in WHOLE else f"{path}, split '{cut}'"
        rows += mapped_pairs(list(read_rows(path, cut)), mapping, where, split, limit, given.seed)
    write_pairs(rows, given.output, {**facts, "source": mapping["source"], "revision": mapping["revision"]})


if __name__ == "__main__":
    main()
