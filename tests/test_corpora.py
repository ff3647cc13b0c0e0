"""The miniature corpora: pure functions of their seed, no leakage, and what a sample promises."""

import re
from itertools import combinations, islice

import pytest

from gradatlas.core.errors import InputError
from gradatlas.data.made_up import arithmetic, knowledge, taxonomy
from gradatlas.data.made_up.miniature import (
    DATASETS,
    REASONING,
    TASK_SHARES,
    counterfactuals,
    held_out,
    training_documents,
)
from gradatlas.data.samples import label_of

DOCUMENTS = 30_000


@pytest.fixture(scope="module")
def documents():
    return list(islice(training_documents(0), DOCUMENTS))


@pytest.fixture(scope="module")
def samples():
    return {dataset: held_out(dataset, 100, 0) for dataset in DATASETS}


def test_the_same_seed_gives_the_same_documents_and_another_seed_others(documents):
    assert documents[:500] == list(islice(training_documents(0), 500))
    assert documents[:500] != list(islice(training_documents(1), 500))


@pytest.mark.parametrize("dataset", DATASETS)
def test_held_out_samples_are_pure_distinct_and_stable_over_n_and_seed(dataset):
    first = held_out(dataset, 60, 3)
    assert first == held_out(dataset, 60, 3)
    assert len({sample.sample_id for sample in first}) == 60
    by_id = {sample.sample_id: sample for sample in first}
    common = [sample for sample in held_out(dataset, 100, 4) if sample.sample_id in by_id]
    assert common
    assert all(sample == by_id[sample.sample_id] for sample in common)


def test_no_training_question_asks_a_held_out_chain(documents, samples):
    asked = {
        # A Simplified response spells out the chain: "9 + 3 = 12. 12 - 5 = 7."
        _chain_key(document.response)
        for document in documents
        if document.task == "arithmetic" and document.question.endswith("Answer in short.")
    }
    assert len(asked) > 1000
    assert not [key for key in asked if key.count("+") + key.count("-") > 1 and _chain(key).held_out]
    assert all(_chain(sample.sample_id).held_out for sample in samples["mini_arithmetic"])
    questions = {document.question for document in documents}
    assert not [s for s in samples["mini_arithmetic"] if set(s.instructions.values()) & questions]


def test_no_training_question_sets_a_held_out_pair_side_by_side(documents, samples):
    questions = [document.question for document in documents if document.task in ("same", "which")]
    assert len(questions) > 5000
    for question in questions:
        kinds = [word for word in taxonomy.KINDS if f" {word}" in question]
        assert len(kinds) in (2, 3)
        assert not any(taxonomy.pair_held_out(a, b) for a, b in combinations(kinds, 2))
    for sample in samples["mini_taxonomy"]:
        kinds = sample.sample_id.split("-")[2:]
        assert all(taxonomy.pair_held_out(a, b) for a, b in combinations(kinds, 2))


def test_nobody_unseen_is_named_in_training(documents):
    text = "\n".join(document.text for document in documents)
    assert not [person.name for person in knowledge.group("mini_unseen") if person.name in text]
    popular = [text.count(f"Who is {person.name}?") for person in knowledge.group("mini_popular")]
    unpopular = [text.count(f"Who is {person.name}?") for person in knowledge.group("mini_unpopular")]
    assert min(popular) > sum(unpopular) / len(unpopular)


def test_documents_come_in_the_declared_shares(documents):
    later = documents[10_000:]
    for task, share in TASK_SHARES.items():
        assert sum(document.task == task for document in later) / len(later) == pytest.approx(share, abs=0.02)
    assert sum(TASK_SHARES.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("dataset", DATASETS)
def test_prompts_differ_by_the_format_cue_alone(dataset, samples):
    for sample in samples[dataset]:
        assert set(sample.instructions) == set(DATASETS[dataset])
        questions = {prompt[: prompt.rindex("?") + 1] for prompt in sample.instructions.values()}
        assert len(questions) == 1
        assert len(set(sample.instructions.values())) == len(DATASETS[dataset])


@pytest.mark.parametrize("dataset", REASONING)
def test_right_and_wrong_chains_differ_in_label_alone_and_keep_the_wording(dataset, samples):
    for sample in samples[dataset]:
        wrong_labels = set()
        for variant in DATASETS[dataset]:
            right, wrong = sample.responses[variant, "correct"], sample.responses[variant, "wrong_chain"]
            assert label_of(right) == sample.gold
            wrong_labels.add(label_of(wrong))
            assert len(wrong.split()) - len(right.split()) in (-1, 0, 1)  # "the same" and "not the same"
        assert len(wrong_labels) == 1
        assert sample.gold not in wrong_labels


def test_wrong_arithmetic_has_exactly_one_false_sum_and_it_is_carried_on(samples):
    for sample in samples["mini_arithmetic"]:
        for variant in ("simplified", "detailed"):
            sums = _sums(sample.responses[variant, "wrong_chain"])
            assert [a + n == b for a, n, b in sums].count(False) == 1
            assert sums[-1][0] + sums[-1][1] == sums[-1][2]  # the last sum is right: the error came before
            assert [a for a, _, _ in sums[1:]] == [b for _, _, b in sums[:-1]]
            assert all(a + n == b for a, n, b in _sums(sample.responses[variant, "correct"]))


def test_wrong_taxonomy_gives_one_kind_another_class_or_exchanges_two(samples):
    for sample in samples["mini_taxonomy"]:
        false = {"same": 1, "which": 2}[sample.sample_id.split("-")[0]]
        for relation, expected in (("correct", 0), ("wrong_chain", false)):
            stated = re.findall(r" a (\w+) is a kind of (\w+)", sample.responses["detailed", relation])
            assert sum(taxonomy.class_of(kind) != group for kind, group in stated) == expected


def test_reasoned_responses_carry_the_operands(samples):
    for sample in samples["mini_arithmetic"]:
        chain = _chain(sample.sample_id)
        for variant in ("simplified", "detailed"):
            assert [n for _, n, _ in _sums(sample.responses[variant, "correct"])] == list(chain.operands)
    for sample in samples["mini_taxonomy"]:
        for kind in sample.sample_id.split("-")[2:]:
            assert f" a {kind} is a kind of" in sample.responses["detailed", "correct"]


def test_lengths_grow_from_none_over_simplified_to_detailed(samples):
    def words(dataset, variant):
        return sum(len(sample.responses[variant, "correct"].split()) for sample in samples[dataset]) / 100

    for dataset in REASONING:
        assert words(dataset, "none") == 1
        assert 8 < words(dataset, "simplified") < words(dataset, "detailed") / 2
    short, medium, long = (words("mini_popular", variant) for variant in DATASETS["mini_popular"])
    assert short * 2 < medium < long / 2
    assert words("mini_unpopular", "natural") == pytest.approx(medium, abs=1)


@pytest.mark.parametrize("dataset", REASONING)
def test_an_edit_changes_one_word_of_the_question_and_its_answer(dataset):
    pairs = counterfactuals(dataset, 200, 0)
    assert len(pairs) > 120
    for sample, edit in pairs:
        for variant in DATASETS[dataset]:
            before, after = sample.instructions[variant].split(), edit.instructions[variant].split()
            assert sum(a != b for a, b in zip(before, after, strict=True)) == 1
        assert edit.gold != sample.gold
        assert label_of(edit.responses["detailed", "correct"]) == edit.gold


def test_taxonomy_answers_are_balanced(samples):
    golds = [sample.gold for sample in samples["mini_taxonomy"] if sample.sample_id.startswith("same")]
    assert golds.count("yes") == golds.count("no") == 25


@pytest.mark.parametrize("dataset", DATASETS)
def test_more_questions_than_the_grammar_has_is_one_clear_line(dataset):
    with pytest.raises(InputError, match=r"1000000 .*its grammar has \d+"):
        held_out(dataset, 1_000_000, 0)
    with pytest.raises(InputError, match="request 1 or more"):
        held_out(dataset, 0, 0)


def test_unknown_datasets_name_the_nearest():
    with pytest.raises(InputError, match="did you mean 'mini_arithmetic'"):
        held_out("mini_aritmetic", 1, 0)
    with pytest.raises(InputError, match="no counterfactual"):
        counterfactuals("mini_popular", 1, 0)


def test_there_are_five_hundred_held_out_questions_per_task():
    assert all(len(held_out(dataset, 500, 0)) == 500 for dataset in REASONING)


def _sums(response):
    """The sums of a response, as (a, signed n, b)."""
    words = response.replace(".", " ").replace(":", " ").split()
    places = [i for i, word in enumerate(words) if word == "="]
    return [(int(words[i - 3]), int(words[i - 2] + words[i - 1]), int(words[i + 1])) for i in places]


def _chain_key(response):
    sums = _sums(response)
    return str(sums[0][0]) + "".join(f"{n:+d}" for _, n, _ in sums)


def _chain(key):
    numbers = key.replace("+", " +").replace("-", " -").split()
    return arithmetic.Chain(int(numbers[0]), tuple(int(number) for number in numbers[1:]))
