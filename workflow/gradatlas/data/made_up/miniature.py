"""The miniature corpora: held-out samples of each dataset, and the documents that a miniature is trained on.

Everything depends on a seed only. The made-up world (classes of kinds, facts of people) and the wording of a held-out
sample never change, so that a `sample_id` is the same question in every run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

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
RELATIONS = ("correct", "wrong_chain")
#: The format cue: the last words of a question, and all that its variants differ in.
CUES = {"none": "Answer at once.", "simplified": "Answer in short.", "detailed": "Answer step by step."}
CUES |= knowledge.CUES

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
    strata = _strata(dataset)
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
    return [_sample(dataset, stratum[i]) for stratum, places in zip(strata, drawn, strict=True) for i in places]


def _strata(dataset: str) -> list[Sequence]:
    if dataset == "mini_arithmetic":
        return [arithmetic.held_out_chains(2), arithmetic.held_out_chains(3)]
    if dataset == "mini_taxonomy":
        yes, no = (taxonomy.held_out_questions("same", answer) for answer in ("yes", "no"))
        which = taxonomy.held_out_questions("which")
        return [yes, no, which[::2], which[1::2]]
    if dataset in DATASETS:
        return [knowledge.group(dataset)]
    raise InputError(f"unknown miniature dataset '{dataset}': {nearest(dataset, DATASETS)}")


def _sample(dataset: str, subject) -> Sample:
    variants = DATASETS[dataset]
    if dataset not in REASONING:
        question = knowledge.question(subject)
        instructions = {variant: f"{question} {CUES[variant]}" for variant in variants}
        responses = {(variant, "correct"): knowledge.describe(subject, variant) for variant in variants}
        return Sample(subject.name.lower().replace(" ", "-"), instructions, None, responses)
    rng = Random(f"sample {dataset} {subject.key}")
    if dataset == "mini_arithmetic":
        wording = arithmetic.draw_wording(rng, len(subject.operands))
        claims = {"correct": subject.values, "wrong_chain": arithmetic.wrong_values(subject, rng)}
        gold, respond = str(subject.values[-1]), arithmetic.respond
    else:
        wording = taxonomy.draw_wording(rng)
        claims = {"correct": None, "wrong_chain": taxonomy.wrong_classes(subject, rng)}
        gold, respond = subject.answer(), taxonomy.respond
    instructions = {variant: f"{wording.question(subject)} {CUES[variant]}" for variant in variants}
    responses = {
        (variant, relation): respond(variant, subject, wording, claims[relation])
        for variant in variants
        for relation in RELATIONS
    }
    return Sample(subject.key, instructions, gold, responses)


def counterfactuals(dataset: str, n: int, seed: int) -> list[tuple[Sample, Sample]]:
    """Pairs of held-out samples that differ in one number (or word) of the question, and in the answer.

    `n` questions are drawn as by `held_out`; those with no held-out neighbour are left out.
    """
    if dataset not in REASONING:
        raise InputError(f"'{dataset}' has no counterfactual questions; choose one of {', '.join(REASONING)}")
    module = arithmetic if dataset == "mini_arithmetic" else taxonomy
    subjects = {subject.key: subject for stratum in _strata(dataset) for subject in stratum}
    pairs = []
    for sample in held_out(dataset, n, seed):
        subject = subjects[sample.sample_id]
        other = module.edited(subject, Random(f"edit {dataset} {subject.key}"))
        if other is not None:
            pairs.append((sample, _reworded(dataset, subject, other)))
    return pairs


def _reworded(dataset: str, subject, other) -> Sample:
    """The sample of `other` in the wording of `subject`: only the edit differs."""
    rng = Random(f"sample {dataset} {subject.key}")
    if dataset == "mini_arithmetic":
        wording = arithmetic.draw_wording(rng, len(subject.operands))
        gold, respond, claim = str(other.values[-1]), arithmetic.respond, other.values
    else:
        wording, gold, respond, claim = taxonomy.draw_wording(rng), other.answer(), taxonomy.respond, None
    variants = DATASETS[dataset]
    instructions = {variant: f"{wording.question(other)} {CUES[variant]}" for variant in variants}
    responses = {(variant, "correct"): respond(variant, other, wording, claim) for variant in variants}
    return Sample(other.key, instructions, gold, responses)


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
        return Document(task, f"{knowledge.question(person)} {CUES[variant]}", knowledge.describe(person, variant))
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
