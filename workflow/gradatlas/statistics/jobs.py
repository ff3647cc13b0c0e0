"""The jobs of statistics, one per rule."""

from dataclasses import dataclass, field
from pathlib import Path

from gradatlas.core.jobs import by_name


@dataclass(frozen=True)
class BootstrapSettings:
    """Settings of an interval."""

    draws: int = 1000
    """bootstrap draws"""
    seed: int = 0
    """of the bootstrap"""


@dataclass(frozen=True)
class ChainSettings(BootstrapSettings):
    """Settings of curves of finetuning runs."""

    starts: dict[str, str] = field(default_factory=dict)
    """by run, the run that it starts from; runs that start from the model itself are left out"""


@dataclass(frozen=True)
class RunsSettings(ChainSettings):
    """The same, with one table per run."""

    runs: tuple[str, ...] = ()
    """the runs, in the order of the tables"""


def summarise_gradients(
    *,
    dataset: str,
    samples: list[Path],
    spectra: list[Path],
    responses: Path | None = None,
    output: Path,
    settings: BootstrapSettings = BootstrapSettings(),
) -> None:
    """Summarise one dataset's spectra over samples: curves, MAD and RD with their intervals.

    Parameters
    ----------
    dataset
        the dataset's name
    samples
        samples tables, one per model
    spectra
        spectra tables, in the same order
    responses
        the measured responses table, for counts of right labels
    output
        folder for the tables (.parquet)
    """
    from gradatlas.core.errors import check_same_number
    from gradatlas.statistics.summarise import summarise

    check_same_number(samples=samples, spectra=spectra)
    summarise(dataset, samples, spectra, output, settings.draws, settings.seed, responses)


def regress_gradients(
    *, statistics: list[Path], output: Path, csv: Path, settings: BootstrapSettings = BootstrapSettings()
) -> None:
    """Regress the size of gradients on loss and length, with the residuals of each variant.

    Parameters
    ----------
    statistics
        folders that summarise-gradients wrote
    output
        regression table to write (.parquet)
    csv
        the same as CSV
    """
    from gradatlas.statistics.regression import regress

    regress(statistics, output, csv, settings.draws, settings.seed)


def summarise_dynamics(*, model: str, dynamics: list[Path], output: Path, settings: RunsSettings) -> None:
    """Summarise one model's finetuning runs over probes: means and 95 % bootstrap intervals at every step.

    Parameters
    ----------
    model
        the model's name
    dynamics
        dynamics tables, one per run (.parquet)
    output
        table to write (.parquet)
    """
    from gradatlas.statistics.dynamics import summarise_runs

    runs = by_name(settings.runs, dynamics, "--dynamics")
    summarise_runs(model, runs, settings.starts, output, settings.draws, settings.seed)


def summarise_generations(
    *, model: str, scores: Path, judgements: Path | None = None, output: Path, settings: ChainSettings
) -> None:
    """Summarise one model's free generations over prompts: repetition, borrowed answers, win rates, each with a 95 %
    interval.

    Parameters
    ----------
    model
        the model's name
    scores
        scores of all runs (.parquet)
    judgements
        judgements of them (.parquet)
    output
        table to write (.parquet)
    """
    from gradatlas.statistics.generations import summarise_generations as summarise

    summarise(model, scores, judgements, settings.starts, output, settings.draws, settings.seed)
