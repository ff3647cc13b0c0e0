"""Texts continued as the study says, whatever the checkpoint's generation settings and whatever a model keeps."""

from collections import Counter

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import GenerationConfig, PreTrainedTokenizerFast, WatermarkingConfig

from conftest import call, settings, user_error
from gradatlas.finetuning.evaluate import evaluate
from gradatlas.finetuning.generations import generate
from gradatlas.finetuning.sequences import EncodedResponse, ResponseEncoder, log_probs, sample
from gradatlas.models.decoding import attention_throughout, batch_key, continue_prompts
from gradatlas.models.loading import load
from gradatlas.models.local_writer import LocalModel
from test_dynamics_finetune import arguments, data  # noqa: F401  a fixture
from tiny_decoders import ATTENTION, RECURRENT, tiny

SIZE, END = 172, 1
SETTINGS = {
    "no_repeat_ngram_size": 1,
    "suppress_tokens": list(range(2, 150)),
    "begin_suppress_tokens": list(range(2, 150)),
    "bad_words_ids": [[7], [8, 9]],
    "sequence_bias": [[[5], -100.0], [[6], 100.0]],
    "min_p": 0.9,
    "top_p": 0.1,
    "top_k": 1,
    "top_h": 0.1,
    "typical_p": 0.2,
    "epsilon_cutoff": 0.5,
    "eta_cutoff": 0.5,
    "temperature": 0.01,
    "repetition_penalty": 9.0,
    "encoder_repetition_penalty": 9.0,
    "num_beams": 3,
    "num_return_sequences": 2,
    "stop_strings": ["a", "b"],
    "forced_bos_token_id": 9,
    "forced_eos_token_id": 9,
    "eos_token_id": [END, 5, 6, 7, 8, 9, 10, 11, 12],
    "pad_token_id": 13,
    "max_length": 3,
    "min_length": 60,
    "min_new_tokens": 9,
    "max_time": 1e-9,
    "exponential_decay_length_penalty": (0, 9.0),
    "guidance_scale": 4.0,
    "watermarking_config": WatermarkingConfig(bias=50.0),
    "remove_invalid_values": True,
    "prompt_lookup_num_tokens": 3,
    "penalty_alpha": 0.6,
    "token_healing": True,
    "cache_implementation": "static",
    "use_cache": False,
    "return_dict_in_generate": True,
    "output_scores": True,
    "do_sample": True,
    "low_memory": True,
}


def with_settings(model, names=SETTINGS):
    model.generation_config = GenerationConfig()
    for name in names:
        setattr(model.generation_config, name, SETTINGS[name])
    return model


def letters():
    """A tokenizer of single characters: token i is the character 200 + i."""
    special = {"<unk>": 0, "</s>": END}
    vocabulary = special | {chr(200 + i): i for i in range(2, SIZE)}
    inner = Tokenizer(models.BPE(vocabulary, merges=[], unk_token="<unk>"))
    inner.add_special_tokens(list(special))
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", unk_token="<unk>")


def text_of(ids):
    return "".join(chr(200 + i) for i in ids)


PAIRS = [
    {"pair_id": str(n), "split": "train", "prompt": text_of(range(5 + n, 5 + n + size))}
    for n, size in enumerate((3, 9, 4, 20, 9, 3))
]
HOW = {"seed": 0, "draws": 2, "max_tokens": 6}


# --- The checkpoint's own settings ---


@pytest.fixture(scope="module")
def llama():
    return tiny("llama")


def test_first_tokens_are_distributed_as_the_model_says(llama):
    with torch.no_grad():
        for weight in llama.parameters():
            weight.mul_(0.7)  # nearer to uniform: every token is drawn
        expected = torch.softmax(llama(torch.tensor([[5, 6, 7]])).logits[0, -1], -1)
    encoder = ResponseEncoder(letters(), 64)
    drawn = Counter()
    own = with_settings(llama).generation_config
    for seed in range(4):
        drawn_now = sample(llama, encoder, [text_of((5, 6, 7))] * 5000, seed, 1)
        drawn.update(each.ids[each.start] for each in drawn_now)
    assert llama.generation_config is own and own.num_beams == 3
    assert len(drawn) == SIZE
    counts = torch.tensor([float(drawn[i]) for i in range(SIZE)], dtype=torch.float64)
    surprise = float(((counts - 20_000 * expected) ** 2 / (20_000 * expected)).sum())
    # Chi-square with 171 degrees of freedom: mean 171, standard deviation 18.5.
    assert 100 < surprise < 260


@pytest.mark.parametrize("name", [*SETTINGS, "all"])
def test_no_setting_of_a_checkpoint_changes_what_is_drawn(name, llama):
    encoder = ResponseEncoder(letters(), 64)

    def made(names):
        with_settings(llama, names)
        greedy = continue_prompts(llama, [[5, 6, 7], [8, 9]], [END], 5, do_sample=False)
        free = sample(llama, encoder, [pair["prompt"] for pair in PAIRS], 3, 6)
        return greedy, free, generate(llama, encoder, PAIRS, batch_tokens=4096, **HOW)

    assert made(SETTINGS if name == "all" else [name]) == made([])


def test_the_models_own_settings_come_back_after_an_error(llama):
    own = with_settings(llama).generation_config
    with pytest.raises(Exception, match="index out of range"):
        continue_prompts(llama, [[5, SIZE + 9]], [END], 5, do_sample=False)
    assert llama.generation_config is own


def test_a_local_writer_is_greedy_and_ends_where_the_checkpoint_says(tmp_path):
    model, tokenizer = tiny("llama", torch.float32), letters()
    plain = []
    with torch.no_grad():
        while len(plain) < 12:
            plain.append(int(model(torch.tensor([[*range(5, 9), 0, *plain]])).logits[0, -1].argmax()))
    assert END not in plain
    # It ends with the first of the checkpoint's end tokens that comes.
    stop = plain[4]
    model.generation_config = GenerationConfig(eos_token_id=[3, stop], no_repeat_ngram_size=1, repetition_penalty=9.0,
                                               min_new_tokens=9, suppress_tokens=plain[:3])  # fmt: skip
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    for room, finished in ((12, True), (2, False)):
        writer = LocalModel(str(tmp_path), "tiny", device="cpu", dtype="float32", max_tokens=room)
        answer = writer.complete(text_of(range(5, 9)))
        expected = plain[: plain.index(stop) + 1][:room]
        assert answer.text == tokenizer.decode(expected, skip_special_tokens=True).strip()
        assert answer.finished is finished


# --- What a model keeps, and padding ---


@pytest.mark.parametrize("name", [*RECURRENT, *ATTENTION])
def test_responses_are_evaluated_as_one_by_one(name):
    """No prompt is shared through a state, and padding on the right reaches no earlier token's."""
    model = tiny(name)
    assert attention_throughout(model) == (name in ATTENTION)
    heads = ((5, 6, 7, 8), (5, 6, 7, 9), (30, 31))
    batch = {f"{head} {size}": EncodedResponse((*head, *range(40, 40 + size), END), len(head)) for head in heads
             for size in (0, 1, 5, 17)}  # fmt: skip
    plain = {}
    with torch.no_grad():
        for key, each in batch.items():
            rows = torch.log_softmax(model(input_ids=torch.tensor([each.ids]), use_cache=False).logits[0].double(), -1)
            plain[key] = sum(float(rows[i - 1, each.ids[i]]) for i in range(each.start, len(each.ids)))
    found = evaluate(model, batch, 4096)
    # Parts of the library's code compute in float32 whatever is asked.
    assert {key: row["log_prob_sum"] for key, row in found.items()} == pytest.approx(plain, rel=1e-5)
    assert log_probs(model, list(batch.values())).tolist() == pytest.approx(list(plain.values()), rel=1e-5)


ALONE = {"rwkv"}  # transformers' batches go wrong from the second token on


DRAWN = ["recurrent_gemma", "rwkv", "mamba", "minimax", "qwen3_next", "llama", "gpt2", "bloom"]


@pytest.mark.parametrize("name", DRAWN)
def test_responses_are_drawn_as_one_by_one(name, capsys):
    model, encoder = tiny(name), ResponseEncoder(letters(), 64)
    together = generate(model, encoder, PAIRS, batch_tokens=4096, **HOW)
    log = capsys.readouterr().err
    assert together == generate(model, encoder, PAIRS, batch_tokens=1, **HOW)
    assert capsys.readouterr().err == ""
    key = batch_key(model, 64)
    alike, same = key(0, 7) == key(1, 8), key(0, 7) == key(1, 7)
    # BLOOM's padded rows are no numbers in float64.
    assert (alike, same) == (name in ("llama", "gpt2"), name not in ALONE)
    reason = {"rwkv": "one prompt at a time: batches change its logits", "bloom": "padding on the left"}
    expected = "" if alike else reason.get(name, "prompts of one length at a time: it has no cache")
    assert expected in log and len(log.splitlines()) == (not alike)
    # A longer prompt beside it changes no sample.
    if not alike:
        short, longer = PAIRS[0]["prompt"], PAIRS[3]["prompt"]
        assert sample(model, encoder, [short, longer], 0, 6)[:1] == sample(model, encoder, [short], 0, 6)


def test_padding_that_a_model_sees_is_found_out(capsys):
    """A decoder that takes no notice of the mask."""
    model, encoder = tiny("gpt2"), ResponseEncoder(letters(), 64)
    forward = type(model).forward

    class Unmasked(type(model)):
        def forward(self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, **given):
            return forward(self, input_ids=input_ids, past_key_values=past_key_values, **given)

    model.__class__ = Unmasked
    together = generate(model, encoder, PAIRS, batch_tokens=4096, **HOW)
    assert "prompts of one length at a time: padding on the left changes" in capsys.readouterr().err
    assert together == generate(model, encoder, PAIRS, batch_tokens=1, **HOW)


def test_a_hybrid_is_finetuned_watched_and_heard(data, miniature, tmp_path):  # noqa: F811
    _, tokenizer = load(str(miniature), dtype="float32", device="cpu")
    tiny("qwen3_next", torch.float32, len(tokenizer)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    more = {"loss": "kto", "negatives": "self_play", "prompts": 2}
    done = call("finetune", *arguments(data, tmp_path / "model", tmp_path, **more, steps=2))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("prompts of one length at a time") == 1
    done = call("check_step", "--model", tmp_path / "model", "--pairs", data[0], "--probes", data[1], "--output",
                tmp_path / "x.parquet", *settings(updates=1, probes=1, change=0.01, halvings=1))  # fmt: skip
    assert user_error(done).endswith("or skip the one-step check: set dynamics.one_step.updates to 0")
