"""The jobs of the kernels, one a rule."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gradatlas.core.jobs import Options
from gradatlas.gradients.settings import Settings
from gradatlas.study.settings import Followed as FollowedSettings
from gradatlas.study.settings import OneStep, Window
from gradatlas.study.sheets import Loading

if TYPE_CHECKING:
    from gradatlas.kernels.along_runs import Followed


DEFAULTS = Settings()


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


@dataclass(frozen=True, kw_only=True)
class AlongSettings(FollowedSettings, Window, Loading):
    """Which responses are followed along a run, and how the model computes."""

    run: str
    """the run's name"""
    seed: int = 0
    """the run's seed"""


def measure_budget(
    *,
    init: str,
    folder: Path,
    probes: Path,
    output: Path,
    threads: int = 1,
    batch_tokens: int = 4096,
    settings: AlongSettings,
) -> None:
    """Measure which block of the model moved which response along a finetuning run, from its start to its end.

    Parameters
    ----------
    init
        the model that the run starts from: a folder or a card (.json)
    folder
        the run's folder: model.json, status.json and snapshots/
    probes
        probes table (.parquet)
    output
        budget table to write (.parquet)
    threads
        CPU threads
    batch_tokens
        tokens of a batch at most, padding included
    """
    from gradatlas.core.device import lease

    with lease(settings.device):
        from gradatlas.kernels.along_runs import measure_budget as measure

        measure(_followed(init, folder, probes, threads, settings), output, batch_tokens)


def measure_kernels(
    *,
    init: str,
    folder: Path,
    probes: Path,
    kernels: Path,
    means: Path,
    entanglement: Path,
    norms: Path | None = None,
    journal: Path,
    threads: int = 1,
    batch_tokens: int = 4096,
    settings: AlongSettings,
) -> None:
    """Measure the kernel of a finetuning run's probes, block by block, at its start, its snapshots and its end.

    Its estimate is printed first; a killed job resumes with the same bytes.

    Parameters
    ----------
    init
        the model that the run starts from: a folder or a card (.json)
    folder
        the run's folder: model.json, status.json and snapshots/
    probes
        probes table (.parquet)
    kernels
        table of all pairs to write (.parquet)
    means
        table of types by block to write (.parquet)
    entanglement
        table of chosen and rejected responses by block to write (.parquet)
    norms
        table of norms of the kernel of the logits to write (.parquet), of settings.norms prompts
    journal
        folder for the kernels of single blocks, deleted at the end
    threads
        CPU threads
    batch_tokens
        tokens of a batch at most, padding included; the last digits of the results depend on it
    """
    from gradatlas.core.device import lease

    with lease(settings.device):
        from gradatlas.kernels.along_runs import measure_kernels as measure

        followed = _followed(init, folder, probes, threads, settings)
        measure(followed, kernels, means, entanglement, journal, batch_tokens, norms)


def measure_bridge(
    *,
    init: str,
    folder: Path,
    responses: Path,
    output: Path,
    journal: Path,
    kinds: list[str],
    seed: int = 0,
    threads: int = 1,
    settings: Options[Settings] = DEFAULTS,
) -> None:
    """Measure the first study's gradients at each stage of a run of train-on-variant, on its held-out questions.

    Parameters
    ----------
    init
        the model that the run starts from: a folder or a card (.json)
    folder
        the run's folder
    responses
        responses table (.parquet)
    output
        bridge table to write (.parquet)
    journal
        folder that keeps finished batches, for later runs
    kinds
        VARIANT:RELATION of the responses
    seed
        the run's seed
    threads
        CPU threads
    """
    from gradatlas.core.device import lease

    with lease(settings.device):
        import torch

        from gradatlas.kernels.bridge import measure_along

        torch.set_num_threads(threads)
        measure_along(init, folder, responses, output, journal, settings, kinds=kinds, seed=seed)


def _followed(init: str, folder: Path, probes: Path, threads: int, settings: AlongSettings) -> "Followed":
    import torch

    from gradatlas.kernels.along_runs import Followed
    from gradatlas.models.loading import choose_device

    torch.set_num_threads(threads)
    chosen = asdict(settings) | {"device": choose_device(settings.device)}
    torch.use_deterministic_algorithms(chosen["device"] == "cpu")
    return Followed(chosen.pop("run"), init, folder, probes, **chosen)
