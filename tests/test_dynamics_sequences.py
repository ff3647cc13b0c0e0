"""Sequences of one batch do not see each other, and a model's own code is run where it is allowed."""

import json
import shutil
from random import Random

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, Phi3Config

from conftest import call, settings, user_error
from gradatlas.core.errors import InputError
from gradatlas.finetuning.evaluate import MEASURES, evaluate
from gradatlas.finetuning.generations import generate
from gradatlas.finetuning.sequences import EncodedResponse, ResponseEncoder, log_probs, sample
from gradatlas.models.loading import load
from test_batches import BORDER, LONG, saved
from test_dynamics_finetune import arguments, data  # noqa: F401  a fixture
from test_one_text import BOS, TOKENIZERS

ASKED = {f"{n}": "\n\nHuman: Who?" * n + "\n\nAssistant:" for n in (1, 2, 3, 4, 5)}


@pytest.fixture(scope="module")
def long(miniature, tmp_path_factory):
    """(model, encoder) whose positions change beyond 32 tokens, in float64."""
    folder = tmp_path_factory.mktemp("long")
    saved(miniature, folder, Phi3Config, rope_parameters=LONG, max_position_embeddings=256, **BORDER)
    model, tokenizer = load(str(folder), dtype="float64", device="cpu")
    return model, ResponseEncoder(tokenizer, 256)


def test_each_sequence_has_the_positions_of_its_own_length(long):
    model, encoder = long
    texts = (" Yes.", " She lives in a house by the sea.", " I do not know.", "")
    batch = {f"{key}{text}": encoder.encode(prompt, text) for key, prompt in ASKED.items() for text in texts}
    batched = list(batch.values())
    # Some prompts below the border have responses beyond it.
    assert any(each.start <= 32 < len(each.ids) for each in batched) and any(len(each.ids) <= 32 for each in batched)
    plain = [torch.log_softmax(model(torch.tensor([each.ids])).logits[0].detach().double(), -1) for each in batched]
    alone = [
        sum(float(row[i - 1, each.ids[i]]) for i in range(each.start, len(each.ids)))
        for each, row in zip(batched, plain, strict=True)
    ]
    together = log_probs(model, batched)
    torch.testing.assert_close(together.detach(), torch.tensor(alone, dtype=torch.float64), rtol=1e-10, atol=0)
    weight = model.model.layers[0].self_attn.qkv_proj.weight
    one_by_one = sum(torch.autograd.grad(log_probs(model, [each])[0], weight)[0] for each in batched)
    torch.testing.assert_close(torch.autograd.grad(together.sum(), weight)[0], one_by_one, rtol=1e-9, atol=1e-12)
    watched, single = evaluate(model, batch, 4096), evaluate(model, batch, 1)
    assert [row["log_prob_sum"] for row in watched.values()] == pytest.approx(alone, rel=1e-10)
    for key, values in watched.items():
        assert [values[name] for name in MEASURES] == pytest.approx([single[key][name] for name in MEASURES], rel=1e-9)


def as_the_study_cuts(prompt, responses, window, keep_end):
    """Tokens of a row's prompt and of all its responses, by the study's own rule, word for word."""
    longest, half = max(map(len, [prompt, *responses])), window // 2
    if len(prompt) + longest > window:
        prompt = prompt[-half:] if keep_end else prompt[:half]
    if len(prompt) + longest > window:
        responses = [response[: window - len(prompt)] for response in responses]
    return [(tuple(prompt + response), len(prompt)) for response in responses]


@pytest.mark.parametrize("truncation", ["study", "study_start"])
def test_texts_are_cut_as_the_study_cuts_them(miniature, truncation):
    tokenizer, window, random = AutoTokenizer.from_pretrained(miniature), 16, Random(0)
    whole, encoder = ResponseEncoder(tokenizer, 999), ResponseEncoder(tokenizer, window, truncation=truncation)
    seen = set()
    for length in range(1, 40):
        prompt = "".join(random.choices([" the", " a", " of", " in"], k=length))
        texts = [" is" * random.randrange(30) for _ in range(random.randint(1, 4))]
        rows = [whole.encode_any(prompt, text) for text in texts]
        tokens = [list(row.ids[row.start :]) for row in rows]
        expected = as_the_study_cuts(list(rows[0].ids[: rows[0].start]), tokens, window, truncation == "study")
        found = [encoder.encode(prompt, text) for text in texts]
        # Whatever is beside it in the study's row.
        assert [(row.ids, row.start) for row in found] == expected
        assert found == [encoder.encode_any(prompt, text) for text in texts]
        assert encoder.encode_prompt(prompt) == found[0].ids[: found[0].start]
        seen |= {(row.start == 8, row.ids[-1] == encoder.end) for row in found}
    assert seen == {(True, True), (True, False), (False, True), (False, False)}


def test_tokens_in_front_of_all_texts_stay_where_a_prompt_is_cut():
    for truncation, kept in (("study", ("who", "no")), ("study_start", ("a", "b"))):
        tokenizer = TOKENIZERS["wordpiece", "bos"]
        encoder = ResponseEncoder(tokenizer, 6, truncation=truncation)
        ids = [encoder.tokenizer.convert_tokens_to_ids(word) for word in kept]
        assert encoder.encode_prompt("a b who no") == (BOS, *ids)


def test_samples_cross_the_border_as_they_do_alone(long):
    model, encoder = long
    pairs = [{"pair_id": key, "split": "train", "prompt": prompt} for key, prompt in ASKED.items()]
    how = {"seed": 0, "draws": 2, "max_tokens": 24}
    together = generate(model, encoder, pairs, batch_tokens=4096, **how)
    assert together == generate(model, encoder, pairs, batch_tokens=1, **how)
    lengths = [len(encoder.encode_prompt(prompt)) for prompt in ASKED.values()]
    assert any(n <= 32 < n + row["tokens"] for n, row in zip(lengths, together[::2], strict=True))
    # A prompt that stands first is sampled as it is alone: the others come after it, in batches of their own.
    first, *_ = sample(model, encoder, list(ASKED.values()), 0, 24)
    assert [first] == sample(model, encoder, [ASKED["1"]], 0, 24)


def test_padding_takes_no_token_that_a_sequence_has_not(miniature, tmp_path):
    model, _ = saved(miniature, tmp_path / "model", LlamaConfig, max_position_embeddings=64)
    with torch.no_grad():
        model.get_input_embeddings().weight[:5] = float("nan")
    batch = [
        EncodedResponse((7, 8, 9, 10), 2),
        EncodedResponse((7, 8, 9, 10, 11, 12), 2),
        EncodedResponse((7, 8, 13), 2),
    ]
    alone = torch.stack([log_probs(model, [each])[0] for each in batch])
    assert alone.isfinite().all()
    torch.testing.assert_close(log_probs(model, batch), alone)
    found = evaluate(model, dict(zip("abc", batch, strict=True)), 4096)
    assert [row["log_prob_sum"] for row in found.values()] == pytest.approx(alone.tolist(), rel=1e-5)


OWN = """
from transformers import LlamaConfig, LlamaForCausalLM

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_code_of_a_checkpoints_own_runs_where_it_is_allowed(data, miniature, tmp_path):  # noqa: F811
    folder = tmp_path / "own"
    shutil.copytree(miniature, folder)
    (folder / "own.py").write_text(OWN)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "architectures": ["OwnForCausalLM"]}
    config["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}
    (folder / "config.json").write_text(json.dumps(config))
    more = {"loss": "dpo", "prompts": 1}
    message = user_error(call("finetune", *arguments(data, folder, tmp_path, **more, steps=1)))
    assert "set trust_remote_code to true" in message
    more["trust_remote_code"] = True
    done = call("finetune", *arguments(data, folder, tmp_path, **more, steps=1))
    assert done.returncode == 0, done.stderr
    # What it leaves can be trained on, and probed and stepped.
    nxt = call("finetune", *arguments(data, tmp_path / "out/model", tmp_path / "next", **more, steps=1))
    assert nxt.returncode == 0, nxt.stderr
    given = ("--pairs", data[0], "--model", tmp_path / "out/model")
    for name, more, chosen in (
        ("build_probes", (), {"train": 1, "held_out": 1, "seed": 0, "max_new_tokens": 2}),
        ("check_step", ("--probes", data[1]), {"updates": 1, "probes": 1, "change": 0.01, "halvings": 1}),
    ):
        asked = settings(**chosen, trust_remote_code=True)
        done = call(name, *given, *more, *asked, "--output", tmp_path / f"{name}.parquet")
        assert done.returncode == 0, done.stderr


def test_a_token_without_an_embedding_is_an_error_where_it_occurs(miniature):
    model, tokenizer = load(str(miniature), dtype="float32", device="cpu")
    tokenizer.add_tokens(["<extra>"])
    assert tokenizer.convert_tokens_to_ids("<extra>") >= model.get_input_embeddings().num_embeddings
    encoder = ResponseEncoder(tokenizer, 64, model)
    assert encoder.encode(ASKED["1"], " Yes.").tokens > 1
    for prompt, response in ((ASKED["1"], " Yes <extra>."), (f"<extra>{ASKED['1']}", " Yes.")):
        with pytest.raises(InputError, match=r"response '.*' to prompt '.*': token \d+ \('<extra>'\) is beyond"):
            encoder.encode(prompt, response)
    with pytest.raises(InputError, match="prompt '<extra>"):
        encoder.encode_prompt("<extra> Who?")
