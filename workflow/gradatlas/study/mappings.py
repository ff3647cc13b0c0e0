"""Mappings of a user's data, config/mappings/DATASET.yaml and config/pairs/PAIRS.yaml: which column is what."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradatlas.core.errors import InputError, nearest
from gradatlas.core.schemas import checked
from gradatlas.core.sheets import Row
from gradatlas.study.relations import PARTNERS
from gradatlas.study.sheets import DatasetMapping, PairsMapping
from gradatlas.study.sources import is_address, is_hub_id

#: What a mapping can read; the reader itself is slow to import.
FORMATS = (".json", ".jsonl", ".csv", ".parquet")
#: The preference pairs of the miniature's own grammar; all others have a mapping.
MINIATURE_PAIRS = "mini_qa"


def check_place(place: str, where: str) -> None:
    """`InputError` for a path or address with a line break, or with what results and logs may not show."""
    if re.search("[\x00-\x1f\x7f]", place):
        raise InputError(f"{where}: {place!r} has a line break or another control character; rename the file or folder")
    if re.match("[a-z]+://[^/]*@", place, re.IGNORECASE):
        raise InputError(
            f"{where}: the address '{place}' has a user's name or password, which results and logs would show; put "
            "both into ~/.netrc"
        )
    if is_address(place) and "?" in place:
        raise InputError(
            f"{where}: the address '{place.partition('?')[0]}?...' has a query, which can hold a secret and "
            "which results and logs would show; give it without"
        )


def check_path(path: str, where: str) -> None:
    """`InputError` for a path that no rule can take as input, or as by `check_place`."""
    check_place(path, where)
    if "{" in path or "}" in path:
        raise InputError(
            f"{where}: '{path}' has braces, which Snakemake takes for wildcards; rename the file or folder"
        )


def names_answers(mapping: Mapping[str, Any]) -> bool:
    """Whether a mapping of a dataset names where the final answer is."""
    return bool("answer" in mapping["columns"] or mapping["separator"] or mapping["boxed"])


def is_file(mapping: Mapping[str, Any]) -> bool:
    """Whether a mapping's source is a file here, and not a dataset of the hub: by its suffix, form, or being there."""
    source = mapping["source"]
    return Path(source).suffix.lower() in FORMATS or Path(source).exists() or not is_hub_id(source)


def _read(root: Path, where: str, kind: type, missing: str) -> Row:
    """The checked keys of a YAML file below `root`, ``~`` expanded in paths; `missing`: the error without one."""
    import yaml

    try:
        value = yaml.safe_load((root / where).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(missing) from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{where}: not YAML ({error})") from None
    except RecursionError:
        raise InputError(f"{where}: nested too deeply; remove what encloses its keys") from None
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: holds no keys; config/README.md lists them")
    keys = checked(value, kind, where)
    for key in ("source", "held_out"):
        if key in keys:
            keys[key] = os.path.expanduser(keys[key])
            check_path(keys[key], f"{where}: '{key}'")
    return keys


# Datasets -------------------------------------------------------------------------------------------------------------


def read_mapping(root: Path, dataset: str, row: Row, written: bool) -> Row:
    """The checked mapping of a dataset; `written`: a model writes its Detailed responses.

    Raises `InputError` for a mapping that is missing, contradicts itself, or does not yield the row's variants.
    """
    where = f"config/mappings/{dataset}.yaml"
    missing = f"{where}: no such file; write one (config/README.md), or take another reader"
    mapping = _read(root, where, DatasetMapping, missing)
    _check_answers(mapping, dataset, row, where)
    _check_variants(mapping, row, written, where)
    try:
        re.compile(mapping["remove"])
    except re.error as error:
        raise InputError(f"{where}: 'remove': {error}; write a regular expression") from None
    if is_file(mapping) and Path(mapping["source"]).suffix.lower() not in FORMATS:
        raise InputError(
            f"{where}: 'source': the kind of file '{mapping['source']}' is not known; give one of "
            f"{', '.join(FORMATS)}, or a hub dataset ORG/NAME"
        )
    if is_file(mapping) and not Path(mapping["source"]).is_file():
        raise InputError(f"{where}: no file '{mapping['source']}' here; put it there, or fix 'source'")
    return mapping


def _check_answers(mapping: Row, dataset: str, row: Row, where: str) -> None:
    columns, inside = mapping["columns"], bool(mapping["separator"]) + mapping["boxed"]
    if inside + ("answer" in columns) > 1:
        raise InputError(f"{where}: the answer has to come from one of: columns.answer, separator, boxed: true")
    if inside and "rationale" not in columns:
        raise InputError(f"{where}: separator and boxed take the answer out of columns.rationale; name that column")
    if "rationale" in columns and not names_answers(mapping):
        raise InputError(
            f"{where}: columns.rationale is Simplified, which ends with the answer; add columns.answer, separator or "
            "boxed: true, or name the column as columns.response"
        )
    if row["options"] and not names_answers(mapping):
        raise InputError(
            f"config/datasets.tsv, '{dataset}': 'options' is '{row['options']}', and {where} names no answer; name it, "
            "or leave options empty"
        )
    if row["gold"]:
        raise InputError(
            f"config/datasets.tsv, '{dataset}': 'gold' is '{row['gold']}'; a mapping names the answer itself"
        )


def _check_variants(mapping: Row, row: Row, written: bool, where: str) -> None:
    columns = mapping["columns"]
    made = {"none"} if names_answers(mapping) else set()
    made |= {"detailed"} if written or "detailed" in columns else set()
    made |= {part for part, column in (("simplified", "rationale"), ("natural", "response")) if column in columns}
    for variant in row["variants"]:
        if variant not in made:
            other = {
                "natural": f" as columns.response, or write '{' '.join(sorted(made))}' into 'variants' of its row in "
                "config/datasets.tsv",
                "detailed": ", or add the dataset to config key generate.datasets",
            }
            raise InputError(
                f"{where}: makes no variant '{variant}': {nearest(variant, made)}; name its column"
                f"{other.get(variant, '')}"
            )


# Pairs ----------------------------------------------------------------------------------------------------------------


def read_pairs(root: Path, pairs: str) -> Row | None:
    """The checked mapping of preference pairs; none of the miniature's.

    Raises `InputError` for a mapping or a file that is missing, and a mapping that contradicts itself.
    """
    if pairs == MINIATURE_PAIRS:
        return None
    where = f"config/pairs/{pairs}.yaml"
    known = [MINIATURE_PAIRS, *(path.stem for path in (root / "config/pairs").glob("*.yaml"))]
    mapping = _read(root, where, PairsMapping, f"config key 'dynamics.pairs': no {where}: {nearest(pairs, known)}")
    check_prompt(mapping, where)
    for key in ("train", "held_out") if "probes" in mapping else ():
        path = mapping["probes"][key] = os.path.expanduser(mapping["probes"][key])
        check_path(path, f"{where}: 'probes.{key}'")
        if not is_address(path) and not Path(path).is_file():
            raise InputError(f"{where}: 'probes.{key}': no file '{path}' here; put it there, or give its address")
    if Path(mapping["source"]).suffix.lower() not in FORMATS:
        return mapping
    if not mapping["held_out"] and mapping["train_split"] != mapping["held_out_split"]:
        mapping["held_out"] = mapping["source"]
    for key in ("source", "held_out"):
        if not mapping[key]:
            raise InputError(
                f"{where}: '{key}' is empty; name a file of pairs that are held out, or cut the source in two: "
                "train_split: train[:80%] and held_out_split: train[80%:]"
            )
        if not Path(mapping[key]).is_file():
            raise InputError(f"{where}: '{key}': no file '{mapping[key]}' here; put it there, or correct the key")
    return mapping


def check_prompt(mapping: Mapping[str, Any], where: str) -> None:
    """`InputError` where a checked mapping of pairs has no column of prompts, or one that its format does not read."""
    if (mapping["format"] == "dialogue") == ("prompt" in mapping["columns"]):
        raise InputError(f"{where}: columns.prompt is needed, but for format dialogue, which has none; correct either")
    partner = next((part for part in PARTNERS if part in mapping["columns"]), None)
    if mapping["format"] == "dialogue" and partner:
        raise InputError(f"{where}: columns.{partner} cannot be used: format dialogue has no prompt to join it to")
