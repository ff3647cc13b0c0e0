"""The jobs of the data, one a rule."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradatlas.core.jobs import Json


@dataclass(frozen=True)
class PairsSettings:
    """What decides which pairs there are."""

    train: int
    """pairs to train on, at most"""
    held_out: int
    """pairs whose prompts are never trained on, at most"""
    seed: int = 0
    """of the draw"""
    base: int = 0
    """of the miniature's grammar: documents that the base model is warmed up on"""
    rejected_rarity: float = 0.0
    """of the miniature's grammar: how unlikely rejected wordings are, 0 to 1"""
    mapping: dict[str, Any] | None = None
    """which column of rows is what (workflow/schemas/pairs.schema.yaml); none: pairs of the miniature's grammar"""


def build_pairs(
    *,
    name: str,
    train_rows: Path | None = None,
    held_out_rows: Path | None = None,
    output: Path,
    settings: Json[PairsSettings],
) -> None:
    """Build preference pairs (prompt, chosen, rejected): of the miniature's grammar, or from rows by a mapping.

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
    from gradatlas.core.errors import InputError
    from gradatlas.data.made_up import grammar
    from gradatlas.data.pairs import mapped_pairs, write_pairs

    facts = {"pairs": name, "seed": settings.seed}
    if settings.mapping is None:
        rows = grammar.pairs(settings.train, settings.held_out, settings.base, settings.seed, settings.rejected_rarity)
        write_pairs(rows, output, {**facts, "rejected_rarity": settings.rejected_rarity})
        return
    if not (train_rows and held_out_rows):
        raise InputError("settings.mapping needs --train-rows and --held-out-rows; give both")
    from gradatlas.data.tabular import read_rows
    from gradatlas.study.config import checked
    from gradatlas.study.runs import check_prompt

    schema = Path(__file__).resolve().parents[2] / "schemas/pairs.schema.yaml"
    mapping = checked(settings.mapping, schema, "settings.mapping")
    check_prompt(mapping, "settings.mapping")
    rows = []
    for split, path, limit in (
        ("train", train_rows, settings.train),
        ("held_out", held_out_rows, settings.held_out),
    ):
        # Rows of the hub were cut when they were fetched.
        own = path in (Path(mapping["source"]), Path(mapping["held_out"]))
        cut = mapping[f"{split}_split"] if own else "train"
        rows += mapped_pairs(read_rows(path, cut), mapping, str(path), split, limit, settings.seed)
    write_pairs(rows, output, {**facts, "source": mapping["source"], "revision": mapping["revision"]})
