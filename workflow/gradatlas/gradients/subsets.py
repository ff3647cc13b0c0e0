"""Which of a response's tokens the loss is taken over: all, some drawn at random, the last, or a span."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from gradatlas.core.errors import InputError
from gradatlas.models.tokens import Encoded
from gradatlas.study.seeds import seeded_hash
from gradatlas.study.settings import SUBSETS

_COUNT = "([1-9][0-9]*)"
_LAST = re.compile(f"last(?::{_COUNT})?")
_SPAN = re.compile("span:([0-9]+):([0-9]+)")
_MOST_DRAWS = 1000
_RANDOM = re.compile(f"random:(matched|{_COUNT})(?::{_COUNT})?")


@dataclass(frozen=True)
class Subset:
    """One choice of tokens: its `name` in the tables, its `kind` (all, last, span, random), and its numbers.

    `first` and `end` bound a span of the response (0-based, `end` left out); `count` is how many tokens `last` and
    `random` take, None for as many as the sample's None response has; `draw` numbers the draws of one `random`.
    """

    name: str
    kind: str
    count: int | None = None
    first: int = 0
    end: int = 0
    draw: int = 0

    @property
    def matched(self) -> bool:
        """Whether it takes as many tokens as the same sample's None response has."""
        return self.kind == "random" and self.count is None


def parse_subsets(texts: Sequence[str]) -> list[Subset]:
    """The subsets that `texts` describe, one for each draw; `InputError` for an unknown form."""
    if not texts:
        raise InputError(f"--loss-tokens is empty; give at least one of {SUBSETS}")
    found = {subset.name: subset for text in texts for subset in _parsed(text)}
    return list(found.values())


def _parsed(text: str) -> Iterator[Subset]:
    if text == "all":
        yield Subset("all", "all")
    elif match := _LAST.fullmatch(text):
        yield Subset(text, "last", count=int(match[1] or 1))
    elif match := _SPAN.fullmatch(text):
        first, end = int(match[1]), int(match[2])
        if first >= end:
            raise InputError(f"--loss-tokens '{text}': holds no token; give a second number above the first")
        yield Subset(text, "span", first=first, end=end)
    elif match := _RANDOM.fullmatch(text):
        count = None if match[1] == "matched" else int(match[1])
        if int(match[3] or 1) > _MOST_DRAWS:
            raise InputError(f"--loss-tokens '{text}': more than {_MOST_DRAWS} draws of each response; give fewer")
        for draw in range(int(match[3] or 1)):
            yield Subset(f"random:{match[1]}:{draw}", "random", count=count, draw=draw)
    else:
        raise InputError(f"--loss-tokens '{text}' is not known; write one of {SUBSETS}")


def take(sample: Encoded, subset: Subset, *, seed: int, name: str, count: int | None = None) -> Encoded:
    """`sample` with the loss on the tokens of `subset` only.

    A random draw depends on `seed`, `name` (of the row) and the draw's number only. `count`: the number of tokens of a
    matched draw. A shorter response gives all its tokens; a span beyond its end gives none.
    """
    if subset.kind == "all":
        return sample
    # The very first token is not predicted.
    at = [i for i, counts in enumerate(sample.response) if counts and i]
    wanted = count if subset.matched else subset.count
    if subset.kind == "last":
        chosen = set(at[-wanted:])
    elif subset.kind == "span":
        chosen = set(at[subset.first : subset.end])
    else:
        chosen = set(_drawn(at, wanted, seed, f"{name} {subset.draw}"))
    return replace(sample, response=tuple(i in chosen for i in range(len(sample.ids))))


def _drawn(at: Sequence[int], count: int, seed: int, name: str) -> Iterable[int]:
    ranked = sorted(range(len(at)), key=lambda place: seeded_hash(seed, f"{name} {place}"))
    return (at[place] for place in ranked[:count])
