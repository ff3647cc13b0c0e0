"""The jobs of the kernels, one a rule."""

from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class StepSettings:
    """What decides the numbers of one step."""

    updates: int
    """pairs that are each learnt for one step"""
    probed: int
    """probed prompts whose responses are followed"""
    change: float
    """first-order change of the learnt response at the largest step, in nats"""
    halvings: int
    """how often the step is halved"""
    seed: int = 0
    """of the draw of updates"""
    max_length: int = 512
    """window in tokens"""
    trust_remote_code: bool = False
    """run model code from the checkpoint"""


def check_step(
    *, model: str, pairs: Path, probes: Path, output: Path, threads: int = 1, settings: StepSettings
) -> None:
    """Compare one step of SGD with its first-order prediction, for every probe, in float64.

    Twice: training only the captured projections, predicted from their inputs and output gradients; and training all
    parameters, predicted by autograd.

    Parameters
    ----------
    model
        model folder or card (.json)
    pairs
        pairs table (.parquet)
    probes
        probes table (.parquet)
    output
        table to write (.parquet)
    threads
        CPU threads
    """
    import torch

    from gradatlas.finetuning.finetune import locate_start
    from gradatlas.kernels.one_step import check_step as check

    torch.set_num_threads(threads)
    locate_start(model)
    check(model, pairs, probes, output, **asdict(settings))
