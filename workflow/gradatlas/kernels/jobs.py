"""The jobs of the kernels, one a rule."""

from dataclasses import asdict, dataclass
from pathlib import Path

from gradatlas.study.settings import OneStep, Window


@dataclass(frozen=True)
class StepSettings(OneStep, Window):
    """What decides the numbers of one step."""

    seed: int = 0
    """of the draw of updates"""
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
    chosen = asdict(settings)
    check(model, pairs, probes, output, probed=chosen.pop("probes"), **chosen)
