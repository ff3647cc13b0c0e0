"""Word problems of two and three sums: the chains, their wordings, and right and wrong ways through them.

A chain is a start and signed operands. Every running value is within 1..20, so that the table of sums is small and the
difficulty is the chain. One chain in four is held out, in any wording.
"""

import itertools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

from gradatlas.data.samples import with_final

STARTS = range(2, 13)
OPERANDS = tuple(n for n in range(-9, 10) if n)
LOWEST, HIGHEST = 1, 20
HELD_OUT_OF = 4

NAMES = {
    **dict.fromkeys(("Leo", "Tom", "Ben", "Sam", "Max", "Kai", "Otto", "Finn"), ("He", "him")),
    **dict.fromkeys(("Mia", "Ann", "Eva", "Zoe", "Ida", "Ada", "Ruth", "Nora"), ("She", "her")),
}
ITEMS = ("beads", "coins", "shells", "cards", "stamps", "nuts", "pens", "books", "eggs", "stones", "rings", "plums")
STARTING = ("{name} has {n} {items}.", "{name} begins with {n} {items}.", "There are {n} {items} in the box of {name}.")
GAINS = (
    "{she} finds {n} more.",
    "{she} buys {n}.",
    "A friend gives {her} {n}.",
    "{she} wins {n} in a game.",
    "Then {n} come in the post.",
)
LOSSES = (
    "{she} gives away {n}.",
    "{she} loses {n}.",
    "A friend takes {n}.",
    "{she} sells {n} at the market.",
    "Then {n} of them break.",
)
ASKING = (
    "How many {items} are there at the end?",
    "How many {items} does {name} have now?",
    "What is the number of {items} now?",
)
OPENERS = ("Let us think slowly.", "Let us take one step at a time.")
EQUATIONS = {
    1: ("That adds {n}, so {a} + {n} = {b}.", "The number grows by {n}, and {a} + {n} = {b}."),
    -1: ("That takes away {n}, so {a} - {n} = {b}.", "The number falls by {n}, and {a} - {n} = {b}."),
}
VERDICTS = ("So there are {n} {items}.", "So the number of {items} is {n}.")


@dataclass(frozen=True)
class Chain:
    """A start and signed operands, `key` being both at once: ``9+3-5``."""

    start: int
    operands: tuple[int, ...]

    @property
    def key(self) -> str:
        return str(self.start) + "".join(f"{operand:+d}" for operand in self.operands)

    @property
    def values(self) -> tuple[int, ...]:
        """The running values, the start first and the answer last."""
        return tuple(itertools.accumulate((self.start, *self.operands)))

    @property
    def valid(self) -> bool:
        return self.start in STARTS and all(LOWEST <= value <= HIGHEST for value in self.values)

    @property
    def held_out(self) -> bool:
        """True for chains that no training document asks; single sums are never held out."""
        return len(self.operands) > 1 and zlib.crc32(f"chain {self.key}".encode()) % HELD_OUT_OF == 0


@dataclass(frozen=True)
class Wording:
    """The texts of a chain of some length: templates for the numbers."""

    start: str
    events: tuple[tuple[str, str], ...]  # per step: as a gain, as a loss
    asking: str
    opener: str
    equations: tuple[int, ...]
    verdict: str

    def event(self, step: int, operand: int) -> str:
        return self.events[step][operand < 0].format(n=abs(operand))

    def question(self, chain: Chain) -> str:
        events = (self.event(step, operand) for step, operand in enumerate(chain.operands))
        return " ".join((self.start.format(n=chain.start), *events, self.asking))


def draw_chain(rng: Random, steps: int) -> Chain:
    """A chain of that many steps that training may use."""
    while True:
        chain = Chain(rng.choice(STARTS), tuple(rng.choice(OPERANDS) for _ in range(steps)))
        if chain.valid and not chain.held_out:
            return chain


@cache
def held_out_chains(steps: int) -> tuple[Chain, ...]:
    """Every held-out chain of that many steps, in a fixed order."""
    chains = (Chain(start, signed) for start in STARTS for signed in itertools.product(OPERANDS, repeat=steps))
    return tuple(chain for chain in chains if chain.held_out and chain.valid)


def draw_wording(rng: Random, steps: int) -> Wording:
    """Names, things, verbs and forms; two events of one question never share a verb."""
    name = rng.choice(tuple(NAMES))
    she, her = NAMES[name]
    items = rng.choice(ITEMS)

    def fill(template: str) -> str:
        return template.format(name=name, she=she, her=her, items=items, n="{n}")

    events = zip(rng.sample(GAINS, steps), rng.sample(LOSSES, steps), strict=True)
    return Wording(
        start=fill(rng.choice(STARTING)),
        events=tuple((fill(gain), fill(loss)) for gain, loss in events),
        asking=fill(rng.choice(ASKING)),
        opener=rng.choice(OPENERS),
        equations=tuple(rng.randrange(2) for _ in range(steps)),
        verdict=fill(rng.choice(VERDICTS)),
    )


def respond(variant: str, chain: Chain, wording: Wording, values: Sequence[int]) -> str:
    """The response of a variant; `values` are the running values it claims, right or wrong."""
    answer = str(values[-1])
    if variant == "none":
        return answer
    steps = list(zip(values, chain.operands, values[1:], strict=False))
    if variant == "simplified":
        return with_final(" ".join(f"{a} {'+' if n > 0 else '-'} {abs(n)} = {b}." for a, n, b in steps), answer)
    sentences = [wording.opener, wording.start.format(n=chain.start)]
    for step, (a, n, b) in enumerate(steps):
        equation = EQUATIONS[1 if n > 0 else -1][wording.equations[step]]
        sentences += [wording.event(step, n), equation.format(a=a, n=abs(n), b=b)]
    sentences += [wording.asking, wording.verdict.format(n=answer)]
    return with_final(" ".join(sentences), answer)


def wrong_values(chain: Chain, rng: Random) -> tuple[int, ...]:
    """Running values with one wrong sum, off by 1 to 3 and before the last step, carried through to the end."""
    right = chain.values
    options = []
    for step in range(1, len(right) - 1):
        for error in (-3, -2, -1, 1, 2, 3):
            values = (*right[:step], *(value + error for value in right[step:]))
            if all(LOWEST <= value <= HIGHEST for value in values):
                options.append(values)
    # For a chain that spans all of 1..20, the range is ignored.
    return rng.choice(options) if options else (*right[:1], *(value + 1 for value in right[1:]))


def edited(chain: Chain, rng: Random) -> Chain | None:
    """A held-out chain that differs in one number and so in its answer; None where there is none."""
    numbers = (chain.start, *chain.operands)
    options = []
    for place in range(len(numbers)):
        pool = STARTS if place == 0 else [n for n in OPERANDS if (n > 0) == (numbers[place] > 0)]
        for number in pool:
            changed = (*numbers[:place], number, *numbers[place + 1 :])
            other = Chain(changed[0], changed[1:])
            if number != numbers[place] and other.valid and other.held_out:
                options.append(other)
    return rng.choice(options) if options else None


def sums(rng: Random, count: int = 10) -> str:
    """A drill of single sums within the range of the chains."""
    drill = []
    while len(drill) < count:
        a, n = rng.randint(LOWEST, HIGHEST), rng.choice(OPERANDS)
        if LOWEST <= a + n <= HIGHEST:
            drill.append(f"{a} {'+' if n > 0 else '-'} {abs(n)} = {a + n}.")
    return " ".join(drill)
