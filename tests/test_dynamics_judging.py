"""Free generations, scored and judged: scores, the three judges, comparisons, curves, figures."""

import json
from itertools import count

import altair as alt
import polars as pl
import pytest
import torch
import yaml

from colours import meanings_of
from conftest import ROOT, call, settings, user_error
from gradatlas.core.errors import InputError
from gradatlas.core.sheets import read_sheet
from gradatlas.core.tables import read_metadata, read_table, write_table
from gradatlas.data.made_up import grammar
from gradatlas.data.pairs import write_pairs
from gradatlas.figures.win_rates import read_win_rates
from gradatlas.finetuning.judging.compare import judge_generations
from gradatlas.finetuning.judging.judges import Answer, Contest, EndpointJudge, Oracle, verdict_of
from gradatlas.finetuning.judging.scores import by_grammar, by_words, chance, repetition, score_generations
from gradatlas.finetuning.tables import GENERATIONS, JUDGEMENTS
from gradatlas.statistics.generations import summarise_generations
from gradatlas.statistics.tables import GENERATION_CURVES
from gradatlas.study.config import read_study
from gradatlas.study.runs import read_plan
from gradatlas.study.shares import wilson
from gradatlas.study.sheets import PublishedRateRow, RunRow
from test_generation import Chat, endpoint

DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())
MINE = grammar.pairs(30, 12, 2, 0, 0.75)
TRAINED = [row for row in MINE if row["split"] == "train"]
HELD = [row for row in MINE if row["split"] == "held_out"]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("TEST_KEY", "none")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.parquet"
    write_pairs(MINE, path, {})
    return str(path)


# --- Scores ---


@pytest.mark.parametrize(
    ("tokens", "share"),
    [([], 0), ([1, 1, 1], 0), ([1, 2, 3, 4], 0), ([1] * 10, 6 / 7), ([1, 2, 3, 4, 5, 1, 2, 3, 4], 1 / 6)],
)
def test_repetition_is_the_share_of_4_grams_that_came_before(tokens, share):
    assert repetition(tokens) == pytest.approx(share)


def test_borrowed_by_the_grammar_is_a_fact_that_another_question_was_answered_with():
    read, pair = by_grammar(TRAINED), HELD[0]
    other, never = grammar.parse(TRAINED[0]["chosen"]), grammar.parse(HELD[1]["chosen"])
    own, wrong = grammar.parse(pair["chosen"]), grammar.parse(pair["rejected"])
    assert read(pair, own.text) == (False, True)
    # A wrong value of one's own is an error of one's own.
    assert read(pair, wrong.text) == (False, False)
    # In other words than in training; after something of one's own, cut off before the end.
    for rank in range(4):
        stated = grammar.Answer(other.attribute, other.name, other.value, 1, rank, 2)
        assert read(pair, stated.text) == (True, False)
    assert read(pair, f"{own.text}{grammar.Answer(other.attribute, other.name, other.value, 0, 0, 0).text} One can")[0]
    rejected = grammar.parse(TRAINED[0]["rejected"])
    assert read(pair, rejected.text) == (True, False)
    # What was never trained on is borrowed from nowhere; and to its own question it is the answer.
    assert read(pair, never.text) == (False, False)
    assert read(TRAINED[0], other.text) == (False, True)
    assert read(pair, " It is it is it is") == (False, False)


def test_a_right_answer_to_another_question_about_the_same_person_is_not_right():
    pair = HELD[0]
    own = grammar.parse(pair["chosen"])
    attribute, value = next(fact for fact in dict(grammar._person(own.name).facts).items() if fact[0] != own.attribute)
    assert by_grammar(TRAINED)(pair, grammar.Answer(attribute, own.name, value, 0, 0, 0).text) == (False, False)


def test_chance_is_the_commonest_value_of_an_attribute():
    rows = [row | {"status": "ok"} for row in MINE]
    values = {}
    for answer in (grammar.parse(row["chosen"]) for row in rows):
        values.setdefault(answer.attribute, []).append(answer.value)
    held = [grammar.parse(row["chosen"]) for row in rows if row["split"] == "held_out"]
    hits = [answer.value == max(values[answer.attribute], key=values[answer.attribute].count) for answer in held]
    assert 0 < sum(hits) < len(hits) and chance(rows) == pytest.approx(sum(hits) / len(hits))


def test_borrowed_by_words_is_a_run_of_six_of_another_prompt():
    trained = [
        {"pair_id": "a", "prompt": "Why?", "chosen": " the cat sat on the old red mat", "rejected": " no"},
        {"pair_id": "b", "prompt": "Who?", "chosen": " yes", "rejected": " we never go out in the heavy rain"},
        {"pair_id": "c", "prompt": "Who?", "chosen": " it was me and my brother John", "rejected": " nobody"},
    ]
    read = by_words(trained)
    asked = {"pair_id": "b", "prompt": "Who?", "chosen": " yes", "rejected": " we never go out in the heavy rain"}
    assert read(asked, " Well: The cat sat on the OLD one") == (True, None)
    assert read(asked, " the cat sat on the new one") == (False, None)
    assert read(asked, " we never go out in the heavy rain") == (False, None)
    assert read(asked, " it was me and my brother John") == (False, None)
    assert read({**asked, "prompt": "The cat sat on the old red mat?"}, " the cat sat on the old red mat")[0] is False
    assert read(trained[0], " we never go out in the heavy rain")[0] is True


def generations(path, run, steps, respond, draws=1, seed=0, bad=()):
    """A generations table: `respond(step, pair, draw)` is the response, or (response, finished)."""
    rows = []
    for step in steps:
        for pair in [*TRAINED[:3], *HELD]:
            for draw in range(draws):
                text = respond(step, pair, draw)
                text, finished = text if isinstance(text, tuple) else (text, True)
                lost = pair["pair_id"] in bad
                rows.append(
                    {"run": run, "seed": seed, "step": step, "examples": 4 * step, "pair_id": pair["pair_id"]}
                    | {"split": pair["split"], "draw": draw, "response": None if lost else text}
                    | {"tokens": None if lost else len(text.split()) + 1, "finished": None if lost else finished}
                    | {"status": "too_long" if lost else "ok"}
                )
    write_table(GENERATIONS, rows, path, {})
    return str(path)


def words(text):
    return [hash(word) for word in text.split()]


def scored(tmp_path, pairs, runs):
    score_generations(runs, pairs, words, oracle=True, output=tmp_path / "scores.parquet")
    return str(tmp_path / "scores.parquet")


def test_the_table_of_scores_and_what_takes_no_part(tmp_path, pairs, capsys):
    lost = HELD[2]["pair_id"]
    path = generations(tmp_path / "g.parquet", "sft", (0, 5), lambda step, pair, _: pair["chosen"], bad=(lost,))
    frame = pl.read_parquet(scored(tmp_path, pairs, {"sft": path}))
    assert frame.height == 2 * (3 + 12 - 1) and lost not in set(frame["pair_id"])
    assert frame["correct"].all() and not frame["borrowed"].any()
    assert read_metadata(tmp_path / "scores.parquet")["left_out"] == {"sft/too_long": 2}
    assert "sft/too_long 2" in capsys.readouterr().err
    with pytest.raises(InputError, match="holds run sft, not 'dpo'"):
        scored(tmp_path, pairs, {"dpo": path})
    write_pairs(MINE[:4] + HELD[1:], tmp_path / "few.parquet", {})
    with pytest.raises(InputError, match=f"prompt '{HELD[0]['pair_id']}' is not in .*few.parquet"):
        scored(tmp_path, str(tmp_path / "few.parquet"), {"sft": path})


# --- Judges ---


def answer(correct=True, repeated=0.0, finished=True, text="x"):
    return Answer(text, finished, repeated, correct)


@pytest.mark.parametrize(
    ("run", "baseline", "side"),
    [
        (answer(), answer(), "tie"),
        (answer(), answer(correct=False), "run"),
        (answer(correct=False), answer(repeated=0.9, finished=False), "baseline"),
        (answer(repeated=0.6), answer(repeated=0.4), "baseline"),
        (answer(repeated=0.1), answer(repeated=0.4), "tie"),
        (answer(repeated=0.6), answer(finished=False), "baseline"),
        (answer(finished=False), answer(), "baseline"),
    ],
)
def test_the_oracle_asks_for_truth_then_no_repetition_then_an_end(run, baseline, side):
    assert Oracle().prefer([Contest("?", run, baseline)]) == [(side, side)]


def test_the_oracle_does_not_judge_what_nobody_knows():
    with pytest.raises(InputError, match="choose another judge"):
        Oracle().prefer([Contest("?", answer(), answer(correct=None))])


def asked_by(prompt):
    """The two answers in a request, in its order."""
    first = prompt.split("--- Answer A\n")[1].split("\n\n--- Answer B\n")
    return first[0], first[1].split("\n\n---\n")[0]


def longer(prompt):
    first, second = asked_by(prompt)
    best = "TIE" if len(first) == len(second) else "A" if len(first) > len(second) else "B"
    return f"One is longer.\n{best}"


CONTESTS = [
    Contest("Q1", answer(text=" longest"), answer(text=" short")),
    Contest("Q2", answer(text=" short"), answer(text=" longest")),
    Contest("Q3", answer(text=" same"), answer(text=" case")),
]


def test_a_model_is_asked_in_both_orders_and_its_answers_are_kept(tmp_path):
    with Chat(longer) as chat:
        judge = EndpointJudge(endpoint(chat), tmp_path / "kept.jsonl")
        assert judge.prefer(CONTESTS) == [("run", "run"), ("baseline", "baseline"), ("tie", "tie")]
        assert len(chat.prompts) == 6 and "Q1" in chat.prompts[0]
        chat.plan = [500]
        assert judge.prefer(CONTESTS) == [("run", "run"), ("baseline", "baseline"), ("tie", "tie")]
        assert len(chat.prompts) == 6
    assert judge.name == "m"


def test_nobody_is_asked_about_equal_answers(tmp_path):
    with Chat(longer) as chat:
        judge = EndpointJudge(endpoint(chat), tmp_path / "kept.jsonl")
        found = judge.prefer([Contest("Q0", answer(text=" same"), answer(text="same ")), *CONTESTS[:1]])
        assert found == [("tie", "tie"), ("run", "run")] and len(chat.prompts) == 2


def test_a_judge_that_likes_the_first_place_gives_ties(tmp_path):
    with Chat(lambda prompt: "Both are fine.\n**A**") as chat:
        found = EndpointJudge(endpoint(chat), tmp_path / "kept.jsonl").prefer(CONTESTS[:1])
    assert found == [("run", "baseline")] and verdict_of(found[0]) == "tie"


@pytest.mark.parametrize(
    ("reply", "read"),
    [
        ("Fine.\nA", "run"),
        ("Fine.\nMore helpful: **B**", "baseline"),
        ("Fine.\nVerdict: tie.", "tie"),
        ("Fine.\n(b)", "baseline"),
        ("A is better.", None),
        ("I prefer neither A nor B", None),
        ("A\nThat was easy.", None),
        (("Fine.\nA", "length"), None),
    ],
)
def test_what_can_be_read_of_an_answer(reply, read, tmp_path):
    with Chat(lambda prompt: reply) as chat:
        forward, backward = EndpointJudge(endpoint(chat), tmp_path / "kept.jsonl").prefer(CONTESTS[:1])[0]
    assert forward == read and verdict_of((forward, backward)) == (None if read is None else "tie")


def reward_model(folder, miniature, labels=1, chat=True):
    """A tiny random sequence classifier with the miniature's tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(miniature)
    tokenizer.chat_template = tokenizer.chat_template if chat else None
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=80, num_labels=labels, **sizes)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_reward_models_weights_and_tokens_are_read_as_a_models(tmp_path, miniature):
    """Quantised weights without scales are refused, mixed ones cast, and BOS stands once."""
    from safetensors.torch import load_file, save_file
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    from gradatlas.finetuning.judging.reward import RewardJudge

    folder = reward_model(tmp_path / "reward", miniature, chat=False)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    front = (tokenizer.bos_token, tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{front[0]} $A", special_tokens=[front])
    tokenizer.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    mixed = {name: each.bfloat16() if "mlp" in name else each for name, each in weights.items()}
    save_file(mixed, folder / "model.safetensors", metadata={"format": "pt"})
    judge = RewardJudge(str(folder), "tiny", device="cpu", dtype="float32")
    assert {each.dtype for each in judge.model.parameters()} == {torch.float32}
    seen = []
    judge.model.register_forward_pre_hook(
        lambda _, __, given: seen.append(given["input_ids"][0].tolist()), with_kwargs=True
    )
    bos = judge.tokenizer.bos_token
    judge._score(f"{bos}\n\nHuman: Who?\n\nAssistant:", " She.")
    judge._score("\n\nHuman: Who?\n\nAssistant:", " She.")
    assert seen[0] == seen[1] and seen[0].count(front[1]) == 1 and seen[0][0] == front[1]
    small = {name: (each * 100).to(torch.int8) if "q_proj" in name else each for name, each in weights.items()}
    save_file(small, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"q_proj.weight is stored as I8, but config.json has no quantization_config"):
        RewardJudge(str(folder), "tiny", device="cpu", dtype="float32")


@pytest.mark.parametrize("chat", [True, False])
def test_a_reward_model_prefers_the_higher_score(tmp_path, miniature, chat):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from gradatlas.finetuning.judging.reward import RewardJudge

    folder = reward_model(tmp_path / "reward", miniature, chat=chat)
    network = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt, texts = HELD[0]["prompt"], [HELD[0]["chosen"], HELD[0]["rejected"], HELD[1]["chosen"]]
    turns = [[("user", prompt.strip()), ("assistant", text.strip())] for text in texts]
    whole = [
        tokenizer.apply_chat_template([{"role": who, "content": text} for who, text in each], tokenize=False)
        if chat
        else prompt + text
        for each, text in zip(turns, texts, strict=True)
    ]
    with torch.no_grad():
        read = [tokenizer(text, add_special_tokens=not chat, return_tensors="pt")["input_ids"] for text in whole]
        scores = [network(input_ids=ids).logits.item() for ids in read]
    assert len(set(scores)) == 3
    contests = [Contest(prompt, answer(text=one), answer(text=other)) for one in texts for other in texts]
    judge = RewardJudge(str(folder), "tiny", device="cpu", dtype="float32")
    expected = ["tie" if a == b else "run" if a > b else "baseline" for a in scores for b in scores]
    assert judge.prefer(contests) == [(side, side) for side in expected]
    # Longer than its window: no score, and not one of what is left of it.
    long = [Contest(prompt, answer(text=texts[0] * 12), answer(text=texts[1]))]
    assert judge.prefer(long) == [(None, None)]


def test_what_is_no_reward_model(tmp_path, miniature):
    from gradatlas.finetuning.judging.reward import RewardJudge

    with pytest.raises(InputError, match=r"not a reward model, weight .* is missing"):
        RewardJudge(str(miniature), "mini", device="cpu", dtype="float32")
    with pytest.raises(InputError, match="a classifier with 2 outputs"):
        RewardJudge(str(reward_model(tmp_path / "two", miniature, 2)), "two", device="cpu", dtype="float32")
    with pytest.raises(InputError, match="no such folder"):
        RewardJudge(str(tmp_path / "nowhere"), "none", device="cpu", dtype="float32")


# --- Comparisons ---


class Firm:
    """Prefers by a table of prompts; notes what it was asked."""

    name, facts = "firm", {"judge": "firm"}

    def __init__(self, preferences):
        self.preferences, self.seen = preferences, []

    def prefer(self, contests):
        self.seen += contests
        return [next(self.preferences) for _ in contests]


def compared(tmp_path, pairs, judge, bad=()):
    respond = {name: lambda step, pair, draw, name=name: f" {name} {step} {draw}" for name in ("extend", "sft", "sft4")}
    runs = {
        "sft": generations(tmp_path / "a.parquet", "sft", (0, 20, 40), respond["sft"]),
        "sft4": generations(tmp_path / "b.parquet", "sft4", (0, 10, 20), respond["sft4"], bad=bad),
        "extend": generations(tmp_path / "c.parquet", "extend", (0, 10, 20, 40), respond["extend"]),
    }
    scores = scored(tmp_path, pairs, runs)
    judge_generations(
        runs,
        {"sft": 40, "sft4": 20, "extend": 40},
        {"extend": ["sft", "sft4", "gone"], "sft": []},
        scores,
        pairs,
        judge,
        tmp_path / "judged.parquet",
    )
    return pl.read_parquet(tmp_path / "judged.parquet")


def test_runs_are_compared_at_equal_shares_on_prompts_never_trained(tmp_path, pairs):
    judge = Firm(iter(lambda: ("tie", "tie"), None))
    frame = compared(tmp_path, pairs, judge, bad=(HELD[3]["pair_id"],))
    places = set(frame.select("run", "baseline", "step", "baseline_step").iter_rows())
    assert places == {("extend", "sft", s, s) for s in (0, 20, 40)} | {
        ("extend", "sft4", 0, 0),
        ("extend", "sft4", 20, 10),
        ("extend", "sft4", 40, 20),
    }
    counts = dict(frame.group_by("baseline").len().iter_rows())
    assert counts == {"sft": 3 * 12, "sft4": 3 * 11} and set(frame["pair_id"]) == {row["pair_id"] for row in HELD}
    assert read_metadata(tmp_path / "judged.parquet")["without_response"] == 3
    first = judge.seen[0]
    assert (first.prompt, first.run.text, first.baseline.text) == (HELD[0]["prompt"], " extend 0 0", " sft 0 0")
    assert frame.filter(pl.col("step") == 20)["examples"].to_list() == [80] * 23


def test_orders_that_disagree_are_ties_and_unreadable_ones_are_counted(tmp_path, pairs, capsys):
    sides = [("run", "run"), ("run", "baseline"), ("tie", "run"), (None, "run"), ("baseline", None), ("baseline",) * 2]
    frame = compared(tmp_path, pairs, Firm(sides[i % 6] for i in count()))
    assert frame["verdict"].to_list()[:6] == ["run", "tie", "tie", None, None, "baseline"]
    assert read_metadata(tmp_path / "judged.parquet")["unreadable"] == 24 == frame["verdict"].null_count()
    assert frame.filter(pl.col("status") == "unreadable").height == 24 and set(frame["status"]) == {"ok", "unreadable"}
    assert "72 contests judged, 24 without a readable verdict" in capsys.readouterr().err


def test_scores_of_other_generations_are_refused(tmp_path, pairs):
    path = generations(tmp_path / "a.parquet", "sft", (0, 5), lambda *_: " x")
    scores = scored(tmp_path, pairs, {"sft": path})
    other = generations(tmp_path / "b.parquet", "dpo", (0, 5), lambda *_: " y")
    with pytest.raises(InputError, match="has no run 'dpo', step 0"):
        judge_generations({"sft": path, "dpo": other}, {"sft": 5, "dpo": 5}, {"dpo": ["sft"]}, scores, pairs, Oracle(),
                          tmp_path / "j.parquet")  # fmt: skip


# --- Curves and figures ---


JUDGED = [{"name": "sft", "steps": 10, "baselines": []}, {"name": "extend", "steps": 10, "baselines": ["sft"]}]


@pytest.fixture(scope="module")
def made(tmp_path_factory, pairs, miniature):
    """Scores, judgements and curves through the scripts: sft wrong and borrowing, extend right or repeating itself."""
    folder = tmp_path_factory.mktemp("made")
    other = grammar.parse(TRAINED[0]["chosen"]).text
    place = {row["pair_id"]: number for number, row in enumerate(HELD)}

    def sft(step, pair, draw):
        return other if step and place.get(pair["pair_id"], 0) % 2 else pair["rejected"]

    def extend(step, pair, draw):
        if step and place.get(pair["pair_id"], 0) < 3:
            return " it is so it is so it is so it is so it is so it is so", False
        return pair["chosen"] if step and draw == 0 else pair["rejected"]

    for name, respond in (("sft", sft), ("extend", extend)):
        generations(folder / f"{name}.parquet", name, (0, 5, 10), respond, draws=2)
    files = {name: folder / f"{name}.parquet" for name in ("sft", "extend")}
    steps = [
        call("score_generations", "--generations", *files.values(), "--pairs", pairs, "--model", miniature,
             *settings(runs=list(files), oracle=True), "--output", folder / "scores.parquet"),
        call("judge_generations", "--generations", *files.values(), "--scores", folder / "scores.parquet", "--pairs",
             pairs, *settings(judge="oracle", runs=JUDGED), "--output", folder / "judgements.parquet"),
        call("summarise_generations", "--model", "mini", "--scores", folder / "scores.parquet", "--judgements",
             folder / "judgements.parquet", *settings(starts={"extend": "sft"}, draws=50, seed=0), "--output",
             folder / "curves.parquet"),
    ]  # fmt: skip
    assert [done.returncode for done in steps] == [0, 0, 0], [done.stderr for done in steps]
    return folder


def test_curves_are_means_over_prompts_of_means_over_draws(made):
    frame = pl.read_parquet(made / "curves.parquet").filter((pl.col("split") == "held_out") & (pl.col("step") == 10))
    found = {(row["run"], row["measure"]): row for row in frame.iter_rows(named=True)}
    borrowed = found["sft", "borrowed"]
    assert (borrowed["value"], borrowed["n"], borrowed["before"], borrowed["baseline"]) == (0.5, 12, 0, None)
    assert (borrowed["low"], borrowed["high"]) == pytest.approx(wilson(6, 12))
    # Right in one of two draws of 9 of 12 prompts.
    assert found["extend", "correct"]["value"] == pytest.approx(9 / 24) and found["extend", "correct"]["before"] == 40
    assert found["extend", "finished"]["value"] == pytest.approx(9 / 12)
    assert found["sft", "repetition"]["value"] < 0.1 < found["extend", "repetition"]["value"]
    # Of 12 prompts 3 lose both draws; 9 win one and tie the other.
    won, tied = found["extend", "win_rate"], found["extend", "tie"]
    assert (won["value"], won["baseline"], won["baseline_step"]) == (pytest.approx(9 * 0.75 / 12), "sft", 10)
    assert tied["value"] == pytest.approx(9 * 0.5 / 12)
    assert found["extend", "disagreement"]["value"] == found["extend", "unreadable"]["value"] == 0
    assert (won["low"], won["high"]) == pytest.approx(wilson(6.75, 12))


def test_changes_are_paired_by_prompt(made, tmp_path):
    """Of 12 prompts 6 begin to borrow, and none stops."""
    frame = pl.read_parquet(made / "curves.parquet").filter(pl.col("measure").str.starts_with("change of"))
    found = {(row["run"], row["measure"]): row for row in frame.iter_rows(named=True)}
    borrowed, correct = found["sft", "change of borrowed"], found["extend", "change of correct"]
    assert (borrowed["value"], borrowed["n"], borrowed["step"], borrowed["split"]) == (0.5, 12, 10, "held_out")
    assert 0 < borrowed["low"] < 0.5 < borrowed["high"] < 1
    # From sft's first answers, of which extend's chain begins: none right; at the end one of two draws of 9 prompts.
    assert correct["value"] == pytest.approx(9 / 24) and correct["low"] > 0
    index = {each["kind"]: each for each in json.loads(draw(made, tmp_path)["index.json"])["figures"]}
    assert index["correct"]["title"] == "Right answers: Extend up"


def test_what_stays_as_it_was_blurs_no_change(tmp_path, pairs):
    """Of 12 prompts 4 are right all along and 4 become it: by unpaired intervals unclear. Where 3 turn right and 3 turn
    wrong, it is."""
    place = {row["pair_id"]: number for number, row in enumerate(HELD)}

    def some(begun, ended):
        return lambda step, pair, _: pair[
            "chosen" if place.get(pair["pair_id"]) in (ended if step else begun) else "rejected"
        ]

    responders = {"gains": some(range(4), range(8)), "turns": some(range(6), range(3, 9))}
    runs = {name: generations(tmp_path / name, name, (0, 5), each) for name, each in responders.items()}
    summarise_generations("m", scored(tmp_path, pairs, runs), None, {}, tmp_path / "curves.parquet", 200, 0)
    frame = pl.read_parquet(tmp_path / "curves.parquet").filter(pl.col("split") == "held_out")
    found = {(row["run"], row["measure"], row["step"]): row for row in frame.iter_rows(named=True)}
    gain, turn = (found[name, "change of correct", 5] for name in ("gains", "turns"))
    assert gain["value"] == pytest.approx(1 / 3) and gain["low"] > 0
    assert found["gains", "correct", 0]["high"] > found["gains", "correct", 5]["low"]
    assert turn["value"] == 0 and turn["low"] < 0 < turn["high"]
    assert found["gains", "change of finished", 5]["low"] is None


def test_curves_of_an_endpoint_count_disagreement_among_what_can_be_read(tmp_path, pairs):
    sides = [("run", "run"), ("run", "baseline"), (None, "run"), ("tie", "tie")]
    compared(tmp_path, pairs, Firm(sides[i % 4] for i in count()))
    summarise_generations(
        "m", tmp_path / "scores.parquet", tmp_path / "judged.parquet", {}, tmp_path / "c.parquet", 50, 0
    )
    frame = pl.read_parquet(tmp_path / "c.parquet").filter((pl.col("baseline") == "sft") & (pl.col("step") == 40))
    found = {row["measure"]: (row["value"], row["n"]) for row in frame.iter_rows(named=True)}
    assert found["win_rate"] == (pytest.approx(2 / 3), 9) and found["unreadable"] == (0.25, 12)
    assert found["disagreement"] == (pytest.approx(1 / 3), 9) and found["tie"] == (pytest.approx(2 / 3), 9)


def test_win_rates_are_a_table_beside_the_published_ones(tmp_path, pairs):
    """A judge over HTTP, who decides nothing about every fourth prompt; at step 100 about none."""
    names = ("sft2_dpo", "extend2_dpo")
    runs = {
        name: generations(tmp_path / name, name, (0, 100, 200, 300), lambda step, pair, _, name=name: f" {name} {step}")
        for name in names
    }
    scores = scored(tmp_path, pairs, runs)
    place = {row["prompt"].strip(): number for number, row in enumerate(HELD)}

    def reply(prompt):
        asked = prompt.split("--- What was asked\n")[1].split("\n\n--- Answer A")[0]
        first, _ = asked_by(prompt)
        if place[asked] % 4 == 0 or "100" in first:
            return "Neither A nor B: both are off the point."
        return "Fine.\n" + ("A" if place[asked] % 4 == 1 or "extend" in first else "B")

    with Chat(reply) as chat:
        judge = EndpointJudge(endpoint(chat), tmp_path / "kept.jsonl")
        judge_generations(runs, dict.fromkeys(names, 300), {"extend2_dpo": ["sft2_dpo"]}, scores, pairs, judge,
                          tmp_path / "judged.parquet")  # fmt: skip
    judged = pl.read_parquet(tmp_path / "judged.parquet")
    assert dict(judged.group_by("step").agg((pl.col("status") == "unreadable").sum()).iter_rows()) == {
        0: 3,
        100: 12,
        200: 3,
        300: 3,
    }
    summarise_generations("m", scores, tmp_path / "judged.parquet", {}, tmp_path / "curves.parquet", 50, 0)
    sheet = read_sheet(ROOT / "config/runs.tsv", RunRow, "run")
    done = call("write_win_rates", "--pairs", "mine", "--curves", tmp_path / "curves.parquet", "--published",
                ROOT / "config/published_dynamics.tsv", "--output", tmp_path / "win_rates",
                *settings(runs=[sheet[name] for name in names], titles={"m": "Mine"},
                          epochs=dict.fromkeys(names, 200)))  # fmt: skip
    assert done.returncode == 0, done.stderr
    frame = read_win_rates(tmp_path / "win_rates.csv")
    # Of 9 readable prompts 6 prefer extend's in both orders, and 3 whatever stands first: ties.
    expected = {"win_rate": 7.5 / 9, "tie": 1 / 3, "disagreement": 1 / 3, "unreadable": 0.25, "n": 9}
    assert {key: frame.row(2, named=True)[key] for key in expected} == pytest.approx(expected)
    assert (frame["low"][2], frame["high"][2]) == pytest.approx(wilson(7.5, 9))
    assert frame["epochs"].to_list() == [0, 2, 4, 6] and frame["win_rate"][1] is None and frame["n"][1] == 0
    text = (tmp_path / "win_rates.md").read_text()
    assert "## Mine · mine · seed 0 · judged by m" in text
    assert "| 4 | .83 [.51, .96] | GPT-3.5 0.6928; Claude 3 Haiku 0.6045 | 33 % | 33 % | 25 % | 9 |" in text
    assert "| 2 | – | GPT-3.5 0.6518; Claude 3 Haiku 0.5151 | – | – | 100 % | 0 |" in text
    assert "Published, of Qwen1.5-1.8B on hh\\_helpful, arXiv 2407.10490, Table 1" in text


def draw(made, output, *more):
    size = {"steps": 40, "batch_size": 1, "target": "chosen", "probed": False}
    runs = [{"run": "sft", "init": "", "title": "SFT"}, {"run": "extend", "init": "sft", "title": "Extend"}]
    runs = [row | size for row in runs]
    done = call("draw_generations", "--curves", made / "curves.parquet", "--published",
                ROOT / "config/published_dynamics.tsv", *settings(runs=runs), "--title",
                "Miniature", "--formats", "vl.json", "svg", *more, "--output", output)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {path.name: path.read_bytes() for path in output.iterdir()}


def test_figures_say_what_was_found_and_are_the_same_bytes_twice(made, tmp_path):
    one, two = (draw(made, tmp_path / name) for name in ("one", "two"))
    assert one == two
    whole = json.loads(one["index.json"])
    assert whole["dataset_title"] == "Miniature: free generations"
    index = {each["kind"]: each for each in whole["figures"]}
    assert set(index) == {"win_rate", "repetition", "borrowed", "correct"}
    assert all(each["width"] > 300 and each["height"] > 100 for each in index.values())
    assert "Extend against SFT 56 % (unclear)" in index["win_rate"]["title"]
    assert "DPO, Qwen1.5-1.8B: GPT-3.5: 0.47, 0.65, 0.69, 0.67" in index["win_rate"]["caption"]
    assert "58 % ties" in index["win_rate"]["caption"]
    assert "Right answers to these prompts before the run: Extend " in index["win_rate"]["caption"]
    assert whole["left_out"] == []
    for name, content in one.items():
        if name.endswith(".vl.json"):
            alt.Chart.from_dict(json.loads(content))
            meanings_of(json.loads(content))


def test_a_figure_that_decides_nothing_is_left_out_and_listed_with_the_reason(made, tmp_path):
    """A share that is nowhere above 0; win rates of which none is clear, where nearly all contests are ties."""
    frame = pl.from_arrow(read_table(GENERATION_CURVES, made / "curves.parquet"))
    facts = read_metadata(made / "curves.parquet")
    zero = pl.when(pl.col("measure") == "borrowed")
    frame = frame.with_columns(
        *(zero.then(value).otherwise(pl.col(key)).alias(key) for key, value in (("value", 0.0), ("low", 0.0))),
        zero.then(wilson(0, 12)[1]).otherwise(pl.col("high")).alias("high"),
    ).with_columns(pl.when(pl.col("measure") == "tie").then(0.9).otherwise("value").alias("value"))
    write_table(GENERATION_CURVES, frame.to_dicts(), tmp_path / "curves.parquet", facts)
    files = draw(tmp_path, tmp_path / "figures")
    index = json.loads(files["index.json"])
    assert {each["kind"] for each in index["figures"]} == {"repetition", "correct"}
    assert not any(name.startswith(("borrowed", "win_rate")) for name in files)
    none = "none on prompts that were never trained on, in any run; up to 24 % could go unseen"
    ties = "90 % of the contests are ties, and no interval of a win rate excludes 50 %"
    assert index["left_out"] == [
        {"kind": "win_rate", "title": "Win rates", "reason": ties},
        {"kind": "borrowed", "title": "Answers of other questions", "reason": none},
    ]
    # A clear win rate is drawn, whatever the ties.
    clear = pl.when(pl.col("measure") == "win_rate").then(0.6).otherwise("low").alias("low")
    write_table(GENERATION_CURVES, frame.with_columns(clear).to_dicts(), tmp_path / "curves.parquet", facts)
    index = json.loads(draw(tmp_path, tmp_path / "figures")["index.json"])
    assert [each["kind"] for each in index["left_out"]] == ["borrowed"]


def test_without_a_judge_there_is_no_win_rate(made, tmp_path):
    done = call("summarise_generations", "--model", "mini", "--scores", made / "scores.parquet",
                *settings(starts={"extend": "sft"}, draws=50, seed=0), "--output",
                tmp_path / "curves.parquet")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "win_rate.svg" not in draw(tmp_path, tmp_path / "figures")


# --- As asked for ---


def test_the_sheet_of_published_numbers_is_valid():
    rows = read_sheet(ROOT / "config/published_dynamics.tsv", PublishedRateRow, None)
    assert {(row["epochs"], row["value"]) for row in rows.values()} >= {(0, 0.4729), (4, 0.6928)}
    runs = read_sheet(ROOT / "config/runs.tsv", RunRow, "run")
    for row in rows.values():
        for name in (f"{row['run']}:{row['baseline']}", *row["like"]):
            run, baseline = (runs[part] for part in name.split(":"))
            epoch = 5000 if name.startswith("hh_") else 200
            assert baseline["run"] in run["baseline"] and run["steps"] == baseline["steps"]
            # Both answer after this many epochs.
            step = row["epochs"] * epoch / run["batch_size"]
            assert step in (0, run["steps"]) or all(step % each["generate_every"] == 0 for each in (run, baseline))
            # Both begin after 2 epochs of SFT: of chosen and rejected responses, or of chosen ones.
            for each, target, responses in ((run, "extend", 2), (baseline, "chosen", 1)):
                start = runs[each["init"]]
                assert start["target"] == target and start["steps"] * start["batch_size"] == 2 * responses * epoch


def test_extend_is_judged_against_plain_runs_and_those_of_equal_exposure():
    runs = read_plan(DEFAULT["dynamics"] | {"runs": ["extend_dpo", "sft4_dpo", "dpo"]}, ROOT).runs
    assert runs["extend"]["baseline"] == ["sft", "sft4"] and runs["extend_dpo"]["baseline"] == ["dpo", "sft4_dpo"]


def test_a_baseline_that_is_no_run(tmp_path):
    import shutil

    shutil.copytree(ROOT / "config", tmp_path / "config")
    sheet = tmp_path / "config/runs.tsv"
    sheet.write_text(sheet.read_text().replace("sft sft4", "sft sft44"))
    with pytest.raises(InputError, match="run 'extend', column 'baseline': unknown run 'sft44': did you mean 'sft4'"):
        read_plan(DEFAULT["dynamics"] | {"runs": ["extend"]}, tmp_path)


@pytest.mark.parametrize(
    ("dynamics", "generate", "message"),
    [
        ({"pairs": "hh_helpful", "runs": ["hh_sft"]}, {}, "'oracle' knows the answers of mini_qa alone"),
        ({"judge": "endpoint"}, {}, "asks generate.model at generate.endpoint; name both"),
        ({"judge": "orakle"}, {}, "unknown judge 'orakle': did you mean 'oracle'"),
    ],
)
def test_judges_that_cannot_be(dynamics, generate, message):
    changed = {
        "dynamics": DEFAULT["dynamics"] | dynamics,
        "generate": DEFAULT["generate"] | {"model": "mini"} | generate,
    }
    with pytest.raises(InputError, match=message):
        read_study(DEFAULT | changed, ROOT)


def test_a_judge_of_the_sheet_is_one_of_the_studys_models():
    asked = DEFAULT | {"dynamics": DEFAULT["dynamics"] | {"judge": "smollm2_135m"}}
    assert list(read_study(asked, ROOT).judges) == ["smollm2_135m"]
    assert read_study(DEFAULT, ROOT).judges == {}


def test_a_judge_without_what_it_needs_is_one_line(made, pairs, tmp_path):
    common = ["--generations", made / "sft.parquet", "--scores", made / "scores.parquet", "--pairs", pairs,
              "--output", tmp_path / "j.parquet"]  # fmt: skip
    for judge, message in (
        ("endpoint", "settings.judge endpoint: needs its model's endpoint and name, and --kept"),
        ("reward", "settings.judge reward: needs the reward model's folder or card"),
        ("me", "--settings: 'judge': 'me' is not known"),
    ):
        done = call("judge_generations", *common, *settings(judge=judge, runs=JUDGED[:1], model={"device": "cpu"}))
        assert message in user_error(done)
    done = call("judge_generations", *common, *settings(judge="oracle", runs=JUDGED))
    assert "--generations gives 1 files, the settings name 2" in user_error(done)


def test_an_endpoint_and_a_reward_model_through_the_script(made, pairs, tmp_path, miniature):
    common = ["--generations", made / "sft.parquet", made / "extend.parquet", "--scores", made / "scores.parquet",
              "--pairs", pairs]  # fmt: skip
    with Chat(longer) as chat:
        asked = {"endpoint": f"{chat.url}/v1", "name": "m", "max_tokens": 50}
        done = call("judge_generations", *settings(judge="endpoint", runs=JUDGED, model=asked),
                    "--requests-per-minute", 600000, "--key-variable", "TEST_KEY", "--kept", tmp_path / "kept.jsonl",
                    *common, "--output", tmp_path / "asked.parquet")  # fmt: skip
    assert done.returncode == 0, done.stderr
    asked = read_table(JUDGEMENTS, tmp_path / "asked.parquet").to_pylist()
    assert len(asked) == 72 and {row["judge"] for row in asked} == {"m"} and all(row["verdict"] for row in asked)
    # Both runs begin with the rejected responses: equal, so that nobody is asked.
    assert {row["verdict"] for row in asked if row["step"] == 0} == {"tie"} and len(chat.prompts) <= 2 * 48
    folder = reward_model(tmp_path / "reward", miniature)
    done = call("judge_generations", "--model", folder, *common, "--output", tmp_path / "reward.parquet",
                *settings(judge="reward", runs=JUDGED, model={"name": "tiny", "device": "cpu"}))  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = read_metadata(tmp_path / "reward.parquet")["judge"]
    assert facts["model"] == "tiny" and len(facts["digest"]) == 64
