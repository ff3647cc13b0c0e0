"""Hold one step of plain SGD against its first-order prediction, probe by probe, in float64.

MODEL is a folder or a card (.json). Twice: with the captured projections alone trained, predicted from their inputs and
output gradients; and with all parameters trained, predicted by autograd.
"""

from gradatlas.core.command import parser_for, run


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--model", required=True, help="model folder or card")
    add("--pairs", required=True, metavar="FILE", help="pairs table (.parquet)")
    add("--probes", required=True, metavar="FILE", help="probes table (.parquet)")
    add("--updates", type=int, required=True, help="pairs that are each learnt for one step")
    add("--probed", type=int, required=True, help="probed prompts whose responses are followed")
    add("--change", type=float, required=True, help="first-order change of the learnt response at the largest step")
    add("--halvings", type=int, required=True, help="how often the step is halved")
    add("--seed", type=int, default=0, help="of the draw of updates")
    add("--max-length", type=int, default=512, help="window in tokens")
    add("--trust-remote-code", action="store_true", help="run model code from the checkpoint")
    add("--threads", type=int, default=1, help="CPU threads")
    add("--output", required=True, metavar="OUT", help="table to write (.parquet)")
    run(parser, check, argv)


def check(given):
    import torch

    from gradatlas.finetuning.finetune import usable_start
    from gradatlas.kernels.one_step import check_step

    torch.set_num_threads(given.threads)
    usable_start(given.model)
    check_step(
        given.model,
        given.pairs,
        given.probes,
        given.output,
        updates=given.updates,
        probed=given.probed,
        change=given.change,
        halvings=given.halvings,
        seed=given.seed,
        max_length=given.max_length,
        trust_remote_code=given.trust_remote_code,
    )


if __name__ == "__main__":
    main()
