"""The jobs of models, one per rule, and `pin`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gradatlas.core.jobs import Json, RequestOptions
from gradatlas.data.responses.settings import SourceSettings
from gradatlas.models.settings import TokenSettings
from gradatlas.models.snapshots import SNAPSHOTS
from gradatlas.models.writers import REQUESTS, Requests, WriterSettings


@dataclass(frozen=True, kw_only=True)
class DetailedSettings(SourceSettings):
    """Settings of written Detailed responses."""

    prompt: str
    """the request, with {instruction} for the question"""
    writer: WriterSettings
    """which model writes"""


@dataclass(frozen=True)
class UntrainedSettings:
    """Settings of an untrained twin's weights."""

    seed: int
    """of the weights"""
    trust_remote_code: bool = False
    """run model code that comes with the checkpoint"""


@dataclass(frozen=True)
class AccuracySettings:
    """The questions of a miniature's accuracy."""

    chat: bool = False
    """prompt through the model's chat template"""
    datasets: list[str] = field(default_factory=list)
    """miniature datasets; empty: all"""
    questions: int = 500
    """held-out questions of each task"""
    seed: int = 0
    """of the draw of questions"""


def download_model(
    *,
    model: str,
    source: str,
    revision: str = "",
    output: Path,
    mirror: str = "",
    snapshots: Path = Path(SNAPSHOTS),
    no_weights: bool = False,
) -> None:
    """Find or download a hub model's files, and write where they are (JSON).

    Files are downloaded at the revision, or used in place from FOLDER/models/ORG/NAME of a --mirror FOLDER. A gated
    model needs an accepted licence and HF_TOKEN.

    Parameters
    ----------
    model
        the model's key in config/models.tsv
    source
        hub id ORG/NAME
    revision
        commit of the hub id (gradatlas pin fills the sheet)
    output
        file to write (.json)
    mirror
        folder with models/ORG/NAME; a mirror without models/ is ignored
    snapshots
        folder for downloads
    no_weights
        config and tokenizer alone, for an untrained twin
    """
    from gradatlas.models.snapshots import find

    find(model, source, revision, output, mirror, str(snapshots), weights=not no_weights)


def download_adapter(
    *, model: str, source: str, revision: str = "", output: Path, mirror: str = "", snapshots: Path = Path(SNAPSHOTS)
) -> None:
    """Find or download the files of a hub adapter, and write where they are (JSON).

    As download-model does for a model.

    Parameters
    ----------
    model
        the model's key in config/models.tsv
    source
        hub id ORG/NAME of the adapter
    revision
        commit of the hub id (gradatlas pin fills the sheet)
    output
        file to write (.json)
    mirror
        folder with models/ORG/NAME; a mirror without models/ is ignored
    snapshots
        folder for downloads
    """
    from gradatlas.models.adapter_files import find_adapter

    find_adapter(model, source, revision, output, mirror, snapshots)


def fetch_model(
    *,
    model: str,
    source: str,
    revision: str = "",
    output: Path,
    downloaded: Path | None = None,
    adapter: str = "",
    adapter_revision: str = "",
    adapter_downloaded: Path | None = None,
    sums: Path | None = None,
) -> None:
    """Check a model's files and write its card (JSON): path, architecture and checksums, also of its adapter.

    Parameters
    ----------
    model
        the model's key in config/models.tsv
    source
        model folder (./..., /..., ~...) or hub id ORG/NAME
    revision
        commit of the hub id
    output
        card to write (.json)
    downloaded
        where the files of a hub id are, from download-model (.json)
    adapter
        PEFT adapter of the model: folder (./..., /..., ~...) or hub id ORG/NAME
    adapter_revision
        commit of a hub adapter
    adapter_downloaded
        where the files of a hub adapter are, from download-adapter (.json)
    sums
        list of checksums, as of sha256sum, to compare first
    """
    from gradatlas.core.files import check_sums
    from gradatlas.models.adapter_files import card_of_adapter
    from gradatlas.models.snapshots import fetch

    if sums:
        check_sums(sums)
    found = card_of_adapter(adapter, adapter_revision, source, adapter_downloaded) if adapter else None
    fetch(model, source, revision, output, downloaded, found)


def write_untrained(
    *,
    model: str,
    source: str,
    revision: str = "",
    downloaded: Path,
    output: Path,
    settings: UntrainedSettings,
) -> None:
    """Write the untrained twin of a hub model: its config and tokenizer, and seeded random weights.

    Parameters
    ----------
    model
        the twin's key in config/models.tsv
    source
        hub id of the original model, ORG/NAME
    revision
        commit of the hub id
    downloaded
        where config and tokenizer are, from download-model (.json)
    output
        model folder to write
    """
    from gradatlas.models.untrained import write_untrained

    write_untrained(model, source, revision, settings.seed, downloaded, output, settings.trust_remote_code)


def pin(*, sheet: Path = Path("config/models.tsv"), model: Sequence[str] = (), mapping: Sequence[Path] = ()) -> None:
    """Fill empty revisions of models in the sheet, or of datasets' mappings, with the hub's current commit hashes.

    Run it on a machine with a network, check the hashes, and commit the files. Other revisions stay.

    Parameters
    ----------
    sheet
        sheet of models (.tsv)
    model
        only these rows; default: all
    mapping
        pin these mappings' datasets (.yaml) instead of models
    """
    if mapping:
        from gradatlas.data.tabular import pin_mapping

        found = {str(path): commit for path in mapping if (commit := pin_mapping(path))}
    else:
        from gradatlas.models.snapshots import pin

        found = pin(sheet, model)
    for name, commit in found.items():
        print(f"{name}\t{commit}")
    if not found:
        print("nothing to pin: every hub row has a revision")


def count_tokens(*, responses: list[Path], output: Path, mirror: str = "", settings: Json[TokenSettings]) -> None:
    """Count the tokens of every response set with the tokenizers on this machine; nothing is downloaded.

    Parameters
    ----------
    responses
        responses tables
    output
        table to write (.csv)
    mirror
        folder that may hold models/ORG/NAME
    settings
        as JSON: models (name, source, revision, chat), max_length, compat
    """
    from gradatlas.models.token_counts import count_tokens

    count_tokens(settings.models, responses, settings.max_length, settings.compat, output, mirror)


def measure_accuracy(
    *, model: Path, name: str, output: Path, threads: int = 1, settings: AccuracySettings = AccuracySettings()
) -> None:
    """Measure a miniature's accuracy on held-out questions, on edited questions, and in recall of people.

    Greedy decoding, exact match, Wilson 95 % bounds, by dataset and variant; Parquet or CSV (by the suffix).

    Parameters
    ----------
    model
        folder of the model, or its card (.json)
    name
        name of the model in the table
    output
        table to write (.parquet or .csv)
    threads
        CPU threads
    """
    from gradatlas.data.made_up.miniature import DATASETS
    from gradatlas.miniature.accuracy import measure, write
    from gradatlas.models.loading import locate

    questions = (settings.questions, settings.seed, threads, settings.datasets or list(DATASETS))
    write(measure(locate(str(model)).path, name, settings.chat, *questions), output)


def generate_detailed(
    *,
    dataset: str,
    sources: Sequence[Path] = (),
    model: str = "",
    kept: Path,
    output: Path,
    threads: int = 1,
    requests: RequestOptions[Requests] = REQUESTS,
    settings: Json[DetailedSettings],
) -> None:
    """Write Detailed responses for a dataset that has none, with a local model or an OpenAI-compatible endpoint.

    Every answer is kept in --kept, so that a later run requests only missing ones. The endpoint's key is read from an
    environment variable and written nowhere.

    Parameters
    ----------
    dataset
        the dataset's name
    sources
        the published files, as settings.files has them, or the one file of a mapped dataset
    model
        a local model that writes: a folder or a card
    kept
        answers so far (.jsonl)
    output
        file to write (.jsonl)
    threads
        CPU threads of a local model
    settings
        as JSON: how samples are read, the prompt, and which model writes
    """
    from gradatlas.core.device import lease
    from gradatlas.data.responses.detailed import write_detailed
    from gradatlas.data.responses.reading import read
    from gradatlas.data.responses.settings import source_of
    from gradatlas.models.writers import writer_of

    samples = read(source_of(dataset, sources, settings))
    with lease(settings.writer.leased_device):
        writer = writer_of(settings.writer, model, requests=requests, threads=threads)
        write_detailed(dataset, samples, settings.prompt, writer, kept, output)
