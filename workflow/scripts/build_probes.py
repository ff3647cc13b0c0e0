"""Build the responses whose log-probability finetuning is watched by: thirteen types to every probed prompt.

MODEL is what finetuning starts from: a folder or a card (.json). Rephrases come from the miniature's grammar, or from
--rephrases, a JSON Lines file of {"pair_id", "type", "text"} such as write_rephrases makes.
"""

from workflow.lib.command import parser_for, run


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--pairs", required=True, metavar="FILE", help="pairs table (.parquet)")
    add("--model", required=True, help="model folder or card that finetuning starts from")
    add("--rephrases", metavar="FILE", help="kept rephrases (.jsonl); without, those of the miniature's grammar")
    add("--no-rephrases", action="store_true", help="nobody writes any: probes of these types are missing")
    add("--train", type=int, required=True, help="probed prompts that are trained on")
    add("--held-out", type=int, required=True, help="probed prompts that are never trained on")
    add("--seed", type=int, required=True, help="seed of the draws")
    add("--max-length", type=int, default=512, help="window in tokens")
    add("--max-new-tokens", type=int, default=64, help="tokens of a sample at most")
    add("--device", default="cpu", help="auto, cpu or cuda")
    add("--dtype", default="float32", help="precision of the pass")
    add("--trust-remote-code", action="store_true", help="run model code from the checkpoint")
    add("--threads", type=int, default=1, help="CPU threads")
    add("--output", required=True, metavar="OUT", help="probes table to write (.parquet)")
    run(parser, build, argv)


def build(given):
    import torch

    from workflow.lib.digest import code_digest
    from workflow.lib.dynamics import probes, rephrases
    from workflow.lib.dynamics.finetune import usable_start
    from workflow.lib.dynamics.sequences import Speech
    from workflow.lib.files import sha256_of
    from workflow.lib.machine import libraries
    from workflow.lib.models.loading import choose_device, load

    torch.set_num_threads(given.threads)
    asked = probes.probed_pairs(given.pairs, given.train, given.held_out, given.seed)
    # Before the model is loaded: what is missing is reported at once.
    if given.no_rephrases:
        written = probes.no_rephrases
    elif given.rephrases:
        written = rephrases.from_cache(given.rephrases, asked)
    else:
        written = probes.grammar_rephrases(given.seed)
    start = usable_start(given.model)
    device = choose_device(given.device)
    model, tokenizer = load(start.path, dtype=given.dtype, device=device, trust_remote_code=given.trust_remote_code)
    rows = probes.build_probes(
        given.pairs,
        model,
        Speech(tokenizer, given.max_length, model),
        written,
        train=given.train,
        held_out=given.held_out,
        seed=given.seed,
        max_new_tokens=given.max_new_tokens,
    )
    facts = {"pairs": sha256_of(given.pairs), "model": start.digest, "revision": start.revision, "seed": given.seed}
    facts |= {"dtype": given.dtype, "device": device, "window": given.max_length, "code": code_digest(probes.__name__)}
    probes.write_probes(rows, given.output, facts | libraries())


if __name__ == "__main__":
    main()
