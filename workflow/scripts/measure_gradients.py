"""Measure the spectra of every layer's per-sample Q, K, V and O gradients.

FILE is a responses table (Parquet) of this workflow, or a JSON list of {instruction, input, output}; MODEL is a
folder, the card that fetch_model wrote, or a hub id together with --revision. Killed or edited runs go on from
--journal.
"""

import os

from gradatlas.core.command import parser_for, run

LOSS_TOKENS = (
    "response tokens whose loss counts, each a row of its own, with spaces or commas (default: all): all, last[:K], "
    "span:A:B, random:K[:DRAWS]"
)
TOKENS_OF = "samples for --tokens, by sample_id, with commas; repeatable"
MAPPING = (
    "where the projections are, if not found: 'q=PATH k=PATH[0:64] v=PATH o=PATH'; it is not checked that the modules "
    "do what is said of them"
)
PROJECTIONS = "of q k v o gate up down, with spaces or commas (default: q k v o)"


SHARD = "measure only the I-th of N parts, for gather_shards; alike in all but I, and with one --journal if with any"


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--model", required=True, help="model folder, card (.json) or hub id ORG/NAME")
    add("--revision", default="", help="commit hash of a hub id")
    add("--model-name", default="", help="the model's name in the tables (default: its folder's name)")
    add("--responses", required=True, metavar="FILE", help="responses table (.parquet) or JSON list (.json)")
    add("--samples", required=True, metavar="OUT", help="samples table to write (.parquet)")
    add("--spectra", required=True, metavar="OUT", help="spectra table to write (.parquet)")
    add("--singular-values", metavar="OUT", help="also write every gradient's whole spectrum (.parquet)")
    add("--cosines", metavar="OUT", help="also write cosines of q and o, k and v, and adjacent layers (.parquet)")
    add("--tokens", metavar="OUT", help="also write each token's loss and share in each gradient (.parquet), of:")
    add("--tokens-of", action="append", default=[], metavar="IDS", help=TOKENS_OF)
    add("--tokens-first", type=int, metavar="N", help="the first N samples, for --tokens")
    add("--run", metavar="OUT", help="also write time, host, device and versions (.json)")
    add("--journal", metavar="DIR", help="keep finished batches here, and take them from here")
    add("--chat", action="store_true", help="prompt through the tokenizer's chat template")
    add("--max-length", type=int, default=1024, help="window in tokens; see --truncation")
    add("--truncation", default="flag", help="longer samples: flag (cut on the right), drop, left (cut the prompt)")
    add("--loss-tokens", nargs="+", default=["all"], metavar="SUBSET", help=LOSS_TOKENS)
    add("--loss-norm", default="mean", help="loss of a response: mean or sum over its tokens")
    add("--seed", type=int, default=0, help="of random --loss-tokens")
    add("--relations", nargs="*", default=[], metavar="NAME", help="responses to measure (default: all there are)")
    add("--controls", nargs="*", default=[], metavar="V:R:S", help="beside them, VARIANT:RELATION:SUBSET of the loss")
    add("--projections", nargs="+", default=["q", "k", "v", "o"], metavar="NAME", help=PROJECTIONS)
    add("--metrics", nargs="+", metavar="NAME", help="columns to measure, with spaces or commas (default: all)")
    add("--dtype", "--precision", default="float32", help="of the pass: float32, float64, bfloat16, float16")
    add("--tf32", action="store_true", help="let a GPU round float32 products to TF32")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--compat", default="none", help="'reference' tokenises as the study's own code does")
    add("--batch-tokens", type=int, default=4096, help="tokens of one batch, padding included")
    add("--shard", type=_shard, default=(1, 1), metavar="I/N", help=SHARD)
    add("--planned-tokens", type=int, help="tokens of a batch in the plan that --shard cuts (default: --batch-tokens)")
    add("--limit", type=int, help="measure only this many samples")
    add("--limit-seed", type=int, help="draw them by a seeded hash instead of taking the first")
    add("--purpose", default="study", help="'pipeline check': a model on data it was never meant for")
    add("--threads", type=int, help="CPU threads of the pass (default: PyTorch's own choice)")
    add("--trust-remote-code", action="store_true", help="run model code from the checkpoint")
    add("--mapping", default="", help=MAPPING)
    run(parser, measure, argv)


def measure(arguments):
    from gradatlas.core.device import lease

    held = lease() if arguments.device != "cpu" else None  # before torch is imported, until the process ends
    # Waiting OpenMP threads spin by default: on a core shared with another job that cost a factor of seven.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    import torch

    from gradatlas.core.errors import InputError
    from gradatlas.gradients.extras import Extras
    from gradatlas.gradients.measure import measure as work
    from gradatlas.gradients.settings import Settings
    from gradatlas.gradients.spectra import METRICS

    if arguments.threads is not None:
        if arguments.threads < 1:
            raise InputError(f"--threads is {arguments.threads}; give at least 1")
        torch.set_num_threads(arguments.threads)
    work(
        arguments.model,
        arguments.responses,
        arguments.samples,
        arguments.spectra,
        Settings(
            chat=arguments.chat,
            max_length=arguments.max_length,
            dtype=arguments.dtype,
            compat=arguments.compat,
            device=arguments.device,
            batch_tokens=arguments.batch_tokens,
            limit=arguments.limit,
            limit_seed=arguments.limit_seed,
            trust_remote_code=arguments.trust_remote_code,
            purpose=arguments.purpose,
            truncation=arguments.truncation,
            loss_tokens=_split(arguments.loss_tokens),
            loss_norm=arguments.loss_norm,
            seed=arguments.seed,
            projections=_split(arguments.projections),
            metrics=METRICS if arguments.metrics is None else _split(arguments.metrics),
            tf32=arguments.tf32,
            mapping=arguments.mapping,
            relations=arguments.relations,
            controls=arguments.controls,
            shard=arguments.shard,
            planned_tokens=arguments.planned_tokens,
        ),
        extras=Extras(
            arguments.singular_values,
            arguments.cosines,
            arguments.tokens,
            arguments.tokens_of,
            arguments.tokens_first,
        ),
        revision=arguments.revision,
        model_name=arguments.model_name,
        journal=arguments.journal,
        run_path=arguments.run,
    )
    if held:
        held.release()


def _shard(text):
    """(I, N) of `I/N`."""
    part, parts = map(int, text.split("/"))
    return part, parts


def _split(names):
    """Names given as `q k`, `q,k` or both."""
    return [part for name in names for part in name.replace(",", " ").split()]


if __name__ == "__main__":
    main()
