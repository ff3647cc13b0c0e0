"""The corrected irrelevant response, and controls that separate its properties: foreign, disordered and wrong.

Each builder is a pure function of the material and a variant: one `Built` per sample, in the order of the samples.
A reasoned response is a rationale and an ending that states the answer (`split_ending`); README.md in this folder lists
what each builder makes of them.
"""

import re
from random import Random

from gradatlas.data.options import chosen
from gradatlas.data.responses.derangement import derange
from gradatlas.data.responses.labels import boxed_span, read_label, same_answer
from gradatlas.data.responses.material import NOTHING, Built, Material
from gradatlas.data.responses.sentences import Text, split_ending, split_text
from gradatlas.data.samples import FINAL, Sample, with_final

# The answer of a Detailed response is searched in its last characters, so many.
_CONCLUSION = 200
# Between an option's letter and its text: white space and marks, or an opening quotation mark.
_QUOTE = r"[\s*:,(–—-]*(?:as\s+)?[\"“'‘]{1,2}"
_GAP_BEFORE_TEXT = rf"{_QUOTE}|[\s*:(]+"
_QUOTED = re.compile(rf"{_QUOTE}(?=\S)")


def derangement(material: Material, variant: str) -> list[Built]:
    """Another sample's response, whose answer is wrong here; for option questions, with another option as answer.

    Option questions: None is another option, Simplified the donor's rationale with that option, Detailed the donor's
    response. Not constructible where the donor's response states the right answer (a Detailed one need not agree with
    its gold answer).
    """
    return [_deranged(material, sample, variant) for sample in material.samples]


def _deranged(material: Material, sample: Sample, variant: str) -> Built:
    donor = material.donors[sample.sample_id]
    wrong = material.wrong_labels[sample.sample_id] if sample.options else None
    if sample.options and variant == "none":
        return Built(wrong, wrong, (sample.sample_id,)) if wrong else NOTHING
    if donor is None:
        return NOTHING
    response = donor.responses[variant, "correct"]
    label = donor.gold
    if sample.options and FINAL in response:
        if wrong is None:
            return NOTHING
        return Built(with_final(response.rpartition(FINAL)[0], wrong), wrong, (donor.sample_id, sample.sample_id))
    stated = read_label(response, variant, material.gold)
    if sample.gold is not None and stated is not None and same_answer(stated, sample.gold):
        return NOTHING
    return Built(response, label if stated is None else stated, (donor.sample_id,))


def wrong_answer(material: Material, variant: str) -> list[Built]:
    """The own response with a wrong final answer instead of the right one.

    The answer is searched after the fixed phrase, in the last ``\\boxed{}`` if that contains the right one, or at its
    last mention near the end, except for yes and no. Not constructible where it is not found.
    """
    built = []
    for sample in material.samples:
        wrong = material.wrong_labels[sample.sample_id]
        response = sample.responses[variant, "correct"]
        changed = None if wrong is None or sample.gold is None else _with_answer(response, variant, sample, wrong)
        donor = material.donors[sample.sample_id]
        sources = (sample.sample_id,) if sample.options or donor is None else (sample.sample_id, donor.sample_id)
        built.append(NOTHING if changed is None else Built(changed, wrong, sources))
    return built


def _with_answer(response: str, variant: str, sample: Sample, wrong: str) -> str | None:
    if variant == "none":
        return wrong
    if FINAL in response:
        return with_final(response.rpartition(FINAL)[0], wrong)
    span = boxed_span(response)
    if span:
        inside = response[slice(*span)]
        for right, other in ((sample.gold, wrong), (_text_of(sample, sample.gold), _text_of(sample, wrong))):
            if right and other and same_answer(inside, right):
                return response[: span[0]] + other + response[span[1] :]
        return None
    return _last_mention(response, sample, wrong)


def _last_mention(response: str, sample: Sample, wrong: str) -> str | None:
    if sample.gold.casefold() in ("yes", "no"):
        return None
    pattern = re.compile(rf"(?<![\w.,]){re.escape(sample.gold)}(?!\w|[.,]\d)")
    mentions = list(pattern.finditer(response, max(0, len(response) - _CONCLUSION)))
    if not mentions:
        return None
    found = mentions[-1]
    before, after = response[: found.start()], response[found.end() :]
    text, other = _text_of(sample, sample.gold), _text_of(sample, wrong)
    if not text or not other or text == sample.gold:
        return before + wrong + after
    # `(D) 46` and `Sentence A: "..."` are one mention: the option's text is replaced with its letter.
    shown = r"\s+".join(map(re.escape, text.rstrip(".!?").split()))
    beside = re.match(rf"({_GAP_BEFORE_TEXT})(?i:{shown})(?!\w)", after)
    rest = after[beside.end() :] if beside else after
    repeated = " " in text and re.search(shown, rest, re.IGNORECASE)
    quoted_before = re.search(rf"(?i:{shown})[.!?]*[\"'”’][\s*:,(]*\Z", before)
    if repeated or quoted_before or (not beside and _QUOTED.match(after)):
        # The right option's text would remain beside the wrong letter.
        return None
    return before + wrong + (beside[1] + other.rstrip(".!?") if beside else "") + rest


def _text_of(sample: Sample, answer: str) -> str | None:
    return sample.options.get(chosen(sample.options, answer) or "")


def shuffled(material: Material, variant: str) -> list[Built]:
    """The own sentences in another, seeded order, with the ending at its place.

    Not constructible with fewer than two different sentences.
    """
    built = []
    for sample, text, ending in _parted(material, variant):
        if len(set(text.sentences)) < 2:
            built.append(NOTHING)
            continue
        rng = Random(f"shuffled {material.seed} {sample.sample_id} {variant}")
        order = list(text.sentences)
        while tuple(order) == text.sentences:
            rng.shuffle(order)
        built.append(Built(text.with_sentences(order) + ending, sample.gold, (sample.sample_id,)))
    return built


def foreign_fluent(material: Material, variant: str) -> list[Built]:
    """The donor's complete rationale with the sample's own ending; not constructible without a donor or a rationale."""
    built = []
    for sample in material.samples:
        donor = material.donors[sample.sample_id]
        rationale = donor and split_ending(donor.responses[variant, "correct"], variant, material.gold)[0]
        if not rationale:
            built.append(NOTHING)
            continue
        _, ending = split_ending(sample.responses[variant, "correct"], variant, material.gold)
        sources = (donor.sample_id, sample.sample_id) if ending else (donor.sample_id,)
        built.append(Built(rationale + ending, sample.gold, sources))
    return built


def sentence_salad(material: Material, variant: str) -> list[Built]:
    """Every sentence of the rationale replaced by one of another sample, with the ending at its place.

    Each sentence of the dataset is used once, if no sample has more than half of them.
    """
    parted = _parted(material, variant)
    # `derange` with sentences as samples, and with the sample as label.
    places = {
        f"{sample.sample_id}\t{i}": (sample.sample_id, sentence)
        for sample, text, _ in parted
        for i, sentence in enumerate(text.sentences)
    }
    donors = derange({place: owner for place, (owner, _) in places.items()}, material.seed)
    built = []
    for sample, text, ending in parted:
        taken = [donors[f"{sample.sample_id}\t{i}"] for i in range(len(text.sentences))]
        if not taken or None in taken:
            built.append(NOTHING)
            continue
        owners = [places[place][0] for place in taken] + ([sample.sample_id] if ending else [])
        response = text.with_sentences([places[place][1] for place in taken]) + ending
        built.append(Built(response, sample.gold, tuple(dict.fromkeys(owners))))
    return built


def _parted(material: Material, variant: str) -> list[tuple[Sample, Text, str]]:
    """Each sample with the sentences of its rationale, if it has one, and its ending."""
    parted = []
    for sample in material.samples:
        rationale, ending = split_ending(sample.responses[variant, "correct"], variant, material.gold)
        parted.append((sample, split_text(rationale) if rationale else Text((), ()), ending))
    return parted
