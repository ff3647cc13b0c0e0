"""Prompt and response as tokens against `tokenizer(whole text)`, on tokenizers that read a border their own way.

Each is built here with the tokenizers library: byte-level BPE whose merges go over any border, SentencePiece-like BPE
that puts a space in front of a text (as a normaliser, as Llama 2, and as a pre-tokenizer), and WordPiece.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from gradatlas.core.errors import InputError
from gradatlas.finetuning.evaluate import evaluate
from gradatlas.finetuning.probes import _random_tokens, _words
from gradatlas.finetuning.sequences import ResponseEncoder, log_probs, shared_logits
from gradatlas.models.local_writer import LocalModel
from gradatlas.models.tokens import Encoder, front_tokens

SPECIAL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{i:02X}>" for i in range(256)]


def _byte_level():
    merges = [(":", "Ġ"), ("Ġ", "y"), ("Ġy", "es"), ("e", "s"), ("a", "b"), ("Ċ", "Ċ"), (":Ġ", "a")]
    merges.sort(key=lambda pair: len("".join(pair)))
    vocabulary = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    made = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(vocabulary)}, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    return made


def _sentencepiece(prepend):
    merges = [("▁", "y"), ("e", "s"), ("▁y", "es"), ("▁", "a"), ("▁", "▁"), ("a", "b"), (":", "▁")]
    pieces = [*"▁abcdesy:.,A?", *("".join(pair) for pair in merges)]
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *BYTES, *pieces])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    space = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    if prepend:
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    made.decoder = decoders.Sequence(space)
    return made


def _wordpiece():
    words = ["yes", "ab", "a", "b", "who", "she", "##s", "##a", "##b", "##es", ":", ".", "?", "no"]
    made = Tokenizer(models.WordPiece({token: i for i, token in enumerate([*SPECIAL, *words])}, unk_token="<unk>"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    return made


KINDS = {
    "byte-level": _byte_level,
    "prepending normaliser": lambda: _sentencepiece(True),
    "metaspace": lambda: _sentencepiece(False),
    "wordpiece": _wordpiece,
}
AROUND = {"nothing": "$A", "bos": "<s> $A", "both": "<s> $A </s>", "eos": "$A </s>"}
CASES = [(kind, around) for kind in KINDS for around in AROUND]


def built(kind, around):
    made = KINDS[kind]()
    made.add_special_tokens(SPECIAL)
    if around != "nothing":
        ids = [(token, made.token_to_id(token)) for token in SPECIAL]
        made.post_processor = processors.TemplateProcessing(single=AROUND[around], special_tokens=ids)
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


TOKENIZERS = {case: built(*case) for case in CASES}
BOS, EOS = 1, 2


def whole(case, text):
    """What the tokenizer makes of a text, with BOS in front once and one end token."""
    ids = TOKENIZERS[case](text)["input_ids"]
    if "bos" in case or "both" in case:
        assert ids[0] == BOS
        ids = ids[1:] if ids[:2] == [BOS, BOS] else ids
    while ids and ids[-1] == EOS:
        ids = ids[:-1]
    return (*ids, EOS)


TEXTS = st.text("ab esy:.?A\nä日🙂\u0301\t", max_size=12)


@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("case", CASES, ids="-".join)
@given(prompt=TEXTS, response=TEXTS, begun=st.booleans(), closed=st.integers(0, 2))
def test_any_prompt_and_response_are_read_as_one_text(case, prompt, response, begun, closed):
    prompt = f"{'<s>' * begun}A: who?{prompt}"
    encoded = ResponseEncoder(TOKENIZERS[case], 999).encode(prompt, response + "</s>" * closed)
    assert encoded.ids == whole(case, prompt + response)
    assert 0 < encoded.start < len(encoded.ids)
    # The other study's encoder reads the same, without the end token.
    if not closed:
        other = Encoder(TOKENIZERS[case], chat=False, max_length=999).encode(prompt, response)
        assert (*other.ids, EOS) == whole(case, f"{prompt}\n{response}")


@settings(max_examples=40, deadline=None)
@given(prompt=TEXTS, response=TEXTS)
def test_the_response_begins_with_the_first_token_that_holds_a_character_of_it(prompt, response):
    """By the bytes that the tokens of byte-level BPE stand for."""
    tokenizer = TOKENIZERS["byte-level", "bos"]
    encoded = ResponseEncoder(tokenizer, 999).encode(prompt, response)
    ends, end = [], 0
    for token in tokenizer.convert_ids_to_tokens(encoded.ids[1:-1]):
        ends.append(end := end + len(token))
    assert end == len((prompt + response).encode())
    inside = [place for place, end in enumerate(ends, 1) if end > len(prompt.encode())]
    assert encoded.start == (inside[0] if inside else len(encoded.ids) - 1)


@pytest.mark.parametrize(
    ("kind", "prompt", "response", "before", "after"),
    [
        # One token over the border belongs to the response.
        ("byte-level", "A:", " a", ["A"], [":Ġa"]),
        ("byte-level", "A:", " yes", ["A"], [":Ġ", "y", "es"]),
        ("metaspace", "A:", " d", ["▁", "A"], [":▁", "d"]),
        # No second dummy prefix.
        ("prepending normaliser", "A.", " yes", ["▁", "A", "."], ["▁yes"]),
        ("prepending normaliser", "A.", "yes", ["▁", "A", "."], ["y", "es"]),
        ("metaspace", "A.", "yes", ["▁", "A", "."], ["y", "es"]),
        ("wordpiece", "Who? she", "s", ["who", "?", "she"], ["##s"]),
        ("wordpiece", "who? a", "b", ["who", "?"], ["ab"]),
        ("wordpiece", "who?", " Yes.", ["who", "?"], ["yes", "."]),
    ],
)
@pytest.mark.parametrize("around", ["nothing", "both"])
def test_right_tokens_at_the_border(kind, prompt, response, before, after, around):
    tokenizer = TOKENIZERS[kind, around]
    encoded = ResponseEncoder(tokenizer, 99).encode(prompt, response)
    tokens = tokenizer.convert_ids_to_tokens(encoded.ids)
    front = ["<s>"] if around == "both" else []
    assert tokens[: encoded.start] == [*front, *before] and tokens[encoded.start :] == [*after, "</s>"]


def test_a_vocabulary_without_the_letter_a_has_its_front():
    inner = Tokenizer(models.BPE(vocab={"<s>": 0, "</s>": 1, "n": 2}, merges=[]))
    inner.add_special_tokens(["<s>", "</s>"])
    inner.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    assert front_tokens(PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")) == [0]


def test_no_token_before_the_response_is_an_error():
    encoder = ResponseEncoder(TOKENIZERS["wordpiece", "nothing"], 99)
    for read in (
        lambda: encoder.encode(" \n", "yes"),
        lambda: encoder.encode_prompt("\u200b"),
        lambda: encoder.encode("a", "b"),
    ):
        with pytest.raises(InputError, match="gives no token before the response to prompt"):
            read()
    assert ResponseEncoder(TOKENIZERS["wordpiece", "bos"], 99).encode("a", "b").ids == (BOS, 4, EOS)


def tiny(tokenizer):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=64, initializer_range=0.3, **sizes)
    return LlamaForCausalLM(config).double().eval()


def test_responses_whose_prompt_ends_elsewhere_are_evaluated_as_alone():
    """After one prompt, "A:", a token over the border leaves "A" and no such token leaves "A:"."""
    tokenizer = TOKENIZERS["byte-level", "bos"]
    model, encoder = tiny(tokenizer), ResponseEncoder(tokenizer, 64)
    texts = [" a", " yes", "no", "so", "", " a b", "?"]
    batch = {text: encoder.encode("A:", text) for text in texts}
    assert {each.start for each in batch.values()} == {2, 3}
    plain = {}
    for text, each in batch.items():
        rows = torch.log_softmax(model(torch.tensor([each.ids])).logits[0].detach(), -1)
        plain[text] = sum(float(rows[i - 1, each.ids[i]]) for i in range(each.start, len(each.ids)))
    found = evaluate(model, batch, 4096)
    assert {text: row["log_prob_sum"] for text, row in found.items()} == pytest.approx(plain, rel=1e-9)
    assert log_probs(model, list(batch.values())).tolist() == pytest.approx(list(plain.values()), rel=1e-9)
    # Those of one length of prompt share a pass, each with the prompt that it has.
    alike = [each for each in batch.values() if each.start == 2]
    with torch.no_grad():
        logits, targets = shared_logits(model, alike)
    sums = torch.log_softmax(logits, -1).gather(-1, targets[:, None])[:, 0].split([each.tokens for each in alike])
    expected = [plain[text] for text, each in batch.items() if each.start == 2]
    assert [float(each.sum()) for each in sums] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", ["byte-level", "prepending normaliser", "metaspace", "wordpiece"])
def test_random_tokens_are_as_many_as_asked_for_whatever_is_around_a_text(kind):
    from random import Random

    for around in AROUND:
        tokenizer = TOKENIZERS[kind, around]
        encoder, words = ResponseEncoder(tokenizer, 99), _words(tokenizer)
        assert set(words) >= ({" yes"} if kind != "wordpiece" else {" yes", " who", " she", " no"})
        drawn = _random_tokens(encoder, "A.", words, 4, Random(0))
        assert encoder.encode("A.", drawn).tokens == 4
        assert _random_tokens(encoder, "A.", [], 4, Random(0)) is None


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("around", list(AROUND))
def test_a_local_writer_reads_what_the_engine_reads(around, chat, tmp_path):
    tokenizer = built("byte-level", around)
    if chat:
        tokenizer.chat_template = "<s>{% for m in messages %}{{ m['content'] }}: {% endfor %}"
    tiny(tokenizer).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    writer = LocalModel(str(tmp_path), "tiny", device="cpu", dtype="float32", max_tokens=2)
    seen = []
    writer.network.register_forward_pre_hook(
        lambda module, args, given: seen.append(given["input_ids"].tolist()[0]), with_kwargs=True
    )
    writer.complete("Who?")
    expected = Encoder(tokenizer, chat=chat, max_length=999).encode("Who?", "")
    assert seen[0] == list(expected.ids) and seen[0].count(BOS) == (chat or around in ("bos", "both"))
