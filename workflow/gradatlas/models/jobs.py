"""The jobs on models, one a rule, and `pin`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gradatlas.core.jobs import Json
from gradatlas.data.responses.settings import SourceSettings
from gradatlas.models.settings import TokenSettings
from gradatlas.models.snapshots import SNAPSHOTS
from gradatlas.models.writers import REQUESTS, RequestOptions, WriterSettings


@dataclass(frozen=True, kw_only=True)
class DetailedSettings(SourceSettings):
    """What decides written Detailed responses."""

    prompt: str
    """what to ask; {instruction} stands for the question"""
    writer: WriterSettings
    """which model writes"""


@dataclass(frozen=True)
class UntrainedSettings:
    """What decides an untrained twin's weights."""

    seed: int
    """of the weights"""
    trust_remote_code: bool = False
    """run model code that comes with the checkpoint"""


@dataclass(frozen=True)
class AccuracySettings:
    """What a miniature is asked."""

    chat: bool = False
    """ask through the model's chat template"""
    datasets: list[str] = field(default_factory=list)
    """miniature datasets; none named: all"""
    questions: int = 500
    """held-out questions of each task"""
    seed: int = 0
    """of the draw of questions"""


def fetch_model(
    *,
    model: str,
    source: str,
    revision: str = "",
    output: Path,
    mirror: str = "",
    snapshots: Path = Path(SNAPSHOTS),
    sums: Path | None = None,
) -> None:
    """Find a model's files and write its card (JSON): where they are, what they are, their checksums.

    The source is a local folder, or a hub id ORG/NAME: then the files at the revision are downloaded, or taken in place
    from FOLDER/models/ORG/NAME of a --mirror FOLDER. A gated model needs an accepted licence and HF_TOKEN.

    Parameters
    ----------
    model
        the model's key in config/models.tsv
    source
        model folder (./..., /..., ~...) or hub id ORG/NAME
    revision
        commit of the hub id (gradatlas pin fills the sheet)
    output
        card to write (.json)
    mirror
        folder that holds models/ORG/NAME; others are passed over
    snapshots
        where downloads are kept
    sums
        first compare every file that this list names, in the form of sha256sum
    """
    from gradatlas.core.files import check_sums
    from gradatlas.models.snapshots import fetch

    if sums:
        check_sums(sums)
    fetch(model, source, revision, output, mirror, str(snapshots))


def write_untrained(
    *,
    model: str,
    source: str,
    revision: str = "",
    output: Path,
    mirror: str = "",
    snapshots: Path = Path(SNAPSHOTS),
    settings: UntrainedSettings,
) -> None:
    """Write the untrained twin of a hub model: its config and tokenizer, and weights at their seeded random start.

    No weights are downloaded: config and tokenizer come from the hub at the revision, or from models/ORG/NAME of a
    --mirror.

    Parameters
    ----------
    model
        the twin's key in config/models.tsv
    source
        hub id of the model whose twin it is, ORG/NAME
    revision
        commit of the hub id
    output
        model folder to write
    mirror
        folder that holds models/ORG/NAME; others are passed over
    snapshots
        where downloads are kept
    """
    from gradatlas.models.untrained import write_untrained

    where = (mirror, str(snapshots), settings.trust_remote_code)
    write_untrained(model, source, revision, settings.seed, output, *where)


def pin(*, sheet: Path = Path("config/models.tsv"), model: Sequence[str] = (), mapping: Sequence[Path] = ()) -> None:
    """Fill empty revisions with the hub's current commit hashes: of models in the sheet, or of datasets' mappings.

    Run it on a machine with a network, look at the hashes, and commit the files. Revisions that are there stay.

    Parameters
    ----------
    sheet
        sheet of models (.tsv)
    model
        only these rows (default: all)
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
        print("nothing to pin: every hub row asked for has a revision")


def count_tokens(*, responses: list[Path], output: Path, mirror: str = "", settings: Json[TokenSettings]) -> None:
    """Count the tokens of every response set, for the tokenizers that are on this machine; nothing is downloaded.

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
    """Measure what a miniature can do on held-out questions: accuracy, edited questions, recall of people.

    Greedy exact match with Wilson 95 % bounds, by dataset and variant, as Parquet or CSV (by the suffix).

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

    asked = (settings.questions, settings.seed, threads, settings.datasets or list(DATASETS))
    write(measure(locate(str(model)).path, name, settings.chat, *asked), output)


def generate_detailed(
    *,
    dataset: str,
    sources: Sequence[Path] = (),
    model: str = "",
    kept: Path,
    output: Path,
    threads: int = 1,
    requests: RequestOptions = REQUESTS,
    settings: Json[DetailedSettings],
) -> None:
    """Write Detailed responses for a dataset that has none, with a local model or an OpenAI-compatible endpoint.

    Answers are kept one by one in --kept: a later run asks for what is missing alone. The endpoint's key is read from
    an environment variable and written nowhere.

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
