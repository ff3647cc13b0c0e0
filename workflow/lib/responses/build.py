"""The responses table: every sample x variant x relation of one dataset."""

from collections.abc import Mapping, Sequence
from typing import Any

from workflow.lib.corpora import miniature
from workflow.lib.corpora.published import read_samples
from workflow.lib.corpora.samples import Sample
from workflow.lib.errors import InputError, nearest
from workflow.lib.responses.derangement import derange
from workflow.lib.responses.labels import GOLD, stated_answer
from workflow.lib.responses.traces import trace
from workflow.lib.tables import write_table

READERS = ("published", "miniature")


def build_responses(
    dataset: str,
    reader: str,
    sources: Mapping[tuple[str, str], str],
    variants: Sequence[str],
    relations: Sequence[str],
    gold: str,
    seed: int,
    questions: int,
    output: str,
) -> None:
    """Read one dataset and write its responses table.

    `reader`: ``published`` reads the JSON lists in `sources`, by (variant, relation); ``miniature`` draws
    `questions` held-out questions by `seed`. `gold` names how gold answers are found (`GOLD`; empty: the data have
    none). Relations are those the data hold, and ``derangement``, which is built here.
    """
    if reader == "miniature":
        samples = miniature.held_out(dataset, questions, seed)
    elif reader == "published":
        samples = read_samples(sources, GOLD.get(gold))
    else:
        raise InputError(f"--reader '{reader}' is not known: {nearest(reader, READERS)}")
    if gold and gold not in GOLD:
        raise InputError(f"--gold '{gold}' is not known: {nearest(gold, GOLD)}")
    rows = [
        row
        for variant in variants
        for relation in relations
        for row in _rows(dataset, samples, variant, relation, gold, seed)
    ]
    write_table(
        "responses", rows, output, {"dataset": dataset, "reader": reader, "seed": seed, "samples": len(samples)}
    )


def _rows(
    dataset: str, samples: Sequence[Sample], variant: str, relation: str, gold: str, seed: int
) -> list[dict[str, Any]]:
    if variant not in samples[0].instructions:
        raise InputError(f"dataset '{dataset}' has no variant '{variant}': {nearest(variant, samples[0].instructions)}")
    if relation == "derangement":
        return _deranged(dataset, samples, variant, seed)
    if (variant, relation) not in samples[0].responses:
        known = sorted({"derangement"} | {name for _, name in samples[0].responses})
        raise InputError(
            f"dataset '{dataset}', variant '{variant}' has no relation '{relation}': {nearest(relation, known)}"
        )
    rows = []
    sources_of = [[sample.sample_id] for sample in samples]
    if relation == "published":
        originals = {sample.sample_id: sample.responses[variant, "correct"] for sample in samples}
        sources_of = trace([sample.responses[variant, relation] for sample in samples], originals)
    for sample, sources in zip(samples, sources_of, strict=True):
        response = sample.responses[variant, relation]
        label = sample.gold if relation == "correct" else _stated(response, variant, gold)
        rows.append(_row(dataset, sample, variant, relation, response, label, sources))
    return rows


def _deranged(dataset: str, samples: Sequence[Sample], variant: str, seed: int) -> list[dict[str, Any]]:
    by_id = {sample.sample_id: sample for sample in samples}
    # Without a label, samples count as equal only where their question is the same.
    labels = {sample.sample_id: sample.gold or sample.instructions[variant] for sample in samples}
    donors = derange(labels, seed)
    rows = []
    for sample in samples:
        donor = by_id.get(donors[sample.sample_id] or "")
        response = donor.responses[variant, "correct"] if donor else None
        sources = [donor.sample_id] if donor else []
        rows.append(_row(dataset, sample, variant, "derangement", response, donor and donor.gold, sources))
    return rows


def _stated(response: str, variant: str, gold: str) -> str | None:
    return GOLD["boxed"][1](response) if gold == "boxed" else stated_answer(response, variant) if gold else None


def _row(
    dataset: str,
    sample: Sample,
    variant: str,
    relation: str,
    response: str | None,
    label: str | None,
    sources: list[str],
) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "sample_id": sample.sample_id,
        "variant": variant,
        "relation": relation,
        "instruction": sample.instructions[variant],
        "response": response,
        "label": label,
        "gold": sample.gold,
        "label_equals_gold": None if label is None or sample.gold is None else label == sample.gold,
        "status": "ok" if response else "not_constructible",
        "sources": sources,
    }
