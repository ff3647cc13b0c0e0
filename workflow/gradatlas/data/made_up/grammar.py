"""The miniature's preference pairs: questions about invented people, with answers from a grammar of slots.

An answer is an opener, a statement of a fact, and a closer. Each slot's wordings have a rank; in the base model's data
they have probability p_k proportional to `DECAY`^k. A *tilt* by rarity q draws them with p_k^(1 - 2q): for q = 0 as in
the base model's data, for 1/2 evenly, for 1 the rarest most often, so that the expected log-probability falls with q. A
chosen answer states the fact with rarity 0; a rejected one states a wrong value, with `rejected_rarity`.

Questions are about the popular people only, whom the miniature knows: of others it could not answer any. The split
depends on the person, so that no person is in two splits. The base model is warmed up on its own split, with several
answers to every question, right in a share of `TRUTH`, on requests to rephrase an answer, and on descriptions of the
popular people of all splits, without which it would forget them.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from random import Random

from gradatlas.core.errors import InputError
from gradatlas.data.made_up import knowledge
from gradatlas.data.made_up.miniature import training_documents
from gradatlas.study.seeds import seeded_hash

DECAY = 0.55
TRUTH = 0.9
# Share of the base model's documents that rephrase an answer.
REWORDING = 0.2
# Share of the base model's documents that describe a person, and how many facts one states.
DESCRIBING = 0.4
DESCRIBED = 4
SHARES = {"base": 0.6, "train": 0.3, "held_out": 0.1}

OPENERS = ("", "I know.", "Let us see.", "You ask well.", "A good question.")
CLOSERS = ("", "All know it.", "That is all.", "Ask me again.", "The end.")
QUESTIONS = {
    "job": "Who is {name}?",
    "city": "Where does {name} live?",
    "instrument": "What does {name} play?",
    "pet": "What does {name} keep at home?",
    "dish": "What does {name} like to eat?",
    "colour": "Which coat does {name} have?",
    "season": "When was {name} born?",
    "craft": "What does {name} make in the evening?",
}
STATEMENTS = {
    "job": (
        "{name} is a {value}.",
        "The people say that {name} is a {value}.",
        "One can see that {name} is a {value}.",
        "All who meet {name} know a good {value}.",
    ),
    "city": (
        "{name} lives in {value}.",
        "The home of {name} is in {value}.",
        "In {value} there is the house of {name}.",
        "The people of {value} know {name} well.",
    ),
    "instrument": (
        "{name} plays the {value}.",
        "One can hear the {value} of {name}.",
        "It is the {value} that {name} plays.",
        "On feast days {name} plays the {value}.",
    ),
    "pet": (
        "{name} keeps a {value}.",
        "At home there is the {value} of {name}.",
        "It is a {value} that {name} keeps.",
        "The {value} of {name} sleeps by the door.",
    ),
    "dish": (
        "{name} likes to eat {value}.",
        "On the table of {name} there is {value}.",
        "It is {value} that {name} eats.",
        "When guests come, {name} makes {value}.",
    ),
    "colour": (
        "The coat of {name} is {value}.",
        "{name} has a {value} coat.",
        "It is a {value} coat that {name} has.",
        "One can see the {value} coat of {name}.",
    ),
    "season": (
        "{name} was born in the {value}.",
        "In the {value} {name} was born.",
        "It was in the {value} that {name} was born.",
        "Every {value} {name} has a feast.",
    ),
    "craft": (
        "{name} makes {value}.",
        "In the evening {name} makes {value}.",
        "It is {value} that {name} makes.",
        "The {value} of {name} are sold at the market.",
    ),
}
REWORD = "Say in other words: {answer}"
DESCRIBE = "What do you know of {name}?"


@dataclass(frozen=True)
class Answer:
    """An answer by its slots: ranks of `opener`, `statement` and `closer`, and the stated fact."""

    attribute: str
    name: str
    value: str
    opener: int
    statement: int
    closer: int

    @property
    def text(self) -> str:
        """The answer as a response, with its leading space."""
        stated = STATEMENTS[self.attribute][self.statement].format(name=self.name, value=self.value)
        return "".join(f" {part}" for part in (OPENERS[self.opener], stated, CLOSERS[self.closer]) if part)

    @property
    def right(self) -> bool:
        """Whether the statement is true."""
        return dict(_person(self.name).facts)[self.attribute] == self.value


def prompt_of(question: str) -> str:
    """A question as the model reads it, in the form of Anthropic's HH dialogues."""
    return f"\n\nHuman: {question}\n\nAssistant:"


def question_of(name: str, attribute: str) -> str:
    """The one question about a person's attribute."""
    return QUESTIONS[attribute].format(name=name)


def parse(response: str) -> Answer | None:
    """The slots of a response of this grammar, or None for any other text; the inverse of `Answer.text`."""
    text = response.strip()
    for opener, begun in enumerate(OPENERS):
        for closer, ended in enumerate(CLOSERS):
            head, tail = f"{begun} " if begun else "", f" {ended}" if ended else ""
            if not (text.startswith(head) and text.endswith(tail)):
                continue
            for attribute, rank, pattern in _patterns():
                found = pattern.fullmatch(text[len(head) : len(text) - len(tail)])
                if found and found["value"] in knowledge.ATTRIBUTES[attribute] and found["name"] in _names():
                    return Answer(attribute, found["name"], found["value"], opener, rank, closer)
    return None


def is_right(chosen: str, response: str) -> bool:
    """Whether a response is a complete, true answer to the question that the `chosen` one answers."""
    own, answer = parse(chosen), parse(response)
    same = own is not None and answer is not None and (answer.name, answer.attribute) == (own.name, own.attribute)
    return same and answer.right


def semantic_rephrase(answer: Answer, rng: Random) -> Answer:
    """The same fact in other words: another opener, statement and closer, each drawn evenly."""
    return replace(
        answer,
        opener=_other(range(len(OPENERS)), answer.opener, rng),
        statement=_other(range(len(STATEMENTS[answer.attribute])), answer.statement, rng),
        closer=_other(range(len(CLOSERS)), answer.closer, rng),
    )


def format_rephrase(answer: Answer, rng: Random) -> Answer:
    """Another meaning in the same words: another person and value."""
    return replace(
        answer,
        name=_other(sorted(_names()), answer.name, rng),
        value=_other(knowledge.ATTRIBUTES[answer.attribute], answer.value, rng),
    )


def unrelated(rng: Random) -> Callable[[int], str]:
    """A function from a number of words to that many words of fluent text about sums, with leading space."""
    documents = (
        each.response.split()
        for each in training_documents(rng.randrange(2**31), opening=0)
        if each.task == "arithmetic"
    )

    def words(count: int) -> str:
        found: list[str] = []
        while len(found) < count:
            response = next(documents)
            # Without short answers, which are numbers only.
            found += response if len(response) > 5 else []
        return "".join(f" {word}" for word in found[:count])

    return words


def pairs(train: int, held_out: int, base: int, seed: int, rejected_rarity: float) -> list[dict]:
    """Rows of the ``pairs`` table without `status`; ``base`` rows have no rejected answer.

    The choice of questions and their answers depend only on `seed` and the question. `base` documents go round the
    split's questions, with another answer each time. Raises `InputError` where the grammar has too few questions.
    `rejected_rarity`: from 0 (worded as usual) to 1 (the rarest wording most often).
    """
    rows = []
    for split, count in (("train", train), ("held_out", held_out), ("base", base)):
        questions = [(name, attribute) for name in _of_split(split) for attribute in QUESTIONS]
        if split != "base" and count > len(questions):
            raise InputError(
                f"{count} pairs are requested in split '{split}', but the grammar has {len(questions)}; request fewer"
            )
        questions.sort(key=lambda each: seeded_hash(seed, f"{split} {each}"))
        for number in range(count):
            times, place = divmod(number, len(questions))
            rows.append(_row(split, *questions[place], seed, rejected_rarity, times))
    return rows


def _row(split: str, name: str, attribute: str, seed: int, rarity: float, times: int) -> dict:
    """The pair of a question; ``times``: how often the question was answered before."""
    again = f" {times}" if times else ""
    rng = Random(seeded_hash(seed, f"answer {name} {attribute}{again}"))
    fact = dict(_person(name).facts)[attribute]
    wrong = [value for value in knowledge.ATTRIBUTES[attribute] if value != fact]
    row = {"pair_id": f"{name} {attribute}{again}".lower().replace(" ", "-"), "split": split}
    if split != "base":
        chosen = _worded(attribute, name, fact, 0.0, rng)
        rejected = _worded(attribute, name, rng.choice(wrong), rarity, rng)
        return {
            **row,
            "prompt": prompt_of(question_of(name, attribute)),
            "chosen": chosen.text,
            "rejected": rejected.text,
        }
    if rng.random() < DESCRIBING:
        return {**row, **_description(rng), "rejected": None}
    answer = _worded(attribute, name, fact if rng.random() < TRUTH else rng.choice(wrong), 0.0, rng)
    question = question_of(name, attribute)
    if rng.random() < REWORDING:
        question, answer = REWORD.format(answer=answer.text.strip()), semantic_rephrase(answer, rng)
    return {**row, "prompt": prompt_of(question), "chosen": answer.text, "rejected": None}


def _description(rng: Random) -> dict[str, str]:
    """Some facts about a popular person of any split, in any order, worded as usual."""
    person = rng.choice(knowledge.group("mini_popular"))
    stated = [
        STATEMENTS[attribute][_tilted(len(STATEMENTS[attribute]), 0.0, rng)].format(name=person.name, value=value)
        for attribute, value in rng.sample(person.facts, DESCRIBED)
    ]
    return {"prompt": prompt_of(DESCRIBE.format(name=person.name)), "chosen": "".join(f" {each}" for each in stated)}


def _worded(attribute: str, name: str, value: str, rarity: float, rng: Random) -> Answer:
    slots = (OPENERS, STATEMENTS[attribute], CLOSERS)
    opener, statement, closer = (_tilted(len(slot), rarity, rng) for slot in slots)
    return Answer(attribute, name, value, opener, statement, closer)


def tilted_weights(choices: int, rarity: float) -> list[float]:
    """Probabilities of the ranks 0, 1, ...: those of the base model, tilted by `rarity`."""
    weights = [DECAY ** (rank * (1 - 2 * rarity)) for rank in range(choices)]
    return [weight / sum(weights) for weight in weights]


def _tilted(choices: int, rarity: float, rng: Random) -> int:
    return rng.choices(range(choices), tilted_weights(choices, rarity))[0]


def _other(choices: Sequence, taken: object, rng: Random):
    return rng.choice([each for each in choices if each != taken])


@cache
def _names() -> dict[str, knowledge.Person]:
    return {person.name: person for person in knowledge.people() if person.rank}


def _person(name: str) -> knowledge.Person:
    return _names()[name]


@cache
def _of_split(split: str) -> list[str]:
    names = [person.name for person in knowledge.group("mini_popular")]
    ranked = sorted(names, key=lambda name: seeded_hash(0, f"split {name}"))
    start, bounds = 0, {}
    for name, share in SHARES.items():
        bounds[name] = slice(start, start + round(share * len(ranked)))
        start = bounds[name].stop
    return ranked[bounds[split]]


@cache
def _patterns() -> list[tuple[str, int, re.Pattern]]:
    def pattern(form: str) -> re.Pattern:
        parts = re.escape(form).replace(r"\{name\}", r"(?P<name>\S+ \S+)").replace(r"\{value\}", r"(?P<value>\S+)")
        return re.compile(parts)

    return [
        (attribute, rank, pattern(form)) for attribute, forms in STATEMENTS.items() for rank, form in enumerate(forms)
    ]
