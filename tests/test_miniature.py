"""The miniature models: tokenizer, training, files, accuracy; and the committed weights, where they are."""

import hashlib
import json
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from conftest import script, settings, user_error
from gradatlas.core.errors import InputError
from gradatlas.core.files import check_sums
from gradatlas.core.tables import read_table
from gradatlas.data.made_up.miniature import DATASETS, REASONING, held_out, training_documents
from gradatlas.data.responses.prompts import base_prompt, chat_prompt
from gradatlas.miniature import accuracy
from gradatlas.miniature import training as miniature
from gradatlas.miniature.tables import ACCURACY
from gradatlas.miniature.tokenizer import TURN_END, build_tokenizer

ROOT = Path(__file__).resolve().parents[1]
COMMITTED = ROOT / "resources" / "miniature"
MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A base model after 21 steps: enough for format, not for sense."""
    folder = tmp_path_factory.mktemp("base")
    miniature.train(folder, seed=0, steps=21)
    return folder


def digest(folder, *names):
    return [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names]


def test_every_word_of_the_corpora_is_one_token(tokenizer):
    for document in islice(training_documents(5), 2000):
        pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(document.text)
        assert len(tokenizer(document.text)["input_ids"]) == len(pieces)


@pytest.mark.parametrize("text", ["Ünïcode, 雪 and\ttabs\n\n", "x = {'a': [1, 2]}  # code", "  leading and trailing  "])
def test_foreign_text_comes_back_whole_and_with_offsets(tokenizer, text):
    encoding = tokenizer(text, return_offsets_mapping=True)
    assert tokenizer.decode(encoding["input_ids"]) == text
    assert encoding["offset_mapping"][-1][1] == len(text)
    assert tokenizer.unk_token_id is None or tokenizer.unk_token_id not in encoding["input_ids"]


def test_the_response_begins_on_a_token_border_with_and_without_chat(tokenizer):
    for dataset, variants in DATASETS.items():
        for sample in held_out(dataset, 20, 1):
            for variant in variants:
                for prompt in (
                    base_prompt(sample.instructions[variant]),
                    chat_prompt(tokenizer, sample.instructions[variant]),
                ):
                    response = sample.responses[variant, "correct"]
                    whole = tokenizer(prompt + response)["input_ids"]
                    assert whole == tokenizer(prompt)["input_ids"] + tokenizer(response)["input_ids"]


def test_token_lengths_by_variant(tokenizer):
    for dataset in REASONING:
        samples = held_out(dataset, 100, 0)
        lengths = {
            variant: [len(tokenizer(sample.responses[variant, "correct"])["input_ids"]) for sample in samples]
            for variant in DATASETS[dataset]
        }
        assert set(lengths["none"]) == {1}
        assert 15 < sum(lengths["simplified"]) / 100 < 40
        assert 50 < sum(lengths["detailed"]) / 100 < 120
        assert max(lengths["detailed"]) < accuracy.LONGEST["detailed"]


def test_training_rows_hold_whole_documents_with_little_padding(tokenizer):
    recipe = miniature.BASE
    batches = miniature._batches(miniature._texts(tokenizer, 0), recipe, tokenizer.pad_token_id)
    padding = [
        (ids == tokenizer.pad_token_id).float().mean().item()
        for ids, labels in islice(batches, 200)
        if ids.shape == labels.shape == (recipe.rows, recipe.row_tokens)
    ]
    assert len(padding) == 200
    assert sum(padding) / 200 < 0.02


def test_a_document_has_loss_on_the_response_and_its_end(tokenizer):
    documents = training_documents(0)
    for (ids, labels), document in zip(islice(miniature._texts(tokenizer, 0), 20), documents, strict=False):
        answer = [i for i, label in zip(ids, labels, strict=True) if label != miniature._IGNORED]
        assert tokenizer.decode(ids) == f"{document.text}{tokenizer.eos_token}"
        assert tokenizer.decode(answer) == f"{document.response}{tokenizer.eos_token}"


def test_a_chat_has_loss_on_the_answer_alone(tokenizer):
    for ids, labels in islice(miniature._chats(tokenizer, 0), 20):
        answer = [i for i, label in zip(ids, labels, strict=True) if label != miniature._IGNORED]
        assert ids[-len(answer) :] == answer
        assert tokenizer.decode(answer).endswith(TURN_END)
        assert "<|im_start|>assistant\n" in tokenizer.decode(ids[: -len(answer)])


@pytest.mark.slow
def test_a_short_training_learns_and_is_the_same_bytes_again(base, tmp_path):
    miniature.train(tmp_path, seed=0, steps=21)
    names = ("model.safetensors", "tokenizer.json", "config.json", "training_log.csv", "training.json")
    assert digest(base, *names) == digest(tmp_path, *names)
    losses = [float(line.split(",")[3]) for line in (base / "training_log.csv").read_text().splitlines()[1:]]
    assert len(losses) == 3
    assert losses[-1] < losses[0] - 1.0


@pytest.mark.slow
def test_the_random_twin_is_the_base_before_its_first_step(base, tmp_path):
    miniature.train(tmp_path / "random", seed=0, steps=0, kind="random")
    miniature.train(tmp_path / "zero", seed=0, steps=0)
    miniature.train(tmp_path / "other", seed=1, steps=0, kind="random")
    weights = "model.safetensors"
    assert digest(tmp_path / "random", weights) == digest(tmp_path / "zero", weights)
    assert digest(tmp_path / "random", weights) != digest(base, weights)
    assert digest(tmp_path / "random", weights) != digest(tmp_path / "other", weights)
    assert digest(tmp_path / "random", "tokenizer.json") == digest(base, "tokenizer.json")


def test_an_instruct_model_starts_from_its_base_and_loads(base, tmp_path):
    miniature.train(tmp_path, seed=0, steps=5, kind="instruct", base_dir=base)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    config = model.config
    assert config.num_hidden_layers >= 6
    assert config.num_key_value_heads < config.num_attention_heads
    assert config.max_position_embeddings >= 1024
    assert model.num_parameters() <= 2_000_000
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tokenizer.pad_token_id is not None
    assert tokenizer.eos_token == TURN_END
    assert config.eos_token_id == tokenizer.eos_token_id
    user = {"role": "user", "content": "Who is it?"}
    for messages in ([user], [{"role": "system", "content": "Be kind."}, user]):
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert text.endswith("<|im_start|>assistant\n")
    assert digest(tmp_path, "model.safetensors") != digest(base, "model.safetensors")
    assert json.loads((tmp_path / "training.json").read_text())["kind"] == "instruct"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "random"}, "not trained"),
        ({"kind": "instruct"}, "give its folder"),
        ({"kind": "instruct", "base_dir": "/nowhere"}, "/nowhere: no model there"),
        ({"base_dir": "/nowhere"}, "leave out the base folder"),
    ],
)
def test_bad_input_is_one_clear_line(arguments, message, tmp_path):
    with pytest.raises(InputError, match=message) as error:
        miniature.train(tmp_path / "out", **{"seed": 0, "steps": 3, **arguments})
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_the_script_ends_with_one_line_and_code_2(tmp_path):
    for wrong, message in (
        ({"seed": -1}, "'seed': -1 is less than the minimum of 0"),
        ({"steps": "x"}, "'steps' is 'x'; write a whole number"),
        ({"kind": "instruction"}, "did you mean 'instruct'"),
    ):
        chosen = {"kind": "base", "seed": 0, "steps": 3} | wrong
        done = script("train_miniature", "--output", tmp_path / "out", *settings(**chosen))
        assert message in user_error(done) and len(done.stderr.strip().splitlines()) == 1


def test_wilson_bounds():
    assert accuracy.wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-3)
    assert accuracy.wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-3)
    assert accuracy.wilson(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-3)


def test_batched_answers_are_those_of_one_prompt_at_a_time(base):
    reader = accuracy.GreedyModel.load(base, chat=False)
    prompts = [reader.prompt(s.instructions["detailed"]) for d in REASONING for s in held_out(d, 4, 0)]
    prompts += ["A\n"]
    together = reader.answers(prompts, 12)
    assert together == [reader.answers([prompt], 12)[0] for prompt in prompts]


def test_the_accuracy_table_has_every_test_and_sound_bounds(base, tmp_path):
    rows = accuracy.measure(base, "tiny", chat=False, n=8)
    assert {row["test"] for row in rows} == {"answer", "counterfactual", "recall"}
    assert {row["dataset"] for row in rows} == set(DATASETS)
    assert all(0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1 for row in rows)
    accuracy.write(rows, tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text().splitlines()[0] == ",".join(ACCURACY.names)
    accuracy.write(rows, tmp_path / "table.parquet")
    assert read_table(ACCURACY, tmp_path / "table.parquet").to_pylist() == rows
    assert {row["dataset"] for row in accuracy.measure(base, "tiny", False, 8, datasets=["mini_unseen"])} == {
        "mini_unseen"
    }
    with pytest.raises(InputError, match="dataset 'gsm8k': not a miniature one"):
        accuracy.measure(base, "tiny", False, 8, datasets=["gsm8k"])


def test_published_weights_are_half_the_size_and_nearly_the_same(base, tmp_path):
    miniature.publish(base, tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size < 0.51 * (base / "model.safetensors").stat().st_size
    full, rounded = (AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32) for path in (base, tmp_path))
    for name, weight in full.state_dict().items():
        assert torch.equal(rounded.state_dict()[name], weight.bfloat16().float())
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template


def test_missing_and_altered_weights_are_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="SHA256SUMS: no such file"):
        check_sums(tmp_path / "SHA256SUMS")
    (tmp_path / "weights").write_bytes(b"right")
    (tmp_path / "SHA256SUMS").write_text(f"{hashlib.sha256(b'right').hexdigest()}  weights\n")
    check_sums(tmp_path / "SHA256SUMS")
    (tmp_path / "weights").write_bytes(b"wrong")
    with pytest.raises(InputError, match="weights: its sha256 is not that"):
        check_sums(tmp_path / "SHA256SUMS")
    (tmp_path / "weights").unlink()
    with pytest.raises(InputError, match="weights: no such file"):
        check_sums(tmp_path / "SHA256SUMS")


@pytest.mark.slow
def test_a_short_training_learns_to_write_the_tasks(tmp_path):
    miniature.train(tmp_path, seed=0, steps=150, threads=2)
    last = (tmp_path / "training_log.csv").read_text().splitlines()[-1]
    assert float(last.split(",")[3]) < 3.0


@pytest.fixture(scope="module", params=["base", "instruct"])
def committed(request):
    return accuracy.GreedyModel.load(COMMITTED / request.param, chat=request.param == "instruct")


def test_committed_files_are_whole_and_small():
    check_sums(COMMITTED / "SHA256SUMS")
    assert sum(path.stat().st_size for path in COMMITTED.rglob("*.safetensors")) <= 8 * MEBIBYTE


@pytest.mark.parametrize("dataset", REASONING)
def test_the_committed_models_reason_step_by_step_and_not_at_once(committed, dataset):
    samples = held_out(dataset, 200, 0)
    right = {
        variant: sum(a == s.gold for a, s in zip(committed.labels(samples, variant), samples, strict=True))
        for variant in ("none", "detailed")
    }
    low, _ = accuracy.wilson(right["detailed"], 200)
    _, high = accuracy.wilson(right["none"], 200)
    chance = accuracy.chance(dataset, [(accuracy.part_of(dataset, s), s.gold) for s in samples])
    assert low > chance + 0.2
    assert low > high


def test_the_committed_models_know_the_famous_alone(committed):
    recall = {dataset: accuracy.recall(committed, dataset) for dataset in DATASETS if dataset not in REASONING}
    assert recall["mini_popular"]["low"] > recall["mini_unpopular"]["high"] + 0.2
    assert recall["mini_unseen"]["low"] <= recall["mini_unseen"]["chance"]
