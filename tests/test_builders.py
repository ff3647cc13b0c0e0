"""The builders of responses: the reference algorithm against the published files, and the controls."""

import json
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import SHARED, call, needs_shared, published_files, user_error
from gradatlas.data.options import check_answer, listed_options
from gradatlas.data.published import read_samples
from gradatlas.data.responses import builders
from gradatlas.data.responses.build import BUILDERS
from gradatlas.data.responses.labels import GOLD, canonical, same_answer
from gradatlas.data.responses.material import Material, other_option, read_recipe
from gradatlas.data.responses.reference import base_map, reference
from gradatlas.data.responses.sentences import split_ending, split_text, units
from gradatlas.data.samples import Sample, with_final
from gradatlas.study.relations import BUILT

# --- the published files ---------------------------------------------------------------------------------------------

SHIFTED = {
    "gsm8k": ("cot_500", "gsm8k_train_", {"simplified": "with_cot", "detailed": "with_cot_gpt4o"}),
    "math_algebra": ("lighteval_math", "algebra_", {"simplified": "with_cot", "detailed": "with_cot_gpt4o"}),
}
PAIRED = {
    "strategyqa": ("cot_500", "strategyqa_train_", {"simplified": "with_cot", "detailed": "with_cot_gpt4o"}),
    "sensemaking": ("cot_500", "sensemaking_train_", {"simplified": "with_cot", "detailed": "with_cot_gpt4o"}),
}


def outputs(dataset, variant, folder=""):
    place, stem, suffixes = {**SHIFTED, **PAIRED}[dataset]
    path = SHARED / "paper_data" / f"{place}{folder}" / f"{stem}{suffixes[variant]}.json"
    return [entry["output"] for entry in json.loads(path.read_text(encoding="utf-8"))]


def decomposed(response, first, inner, last):
    """The units that `response` is joined from by ". ": one of `first`, some of `inner`, `last`; None if it is not."""
    if not last:
        return [response] if response in first else None
    if not response.endswith(f". {last}"):
        return None
    body = response.removesuffix(f". {last}")
    seen = {}

    def rest(start):
        if start == len(body) + 2:
            return []
        if start not in seen:
            seen[start] = None
            end = body.find(". ", start)
            while True:
                unit = body[start : end if end >= 0 else len(body)]
                if unit in (inner if start else first):
                    tail = rest((end if end >= 0 else len(body)) + 2)
                    if tail is not None:
                        seen[start] = [unit, *tail]
                        break
                if end < 0:
                    break
                end = body.find(". ", end + 2)
        return seen[start]

    found = rest(0)
    return None if found is None else [*found, last]


def pools(bases, splitter):
    cut = [units(base, splitter) for base in bases]
    return cut, Counter(parts[0] for parts in cut), Counter(part for parts in cut for part in parts[1:-1])


@needs_shared("paper_data")
@pytest.mark.parametrize("variant", ["simplified", "detailed"])
@pytest.mark.parametrize("dataset", SHIFTED)
def test_shifted_files_are_what_the_recipe_says(dataset, variant):
    """Published and ours alike: the unit counts and last units of the next sample, and the multisets of the pools."""
    correct = outputs(dataset, variant)
    bases = [correct[i] for i in base_map("shift", [""] * 500, random.Random())]
    cut, first, inner = pools(bases, "dot")
    samples = [Sample(str(i), {variant: ""}, "", {(variant, "correct"): text}) for i, text in enumerate(correct)]
    ours = reference(Material(samples, "none", 0, read_recipe(["shift", "dot"])), variant)
    for responses in (outputs(dataset, variant, "_wrong_answer_shuffle"), [built.response for built in ours]):
        found = [
            decomposed(response, first, inner, parts[-1] if len(parts) > 1 else "")
            for response, parts in zip(responses, cut, strict=True)
        ]
        assert None not in found
        assert [len(parts) for parts in found] == [len(parts) for parts in cut]
        assert Counter(parts[0] for parts in found) == first
        assert Counter(part for parts in found for part in parts[1:-1]) == inner


@needs_shared("paper_data")
@pytest.mark.parametrize("dataset", PAIRED)
def test_paired_files_hold_first_inner_and_last_units(dataset):
    """Every published response is a first unit, inner units and a last unit of the dataset's own responses."""
    for variant in ("simplified", "detailed"):
        cut = [units(text, "dot") for text in outputs(dataset, variant)]
        first, last = ({parts[at] for parts in cut} for at in (0, -1))
        inner = {part for parts in cut for part in parts[1:-1]}
        for response in outputs(dataset, variant, "_wrong_answer_shuffle"):
            ends = [end for end in last if response.endswith(f". {end}")]
            assert response in first or any(decomposed(response, first, inner, end) for end in ends)


def sentence_counts(response, pool):
    """The numbers of sentences of `pool` that a response can be joined from; empty where it cannot."""
    seen = {len(response) + 1: {0}}

    def rest(start):
        if start not in seen:
            seen[start] = set()
            ends = [i for i in range(start, len(response)) if response[i] == " "] + [len(response)]
            for end in ends:
                if response[start:end] in pool:
                    seen[start] |= {count + 1 for count in rest(end + 1)}
        return seen[start]

    return rest(0)


@needs_shared("paper_data")
@pytest.mark.parametrize(
    ("name", "decomposed", "equal"), [("popular_wikipedia_100", 497, 478), ("long_tail_wikipedia", 450, 430)]
)
def test_wikipedia_files_are_permuted_sentences(name, decomposed, equal):
    """Nearly all published responses are sentences of the file, as many as their own had."""
    own, published = (
        [entry["output"] for entry in json.loads((SHARED / "paper_data" / folder / f"{name}.json").read_text("utf-8"))]
        for folder in ("wiki_popularity", "wiki_popularity_wrong_answer_shuffle")
    )
    cut = [units(text, "sentence") for text in own]
    pool = {sentence for sentences in cut for sentence in sentences}
    counts = [sentence_counts(response, pool) for response in published]
    assert sum(map(bool, counts)) == decomposed
    assert sum(len(sentences) in count for sentences, count in zip(cut, counts, strict=True)) == equal
    samples = [Sample(str(i), {"natural": ""}, None, {("natural", "correct"): text}) for i, text in enumerate(own)]
    ours = reference(Material(samples, "", 0, read_recipe(["pool"])), "natural")
    assert [len(sentences) in sentence_counts(b.response, pool) for sentences, b in zip(cut, ours, strict=True)] == [
        True
    ] * len(own)


@needs_shared("paper_data")
def test_pairs_repeat_the_defect_of_the_published_labels():
    """About half of the labels stay right, as published: one side of every swap keeps its own."""
    for dataset, published in (("strategyqa", 250), ("sensemaking", 241)):
        path = SHARED / "paper_data/cot_500" / f"{dataset}_train_no_cot.json"
        labels = [entry["output"] for entry in json.loads(path.read_text(encoding="utf-8"))]
        base = base_map("pairs", labels, random.Random(0))
        right = sum(labels[i] == label for i, label in zip(base, labels, strict=True))
        assert abs(right - published) <= 15
        assert all(labels[base[i]] != labels[i] or base[i] == i or base[base[i]] == base[i] for i in range(500))


@pytest.mark.parametrize(
    ("kind", "labels", "check"),
    [
        ("shift", list("abcd"), lambda base: base == [1, 2, 3, 1]),
        ("pairs", list("ab"), lambda base: base == [1, 1]),
        ("pairs", list("aa"), lambda base: base == [0, 1]),
        ("permutation", list("ab"), lambda base: base == [1, 1]),
    ],
)
def test_base_maps_by_hand(kind, labels, check):
    assert check(base_map(kind, labels, random.Random(0)))


def test_a_permutation_of_five_letters_keeps_about_an_eighth_of_the_labels():
    """AQuA's map: partners differ at the start, and what was overwritten is passed on (published: 64 of 500)."""
    labels = random.Random(1).sample(list("C" * 124 + "A" * 116 + "B" * 95 + "D" * 86 + "E" * 79), 500)
    base = base_map("permutation", labels, random.Random(2))
    assert 40 <= sum(labels[i] == label for i, label in zip(base, labels, strict=True)) <= 100


# --- fixtures in the formats of the other datasets -------------------------------------------------------------------

FORMATS = {
    "aqua": (
        "listed",
        "none",
        [
            (r"What is 20 + 2?\nOptions:\n(A) 22\n(B) 27\n(C) 29\n(D) 46\n(E) 92", "(A)", "20 + 2 = 22"),
            (r"What is 40 + 6?\nOptions:\n(A) 22\n(B) 46 \n(C) 46\n(D) 4\n(E) 92", "(B)", "40 + 6 = 46"),
            (r"What is 1 + 1?\nOptions:\n(A) 3\n(B) 4\n(C) 5\n(D) 6\n(E) 2", "(E)", "1 + 1 = 2"),
        ],
    ),
    "ecqa": (
        "listed",
        "none",
        [
            (r"Where?\nOptions:\n- bank\n- go to bed\n- shore\n- hill\n- sea", "go to bed", "One is tired."),
            (r"When?\nOptions:\n- noon\n- night\n- never\n- now\n- then", "noon", "The sun is high."),
            (r"Who?\nOptions:\n- cat\n- dog\n- cow\n- hen\n- fox", "cow", "It gives milk."),
        ],
    ),
    "sensemaking": (
        "listed",
        "none",
        [
            (
                r'Which?\nOptions:\n- Sentence A: "Ice is hot"\n- Sentence B: "Ice is cold"\n',
                "Sentence A",
                "Ice is cold.",
            ),
            (
                r'Which?\nOptions:\n- Sentence A: "Fire is hot"\n- Sentence B: "Fire is cold"\n',
                "Sentence B",
                "It burns.",
            ),
            (r'Which?\nOptions:\n- Sentence A: "Fish fly"\n- Sentence B: "Fish swim"\n', "Sentence A", "No wings."),
        ],
    ),
    "creak": ("yes_no", "none", [("Is it?", "yes", "It is."), ("Was it?", "no", "It was not."), ("Ha?", "no", "No.")]),
}


def samples_of(kind):
    options, gold, questions = FORMATS[kind]
    return Material(
        [
            Sample(
                str(i),
                dict.fromkeys(("none", "simplified", "detailed"), question),
                answer,
                {
                    ("none", "correct"): answer,
                    ("simplified", "correct"): with_final(rationale, answer),
                    ("detailed", "correct"): f"Let us see. {rationale}\n\nSo it is {answer}.",
                },
                listed_options(question) if options == "listed" else {},
            )
            for i, (question, answer, rationale) in enumerate(questions)
        ],
        gold,
        0,
    )


@pytest.mark.parametrize("kind", FORMATS)
def test_files_in_each_format_are_read_and_deranged(kind, tmp_path):
    options, _, questions = FORMATS[kind]
    sources = []
    for variant in ("none", "simplified"):
        entries = [
            {"instruction": question, "input": "", "output": answer if variant == "none" else with_final(why, answer)}
            for question, answer, why in questions
        ]
        (tmp_path / f"{variant}.json").write_text(json.dumps(entries))
        sources.append((variant, "correct", tmp_path / f"{variant}.json"))
    chosen = {"variants": ["none", "simplified"], "relations": ["correct", *BUILT], "gold": "none", "options": options}
    done = call(
        "build_responses", "--dataset", kind, *published_files(sources, **chosen), "--output", tmp_path / "r.parquet"
    )
    assert done.returncode == 0, done.stderr
    import polars as pl

    rows = pl.read_parquet(tmp_path / "r.parquet").filter(pl.col("relation") == "derangement").to_dicts()
    for row in rows:
        question, answer, _ = questions[int(row["sample_id"])]
        known = listed_options(question) if options == "listed" else {"yes": "", "no": ""}
        assert row["label"] in known and row["label"] != answer and not row["label_equals_gold"]
        assert row["response"].endswith(row["label"])
        if options == "listed" and row["variant"] == "none":
            assert row["sources"] == [row["sample_id"]]


def test_options_as_the_published_files_list_them():
    assert listed_options(FORMATS["aqua"][2][0][0])["(D)"] == "46"
    assert list(listed_options(FORMATS["ecqa"][2][0][0])) == ["bank", "go to bed", "shore", "hill", "sea"]
    assert listed_options(FORMATS["sensemaking"][2][0][0]) == {"Sentence A": "Ice is hot", "Sentence B": "Ice is cold"}
    assert listed_options("What are my options: none") == {}


def test_an_option_that_reads_like_the_right_one_is_not_wrong():
    options = listed_options(FORMATS["aqua"][2][1][0])
    assert {other_option(options, "(B)", str(i), 0) for i in range(60)} == {"(A)", "(D)", "(E)"}
    assert other_option({"(A)": "1", "(B)": "1.0"}, "(A)", "x", 0) is None


def test_case_and_white_space_make_no_other_option():
    options = {"in crowd": "in crowd", "alone": "alone"}
    assert other_option(options, "In  crowd ", "x", 0) == "alone"
    check_answer(Sample("0", {}, "Alone ", {}, options), "listed", "here")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([(r"Q?\nOptions:\n(A) 1\n(B) 2", "(C)")], "row 0: 'output': answers '(C)', which is not among the options"),
        ([(r"Q?\nOptions:\n(A) 1\n(B) 2", "(A)"), ("Q?", "(A)")], "row 1: 'output': its question lists no options"),
    ],
)  # fmt: skip
def test_an_answer_outside_of_the_options(entries, message, tmp_path):
    path = tmp_path / "none.json"
    path.write_text(json.dumps([{"instruction": question, "output": answer} for question, answer in entries]))
    chosen = {"variants": ["none"], "relations": ["correct"], "gold": "none", "options": "listed"}
    sources = [("none", "correct", path)]
    done = call(
        "build_responses", "--dataset", "x", *published_files(sources, **chosen), "--output", tmp_path / "r.parquet"
    )
    assert f"none.json, {message}" in user_error(done)


def test_yes_no_answers_are_checked_too(tmp_path):
    path = tmp_path / "none.json"
    path.write_text(json.dumps([{"instruction": "Q?", "output": "maybe"}]))
    from gradatlas.core.errors import InputError

    with pytest.raises(InputError, match="answers 'maybe', which is not among the options yes, no"):
        read_samples({("none", "correct"): path}, GOLD["none"], "yes_no")


# --- builders in general ---------------------------------------------------------------------------------------------

WORDS = st.text("abc 1.\n", min_size=1, max_size=40).filter(str.strip)


@st.composite
def materials(draw):
    rows = draw(st.lists(st.tuples(WORDS, st.sampled_from(["1", "2", "3"]), WORDS), min_size=1, max_size=12))
    samples = []
    for i, (rationale, answer, detailed) in enumerate(rows):
        responses = {"none": answer, "simplified": with_final(rationale, answer), "detailed": detailed}
        samples.append(
            Sample(f"s{i}", dict.fromkeys(responses, "Q?"), answer, {(v, "correct"): r for v, r in responses.items()})
        )
    return Material(samples, "none", draw(st.integers(0, 3)))


@settings(max_examples=60, deadline=None)
@given(materials())
def test_builders_are_pure_and_name_their_sources(material):
    """The same seed gives the same responses, the material stays as it was, and every source is a sample."""
    ids = {sample.sample_id for sample in material.samples}
    before = [dict(sample.responses) for sample in material.samples]
    for name, builder in BUILDERS.items():
        for variant in ("none", "simplified", "detailed"):
            built = builder(material, variant)
            assert built == builder(Material(material.samples, material.gold, material.seed), variant)
            assert len(built) == len(material.samples)
            for each in built:
                assert (each.response is None) == (not each.sources) and set(each.sources) <= ids, name
    assert before == [dict(sample.responses) for sample in material.samples]


@settings(max_examples=60, deadline=None)
@given(materials())
def test_multisets_are_kept(material):
    """Shuffled: each sample's own characters. Reference: the file's units. Salad: no sentence of one's own."""
    for sample, built in zip(material.samples, builders.shuffled(material, "detailed"), strict=True):
        own = sample.responses["detailed", "correct"]
        if built.response is not None:
            assert Counter(built.response) == Counter(own) and built.response != own
    for variant in ("simplified", "detailed"):
        bases = [
            material.samples[i].responses[variant, "correct"]
            for i in base_map("shift", [""] * len(material.samples), random.Random())
        ]
        cut = [units(base, "dot") for base in bases]
        made = [built.response for built in reference(material, variant) if built.response is not None]
        assert Counter("".join(made).replace(". ", "").replace(" ", "")) == Counter(
            "".join("".join(parts) for parts in cut).replace(". ", "").replace(" ", "")
        )
    for sample, built in zip(material.samples, builders.sentence_salad(material, "detailed"), strict=True):
        assert built.response is None or built.sources[0] != sample.sample_id


@settings(max_examples=80, deadline=None)
@given(WORDS)
def test_a_text_is_its_sentences_and_gaps(text):
    cut = split_text(text)
    assert cut.with_sentences(list(cut.sentences)) == text
    for variant in ("none", "simplified", "detailed"):
        assert "".join(split_ending(text, variant, "none")) == text


def test_display_formulas_and_list_numbers_are_not_cut():
    text = "1. First, see e.g. this:\n\\[\n a = 1. \n b\n\\]\nThen 2 + 2 = 4. Done."
    assert split_text(text).sentences == (
        "1. First, see e.g. this:", "\\[\n a = 1. \n b\n\\]", "Then 2 + 2 = 4.", "Done.",
    )  # fmt: skip
    assert split_ending("We add. So \\boxed{4} it is. That was easy.", "detailed", "boxed") == (
        "We add.", " So \\boxed{4} it is. That was easy.",
    )  # fmt: skip


def test_the_factors_of_the_mixture():
    """One question through all builders: whose rationale, and whose answer."""
    material = samples_of("ecqa")
    sample = material.samples[0]
    donor, wrong = material.donors["0"], material.wrong_labels["0"]
    rationale = donor.responses["simplified", "correct"].rpartition("\nThe")[0]
    built = {name: builder(material, "simplified")[0] for name, builder in BUILDERS.items()}
    assert wrong in sample.options and wrong != sample.gold
    assert built["derangement"].response == with_final(rationale, wrong)
    assert built["wrong_answer"].response == with_final("One is tired.", wrong)
    assert built["foreign_fluent"].response == with_final(rationale, "go to bed")
    assert built["sentence_salad"].response.endswith("\nThe final answer is go to bed")
    assert built["shuffled"].response is None
    assert built["foreign_fluent"].sources == (donor.sample_id, "0")
    detailed = builders.derangement(material, "detailed")[0]
    assert detailed.response == donor.responses["detailed", "correct"] and detailed.label == donor.gold


@pytest.mark.parametrize(
    ("response", "gold", "wrong", "expected"),
    [
        ("So it is (A) 22.", "(A)", "(B)", "So it is (B) 27."),
        ("So it is (A).", "(A)", "(B)", "So it is (B)."),
        (r"Thus \boxed{22}, found.", "(A)", "(B)", r"Thus \boxed{27}, found."),
        (r"Thus \boxed{23}, found.", "(A)", "(B)", None),
        ("There is no answer here.", "(A)", "(B)", None),
    ],
)
def test_a_wrong_answer_goes_where_the_right_one_stood(response, gold, wrong, expected):
    sample = Sample("0", {}, gold, {}, {"(A)": "22", "(B)": "27"})
    assert builders._with_answer(response, "detailed", sample, wrong) == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ('Thus **Sentence A** ("Ice is hot.") is odd.', 'Thus **Sentence B** ("Ice is cold.") is odd.'),
        ('So: **Sentence A: "ice is hot"**', 'So: **Sentence B: "Ice is cold"**'),
        ("So: Sentence A:\n'Ice  is hot'", "So: Sentence B:\n'Ice is cold'"),
        ("**Sentence A** makes no sense.", "**Sentence B** makes no sense."),
        ('Sentence A ("Ice is warm") is odd.', None),
        ('"Ice is hot" (Sentence A) is odd.', None),
        ('Sentence A is odd. Thus "Ice is hot" is wrong.', None),
        ("Sentence A doesn't make sense.", "Sentence B doesn't make sense."),
    ],
)
def test_the_quoted_sentence_goes_with_its_letter(response, expected):
    sample = Sample("0", {}, "Sentence A", {}, {"Sentence A": "Ice is hot", "Sentence B": "Ice is cold"})
    assert builders._with_answer(response, "detailed", sample, "Sentence B") == expected


def test_numbers_are_replaced_whole_and_yes_or_no_never():
    number = Sample("0", {}, "20", {})
    assert (
        builders._with_answer("It costs 120, or 20.5, so 20.", "detailed", number, "7")
        == "It costs 120, or 20.5, so 7."
    )
    assert builders._with_answer("There is no doubt.", "detailed", Sample("0", {}, "no", {}), "yes") is None


def test_a_donor_that_states_the_right_answer_is_not_used():
    """A Detailed response need not agree with its own gold answer; what it says counts."""

    def sample(i, gold, detailed):
        return Sample(i, {"detailed": "Q?"}, gold, {("detailed", "correct"): detailed})

    material = Material([sample("0", "1", r"So \boxed{2}."), sample("1", "2", r"So \boxed{2}.")], "boxed", 0)
    assert [built.response for built in builders.derangement(material, "detailed")] == [r"So \boxed{2}.", None]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1,050", "1050.0", True),
        (r"\dfrac12", r"\frac{1}{2}", True),
        (r"9\text{ values}", "9", True),
        ("Yes.", "yes", True),
        ("-2.5", r"-\frac{5}{2}", True),
        (r"\frac 92", "4.5", True),
        (r"\frac1{512}", r"\frac{1}{512}", True),
        (r"\frac{29}4", "7.25", True),
        (r"\frac1b", r"\frac{1}{b}", True),
        ("-2 + 3i", "-2+3i", True),
        ("x = 1", "x=1", True),
        (r"382 \text{ dollars}", r"\$382", True),
        (r"\frac{1}{0}", "0", False),
        ("1/2", "0.5", True),
        ("inf", "nan", False),
        ("1e999999999", "0", False),
        ("[-1, 0]", "(-1,0]", False),
        ("[-9, 9]", "[-9,9]", True),
        ("in crowd", "incrowd", False),
        ("(A)", "(B)", False),
        ("1,2", "12", False),
        ("", "0", False),
        (r"\text{even}", r"\text{odd}", False),
        (r"\text{even}", "even", True),
        (r"\text{Tuesday}", r"\mbox{Sunday}", False),
        (r"\text{(A)}", r"\text{(B)}", False),
        (r"\textbf{(A)}", "(A)", True),
        (r"6, 8\text{, and }10", "6810", False),
        (r"6, 8\text{, and }10", r"6, 8\text{, and }12", False),
        (r"6\text{ or }-8", "6-8", False),
        (r"\text{in crowd}", "in  crowd.", True),
        (r"\frac{1}{2}\text{ cm}^2", "0.5", True),
        (r"(3\text{ m}, 4\,\mathrm{m})", "(3, 4)", True),
        (r"\text{}", "", False),
        ("$", "%", False),
    ],
)
def test_answers_that_differ_in_notation_alone_are_the_same(one, other, same):
    assert same_answer(one, other) is same
    assert canonical(canonical(one)) == canonical(one)


def test_a_kept_ending_tells_the_label_where_free_text_states_it():
    """The reference's last units stay with their base; a response of one unit may be anybody's."""
    material = samples_of("creak")
    assert [built.label for built in reference(material, "detailed")] == ["no", "no", "no"]
    responses = {("detailed", "correct"): "One unit alone"}
    single = [Sample(str(i), {"detailed": "Q?"}, str(i), responses) for i in range(2)]
    assert [built.label for built in reference(Material(single, "none", 0), "detailed")] == [None, None]


def test_recipes_are_checked():
    from gradatlas.core.errors import InputError

    assert read_recipe(["shift", "dot", "detailed:line"]).splitter("detailed") == "line"
    assert read_recipe([]).base == "shift" and read_recipe(["pool"]).splitter("natural") == "sentence"
    with pytest.raises(InputError, match="unknown base map 'swap'"):
        read_recipe(["swap"])
    with pytest.raises(InputError, match="unknown splitter 'dots': did you mean 'dot'"):
        read_recipe(["shift", "dots"])
