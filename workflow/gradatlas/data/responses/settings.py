"""Settings of a dataset's source, for every job that reads samples."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gradatlas.core.errors import InputError
from gradatlas.core.files import sha256_of
from gradatlas.study.sheets import Answering


@dataclass(frozen=True)
class FileSettings:
    """The content of a published file."""

    variant: str
    """variant of its responses"""
    relation: str
    """relation of its responses"""
    sha256: str = ""
    """checksum that it must have; empty: any"""


@dataclass(frozen=True, kw_only=True)
class SourceSettings(Answering):
    """How a dataset's samples are read."""

    reader: Literal["published", "mapped", "miniature"]
    """published (JSON lists), mapped (anyone's columns) or miniature (procedural)"""
    files: list[FileSettings] = field(default_factory=list)
    """of published files, in their order"""
    mapping: dict[str, Any] = field(default_factory=dict)
    """of a mapped dataset: which column is what (config/mappings/)"""
    normalise_newlines: bool = False
    """write backslash-n in instructions as a new line"""
    seed: int
    """of the builders and of the miniature's questions"""
    questions: int = 1
    """held-out questions of a miniature dataset"""


def source_of(dataset: str, sources: Sequence[Path], settings: SourceSettings, detailed: Path | None = None) -> Any:
    """The `reading.Source` of a dataset: `sources` are published files, or the one file of a mapped dataset.

    `detailed`: written Detailed responses. Raises `InputError` for a wrong number of files, and for a wrong checksum.
    """
    # Late, for a fast --help.
    from gradatlas.data.responses.reading import Source

    wanted = {"published": len(settings.files), "mapped": 1, "miniature": 0}.get(settings.reader, len(sources))
    if len(sources) != wanted:
        raise InputError(f"--sources gives {len(sources)} files, the settings name {wanted}; give one of each")
    for path, row in zip(sources, settings.files, strict=False):
        if row.sha256 and (found := sha256_of(path)) != row.sha256:
            raise InputError(
                f"{path}: its sha256 is {found}, config/sources.tsv has {row.sha256}; delete a fetched file and run "
                "again (rule fetch_source), or correct your own file or its row"
            )
    return Source(
        dataset=dataset,
        reader=settings.reader,
        files={(row.variant, row.relation): str(path) for path, row in zip(sources, settings.files, strict=False)},
        rows=str(sources[0]) if settings.reader == "mapped" else "",
        mapping=settings.mapping,
        gold=settings.gold,
        options=settings.options,
        detailed=str(detailed) if detailed else "",
        normalise_newlines=settings.normalise_newlines,
        seed=settings.seed,
        questions=settings.questions,
    )
