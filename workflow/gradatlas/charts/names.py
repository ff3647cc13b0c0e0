"""Order and spelling of the keys of the tables wherever a reader meets them."""

import re
from collections.abc import Iterable

PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")
VARIANTS = ("none", "simplified", "detailed", "natural")
LENGTHS = ("short", "medium", "long")
SEGMENTS = ("early", "middle", "last", "all")
STATISTICS = {
    "nuclear_norm": "nuclear norm",
    "sigma_ratio": "σ max / nuclear norm",
    "sigma_max": "largest singular value",
    "frobenius_norm": "Frobenius norm",
    "effective_rank": "effective rank",
}
KINDS = {
    "unusable": "No usable sample",
    "panels": "One panel per variant",
    "variants": "Variants overlaid",
    "compared": "Against correct",
    "instructed": "Against its partner",
    "samples": "Sample by sample",
    "relations": "Kinds of responses",
    "mad": "MAD by dataset and variant",
    "steps": "Steps from layer to layer",
    "rd": "RD by dataset and variant",
    "differences": "RD by layer",
}
# Keys that readers meet under another name; docs/glossary.md says what each is.
TERMS = {
    "none": "None (answer only)",
    "derangement": "Another question’s answer",
    "published": "The paper’s wrong answers",
    "reference": "The paper’s wrong answers",
}
PIPELINE_CHECK = "pipeline check"


def label(key: str) -> str:
    """A key as a reader meets it: ``length_100`` -> ``Length 100``; one letter -> a capital (``q`` -> ``Q``).

    A matrix of LoRA has its letter: ``q.lora_a`` -> ``Q, LoRA A``.
    """
    name, lora, matrix = key.rpartition(".lora_")
    if lora:
        return f"{label(name)}, LoRA {matrix.upper()}"
    text = key.replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def statistic_label(key: str) -> str:
    """A statistic's name within a sentence; unknown ones read as their key."""
    return STATISTICS.get(key, key.replace("_", " "))


def in_order(keys: Iterable[str], known: Iterable[str]) -> list[str]:
    """The distinct `keys`, the `known` ones first and in that order, the others by name."""
    place = {name: rank for rank, name in enumerate(known)}
    return sorted(set(keys), key=lambda key: (place.get(key, len(place)), key))


def variants_in_order(keys: Iterable[str]) -> list[str]:
    """Variants from the fastest to the slowest response; lengths by their number or word."""
    return sorted(set(keys), key=_variant_rank)


def _variant_rank(key: str) -> tuple[int, int, str]:
    length = re.fullmatch(r"length_(\d+|short|medium|long)", key)
    if length:
        word = length.group(1)
        return (1, int(word) if word.isdigit() else LENGTHS.index(word), key)
    return (0, VARIANTS.index(key), key) if key in VARIANTS else (2, 0, key)


def projections_in_order(keys: Iterable[str]) -> list[str]:
    """Q, K, V, O, then the feed-forward ones; then those of LoRA in the same order."""
    return in_order(keys, (*PROJECTIONS, *(f"{name}.lora_{part}" for name in PROJECTIONS for part in "ab")))


def relations_in_order(keys: Iterable[str]) -> list[str]:
    """`correct` first."""
    return in_order(keys, ("correct",))


def terms(keys: Iterable[str]) -> dict[str, str]:
    """Keys by the names that readers meet (`TERMS`, else `label`); two of one name have their keys, too."""
    names = {key: TERMS.get(key, label(key)) for key in keys}
    taken = list(names.values())
    return {key: name if taken.count(name) == 1 else f"{name} ({key})" for key, name in names.items()}


def responses_of(relation: str) -> str:
    """A relation within a sentence: ``wrong_chain`` -> ``wrong chain responses``."""
    name = TERMS.get(relation)
    return f"{name[:1].lower()}{name[1:]}" if name else f"{relation.replace('_', ' ')} responses"
