"""Building the responses table of a dataset: every sample, variant and relation."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gradatlas.core.command import progress
from gradatlas.core.errors import InputError, nearest
from gradatlas.core.tables import write_table
from gradatlas.data.responses import builders
from gradatlas.data.responses.labels import read_label, same_answer
from gradatlas.data.responses.material import Built, Material, read_recipe
from gradatlas.data.responses.reading import Source, read, written_facts
from gradatlas.data.responses.reference import reference
from gradatlas.data.responses.traces import endings, trace
from gradatlas.data.samples import Sample
from gradatlas.data.tables import RESPONSES
from gradatlas.study.relations import is_marked, warning_of

# A dict literal: the digest of a dataset's code counts only the builders of its relations.
BUILDERS: dict[str, Callable[[Material, str], list[Built]]] = {
    "reference": reference,
    "derangement": builders.derangement,
    "wrong_answer": builders.wrong_answer,
    "shuffled": builders.shuffled,
    "foreign_fluent": builders.foreign_fluent,
    "sentence_salad": builders.sentence_salad,
}


def build_responses(
    source: Source, variants: Sequence[str], relations: Sequence[str], recipe: Sequence[str], output: str
) -> None:
    """Read one dataset and write its responses table.

    `relations`: of the data, or names of `BUILDERS`, which use the seed of `source`. `recipe`: of the
    ``reference`` builder (`read_recipe`).
    """
    samples = read(source)
    material = Material(samples, source.answers, source.seed, read_recipe(recipe))
    name = source.dataset
    rows = [row for variant in variants for relation in relations for row in _rows(name, material, variant, relation)]
    _report(name, rows)
    facts = {"dataset": name, "reader": source.reader, "seed": source.seed, "samples": len(samples)}
    if source.detailed:
        facts["detailed"] = written_facts(source.detailed)
    write_table(RESPONSES, rows, output, facts)


def _rows(dataset: str, material: Material, variant: str, relation: str) -> list[dict[str, Any]]:
    first = material.samples[0]
    if variant not in first.instructions:
        raise InputError(f"dataset '{dataset}' has no variant '{variant}': {nearest(variant, first.instructions)}")
    if relation in BUILDERS:
        if (variant, "correct") not in first.responses:
            raise InputError(
                f"dataset '{dataset}', variant '{variant}': '{relation}' is built from the correct responses; give "
                "their file too"
            )
        if relation == "wrong_answer" and all(sample.gold is None for sample in material.samples):
            progress(f"{dataset}, {variant}: the data have no answers, so there is no '{relation}'")
        built = BUILDERS[relation](material, variant)
    elif (variant, relation) in first.responses:
        built = _given(material, variant, relation)
    else:
        known = {*BUILDERS, *(name for _, name in first.responses)}
        raise InputError(
            f"dataset '{dataset}', variant '{variant}' has no relation '{relation}': {nearest(relation, known)}"
        )
    return [
        _row(dataset, sample, variant, relation, each) for sample, each in zip(material.samples, built, strict=True)
    ]


def _given(material: Material, variant: str, relation: str) -> list[Built]:
    """Responses from the data."""
    responses = [sample.responses[variant, relation] for sample in material.samples]
    sources = [[sample.sample_id] for sample in material.samples]
    labels = [
        sample.gold if relation == "correct" else read_label(response, variant, material.gold)
        for sample, response in zip(material.samples, responses, strict=True)
    ]
    if relation == "published":
        originals = {sample.sample_id: sample.responses[variant, "correct"] for sample in material.samples}
        sources = trace(responses, originals)
        # An answer in free text is that of the sample whose ending was kept.
        gold = {sample.sample_id: sample.gold for sample in material.samples}
        ends = endings(responses, originals)
        labels = [gold.get(end) if label is None else label for label, end in zip(labels, ends, strict=True)]
    return [Built(response, label, tuple(ids)) for response, label, ids in zip(responses, labels, sources, strict=True)]


def _row(dataset: str, sample: Sample, variant: str, relation: str, built: Built) -> dict[str, Any]:
    unknown = built.label is None or sample.gold is None
    return {
        "dataset": dataset,
        "sample_id": sample.sample_id,
        "variant": variant,
        "relation": relation,
        "instruction": sample.instructions[variant],
        "response": built.response,
        "label": built.label,
        "gold": sample.gold,
        "label_equals_gold": None if unknown else same_answer(built.label, sample.gold),
        "status": "ok" if built.response else "not_constructible",
        "sources": list(built.sources),
    }


def _report(dataset: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Log how many responses are not constructible, and warn of sets in which too many wrong labels are right."""
    for variant, relation in dict.fromkeys((row["variant"], row["relation"]) for row in rows):
        cell = [row for row in rows if (row["variant"], row["relation"]) == (variant, relation)]
        name = f"{dataset}, {variant}, {relation}"
        missing = sum(row["status"] != "ok" for row in cell)
        if missing:
            progress(f"{name}: {missing} of {len(cell)} not constructible ({missing / len(cell):.1%})")
        known = [row["label_equals_gold"] for row in cell if row["label_equals_gold"] is not None]
        if is_marked(relation, sum(known), len(known)):
            progress(warning_of(name, sum(known), len(known)))
