"""Judge runs' free generations against their baselines': by the miniature's oracle, an endpoint or a reward model.

An endpoint's answers are kept one by one in --kept: a later run asks for what is missing alone. Its key is read from an
environment variable and written nowhere.
"""

from gradatlas.core.command import parser_for, run
from gradatlas.models.writer_arguments import add_writer_arguments, writer_of


def main(argv=None):
    parser = parser_for(__doc__)
    add_writer_arguments(parser, required=False)
    add = parser.add_argument
    add("--judge", required=True, help="oracle, endpoint (--endpoint, --model) or reward (--model)")
    add(
        "--run",
        nargs=4,
        action="append",
        required=True,
        metavar=("NAME", "STEPS", "BASELINES", "FILE"),
        help="a run, its updates, the runs it is judged against (with commas, or a dash) and its generations",
    )
    add("--scores", required=True, metavar="FILE", help="scores of the same generations (.parquet)")
    add("--pairs", required=True, metavar="FILE", help="pairs table (.parquet)")
    add("--kept", metavar="FILE", help="an endpoint's answers so far (.jsonl)")
    add("--output", required=True, metavar="OUT", help="table to write (.parquet)")
    run(parser, work, argv)


def work(given):
    from gradatlas.core.device import lease

    # Before torch is imported, until the process ends.
    held = lease() if given.judge == "reward" and given.device != "cpu" else None
    from gradatlas.finetuning.judging.compare import judge_generations

    files = {name: file for name, _, _, file in given.run}
    steps = {name: int(count) for name, count, _, _ in given.run}
    baselines = {name: [] if others == "-" else others.split(",") for name, _, others, _ in given.run}
    judge_generations(files, steps, baselines, given.scores, given.pairs, _judge(given), given.output)
    if held:
        held.release()


def _judge(given):
    from gradatlas.core.errors import InputError, check_choice

    check_choice("--judge", given.judge, ("oracle", "endpoint", "reward"))
    if given.judge == "oracle":
        from gradatlas.finetuning.judging.judges import Oracle

        return Oracle()
    if given.judge == "endpoint":
        from gradatlas.finetuning.judging.judges import Asked

        if not (given.endpoint and given.model and given.kept):
            raise InputError("--judge endpoint: needs --endpoint, --model and --kept")
        return Asked(writer_of(given), given.kept)
    import torch

    from gradatlas.finetuning.judging.reward import Reward

    torch.set_num_threads(given.threads)
    return Reward(
        given.model,
        given.model_name or given.model,
        device=given.device,
        dtype=given.dtype,
        trust_remote_code=given.trust_remote_code,
    )


if __name__ == "__main__":
    main()
