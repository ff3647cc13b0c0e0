"""Finetune a model on preference pairs, watched by probes; goes on exactly where a killed run stopped.

INIT is a folder, or a card (.json), such as `model.json` of another run. Writes dynamics.parquet (every probe at every
evaluation), generations.parquet (free responses), training.parquet (every update), status.json, model/ and its card
model.json to the folder --output.
"""

import os

from workflow.lib.command import parser_for, run


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--name", required=True, help="the run's name in the tables")
    add("--init", required=True, help="the model to start from")
    add("--reference", help="the reference model of the loss (default: INIT)")
    add("--pairs", required=True, metavar="FILE", help="pairs table (.parquet)")
    add("--probes", metavar="FILE", help="probes table (.parquet); without, nothing is watched")
    add("--output", required=True, metavar="DIR", help="folder to write to")
    add("--journal", required=True, metavar="DIR", help="folder for checkpoints, deleted at the end")
    add("--loss", default="sft", help="sft, dpo, ipo, slic, sppo, kto or simpo")
    add("--target", default="chosen", help="of sft: chosen, extend (chosen and rejected), or a type of probe")
    add("--split", default="train", help="pairs to train on: train, or base for a warm start")
    add("--probed", action="store_true", help="train on the probed pairs alone")
    add("--negatives", default="off_policy", help="off_policy (the pairs' own) or on_policy (sampled at every step)")
    add("--optimiser", default="rmsprop", help="sgd, rmsprop or adamw")
    add("--learning-rate", type=float, default=1e-4, help="after the warm-up")
    add("--steps", type=int, required=True, help="updates")
    add("--batch-size", type=int, default=4, help="responses (sft) or pairs of an update")
    add("--warm-up", type=int, default=0, help="updates over which the learning rate rises")
    add("--clip", type=float, default=10.0, help="largest norm of the gradient; 0: as it comes")
    add("--beta", type=float, default=0.1, help="of the losses on pairs")
    add("--margin", type=float, default=0.0, help="of slic (delta) and simpo (gamma)")
    add("--evaluate-every", type=int, default=25, help="updates between evaluations and checkpoints")
    add(
        "--generate-every",
        type=int,
        default=0,
        help="updates between free responses; 0: at the start and the end alone",
    )
    add(
        "--prompts", type=int, default=0, help="prompts that are answered freely, of those trained on and held out each"
    )
    add("--draws", type=int, default=1, help="free responses to a prompt")
    add("--parameters", default="full", help="full, or lora (low-rank terms of all linear layers but the output)")
    add("--lora-rank", type=int, default=8, help="of lora")
    add("--seed", type=int, default=0, help="of the order of examples and of samples")
    add("--max-length", type=int, default=512, help="window in tokens; longer examples are left out and counted")
    add("--max-new-tokens", type=int, default=64, help="tokens of a sampled response at most")
    add("--batch-tokens", type=int, default=4096, help="tokens of an evaluation's batch, padding included")
    add("--device", default="cpu", help="auto, cpu or cuda")
    add("--dtype", default="float32", help="precision of weights and passes")
    add("--trust-remote-code", action="store_true", help="run model code from the checkpoint")
    add(
        "--processes",
        type=int,
        default=1,
        help="that share every batch, each on a GPU of its own; the bytes depend on it",
    )
    add("--threads", type=int, default=1, help="CPU threads of all; the bytes depend on it")
    run(parser, train, argv)


def train(given):
    from workflow.lib.gpu import lease

    # Before torch is imported, until the process ends.
    held = lease(count=given.processes) if given.device != "cpu" else None
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if given.processes == 1:
        work(given)
    else:
        from workflow.lib.dynamics.processes import launch
        from workflow.lib.models.loading import choose_device

        launch(work, given, given.processes, choose_device(given.device))
    if held:
        held.release()


def work(given, *processes):
    import torch

    from workflow.lib.dynamics.finetune import finetune
    from workflow.lib.dynamics.recipe import Recipe

    torch.set_num_threads(max(1, given.threads // given.processes))
    names = set(Recipe.__dataclass_fields__)
    recipe = Recipe(**{name: value for name, value in vars(given).items() if name in names})
    finetune(
        given.init,
        given.pairs,
        given.output,
        given.journal,
        recipe,
        *processes,
        probes=given.probes,
        reference=given.reference,
        device=given.device,
        dtype=given.dtype,
        trust_remote_code=given.trust_remote_code,
        max_length=given.max_length,
        batch_tokens=given.batch_tokens,
        max_new_tokens=given.max_new_tokens,
        prompts=given.prompts,
        draws=given.draws,
    )


if __name__ == "__main__":
    main()
