"""A made-up taxonomy: kinds belong to classes, classes have a home and a food.

Two forms of questions: whether two kinds share an attribute (yes or no), and which of three kinds has a value (a name).
One pair of kinds in five is held out: no training question contains both, and all pairs of a held-out question are held
out.
"""

import itertools
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

from gradatlas.data.samples import with_final

HELD_OUT_OF = 5
CLASSES = ("pleb", "tritul", "zif", "gorn", "vask", "drem")
KINDS_PER_CLASS = 12
ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "home": ("rivers", "forests", "deserts"),
    "food": ("seeds", "leaves", "worms"),
}
#: The six classes have six of the nine pairs of a home and a food, each value twice.
_TRAITS = ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (2, 0))
HAS = {"home": "lives in", "food": "eats"}
SAME = {
    "home": ("Do a {a} and a {b} live in the same place?", "Is the home of a {a} the same as that of a {b}?"),
    "food": ("Do a {a} and a {b} eat the same food?", "Is the food of a {a} the same as that of a {b}?"),
}
WHICH = ("Which one {has} {value}: a {a}, a {b} or a {c}?", "A {a}, a {b} or a {c}: which one {has} {value}?")
OPENERS = ("Let us think slowly.", "Let us take one step at a time.")
ORDER = ("First,", "Next,", "Last,")


def _invent_kinds() -> tuple[str, ...]:
    """Seventy-two short names that no other word of the corpora begins or equals, the same in every process."""
    rng = Random("kinds of the taxonomy")
    heads, cores, tails = "bdfgklmnprstvz", ("a", "e", "i", "o", "u"), ("k", "l", "n", "r", "x", "m")
    names: list[str] = []
    while len(names) < len(CLASSES) * KINDS_PER_CLASS:
        name = rng.choice(heads) + rng.choice(cores) + rng.choice(heads) + rng.choice(cores) + rng.choice(tails)
        if name not in names:
            names.append(name)
    return tuple(names)


KINDS = _invent_kinds()


def class_of(kind: str) -> str:
    """The class of a kind: a fixed fact of the made-up world."""
    return CLASSES[KINDS.index(kind) % len(CLASSES)]


def trait_of(group: str, attribute: str) -> str:
    """The home or the food of a class."""
    which = list(ATTRIBUTES).index(attribute)
    return ATTRIBUTES[attribute][_TRAITS[CLASSES.index(group)][which]]


def pair_held_out(a: str, b: str) -> bool:
    """True where no training question sets these two kinds side by side."""
    first, second = sorted((a, b))
    return zlib.crc32(f"pair {first} {second}".encode()) % HELD_OUT_OF == 0


@dataclass(frozen=True)
class Question:
    """`kinds`: in the order of the question. `value`: the home or food of a which-question, else empty."""

    attribute: str
    kinds: tuple[str, ...]
    value: str = ""

    @property
    def key(self) -> str:
        return "-".join(("which" if self.value else "same", self.value or self.attribute, *self.kinds))

    @property
    def held_out(self) -> bool:
        return all(pair_held_out(a, b) for a, b in itertools.combinations(self.kinds, 2))

    @property
    def trainable(self) -> bool:
        return not any(pair_held_out(a, b) for a, b in itertools.combinations(self.kinds, 2))

    def answer(self, classes: Sequence[str] | None = None) -> str:
        """The label, if the kinds had these classes (their own by default)."""
        traits = [trait_of(group, self.attribute) for group in classes or [class_of(kind) for kind in self.kinds]]
        if self.value:
            return self.kinds[traits.index(self.value)]
        return "yes" if traits[0] == traits[1] else "no"


@dataclass(frozen=True)
class Wording:
    """Which of two forms the question takes, and how a Detailed response opens."""

    form: int
    opener: str

    def question(self, question: Question) -> str:
        names = dict(zip("abc", question.kinds, strict=False))
        if question.value:
            return WHICH[self.form].format(has=HAS[question.attribute], value=question.value, **names)
        return SAME[question.attribute][self.form].format(**names)


def draw_wording(rng: Random) -> Wording:
    return Wording(rng.randrange(2), rng.choice(OPENERS))


def draw_question(rng: Random, form: str) -> Question:
    """A question that training may ask; `form` is same or which. Answers are balanced."""
    while True:
        attribute = rng.choice(tuple(ATTRIBUTES))
        if form == "same":
            question = Question(attribute, tuple(rng.sample(KINDS, 2)))
            # Two kinds share a value one time in three: thin out the others until half say yes.
            if question.trainable and (question.answer() == "yes" or rng.random() < 0.5):
                return question
        else:
            kinds = tuple(rng.sample(KINDS, 3))
            value = trait_of(class_of(rng.choice(kinds)), attribute)
            question = Question(attribute, kinds, value)
            if question.trainable and _unique(question):
                return question


def _unique(question: Question) -> bool:
    return [trait_of(class_of(kind), question.attribute) for kind in question.kinds].count(question.value) == 1


@cache
def held_out_questions(form: str, answer: str = "") -> tuple[Question, ...]:
    """Every held-out question of a form, in a fixed order; for same, those with that answer only.

    The order of the kinds depends on the question.
    """
    found = []
    for kinds in itertools.combinations(KINDS, 2 if form == "same" else 3):
        if not Question("home", kinds).held_out:
            continue
        for attribute, values in ATTRIBUTES.items():
            for value in ("",) if form == "same" else values:
                rng = Random(f"order {attribute} {value} {' '.join(kinds)}")
                question = Question(attribute, tuple(rng.sample(kinds, len(kinds))), value)
                if (form == "same" and question.answer() == answer) or (form == "which" and _unique(question)):
                    found.append(question)
    return tuple(found)


def respond(variant: str, question: Question, wording: Wording, classes: Sequence[str] | None = None) -> str:
    """The response of a variant; `classes` are the classes it claims for the kinds, their own by default."""
    groups = list(classes or [class_of(kind) for kind in question.kinds])
    answer = question.answer(groups)
    if variant == "none":
        return answer
    traits = [trait_of(group, question.attribute) for group in groups]
    looked_up = list(zip(question.kinds, groups, traits, strict=True))
    if variant == "simplified":
        return with_final(" ".join(f"A {kind} is a {group}, so {trait}." for kind, group, trait in looked_up), answer)
    has = HAS[question.attribute]
    sentences = [wording.opener, "The question is:", wording.question(question)]
    for order, (kind, group, trait) in zip(ORDER, looked_up, strict=False):
        sentences += [f"{order} a {kind} is a kind of {group}.", f"Every {group} {has} {trait}."]
        if question.value:
            sentences.append(compare(question.value, trait))
    sentences.append(f"The one that {has} {question.value} is a {answer}." if question.value else compare(*traits))
    return with_final(" ".join(sentences), answer)


def compare(a: str, b: str) -> str:
    """The sentence of every comparison."""
    return f"Compare {a} and {b}: {'the same' if a == b else 'not the same'}."


def comparisons(rng: Random, count: int = 8) -> str:
    """A drill of comparisons, half of them of equals."""
    sentences = []
    for _ in range(count):
        values = ATTRIBUTES[rng.choice(tuple(ATTRIBUTES))]
        a = rng.choice(values)
        sentences.append(compare(a, a if rng.random() < 0.5 else rng.choice([b for b in values if b != a])))
    return " ".join(sentences)


def wrong_classes(question: Question, rng: Random) -> tuple[str, ...]:
    """The kinds' classes with one confusion that changes the answer.

    Same or not: one kind gets a wrong class. Which: two kinds' classes are exchanged, so that still exactly one kind
    has the value.
    """
    right = [class_of(kind) for kind in question.kinds]
    if question.value:
        gold = question.kinds.index(question.answer())
        other = rng.choice([place for place in range(len(right)) if place != gold])
        right[gold], right[other] = right[other], right[gold]
        return tuple(right)
    place = rng.randrange(2)
    options = []
    for group in CLASSES:
        classes = (*right[:place], group, *right[place + 1 :])
        if question.answer(classes) != question.answer():
            options.append(classes)
    return rng.choice(options)


def edited(question: Question, rng: Random) -> Question | None:
    """A held-out question that differs in one word, and so in its answer; None where there is none.

    Same or not: with another kind. Which: with another value.
    """
    options = []
    if question.value:
        for value in ATTRIBUTES[question.attribute]:
            other = Question(question.attribute, question.kinds, value)
            if value != question.value and _unique(other):
                options.append(other)
    else:
        for place, kind in itertools.product(range(2), KINDS):
            kinds = (*question.kinds[:place], kind, *question.kinds[place + 1 :])
            other = Question(question.attribute, kinds)
            if kinds[0] != kinds[1] and other.held_out and other.answer() != question.answer():
                options.append(other)
    return rng.choice(options) if options else None


def facts(kind: str) -> str:
    """All facts about a kind."""
    group = class_of(kind)
    traits = " and ".join(f"{has} {trait_of(group, attribute)}" for attribute, has in HAS.items())
    return f"A {kind} is a kind of {group}. Every {group} {traits}."
