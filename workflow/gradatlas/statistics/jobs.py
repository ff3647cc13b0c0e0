"""The jobs of the statistics, one a rule."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BootstrapSettings:
    """What decides an interval."""

    draws: int = 1000
    """bootstrap draws"""
    seed: int = 0
    """of the bootstrap"""


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
        samples tables, one a model
    spectra
        spectra tables, in the same order
    responses
        the responses table that was measured: counts its right labels
    output
        folder for the tables (.parquet)
    """
    from gradatlas.core.errors import InputError
    from gradatlas.statistics.summarise import summarise

    if len(samples) != len(spectra):
        raise InputError(f"--samples names {len(samples)} tables, --spectra {len(spectra)}; give one of each per model")
    summarise(dataset, samples, spectra, output, settings.draws, settings.seed, responses)


def regress_gradients(
    *, statistics: list[Path], output: Path, csv: Path, settings: BootstrapSettings = BootstrapSettings()
) -> None:
    """Regress the size of gradients on loss and length, and test what is left between variants.

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
