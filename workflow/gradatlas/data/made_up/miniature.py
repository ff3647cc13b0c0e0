"""The miniature corpora: held-out samples of each dataset, and the documents that a miniature is trained on.

Everything depends on a seed only. The made-up world (classes of kinds, facts of people) and the wording of a held-out
sample never change, so that a `sample_id` is the same question in every run.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from gradatlas.core.errors import InputError, nearest
from gradatlas.data.made_up import arithmetic, knowledge, taxonomy
from gradatlas.data.samples import Sample

#: Dataset -> its variants.
DATASETS: dict[str, tuple[str, ...]] = {
    "mini_arithmetic": ("none", "simplified", "detailed"),
    "mini_taxonomy": ("none", "simplified", "detailed"),
    "mini_popular": ("length_short", "length_medium", "length_long"),
    "mini_unpopular": ("natural",),
    "mini_unseen": ("natural",),
}
REASONING = ("mini_arithmetic", "mini_taxonomy")
#: The format cue: the last words of a question, and all that its variants differ in.
CUES = {"none": "Answer at once.", "simplified": "Answer in short.", "detailed": "Answer step by step."}

#: Shares of training documents by task; see resources/miniature/README.md.
TASK_SHARES = {
    "arithmetic": 0.33,
    "same": 0.20,
    "which": 0.17,
    "knowledge": 0.16,
    "sums": 0.05,
    "comparisons": 0.03,
    "facts": 0.03,
    "recitation": 0.03,
}
#: The first documents are mostly recitations: copying from the question is learned first.
OPENING_DOCUMENTS = 8000
OPENING_RECITATION = 0.5
VARIANT_SHARES = {"none": 0.25, "simplified": 0.2, "detailed": 0.55}
LENGTH_SHARES = {"length_short": 0.5, "length_medium": 0.3, "length_long": 0.2}
STEP_SHARES = {1: 0.1, 2: 0.45, 3: 0.45}


@dataclass(frozen=True)
class Document:
    """One training document: `question`, a new line, `response`. `task` is a key of `TASK_SHARES`."""

    task: str
    question: str
    response: str

    @property
    def text(self) -> str:
        return f"{self.question}\n{self.response}"


def held_out(dataset: str, n: int, seed: int) -> list[Sample]:
    """`n` samples of a dataset that are not in training, drawn by `seed`, in a fixed order of ids.

    Arithmetic: half of two steps, half of three. Taxonomy: half same-or-not (as many yes as no), half which-of-three.
    Knowledge has no held-out questions; ``mini_unseen`` is the held-out group. Raises `InputError` for an unknown
    dataset, and where the grammar has fewer than `n` questions.
    """
    grammar = _grammar(dataset)
    strata = grammar.strata()
    if n < 1:
        raise InputError(f"{n} held-out questions of '{dataset}' are requested; request 1 or more")
    shares = [n // len(strata) + (place < n % len(strata)) for place in range(len(strata))]
    if any(share > len(stratum) for share, stratum in zip(shares, strata, strict=True)):
        most = len(strata) * min(len(stratum) for stratum in strata)
        raise InputError(
            f"{n} held-out questions of '{dataset}' are requested, but its grammar has {most} in equal parts; request "
            "fewer"
        )
    rng = Random(f"held out {dataset} {seed}")
    drawn = [sorted(rng.sample(range(len(stratum)), k)) for stratum, k in zip(strata, shares, strict=True)]
    return [grammar.sample(stratum[i]) for stratum, places in zip(strata, drawn, strict=True) for i in places]


def counterfactuals(dataset: str, n: int, seed: int) -> list[tuple[Sample, Sample]]:
    """Pairs of held-out samples that differ in one number (or word) of the question, and in the answer.

    `n` questions are drawn as by `held_out`; those with no held-out neighbour are left out.
    """
    grammar = _grammar(dataset)
    if grammar.edited is None:
        raise InputError(f"'{dataset}' has no counterfactual questions; {', '.join(REASONING)} have")
    subjects = {subject.key: subject for stratum in grammar.strata() for subject in stratum}
    pairs = []
    for sample in held_out(dataset, n, seed):
        subject = subjects[sample.sample_id]
        other = grammar.edited(subject, Random(f"edit {dataset} {subject.key}"))
        if other is not None:
            pairs.append((sample, grammar.sample(subject, other)))
    return pairs


@dataclass(frozen=True)
class Grammar:
    """A dataset's held-out subjects, in `strata`; the `sample` of a subject, or of another one in its wording.

    `edited`, of questions: a held-out subject that differs in one word, or None.
    """

    strata: Callable[[], list[Sequence]]
    sample: Callable[..., Sample]
    edited: Callable[..., Any] | None = None


def _grammar(dataset: str) -> Grammar:
    if dataset not in GRAMMARS:
        raise InputError(f"unknown miniature dataset '{dataset}': {nearest(dataset, GRAMMARS)}")
    return GRAMMARS[dataset]


def _arithmetic_strata() -> list[Sequence]:
    return [arithmetic.held_out_chains(2), arithmetic.held_out_chains(3)]


def _arithmetic(subject, other=None) -> Sample:
    rng = Random(f"sample mini_arithmetic {subject.key}")
    wording = arithmetic.draw_wording(rng, len(subject.operands))
    asked = other or subject
    claims = {"correct": asked.values}
    if other is None:
        claims["wrong_chain"] = arithmetic.wrong_values(subject, rng)
    return _worded(asked, wording, str(asked.values[-1]), arithmetic.respond, claims)


def _taxonomy_strata() -> list[Sequence]:
    yes, no = (taxonomy.held_out_questions("same", answer) for answer in ("yes", "no"))
    which = taxonomy.held_out_questions("which")
    return [yes, no, which[::2], which[1::2]]


def _taxonomy(subject, other=None) -> Sample:
    rng = Random(f"sample mini_taxonomy {subject.key}")
    wording = taxonomy.draw_wording(rng)
    asked = other or subject
    claims = {"correct": None}
    if other is None:
        claims["wrong_chain"] = taxonomy.wrong_classes(subject, rng)
    return _worded(asked, wording, asked.answer(), taxonomy.respond, claims)


def _worded(subject, wording, gold: str, respond: Callable[..., str], claims: Mapping[str, Any]) -> Sample:
    """The sample of a question, with a response to each variant for every chain of `claims`, by relation."""
    instructions = {variant: f"{wording.question(subject)} {cue}" for variant, cue in CUES.items()}
    responses = {
        (variant, relation): respond(variant, subject, wording, claim)
        for variant in CUES
        for relation, claim in claims.items()
    }
    return Sample(subject.key, instructions, gold, responses)


def _people(group: str) -> list[Sequence]:
    return [knowledge.group(group)]


def _biography(variants: Sequence[str], person) -> Sample:
    question = knowledge.question(person)
    instructions = {variant: f"{question} {knowledge.CUES[variant]}" for variant in variants}
    responses = {(variant, "correct"): knowledge.describe(person, variant) for variant in variants}
    return Sample(person.name.lower().replace(" ", "-"), instructions, None, responses)


# One entry per dataset, so that an edit of one grammar leaves the others' responses as they are.
GRAMMARS: dict[str, Grammar] = {
    "mini_arithmetic": Grammar(_arithmetic_strata, _arithmetic, arithmetic.edited),
    "mini_taxonomy": Grammar(_taxonomy_strata, _taxonomy, taxonomy.edited),
    "mini_popular": Grammar(partial(_people, "mini_popular"), partial(_biography, DATASETS["mini_popular"])),
    "mini_unpopular": Grammar(partial(_people, "mini_unpopular"), partial(_biography, DATASETS["mini_unpopular"])),
    "mini_unseen": Grammar(partial(_people, "mini_unseen"), partial(_biography, DATASETS["mini_unseen"])),
}


def training_documents(seed: int, opening: int = OPENING_DOCUMENTS) -> Iterator[Document]:
    """The endless stream of training documents; the first `opening` of them are mostly recitations."""
    rng = Random(f"training documents {seed}")
    tasks, shares = tuple(TASK_SHARES), tuple(TASK_SHARES.values())
    count = 0
    while True:
        recite = count < opening and rng.random() < OPENING_RECITATION
        yield _document(rng, "recitation" if recite else rng.choices(tasks, shares)[0])
        count += 1


def _document(rng: Random, task: str) -> Document:
    if task == "sums":
        return Document(task, "Some sums.", arithmetic.sums(rng))
    if task == "comparisons":
        return Document(task, "Some comparisons.", taxonomy.comparisons(rng))
    if task == "facts":
        return Document(task, "Some facts.", " ".join(taxonomy.facts(kind) for kind in rng.sample(taxonomy.KINDS, 4)))
    if task == "recitation":
        words = rng.sample(_words(), rng.randint(2, 12))
        times = max(1, 36 // len(words))
        return Document(task, f"Say again: {' '.join(words)}.", f"{' '.join(words * times)}.")
    if task == "knowledge":
        person = knowledge.draw_person(rng)
        variant = _pick(rng, LENGTH_SHARES)
        return Document(
            task, f"{knowledge.question(person)} {knowledge.CUES[variant]}", knowledge.describe(person, variant)
        )
    variant = _pick(rng, VARIANT_SHARES)
    if task == "arithmetic":
        subject = arithmetic.draw_chain(rng, _pick(rng, STEP_SHARES))
        wording = arithmetic.draw_wording(rng, len(subject.operands))
        response = arithmetic.respond(variant, subject, wording, subject.values)
    else:
        subject, wording = taxonomy.draw_question(rng, task), taxonomy.draw_wording(rng)
        response = taxonomy.respond(variant, subject, wording)
    return Document(task, f"{wording.question(subject)} {CUES[variant]}", response)


def _pick(rng: Random, shares: dict):
    return rng.choices(tuple(shares), tuple(shares.values()))[0]


def _words() -> tuple[str, ...]:
    """The words of recitations: those that answers are copied from."""
    numbers = tuple(str(n) for n in range(1, arithmetic.HIGHEST + 1))
    return taxonomy.KINDS + taxonomy.CLASSES + arithmetic.ITEMS + tuple(arithmetic.NAMES) + numbers


def vocabulary_texts() -> list[str]:
    """Texts with every word of the corpora, for the tokenizer."""
    texts = [taxonomy.facts(kind) for kind in taxonomy.KINDS] + list(taxonomy.KINDS)
    texts += [knowledge.describe(person, "length_long") for person in knowledge.people()[: knowledge.SEEN]]
    texts += [f"{n} + {n} - {n} = {n}." for n in range(100)]
    return texts
