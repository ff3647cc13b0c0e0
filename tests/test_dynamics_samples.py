"""Responses that the model samples in training: where they end, and pairs of them, ranked by a judge."""

from contextlib import contextmanager

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from conftest import call, user_error
from gradatlas.data.made_up import grammar
from gradatlas.data.pairs import read_pairs
from gradatlas.finetuning import finetune as training
from gradatlas.finetuning.examples import read_examples
from gradatlas.finetuning.generations import generate
from gradatlas.finetuning.judging.judges import Judge, better
from gradatlas.finetuning.processes import SINGLE_PROCESS
from gradatlas.finetuning.recipe import Recipe
from gradatlas.finetuning.sequences import NEXT_TURN, ResponseEncoder, log_probs, sample
from gradatlas.models.decoding import batch_key
from gradatlas.models.loading import load
from gradatlas.study.seeds import seeded_hash
from test_dynamics_finetune import arguments, data, run  # noqa: F401  a fixture
from test_dynamics_judging import longer, reward_model
from test_generation import Chat

ASKED = ["\n\nHuman: Who?\n\nAssistant:", "\n\nHuman: Where does she live, and when?\n\nAssistant:"]


@pytest.fixture(scope="module")
def exact(miniature):
    """(model in float64, encoder)."""
    model, tokenizer = load(str(miniature), dtype="float64", device="cpu")
    # Its own passes, once a model, are not those of a sample.
    batch_key(model, 64)
    return model, ResponseEncoder(tokenizer, 64, model)


@contextmanager
def speaking(model, ids):
    """The model's next tokens are `ids`, one a pass, and after them the first ones again."""
    passes = iter([*ids, *ids])

    def only(module, given, logits):
        forced = torch.full_like(logits, -1e4)
        forced[..., next(passes)] = 1e4
        return forced

    hook = model.lm_head.register_forward_hook(only)
    try:
        yield
    finally:
        hook.remove()


# --- Where samples end ---


def test_samples_are_the_same_for_one_seed(exact):
    model, encoder = exact
    state = torch.get_rng_state()
    one, two, other = (sample(model, encoder, ASKED, seed, 8) for seed in (1, 1, 2))
    assert one == two != other and torch.equal(state, torch.get_rng_state())
    assert [each.ids[: each.start] for each in one] == [encoder.encode_prompt(prompt) for prompt in ASKED]


@pytest.mark.parametrize(
    ("said", "kept", "ended"),
    [
        (" She lives by the sea and eats plums", 8, False),
        (" She lives.<end>", None, True),
        ("<end>", None, True),
        (f" She lives.{NEXT_TURN} And you?", " She lives.", False),
        (f" She lives.<end>{NEXT_TURN}", " She lives.<end>", True),
    ],
)
def test_a_sample_has_the_tokens_that_were_sampled_and_no_others(said, kept, ended, exact):
    model, encoder = exact
    end = encoder.tokenizer.eos_token

    def tokens(text):
        return tuple(encoder.tokenizer(text.replace("<end>", end), add_special_tokens=False)["input_ids"])

    ids = tokens(said)
    expected = ids[:kept] if isinstance(kept, int) else tokens(kept or said)
    length = kept if isinstance(kept, int) else len(ids)
    with speaking(model, ids):
        (sampled,) = sample(model, encoder, ASKED[:1], 0, length)
    assert sampled.ids[sampled.start :] == expected and (sampled.ids[-1] == encoder.end) == ended
    # Training raises or lowers the log-probability of exactly these tokens.
    plain = torch.log_softmax(model(torch.tensor([sampled.ids])).logits[0].detach(), -1)
    total = sum(float(plain[place - 1, sampled.ids[place]]) for place in range(sampled.start, len(sampled.ids)))
    assert float(log_probs(model, [sampled])[0].detach()) == pytest.approx(total, rel=1e-12)
    assert sampled.tokens == len(expected)
    # The same of a free response.
    with speaking(model, ids):
        pair = {"pair_id": "q", "split": "train", "prompt": ASKED[0]}
        (row,) = generate(model, encoder, [pair], seed=0, draws=1, max_tokens=length, batch_tokens=4096)
    assert (row["tokens"], row["finished"]) == (len(expected), ended)
    assert row["response"] == encoder.tokenizer.decode(expected, skip_special_tokens=True)


def test_a_token_that_spans_the_border_to_the_next_turn_is_kept(miniature):
    _, tokenizer = load(str(miniature), dtype="float32", device="cpu")
    tokenizer.add_tokens([".\n\n"])
    encoder = ResponseEncoder(tokenizer, 64)
    ids = tokenizer(f" She lives{NEXT_TURN}".replace("\n\n", ".\n\n"), add_special_tokens=False)["input_ids"]
    border = tokenizer.convert_tokens_to_ids(".\n\n")
    assert encoder.cut(ids) == tuple(ids[: ids.index(border) + 1]) and encoder.text(ids) == " She lives."
    # A sample that begins with the next turn keeps one token.
    ids = tokenizer(NEXT_TURN, add_special_tokens=False)["input_ids"]
    assert encoder.cut(ids) == tuple(ids[:1]) and encoder.text(ids) == ""


# --- Pairs of samples ---


class Longer(Judge):
    """Prefers the longer text; texts of equal length are a tie."""

    name, facts = "longer", {"judge": "longer"}

    def prefer(self, contests):
        self.contests = contests
        return [better(len(each.run.text), len(each.baseline.text)) for each in contests]


def loop(exact, data, **chosen):  # noqa: F811
    model, encoder = exact
    recipe = Recipe(**{"name": "run", "loss": "dpo", "batch_size": 4, "learning_rate": 1e-4, "steps": 1} | chosen)
    examples, _ = read_examples(recipe, read_pairs(data[0], "train")[:4], encoder)
    made = training._TrainingLoop(model, encoder, recipe, examples, model, 12, SINGLE_PROCESS, Longer())
    return made, examples


def test_on_policy_pairs_are_two_samples_of_each_prompt_ranked(data, exact):  # noqa: F811
    model, encoder = exact
    made, examples = loop(exact, data, negatives="on_policy")
    outcome, ranked = made._outcome(examples, 7)
    seed = int.from_bytes(seeded_hash(0, "samples of step 7")[:4])
    both = sample(model, encoder, [each.prompt for each in examples] * 2, seed, 12)
    texts = [encoder.text(each.ids[each.start :]) for each in both]
    assert [(each.run.text, each.baseline.text) for each in made.judge.contests] == list(
        zip(texts[:4], texts[4:], strict=True)
    )
    assert [each.run.finished for each in made.judge.contests] == [each.ids[-1] == encoder.end for each in both[:4]]
    # At the start the model is its reference, so a pair with a winner pulls by beta / 2, and a tie by nothing.
    won = [len(one) != len(other) for one, other in zip(texts[:4], texts[4:], strict=True)]
    assert ranked == sum(won) and ranked > 0
    assert outcome.chosen.tolist() == pytest.approx([0.05 * each for each in won])
    assert (-outcome.rejected).tolist() == pytest.approx([0.05 * each for each in won])
    # The gradient is that of the winners' and losers' log-probabilities.
    weight = model.model.layers[0].self_attn.q_proj.weight.requires_grad_()
    found = torch.autograd.grad(made._outcome(examples, 7)[0].loss.sum(), weight)[0]
    pairs = [(both[i], both[i + 4]) if len(texts[i]) > len(texts[i + 4]) else (both[i + 4], both[i])
             for i in range(4) if won[i]]  # fmt: skip
    plain = -0.05 * sum(log_probs(model, [one])[0] - log_probs(model, [other])[0] for one, other in pairs)
    torch.testing.assert_close(found, torch.autograd.grad(plain, weight)[0], rtol=1e-8, atol=1e-12)


def test_in_self_play_a_sample_takes_the_place_of_the_rejected_response(data, exact):  # noqa: F811
    made, examples = loop(exact, data, negatives="self_play")
    pairs, ranked = made._pairs(examples, 7)
    assert [chosen for chosen, _ in pairs] == [each.chosen for each in examples] and ranked == [True] * 4
    assert {own for _, own in pairs}.isdisjoint({each.rejected for each in examples})


def test_pairs_that_are_all_tied_change_no_weight(data, miniature, tmp_path):  # noqa: F811
    """Six tokens of an untrained model: all wrong, none repeated, none ended."""
    out = run(data, miniature, tmp_path, loss="dpo", negatives="on_policy", judge="oracle", steps=2)
    table = pl.read_parquet(out / "training.parquet")
    assert table["ranked"].to_list() == [0, 0] and table["grad_norm"].to_list() == table["loss"].to_list() == [0, 0]
    before, after = (load_file(folder / "model.safetensors") for folder in (miniature, out / "model"))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_all_pairs_of_the_data_are_ranked_and_sft_has_none(data, miniature, tmp_path):  # noqa: F811
    for chosen, ranked in (({"loss": "dpo"}, 2), ({}, None), ({"loss": "dpo", "negatives": "self_play"}, 2)):
        out = run(data, miniature, tmp_path, **chosen, steps=1)
        assert pl.read_parquet(out / "training.parquet")["ranked"].to_list() == [ranked]


def test_an_endpoint_and_a_reward_model_rank(data, miniature, tmp_path):  # noqa: F811
    more = {"loss": "dpo", "negatives": "on_policy", "steps": 2}
    with Chat(longer) as chat:
        asked = {"endpoint": f"{chat.url}/v1", "name": "m", "max_tokens": 50}
        options = ("--requests-per-minute", 600000, "--key-variable", "TEST_KEY", "--kept", tmp_path / "kept.jsonl")
        for name in ("first", "again"):
            given = arguments(data, miniature, tmp_path / name, *options, **more, judge="endpoint", judge_model=asked)
            done = call("finetune", *given)
            assert done.returncode == 0, done.stderr
        # Two pairs a step, in both orders; kept answers are not asked for again.
        assert len(chat.prompts) == 8
    first, again = (tmp_path / name / "out/training.parquet" for name in ("first", "again"))
    assert first.read_bytes() == again.read_bytes() and sum(pl.read_parquet(first)["ranked"]) > 0
    folder = reward_model(tmp_path / "reward", miniature)
    given = arguments(data, miniature, tmp_path, "--judge-model", folder, **more, judge="reward",
                      judge_model={"name": "tiny", "device": "cpu"})  # fmt: skip
    done = call("finetune", *given)
    assert done.returncode == 0, done.stderr
    assert pl.read_parquet(tmp_path / "out/training.parquet")["ranked"].to_list() == [2, 2]


def test_on_policy_without_a_judge_is_one_line(data, miniature, tmp_path):  # noqa: F811
    done = call("finetune", *arguments(data, miniature, tmp_path, loss="dpo", negatives="on_policy", steps=1))
    assert "run 'run': its samples are ranked by a judge; give settings.judge" in user_error(done)
    assert not (tmp_path / "journal").exists()


def test_an_answer_is_right_by_the_question_of_the_chosen_one():
    one, other = [pair for pair in grammar.pairs(6, 2, 4, 0, 0.75) if pair["split"] == "train"][:2]
    assert grammar.is_right(one["chosen"], one["chosen"]) and not grammar.is_right(one["chosen"], one["rejected"])
    assert not grammar.is_right(one["chosen"], other["chosen"]) and not grammar.is_right(one["chosen"], " Plums.")
