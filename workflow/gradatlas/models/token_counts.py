"""Lengths of responses in tokens, and samples longer than the window, for the tokenizers on this machine."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from gradatlas.core.command import progress
from gradatlas.core.files import write_text
from gradatlas.core.spreadsheets import csv_of
from gradatlas.core.tables import read_table
from gradatlas.data.tables import RESPONSES
from gradatlas.models.loading import load_tokenizer
from gradatlas.models.settings import Model
from gradatlas.models.snapshots import SNAPSHOTS, TEMPLATES, TOKENIZER, is_folder
from gradatlas.models.tokens import Encoder

# Longer than any response, so that nothing is cut before it is counted.
_NO_LIMIT = 10**9
COLUMNS = {
    "model": pl.String,
    "dataset": pl.String,
    "variant": pl.String,
    "relation": pl.String,
    "n": pl.Int64,
    "window": pl.Int64,
    "truncated": pl.Int64,
    "no_response_tokens": pl.Int64,
    "prompt_tokens": pl.Float64,
    "response_tokens": pl.Float64,
    "response_tokens_max": pl.Int64,
}


def count_tokens(
    models: Sequence[Model],
    responses: Sequence[str | Path],
    window: int,
    compat: str,
    csv: str | Path,
    mirror: str = "",
    snapshots: str | Path = SNAPSHOTS,
) -> None:
    """Write one row per model, dataset, variant and relation, for the models whose tokenizer is on this machine.

    `truncated` samples are longer than `window` tokens, and `no_response_tokens` of them have no response token in it.
    `prompt_tokens` and `response_tokens` are means of the uncut lengths. The log names models without a tokenizer;
    nothing is downloaded.
    """
    rows = []
    for model in models:
        folder = find_tokenizer(model, mirror, snapshots)
        if folder is None:
            progress(f"{model.name}: the tokenizer of {model.source} is not on this machine; left out")
            continue
        encoder = _encoder(folder, model.chat, compat)
        for path in responses:
            rows += _counts(model.name, encoder, pl.from_arrow(read_table(RESPONSES, path)), window)
        progress(f"{model.name}: counted")
    write_text(csv, csv_of(pl.DataFrame(rows, schema=COLUMNS)))


def find_tokenizer(model: Model, mirror: str, snapshots: str | Path) -> Path | None:
    """The folder of a model's tokenizer: its source, the mirror, a snapshot or the hub's cache; else None."""
    if is_folder(model.source):
        places = [Path(model.source).expanduser()]
    else:
        places = [Path(mirror).expanduser() / "models" / model.source] if mirror else []
        places += [Path(snapshots) / model.source / model.revision] if model.revision else []
    for place in places:
        if any(found for name in TOKENIZER[:6] for found in place.glob(name)):
            return place
    return None if is_folder(model.source) else _in_cache(model)


def _in_cache(model: Model) -> Path | None:
    from huggingface_hub import errors, snapshot_download

    wanted = {"revision": model.revision or None, "allow_patterns": [*TOKENIZER, *TEMPLATES]}
    try:
        folder = Path(snapshot_download(model.source, local_files_only=True, **wanted))
    except (errors.LocalEntryNotFoundError, errors.HFValidationError):
        return None
    return folder if any(found for name in TOKENIZER[:6] for found in folder.glob(name)) else None


def _encoder(folder: Path, chat: bool, compat: str) -> Encoder:
    return Encoder(load_tokenizer(folder), chat=chat, max_length=_NO_LIMIT, compat=compat)


def _counts(model: str, encoder: Encoder, frame: pl.DataFrame, window: int) -> list[dict]:
    rows = []
    good = frame.filter(pl.col("status") == "ok")
    for (dataset, variant, relation), cell in good.group_by("dataset", "variant", "relation", maintain_order=True):
        samples = [encoder.encode(*pair) for pair in cell.select("instruction", "response").iter_rows()]
        lengths = [sample.response_tokens for sample in samples]
        prompts = [sample.prompt_tokens for sample in samples]
        rows.append(
            {
                "model": model,
                "dataset": dataset,
                "variant": variant,
                "relation": relation,
                "n": len(samples),
                "window": window,
                "truncated": sum(len(sample.ids) > window for sample in samples),
                "no_response_tokens": sum(not any(sample.response[1:window]) for sample in samples),
                "prompt_tokens": sum(prompts) / len(prompts),
                "response_tokens": sum(lengths) / len(lengths),
                "response_tokens_max": max(lengths),
            }
        )
    return rows
