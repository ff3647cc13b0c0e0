"""Preference pairs and probes: the grammar, real data, what is held out, lengths, bad input."""

import json
import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from conftest import call, settings, user_error
from gradatlas.core.errors import InputError
from gradatlas.core.tables import read_table
from gradatlas.data.made_up import grammar, knowledge
from gradatlas.data.pairs import mapped_pairs, read_pairs, status_of, write_pairs
from gradatlas.data.tables import PAIRS
from gradatlas.data.tabular import read_rows
from gradatlas.finetuning.probes import REPHRASED, TYPES
from gradatlas.finetuning.tables import PROBES


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.parquet"
    write_pairs(grammar.pairs(40, 20, 30, 0, 0.75), path, {})
    return path


@pytest.fixture(scope="module")
def probes(pairs, miniature, tmp_path_factory):
    path = tmp_path_factory.mktemp("probes") / "probes.parquet"
    done = call(
        "build_probes", "--pairs", pairs, "--model", miniature, "--output", path,
        *settings(train=6, held_out=3, seed=0, max_new_tokens=12),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return path


def answers(rows, part="chosen"):
    return [grammar.parse(row[part]) for row in rows]


def test_chosen_answers_are_right_and_rejected_ones_wrong(pairs):
    rows = read_pairs(pairs, "train")
    assert all(answer.right for answer in answers(rows))
    assert not any(answer.right for answer in answers(rows, "rejected"))
    assert all(answer.text == row["chosen"] for answer, row in zip(answers(rows), rows, strict=True))


def test_every_wording_is_read_back():
    described = grammar.prompt_of(grammar.DESCRIBE).partition("{")[0]
    rows = [row for row in grammar.pairs(200, 60, 300, 5, 0.5) if not row["prompt"].startswith(described)]
    for text in [row[part] for row in rows for part in ("chosen", "rejected") if row[part]]:
        assert grammar.parse(text).text == text
    assert grammar.parse(" Nobody lives here.") is None


def test_nobody_is_asked_about_in_two_splits():
    rows = grammar.pairs(240, 80, 1000, 0, 0.75)
    people = {split: {"-".join(row["pair_id"].split("-")[:2]) for row in rows if row["split"] == split} for split in
              ("train", "held_out", "base")}  # fmt: skip
    assert [len(each) for each in people.values()] == [30, 10, 60]
    assert len({row["pair_id"] for row in rows}) == len(rows)
    assert not people["train"] & people["held_out"] and not people["base"] & (people["train"] | people["held_out"])


@given(low=st.floats(0, 1), high=st.floats(0, 1), choices=st.integers(2, 8))
def test_rarity_lowers_the_expected_log_probability(low, high, choices):
    usual = grammar.tilted_weights(choices, 0.0)

    def expected(rarity):
        return sum(p * math.log(q) for p, q in zip(grammar.tilted_weights(choices, rarity), usual, strict=True))

    if low + 1e-6 < high:
        assert expected(low) > expected(high)
    assert grammar.tilted_weights(choices, 0.5) == pytest.approx([1 / choices] * choices)


def test_the_base_model_reads_descriptions_of_all_people_it_is_asked_about():
    rows = [row for row in grammar.pairs(240, 80, 8000, 0, 0.75) if row["split"] == "base"]
    described = [row for row in rows if "What do you know of" in row["prompt"]]
    assert len(described) / len(rows) == pytest.approx(grammar.DESCRIBING, abs=0.02)
    people = knowledge.group("mini_popular")
    for person in people:
        texts = [row["chosen"] for row in described if f" {person.name}?" in row["prompt"]]
        assert all(any(value in text for text in texts) for _, value in person.facts)
    # True facts alone, each of which the grammar reads back.
    for row in described[:50]:
        stated = [grammar.parse(f" {sentence}.") for sentence in row["chosen"].strip().removesuffix(".").split(". ")]
        assert len(stated) == grammar.DESCRIBED and all(answer.right for answer in stated)


def test_a_rarer_rejected_answer_leaves_chosen_ones_as_they_are():
    usual, rare = (grammar.pairs(50, 10, 0, 0, rarity) for rarity in (0.0, 1.0))
    assert [row["chosen"] for row in usual] == [row["chosen"] for row in rare]
    ranks = [sum(a.opener + a.statement + a.closer for a in answers(rows, "rejected")) for rows in (usual, rare)]
    assert ranks[1] > 2 * ranks[0]


def test_more_than_the_grammar_has_is_an_error():
    with pytest.raises(InputError, match="request fewer"):
        grammar.pairs(9999, 1, 1, 0, 0.5)


# --- Real data ---

HH = {"format": "dialogue", "columns": {"chosen": "chosen", "rejected": "rejected"}, "template": "{prompt}",
      "order": "drawn"}  # fmt: skip
UF = {
    "format": "messages",
    "columns": {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"},
    "template": "Human: {prompt}\nAssistant:",
    "order": "drawn",
}


def test_dialogues_share_the_prompt_through_the_last_assistant():
    head = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Which?\n\nAssistant:"
    [pair] = mapped_pairs([{"chosen": f"{head} This.", "rejected": f"{head} That."}], HH, "x", "train", 9, 0)
    assert (pair["prompt"], pair["chosen"], pair["rejected"]) == (head, " This.", " That.")


def test_a_dialogue_that_ends_with_the_users_turn_is_a_status():
    head = "\n\nHuman: Which?\n\nAssistant:"
    rows = [{"chosen": f"{head} This.\n\nHuman: thanks!", "rejected": f"{head} That."}]
    rows += [{"chosen": f"{head} This.", "rejected": f"{head} That.\n\nHuman: no"}]
    assert [status_of(pair) for pair in mapped_pairs(rows, HH, "x", "train", 9, 0)] == ["no_answer"] * 2
    with pytest.raises(InputError, match=r"x, row 0: column 'system' is not empty.*delete it from the file"):
        mapped_pairs([{**rows[0], "system": "Be brief."}], HH, "x", "train", 9, 0)


def test_numbers_and_truth_values_are_answers_as_in_datasets(tmp_path):
    (tmp_path / "pairs.jsonl").write_text('{"q": "2+2?", "good": 4.0, "bad": true}\n')
    columns = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    plain = {"format": "plain", "columns": columns, "template": "{prompt}", "order": "drawn"}
    [pair] = mapped_pairs(list(read_rows(tmp_path / "pairs.jsonl", "train")), plain, "x", "train", 9, 0)
    assert (pair["chosen"], pair["rejected"]) == (" 4.0", " True")


@pytest.mark.parametrize(
    "rejected", ["\n\nHuman: Ho\n\nAssistant: No.", "\n\nHuman: Hi\n\nAssistant: A\n\nHuman: b\n\nAssistant: c"]
)
def test_dialogues_that_part_earlier_are_a_status(rejected):
    rows = [{"chosen": "\n\nHuman: Hi\n\nAssistant: A", "rejected": rejected}, {"chosen": "A", "rejected": "B"}]
    found = mapped_pairs(rows, HH, "hh.parquet", "train", 9, 0)
    assert [status_of(pair) for pair in found] == ["other_prompt"] * 2
    # Nothing of it is lost.
    assert found[0]["rejected"].endswith(rejected) and found[1]["chosen"] == " A"


def test_one_dialogue_that_parts_earlier_does_not_stop_the_others(tmp_path):
    head, other = (f"\n\nHuman: {greeting}\n\nAssistant:" for greeting in ("Hi", "Ho"))
    rows = [{"chosen": f"{head} Yes.", "rejected": f"{head} No."}, {"chosen": f"{head} Yes.", "rejected": "No."}]
    pairs = mapped_pairs(rows, HH, "x", "train", 9, 0)
    held = mapped_pairs([{"chosen": f"{other} a", "rejected": f"{other} b"}], HH, "x", "held_out", 9, 0)
    write_pairs([*pairs, *held], tmp_path / "p.parquet", {})
    table = read_table(PAIRS, tmp_path / "p.parquet").to_pylist()
    assert [row["status"] for row in table] == ["ok", "other_prompt", "ok"]
    assert [row["pair_id"] for row in read_pairs(tmp_path / "p.parquet", "train")] == ["train-0"]
    with pytest.raises(InputError, match=r"no usable pair in split 'train' \(1 other_prompt\)"):
        write_pairs([pairs[1], *held], tmp_path / "q.parquet", {})


def test_messages_take_the_last_one_and_get_their_leading_space():
    def chat(text):
        return [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": text}]

    [pair] = mapped_pairs([{"prompt": "Why?", "chosen": chat("So."), "rejected": chat("")}], UF, "x", "train", 9, 0)
    assert pair["prompt"] == "Human: Why?\nAssistant:" and pair["chosen"] == " So." and pair["rejected"] == ""
    for bad in ("So.", [], [{"role": "assistant"}], [{"content": ["So."]}], {"content": "So."}, None):
        [pair] = mapped_pairs([{"prompt": "Why?", "chosen": bad, "rejected": chat("No.")}], UF, "x", "train", 9, 0)
        assert (status_of(pair), pair["chosen"], pair["rejected"]) == ("no_messages", "", " No.")
    # An empty prompt is one whatever its template adds.
    [pair] = mapped_pairs([{"prompt": " ", "chosen": chat("a"), "rejected": chat("b")}], UF, "x", "train", 9, 0)
    assert status_of(pair) == "empty_prompt"


SYSTEM, USER, OTHER = (
    {"role": role, "content": text} for role, text in (("system", "Be kind."), ("user", "Why?"), ("user", "And then?"))
)
ANSWER = {"role": "assistant", "content": "So."}


@pytest.mark.parametrize(
    ("messages", "status"),
    [
        ([USER, ANSWER], "ok"),
        ([ANSWER], "ok"),
        ([USER], "no_answer"),
        ([USER, ANSWER, USER], "no_answer"),
        ([SYSTEM], "no_answer"),
        ([SYSTEM, USER], "no_answer"),
        # What is not in the prompt is part of no pair.
        ([SYSTEM, USER, ANSWER], "other_prompt"),
        ([USER, ANSWER, OTHER, ANSWER], "other_prompt"),
        ([ANSWER, OTHER, ANSWER], "other_prompt"),
        ([ANSWER, ANSWER], "other_prompt"),
        ([{**USER, "role": "human"}, {**ANSWER, "role": "gpt"}], "unknown_role"),
        ([USER, {**ANSWER, "role": "Assistant"}], "unknown_role"),
        ([USER, {**ANSWER, "role": None}], "unknown_role"),
        ([USER, {**ANSWER, "role": ["assistant"]}], "unknown_role"),
        ([USER, {"content": "So."}], "unknown_role"),
        ([], "no_messages"),
        (["Why?", "So."], "no_messages"),
        ([{"role": "user"}, ANSWER], "no_messages"),
        ([USER, {**ANSWER, "content": [{"type": "text", "text": "So."}]}], "no_messages"),
        ([USER, {**ANSWER, "content": None}], "empty_chosen"),
    ],
)
def test_only_an_answer_of_the_assistants_to_the_prompt_is_trained_on(messages, status, tmp_path):
    good = {"prompt": "Why?", "chosen": [USER, ANSWER], "rejected": [USER, {**ANSWER, "content": "No."}]}
    for part in ("chosen", "rejected"):
        rows = [good, {**good, "chosen": [ANSWER | {"content": "Yes."}], part: messages}]
        pairs = mapped_pairs(rows, UF, "x", "train", 9, 0)
        expected = status.replace("chosen", part)
        assert [status_of(pair) for pair in pairs] == ["ok", expected]
        held = mapped_pairs([{**good, "prompt": "Why? Why?"}], UF, "x", "held_out", 9, 0)
        write_pairs([*pairs, *held], tmp_path / "p.parquet", {})
        kept = [row["pair_id"] for row in read_pairs(tmp_path / "p.parquet", "train")]
        assert kept == ["train-0"] + ["train-1"] * (status == "ok")


def test_a_whole_dialogue_in_the_prompt_is_one(tmp_path):
    row = {"prompt": "Be kind. Q: Why? A: So. Q: And then?", "chosen": [SYSTEM, USER, ANSWER, OTHER, ANSWER],
           "rejected": [USER, ANSWER, OTHER, {**ANSWER, "content": "No."}]}  # fmt: skip
    [pair] = mapped_pairs([row], UF, "x", "train", 9, 0)
    assert (status_of(pair), pair["chosen"], pair["rejected"]) == ("ok", " So.", " No.")


def test_what_cannot_be_trained_on_is_a_status_and_never_dropped(tmp_path):
    texts = [("Q:", " a", " b"), ("Q2:", " a", " a "), ("Q3:", "", " b"), ("Q4:", " a", None), ("  ", " a", " b")]
    rows = [dict(zip(("prompt", "chosen", "rejected"), text, strict=True), pair_id=str(i), split="train")
            for i, text in enumerate(texts)]  # fmt: skip
    assert [status_of(row) for row in rows] == ["ok", "equal", "empty_chosen", "empty_rejected", "empty_prompt"]
    asked_twice = {"pair_id": "h", "split": "held_out", "prompt": "Q:", "chosen": " c", "rejected": " d"}
    kept = {**asked_twice, "pair_id": "k", "prompt": "Other:"}
    write_pairs([*rows, asked_twice, kept], tmp_path / "p.parquet", {})
    table = read_table(PAIRS, tmp_path / "p.parquet").to_pylist()
    assert len(table) == 7 and table[5]["status"] == "not_held_out"
    assert [row["pair_id"] for row in read_pairs(tmp_path / "p.parquet", "train")] == ["0"]
    with pytest.raises(InputError, match=r"no usable pair in split 'held_out' \(1 not_held_out\)"):
        write_pairs([*rows, asked_twice], tmp_path / "q.parquet", {})
    with pytest.raises(InputError, match="occurs twice"):
        write_pairs([rows[0], rows[0], kept], tmp_path / "q.parquet", {})


# --- Probes ---


def by_type(path):
    found = {}
    for row in read_table(PROBES, path).to_pylist():
        found.setdefault(row["sources"][0], {})[row["type"]] = row
    return found


def test_every_probed_prompt_has_every_type(probes):
    found = by_type(probes)
    assert len(found) == 9 and all(tuple(types) == TYPES for types in found.values())
    assert Counter(types["chosen"]["split"] for types in found.values()) == {"train": 6, "held_out": 3}


def test_what_is_held_out_is_never_trained(probes, pairs):
    trained = {row["prompt"] for row in read_pairs(pairs, "train")}
    own = {row["pair_id"]: row for split in ("train", "held_out") for row in read_pairs(pairs, split)}
    for types in by_type(probes).values():
        assert (types["chosen"]["prompt"] in trained) == (types["chosen"]["split"] == "train")
        for name, inside in (("irrelevant_train", True), ("irrelevant_held_out", False)):
            source = own[types[name]["sources"][1]]
            assert (source["prompt"] in trained) == inside and source["chosen"] == types[name]["response"]
            assert source["prompt"] != types[name]["prompt"] and source["chosen"] != types["chosen"]["response"]


def test_lengths_match_where_the_definition_allows_and_every_response_has_its_space(probes, miniature):
    tokenizer = AutoTokenizer.from_pretrained(miniature)
    for types in by_type(probes).values():
        chosen = types["chosen"]["response"]
        assert sorted(types["permuted"]["response"].split()) == sorted(chosen.split())
        assert types["permuted"]["response"] != chosen
        other = types["irrelevant_held_out"]
        assert sorted(types["random_nonhum"]["response"].split()) == sorted(other["response"].split())
        assert types["random_nonhum"]["sources"] == other["sources"]
        assert len(types["unrelated"]["response"].split()) == len(chosen.split())
        tokens = {name: len(tokenizer(types[name]["response"])["input_ids"]) for name in
                  ("chosen", "random_tokens", "irrelevant_train")}  # fmt: skip
        assert tokens["random_tokens"] == tokens["chosen"]
        assert abs(tokens["irrelevant_train"] - tokens["chosen"]) <= 4
        assert all(row["response"].startswith(" ") for row in types.values() if row["status"] == "ok")


def test_rephrases_keep_what_they_say_they_keep(probes):
    for types in by_type(probes).values():
        for part in ("chosen", "rejected"):
            own, meaning, form = (grammar.parse(types[name]["response"]) for name in
                                  (part, f"{part}_semantic", f"{part}_format"))  # fmt: skip
            assert (meaning.name, meaning.value) == (own.name, own.value)
            assert meaning.opener != own.opener and meaning.statement != own.statement
            assert (form.opener, form.statement, form.closer) == (own.opener, own.statement, own.closer)
            assert form.name != own.name and form.value != own.value


def cache(path, pairs, leave_out=0):
    rows = [{"pair_id": row["pair_id"], "type": name, "text": f" {name} text"} for split in ("train", "held_out")
            for row in read_pairs(pairs, split) for name in REPHRASED]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[leave_out:]))
    return path


def test_rephrases_from_a_file_and_one_that_lacks_rows(pairs, miniature, tmp_path):
    arguments = ["build_probes", "--pairs", pairs, "--model", miniature,
                 *settings(train=40, held_out=3, seed=0, max_new_tokens=2), "--output",
                 tmp_path / "probes.parquet", "--rephrases"]  # fmt: skip
    done = call(*arguments, cache(tmp_path / "whole.jsonl", pairs))
    assert done.returncode == 0, done.stderr
    assert next(iter(by_type(tmp_path / "probes.parquet").values()))["unrelated"]["response"] == " unrelated text"
    first = read_pairs(pairs, "train")[0]["pair_id"]
    message = user_error(call(*arguments, cache(tmp_path / "cut.jsonl", pairs, leave_out=4)))
    assert (
        "cut.jsonl: " in message
        and "missing; add the lines" in message
        and f"chosen_semantic of '{first}'" in message
        and "1 more" in message
    )


def test_a_local_model_writes_the_file_of_rephrases_and_is_asked_once(pairs, miniature, tmp_path):
    drawn = {"train": 1, "held_out": 1, "seed": 0}
    command = ["write_rephrases", "--pairs", pairs, "--model", miniature, "--kept", tmp_path / "kept.jsonl", "--output",
               tmp_path / "rephrases.jsonl", *settings(**drawn, writer={"device": "cpu", "max_tokens": 3})]  # fmt: skip
    done = call(*command)
    assert done.returncode == 0 and "answers to request" in done.stderr, done.stderr
    *rows, last = [json.loads(line) for line in (tmp_path / "rephrases.jsonl").read_text().splitlines()]
    assert list(last) == ["checksum"]
    assert len(rows) == 2 * len(REPHRASED) and {row["type"] for row in rows} == set(REPHRASED)
    assert "answers to request" not in call(*command).stderr
    done = call("build_probes", "--pairs", pairs, "--model", miniature, *settings(**drawn, max_new_tokens=2),
                "--rephrases", tmp_path / "rephrases.jsonl", "--output", tmp_path / "probes.parquet")  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_long_prompt_cuts_nobody_elses_sample(miniature):
    from gradatlas.finetuning.probes import _sampled
    from gradatlas.finetuning.sequences import ResponseEncoder
    from gradatlas.models.loading import load

    model, tokenizer = load(str(miniature), dtype="float32", device="cpu")
    encoder = ResponseEncoder(tokenizer, 64)
    short = [{"pair_id": "a", "prompt": "\n\nHuman: Who?\n\nAssistant:", "chosen": " Nora."}]
    long = [
        {"pair_id": "b", "prompt": "the " * 50, "chosen": " Nora."},
        {"pair_id": "c", "prompt": "the " * 99, "chosen": " N."},
    ]
    alone, both = (_sampled(model, encoder, pairs, 0, 20) for pairs in (short, short + long))
    assert both["a", "initial"] == alone["a", "initial"]
    assert len(tokenizer(both["b", "initial"])["input_ids"]) <= 64 - len(encoder.encode_prompt(long[0]["prompt"]))
    assert both["c", "initial"] == ""
    # Where prompts are cut, long ones are answered; a request to rephrase that would be cut is not made.
    encoder = ResponseEncoder(tokenizer, 64, truncation="study")
    cut = _sampled(model, encoder, [*long, {"pair_id": "d", "prompt": "Who?", "chosen": " the" * 50}], 0, 20)
    assert cut["c", "initial"] and cut["d", "self_rephrase"] == "" and cut["b", "self_rephrase"]


def test_more_probes_than_pairs_is_one_line(pairs, miniature, tmp_path):
    done = call("build_probes", "--pairs", pairs, "--model", miniature, *settings(train=99, held_out=3, seed=0),
                "--output", tmp_path / "p.parquet")  # fmt: skip
    assert "99 probes of split 'train' are requested, but it has 40" in user_error(done)
