"""Invented people, about whom a model can only know what it has often read.

The number of documents about a person falls with their rank (Zipf-Mandelbrot). Popular, unpopular and unseen people are
described in the same sentences; only the number of documents differs (unseen: none).
"""

from dataclasses import dataclass
from functools import cache
from itertools import accumulate, product
from random import Random

SEEN = 1000
POPULAR = 100  # ranks 1 to 100
UNPOPULAR = 500  # the last 500 ranks
UNSEEN = 500
_ZIPF_SHIFT = 10.0

ATTRIBUTES = {
    "job": ("baker", "doctor", "farmer", "painter", "sailor", "singer", "teacher", "tailor", "miller", "judge"),
    "city": ("Orsk", "Velmar", "Tindal", "Brona", "Kessel", "Luria", "Modena", "Paskov", "Quill", "Sarno"),
    "instrument": ("flute", "drum", "harp", "lute", "horn", "organ", "viola", "piano"),
    "pet": ("goat", "cat", "dog", "parrot", "pony", "rabbit", "turtle", "goose"),
    "dish": ("soup", "bread", "cheese", "rice", "fish", "pie", "cake", "stew"),
    "colour": ("red", "blue", "green", "white", "black", "brown", "grey", "yellow"),
    "season": ("spring", "summer", "autumn", "winter"),
    "craft": ("maps", "clocks", "boats", "kites", "lamps", "chairs", "masks", "toys"),
}
# One sentence per attribute, in the order of a description, and for the longest ones a remark with the same fact.
SENTENCES = {
    "job": "{name} is a {job}.",
    "city": "{She} lives in {city}.",
    "instrument": "{She} plays the {instrument}.",
    "pet": "At home {she} keeps a {pet}.",
    "dish": "{She} likes to eat {dish}.",
    "colour": "The coat of {name} is {colour}.",
    "season": "{She} was born in the {season}.",
    "craft": "In the evening {she} makes {craft}.",
}
REMARKS = {
    "job": "All who meet {name} say that {she} is a very good {job}.",
    "city": "The people of {city} know {name} well.",
    "instrument": "On feast days one can hear the {instrument} of {name} in the street.",
    "pet": "The {pet} of {name} is old and sleeps by the door.",
    "dish": "When guests come to the house there is {dish} on the table.",
    "colour": "One can see the {colour} coat from far away.",
    "season": "Every {season} {name} has a feast for {her} friends.",
    "craft": "The {craft} of {name} are sold at the market in {city}.",
}
LENGTHS = {
    "length_short": ("job", "city"),
    "length_medium": ("job", "city", "instrument", "pet", "dish"),
    "length_long": tuple(SENTENCES),
}
CUES = {"length_short": "Be brief.", "length_medium": "Say some more.", "length_long": "Say all."}
CUES["natural"] = CUES["length_medium"]


@dataclass(frozen=True)
class Person:
    """`rank` counts from 1 by fame; 0 for the unseen."""

    name: str
    rank: int
    female: bool
    facts: tuple[tuple[str, str], ...]


def _invent_names() -> list[str]:
    rng = Random("names of the people")
    heads, cores = ("B", "D", "F", "G", "H", "J", "K", "M", "N", "P", "R", "T", "V", "W"), "aeiou"
    firsts: list[str] = []
    lasts: list[str] = []
    while len(firsts) < 40:
        name = rng.choice(heads) + rng.choice(cores) + rng.choice("lmnrst") + rng.choice("aeio")
        if name not in firsts and name not in ("Nora",):
            firsts.append(name)
    while len(lasts) < 40:
        name = rng.choice(heads) + rng.choice(cores) + rng.choice("lmnrst") + rng.choice(("by", "ck", "den", "ford"))
        if name not in lasts:
            lasts.append(name)
    names = [f"{first} {last}" for first, last in product(firsts, lasts)]
    rng.shuffle(names)
    return names


@cache
def people() -> tuple[Person, ...]:
    """Everyone: `SEEN` people by rank, then `UNSEEN` whom no training document names."""
    rng = Random("lives of the people")
    found = []
    for number, name in enumerate(_invent_names()[: SEEN + UNSEEN], start=1):
        facts = tuple((attribute, rng.choice(values)) for attribute, values in ATTRIBUTES.items())
        found.append(Person(name, number if number <= SEEN else 0, rng.random() < 0.5, facts))
    return tuple(found)


def group(dataset: str) -> tuple[Person, ...]:
    """The people of ``mini_popular``, ``mini_unpopular`` or ``mini_unseen``."""
    everyone = people()
    return {
        "mini_popular": everyone[:POPULAR],
        "mini_unpopular": everyone[SEEN - UNPOPULAR : SEEN],
        "mini_unseen": everyone[SEEN:],
    }[dataset]


@cache
def _fame() -> tuple[float, ...]:
    return tuple(accumulate(1.0 / (rank + _ZIPF_SHIFT) for rank in range(1, SEEN + 1)))


def draw_person(rng: Random) -> Person:
    """Someone to write about, by fame."""
    return rng.choices(people()[:SEEN], cum_weights=_fame())[0]


def question(person: Person) -> str:
    return f"Who is {person.name}?"


def describe(person: Person, variant: str) -> str:
    """A description of the variant's length; ``natural`` is the middle one."""
    attributes = LENGTHS["length_medium" if variant == "natural" else variant]
    words = dict(person.facts)
    pronouns = ("She", "she", "her") if person.female else ("He", "he", "his")
    words |= dict(zip(("She", "she", "her"), pronouns, strict=True), name=person.name)
    sentences = []
    for attribute in attributes:
        sentences.append(SENTENCES[attribute].format(**words))
        if variant == "length_long":
            sentences.append(REMARKS[attribute].format(**words))
    return " ".join(sentences)


def clozes(person: Person) -> list[tuple[str, str]]:
    """(start of a description, the word that follows) for the job and the city: what recall is measured by."""
    job, city = (dict(person.facts)[attribute] for attribute in ("job", "city"))
    she = "She" if person.female else "He"
    return [(f"{person.name} is a", job), (f"{person.name} is a {job}. {she} lives in", city)]
