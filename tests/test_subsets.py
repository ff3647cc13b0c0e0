"""Subsets of a response's tokens: what each form takes, and that draws depend on nothing but seed, row and number."""

import pytest

from gradatlas.core.errors import InputError
from gradatlas.gradients.plan import Row, expand_rows
from gradatlas.gradients.subsets import parse_subsets, take
from gradatlas.models.tokens import Encoded

# Five tokens of prompt, eight of response.
SAMPLE = Encoded(tuple(range(100, 113)), tuple(i >= 5 for i in range(13)), False)


def taken(text, sample=SAMPLE, seed=0, name="a", count=None):
    """By name, the places within the response that count."""
    return {
        subset.name: [
            i - 5 for i, counts in enumerate(take(sample, subset, seed=seed, name=name, count=count).response) if counts
        ]
        for subset in parse_subsets([text])
    }


def test_fixed_subsets():
    assert taken("all") == {"all": list(range(8))}
    assert taken("last") == {"last": [7]} and taken("last:3") == {"last:3": [5, 6, 7]}
    assert taken("span:1:4") == {"span:1:4": [1, 2, 3]}
    assert taken("span:6:20") == {"span:6:20": [6, 7]} and taken("span:8:9") == {"span:8:9": []}
    assert taken("last:20") == {"last:20": list(range(8))}


def test_draws_are_rows_of_their_own_and_depend_on_seed_row_and_number():
    draws = taken("random:3:4")
    assert list(draws) == [f"random:3:{i}" for i in range(4)]
    assert all(len(places) == 3 for places in draws.values()) and len({tuple(p) for p in draws.values()}) > 1
    assert taken("random:3:2") == {name: draws[name] for name in ("random:3:0", "random:3:1")}
    with pytest.raises(InputError, match="'random:3:1001': more than 1000 draws of each response; give fewer"):
        taken("random:3:1001")
    assert taken("random:3") == {"random:3:0": draws["random:3:0"]}
    assert taken("random:3:4", seed=1) != draws != taken("random:3:4", name="b")
    assert taken("random:99") == {"random:99:0": list(range(8))}
    assert all(set(places) < set(taken("random:5:4")[f"random:5:{i}"]) for i, places in enumerate(draws.values()))


def test_every_token_is_drawn_alike():
    counts = [0] * 8
    for i in range(400):
        for place in taken("random:2", name=str(i))["random:2:0"]:
            counts[place] += 1
    assert sum(counts) == 800 and min(counts) > 60 and max(counts) < 140


def test_the_first_token_of_all_is_never_chosen():
    """It has nothing to be predicted from."""
    bare = Encoded((1, 2, 3), (True, True, True), False)
    (subset,) = parse_subsets(["random:2"])
    assert take(bare, subset, seed=0, name="a").response == (False, True, True)


@pytest.mark.parametrize(
    "text", ["", "some", "random", "random:0", "random:x", "last:0", "span:3", "random:3:0", "span:-1:2", "last:1:2"]
)
def test_unknown_forms_are_named(text):
    with pytest.raises(InputError, match=f"--loss-tokens '{text}' is not known; write one of all, last"):
        parse_subsets([text])


def test_a_span_of_nothing_is_named():
    with pytest.raises(InputError, match="holds no token"):
        parse_subsets(["span:3:3"])
    with pytest.raises(InputError, match="at least one of"):
        parse_subsets([])


class Words:
    """An encoder of one token a word, one of them the prompt."""

    def encode(self, instruction, response):
        words = response.split()
        return Encoded((0, *range(1, 1 + len(words))), (False, *[True] * len(words)), False)


def rows(*variants):
    return [Row("d", "s", variant, relation, "q", "a " * n) for variant, relation, n in variants]


def test_matched_takes_as_many_as_the_same_samples_none_response():
    items = expand_rows(
        rows(
            ("none", "correct", 2), ("detailed", "correct", 9), ("none", "derangement", 4),
            ("detailed", "derangement", 9), ("detailed", "wrong_chain", 9),
        ),
        Words(), lambda variant, relation: parse_subsets(["all", "random:matched:2"]), 0,
    )  # fmt: skip
    assert [(item.loss_tokens, item.sample.response_tokens) for item in items] == [
        (name, count if draw else whole)
        for whole, count in [(2, 2), (9, 2), (4, 4), (9, 4), (9, 2)]
        for draw, name in enumerate(["all", "random:matched:0", "random:matched:1"])
    ]
    assert {item.prompt_tokens for item in items} == {1}


def test_matched_without_a_none_variant_is_refused():
    with pytest.raises(InputError, match=r"dataset 'd', sample 's' has no response of variant 'none'"):
        expand_rows(
            rows(("detailed", "correct", 9)), Words(), lambda variant, relation: parse_subsets(["random:matched"]), 0
        )
