"""Prompt, response and mask as tokens: our way and the reference's, on real tokenizers built here."""

from datetime import datetime, timedelta

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from gradatlas.core.errors import InputError
from gradatlas.data.responses.prompts import chat_prompt
from gradatlas.models.tokens import Encoder

CHAT = (
    "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}a: {% endif %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + CHAT


def tokenizer(merges=(), bos=True, template=None, eos=False, trim=False):
    """A byte-level BPE of single bytes and `merges`, which adds <s> in front where `bos` and at the end where `eos`.

    `trim`: offsets leave out the spaces around a token's other characters, as Llama's and others do.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<s>", *alphabet, *("".join(pair) for pair in merges)])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    parts = [processors.ByteLevel(trim_offsets=True)] if trim else []
    if bos or eos:
        single = f"{'<s> ' if bos else ''}$A{' <s>' if eos else ''}"
        parts.append(processors.TemplateProcessing(single=single, special_tokens=[("<s>", 0)]))
    if parts:
        inner.post_processor = processors.Sequence(parts)
    inner.add_special_tokens(["<s>"])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>")
    made.chat_template = template
    return made


def counted(encoder, instruction, response):
    """The text of the tokens that count."""
    encoded = encoder.encode(instruction, response)
    return encoder.tokenizer.decode([i for i, r in zip(encoded.ids, encoded.response, strict=True) if r])


@pytest.mark.parametrize("compat", ["none", "reference"])
@pytest.mark.parametrize("response", ["yes", " yes", "\n\nyes\n", "ä → ü"])
def test_exactly_the_response_counts(compat, response):
    encoder = Encoder(tokenizer(), chat=False, max_length=99, compat=compat)
    assert counted(encoder, "Is it?", response) == response
    encoded = encoder.encode("Is it?", response)
    assert encoded.response_tokens == len(response.encode()) and encoded.prompt_tokens == 1 + len("Is it?\n")
    assert not encoded.truncated


@pytest.mark.parametrize("response", ["  yes", "   \n  yes ", "yes   ", "    "])
def test_tokens_of_nothing_but_spaces_count_though_their_offsets_are_trimmed(response):
    merges = [("Ġ", "Ġ"), ("ĠĠ", "Ġ")]
    for trim in (False, True):
        encoder = Encoder(tokenizer(merges, trim=trim), chat=False, max_length=99)
        assert counted(encoder, "Is it?", response) == response
        assert encoder.encode("Is it?", response).prompt_tokens == 1 + len("Is it?\n")


def test_an_eos_that_the_tokenizer_adds_is_the_references_alone():
    """Ours appends none; the reference's stands behind text and prefix alike, so its response starts a token late."""
    made = tokenizer(eos=True)
    ours = Encoder(made, chat=False, max_length=99).encode("Is it?", "yes")
    assert ours.ids.count(0) == 1 and ours.ids[0] == 0 and ours.response_tokens == 3
    theirs = Encoder(made, chat=False, max_length=99, compat="reference").encode("Is it?", "yes")
    assert theirs.ids == (*ours.ids, 0) and theirs.response_tokens == 3
    assert made.decode([i for i, r in zip(theirs.ids, theirs.response, strict=True) if r]) == "es<s>"


def test_a_token_over_the_border_counts_as_response():
    """ "\\n" + "y" is one token: it holds a character of the response. The reference's prefix has as many tokens
    without it, so there the response starts one character late."""
    merged = tokenizer(merges=[("Ċ", "y")])
    assert counted(Encoder(merged, chat=False, max_length=99), "Is it?", "yes") == "\nyes"
    assert counted(Encoder(merged, chat=False, max_length=99, compat="reference"), "Is it?", "yes") == "es"


def test_bos_is_once_and_twice_only_for_the_reference():
    made = tokenizer(template=CHAT.replace("<s>{{", "{{").replace("{% for", "<s>{% for", 1))
    bos = made.bos_token_id
    ours = Encoder(made, chat=True, max_length=99).encode("Is it?", "yes").ids
    theirs = Encoder(made, chat=True, max_length=99, compat="reference").encode("Is it?", "yes").ids
    assert ours.count(bos) == 1 and ours[0] == bos
    assert theirs == (bos, *ours)
    assert Encoder(made, chat=False, max_length=99).encode("Is it?", "yes").ids.count(bos) == 1
    assert Encoder(tokenizer(bos=False), chat=False, max_length=99).encode("Is it?", "yes").ids.count(bos) == 0


def test_a_template_without_a_system_role_gets_none():
    with_system = Encoder(tokenizer(template=CHAT), chat=True, max_length=999).encode("Is it?", "yes")
    without = Encoder(tokenizer(template=NO_SYSTEM), chat=True, max_length=999).encode("Is it?", "yes")
    assert len(with_system.ids) - len(without.ids) == len("<s>system: You are a helpful assistant.\n") - len("<s>") + 1
    assert with_system.response_tokens == without.response_tokens == 3


DATED = (
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{% for m in messages %}{{ date_string }} {{ strftime_now('%H:%M') }} {{ m['content'] }}{% endfor %}"
)
CLOCK = DATED.replace("date_string is defined", "false")
# Called from a macro, as gpt-oss does.
MACRO = "{% macro day() %}{{ strftime_now('%d %b %Y') }}{% endmacro %}" + CLOCK.replace(
    "strftime_now('%d %b %Y')", "day()"
)


@pytest.mark.parametrize("template", [DATED, CLOCK, MACRO])
def test_a_dated_template_writes_the_same_date_on_any_day(template, monkeypatch):
    from transformers.utils import chat_template_utils

    class Tomorrow(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(days=1)

    today = chat_prompt(tokenizer(template=template), "Is it?")
    monkeypatch.setattr(chat_template_utils, "datetime", Tomorrow)
    chat_template_utils._compile_jinja_template.cache_clear()
    assert chat_prompt(tokenizer(template=template), "Is it?") == today
    assert today.startswith("26 Jul 2024 00:00 ") and today.endswith("Is it?")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ 1 / 0 }}", "its chat template fails .ZeroDivisionError: division by zero"),
        ("{{ messages[0].content + 1 }}", "its chat template fails .TypeError"),
        ("{% for m in messages %}{{ m['role'] }}: {% endfor %}", "its chat template ignores the user's message"),
    ],
)
def test_a_template_that_cannot_be_used_is_named(template, message):
    with pytest.raises(InputError, match=message):
        chat_prompt(tokenizer(template=template), "Is it?")


@pytest.mark.parametrize("form", ["%Y-%m-%d", "%d %B %Y", "%-d %b %y", "%A, %a %j %H:%M:%S %I %p", "%F %T"])
def test_the_date_takes_the_forms_of_a_clock(form):
    expected = datetime(2024, 7, 26).strftime(form)
    assert chat_prompt(
        tokenizer(template=f"{{{{ strftime_now('{form}') }}}}: {{{{ messages[-1].content }}}}"), "Is it?"
    ) == (f"{expected}: Is it?")


def test_a_template_may_trim_and_escape():
    made = tokenizer(template="{% for m in messages %}{{ m['content'] | trim | e }}|{% endfor %}")
    assert chat_prompt(made, " 1 < 2? ").endswith("|1 &lt; 2?|")


def test_truncation_is_flagged_and_never_pretends():
    encoder = Encoder(tokenizer(), chat=False, max_length=9)
    cut = encoder.encode("Is it?", "yes")
    assert cut.truncated and len(cut.ids) == 9 and cut.response_tokens == 1
    assert encoder.encode("Is it so?", "yes").response_tokens == 0


@pytest.mark.parametrize("bos", [True, False])
def test_left_cuts_the_prompt_behind_bos_and_keeps_the_response(bos):
    made = tokenizer(bos=bos)
    whole = Encoder(made, chat=False, max_length=99).encode("Is it so?", "yes")
    cut = Encoder(made, chat=False, max_length=9, truncation="left").encode("Is it so?", "yes")
    assert cut.truncated and len(cut.ids) == 9 and cut.response_tokens == 3
    assert cut.ids == whole.ids[:bos] + whole.ids[len(whole.ids) - 9 + bos :]
    fits = Encoder(made, chat=False, max_length=len(whole.ids), truncation="left").encode("Is it so?", "yes")
    assert fits == whole and not fits.truncated


@pytest.mark.parametrize("bos", [True, False])
def test_left_cuts_a_response_that_does_not_fit_alone_at_its_end(bos):
    """And leaves a token before it, which its first one is predicted from."""
    encoder = Encoder(tokenizer(bos=bos), chat=False, max_length=4, truncation="left")
    cut = encoder.encode("Is it so?", "certainly")
    assert len(cut.ids) == 4 and cut.response_tokens == 3 and counted(encoder, "Is it so?", "certainly") == "cer"
    assert cut.ids[0] == encoder.tokenizer("\n", add_special_tokens=False)["input_ids"][0] * (not bos)


def test_left_keeps_both_bos_of_the_reference():
    made = tokenizer(template=CHAT.replace("<s>{{", "{{").replace("{% for", "<s>{% for", 1))
    cut = Encoder(made, chat=True, max_length=9, compat="reference", truncation="left").encode("Is it?", "yes")
    assert cut.ids[:3].count(0) == 2 and cut.ids.count(0) == 2 and cut.response_tokens == 3 and len(cut.ids) == 9


def test_no_template_and_no_offsets_are_named():
    with pytest.raises(InputError, match="no chat template"):
        Encoder(tokenizer(), chat=True, max_length=99).encode("a", "b")


def test_the_miniatures_template_takes_a_system_message(miniature):
    made = AutoTokenizer.from_pretrained(miniature)
    assert counted(Encoder(made, chat=True, max_length=999), "Is it so?", "It is.").strip() == "It is."
