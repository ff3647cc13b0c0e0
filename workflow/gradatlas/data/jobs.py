"""The jobs of data, one per rule."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradatlas.core.jobs import Json
from gradatlas.data.responses.settings import SourceSettings
from gradatlas.study.settings import Pairing


@dataclass(frozen=True)
class RowsSettings:
    """The rows to take from a hub dataset."""

    split: str
    """rows to take, such as train[:500]"""
    name: str = ""
    """the dataset's configuration, where it has several"""
    folder: str = ""
    """of a dataset that keeps its parts in folders"""


@dataclass(frozen=True, kw_only=True)
class ResponseSettings(SourceSettings):
    """Settings of a responses table."""

    variants: list[str]
    """variants to build, in order"""
    relations: list[str]
    """correct, published, wrong_chain (where the data have them), and what is built (data/responses/README.md)"""
    recipe: list[str] = field(default_factory=list)
    """of the reference builder: a base map, then splitters"""


@dataclass(frozen=True)
class PairsSettings(Pairing):
    """What decides which pairs there are."""

    seed: int = 0
    """of the draw"""
    mapping: dict[str, Any] | None = None
    """which column of rows is what (config/README.md); none: pairs of the miniature's grammar"""


@dataclass(frozen=True)
class GradedSettings:
    """How many graded rows there are."""

    clean: int = 60
    """good rows"""
    planted: int = 20
    """rows of each fault"""
    seed: int = 0
    """of the draw"""


GRADED = GradedSettings()


def fetch_source(
    *,
    url: str,
    path: str,
    sha256: str,
    output: Path,
    mirror: str = "",
) -> None:
    """Fetch one published data file from its address or a mirror, and check its SHA-256.

    Parameters
    ----------
    url
        https address of the folder that the file is in (or of the file itself)
    path
        the file's path in the address or the mirror, such as cot_500/gsm8k_train_no_cot.json
    sha256
        checksum that the file must have, 64 hexadecimal digits
    output
        file to write
    mirror
        folder or http(s) address that has the path: used instead of the address
    """
    from gradatlas.data.sources import fetch

    fetch(url, path, sha256, output, mirror)


def fetch_dataset(
    *,
    dataset: str,
    source: str,
    revision: str = "",
    output: Path,
    mirror: str = "",
    where: str = "",
    settings: RowsSettings,
) -> None:
    """Fetch the rows of a hub dataset at a pinned revision, or from a mirror, as Parquet.

    Parameters
    ----------
    dataset
        the dataset's name in messages
    source
        the dataset on the hub, ORG/NAME
    revision
        commit hash of 40 digits
    output
        file to write (.parquet)
    mirror
        folder with datasets/ORG/NAME: used instead of the hub
    where
        the file or key that names the dataset, in messages; default: its mapping
    """
    from gradatlas.data.tabular import fetch_rows

    rows = (settings.name, revision, settings.split)
    fetch_rows(dataset, source, *rows, output, mirror, where, settings.folder)


def make_graded(*, output: Path, settings: GradedSettings = GRADED) -> None:
    """Write graded training data: questions of the miniature with good responses and with planted faults.

    Parameters
    ----------
    output
        JSON Lines to write: id, instruction, output, group (the fault) and grade (2: good, 0: wrong) a row
    """
    import json

    from gradatlas.core.files import write_text
    from gradatlas.data.made_up.graded import graded_rows

    rows = graded_rows(settings.clean, settings.planted, settings.seed)
    write_text(output, "".join(f"{json.dumps(row)}\n" for row in rows))


def build_responses(
    *,
    dataset: str,
    sources: Sequence[Path] = (),
    detailed: Path | None = None,
    output: Path,
    settings: Json[ResponseSettings],
) -> None:
    """Build one dataset's responses table: every sample, variant and relation.

    Parameters
    ----------
    dataset
        the dataset's name
    sources
        the published files, as settings.files has them, or the one file of a mapped dataset (.json, .jsonl, .csv,
        .parquet)
    detailed
        Detailed responses that generate-detailed wrote
    output
        responses table to write (.parquet)
    settings
        as JSON: what decides the table
    """
    from gradatlas.data.responses.build import build_responses
    from gradatlas.data.responses.settings import source_of

    source = source_of(dataset, sources, settings, detailed)
    build_responses(source, settings.variants, settings.relations, settings.recipe, str(output))


def audit_responses(*, responses: list[Path], csv: Path, parquet: Path) -> None:
    """Count right labels, missing final answers, remains of cutting and the like in every response set.

    Parameters
    ----------
    responses
        responses tables of all datasets
    csv
        table to write (.csv)
    parquet
        the same (.parquet)
    """
    from gradatlas.data.audit import audit

    audit(responses, csv, parquet)


def build_pairs(
    *,
    name: str,
    train_rows: Path | None = None,
    held_out_rows: Path | None = None,
    output: Path,
    settings: Json[PairsSettings],
) -> None:
    """Build preference pairs (prompt, chosen, rejected) from the miniature's grammar, or from rows by a mapping.

    Parameters
    ----------
    name
        the pairs' name
    train_rows
        with a mapping: rows to train on (.json, .jsonl, .csv, .parquet)
    held_out_rows
        with a mapping: rows that are held out
    output
        pairs table to write (.parquet)
    """
    from gradatlas.data.pairs import write_pairs

    make = PAIRS["grammar" if settings.mapping is None else "mapping"]
    rows, facts = make(settings, train_rows, held_out_rows)
    write_pairs(rows, output, {"pairs": name, "seed": settings.seed, **facts})


def _grammar_pairs(settings: PairsSettings, *_: Path | None) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    from gradatlas.data.made_up import grammar

    rows = grammar.pairs(
        settings.train, settings.held_out, settings.base_documents, settings.seed, settings.rejected_rarity
    )
    return rows, {"rejected_rarity": settings.rejected_rarity}


def _mapped_pairs(
    settings: PairsSettings, train_rows: Path | None, held_out_rows: Path | None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    from gradatlas.core.errors import InputError
    from gradatlas.core.schemas import checked
    from gradatlas.data.pairs import mapped_pairs
    from gradatlas.data.tabular import WHOLE, read_rows
    from gradatlas.study.mappings import check_prompt
    from gradatlas.study.sheets import PairsMapping

    if not (train_rows and held_out_rows):
        raise InputError("settings.mapping needs --train-rows and --held-out-rows; give both")
    mapping = checked(settings.mapping, PairsMapping, "settings.mapping")
    check_prompt(mapping, "settings.mapping")
    rows = []
    for split, path, limit in (
        ("train", train_rows, settings.train),
        ("held_out", held_out_rows, settings.held_out),
    ):
        # The split of a hub dataset was taken when it was fetched.
        own = path in (Path(mapping["source"]), Path(mapping["held_out"]))
        cut = mapping[f"{split}_split"] if own else "train"
        where = str(path) if cut in WHOLE else f"{path}, split '{cut}'"
        rows += mapped_pairs(list(read_rows(path, cut)), mapping, where, split, limit, settings.seed)
    return rows, {"source": mapping["source"], "revision": mapping["revision"]}


# A dict literal: the digest counts the chosen entry only, so an edit of the grammar leaves a user's pairs as they are.
PAIRS = {"grammar": _grammar_pairs, "mapping": _mapped_pairs}
