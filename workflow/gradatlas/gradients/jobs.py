"""The jobs of the gradients, one a rule."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gradatlas.core.jobs import Json, Options
from gradatlas.gradients.settings import Samples, Settings

DEFAULTS = Settings()


@dataclass(frozen=True)
class ReleasedFile:
    """One file of released statistics."""

    variant: str
    """variant of its responses"""
    relation: str
    """relation of its responses"""
    path: str
    """its path in the folder or the hub dataset (grads_exp/...)"""


@dataclass(frozen=True, kw_only=True)
class ReleasedSettings(Samples):
    """What is taken from released statistics."""

    files: list[ReleasedFile]
    """the model's and dataset's files"""


def measure_gradients(
    *,
    model: str,
    revision: str = "",
    adapter: str = "",
    adapter_revision: str = "",
    gpus: int = 1,
    model_name: str = "",
    responses: Path,
    samples: Path,
    spectra: Path,
    singular_values: Path | None = None,
    cosines: Path | None = None,
    tokens: Path | None = None,
    tokens_of: Sequence[str] = (),
    tokens_first: int | None = None,
    run: Path | None = None,
    journal: Path | None = None,
    threads: int | None = None,
    settings: Options[Settings] = DEFAULTS,
) -> None:
    """Measure the spectra of every layer's per-sample Q, K, V and O gradients.

    Killed or edited runs resume from the journal.

    Parameters
    ----------
    model
        model folder, the card that fetch-model wrote (.json), or a hub id ORG/NAME with a revision
    revision
        commit hash of a hub id
    adapter
        PEFT adapter of the model: a folder, or a hub id ORG/NAME with a revision
    adapter_revision
        commit hash of a hub adapter
    gpus
        GPUs that hold the model's layers together, where one is too small
    model_name
        the model's name in the tables; default: its folder's name
    responses
        responses table (.parquet), or a JSON list of {instruction, input, output}
    samples
        samples table to write (.parquet)
    spectra
        spectra table to write (.parquet)
    singular_values
        also write all singular values of every gradient (.parquet)
    cosines
        also write cosines of q and o, k and v, and adjacent layers (.parquet)
    tokens
        also write each token's loss and share in each gradient (.parquet), of:
    tokens_of
        samples by their ids, for --tokens
    tokens_first
        the first so many samples, for --tokens
    run
        also write time, host, device and versions (.json)
    journal
        folder that keeps finished batches, for later runs
    threads
        CPU threads of the pass; default: PyTorch's choice
    """
    from gradatlas.core.device import lease
    from gradatlas.core.errors import InputError

    if threads is not None and threads < 1:
        raise InputError(f"--threads is {threads}; give at least 1")
    with lease(settings.device, gpus):
        import torch

        from gradatlas.gradients.extras import Extras
        from gradatlas.gradients.measure import measure

        if threads:
            torch.set_num_threads(threads)
        tables = (str(path) if path else None for path in (singular_values, cosines, tokens))
        measure(
            model,
            str(responses),
            str(samples),
            str(spectra),
            settings,
            extras=Extras(*tables, tokens_of, tokens_first),
            revision=revision,
            adapter=adapter,
            adapter_revision=adapter_revision,
            gpus=gpus,
            model_name=model_name,
            journal=str(journal) if journal else None,
            run_path=str(run) if run else None,
        )


def gather_shards(
    *, names: list[str], parts: list[Path], outputs: list[Path], run_parts: Sequence[Path] = (), run: Path | None = None
) -> None:
    """Merge the tables of one gradients job from its shards.

    Parameters
    ----------
    names
        the tables: samples, spectra, ...
    parts
        the parts of all tables: all parts of the first table, then as many of the next
    outputs
        the tables to write, in the order of their names (.parquet)
    run_parts
        time, host and device of the parts (.json)
    run
        the same for all parts, to write (.json)
    """
    from gradatlas.core.errors import InputError
    from gradatlas.gradients.shards import gather
    from gradatlas.gradients.tables import TABLES

    each, rest = divmod(len(parts), len(names))
    if rest or not each or len(outputs) != len(names):
        raise InputError(
            f"--names gives {len(names)} tables, --outputs {len(outputs)} files, --parts {len(parts)}; give one output "
            "and as many parts for each table"
        )
    for name in names:
        if name not in TABLES:
            raise InputError(f"--names '{name}': not a table of a gradients job; give some of {', '.join(TABLES)}")
    if "samples" not in names:
        raise InputError("--names: 'samples' is missing; add it, as the rows of other tables are ordered by it")
    gather(
        {name: list(map(str, parts[at * each : (at + 1) * each])) for at, name in enumerate(names)},
        dict(zip(names, map(str, outputs), strict=True)),
        list(map(str, run_parts)),
        str(run) if run else "",
    )


def import_released(
    *,
    released: str,
    revision: str = "",
    model_name: str,
    responses: Path,
    samples: Path,
    spectra: Path,
    cache: Path = Path("resources/statistics"),
    settings: Json[ReleasedSettings],
) -> None:
    """Read released gradient statistics of one model and dataset into the gradients tables.

    Files come from a folder (with grads_exp/, or its content) or from a hub dataset at a pinned revision.

    Parameters
    ----------
    released
        folder, or hub dataset ORG/NAME
    revision
        commit of a hub dataset
    model_name
        the model's name in the tables
    responses
        the dataset's responses table
    samples
        samples table to write (.parquet)
    spectra
        spectra table to write (.parquet)
    cache
        where downloads from the hub are kept
    settings
        as JSON: which files, and which of their samples
    """
    from gradatlas.data.places import find_released
    from gradatlas.gradients.released import import_released

    files = {
        (file.variant, file.relation): find_released(released, revision, file.path, cache) for file in settings.files
    }
    subset = {"limit": settings.limit, "seed": settings.limit_seed}
    tables = (str(responses), str(samples), str(spectra))
    import_released(files, model_name, *tables, purpose=settings.purpose, revision=revision, **subset)
