"""Training rows as tokens and loss masks, against the masks of transformers and trl on real chat templates."""

import re
from itertools import groupby
from pathlib import Path

import pytest
import trl
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer
from trl.trainer.sft_trainer import common_prefix_length

from conftest import ROOT
from gradatlas.core.errors import InputError
from gradatlas.data.responses.prompts import dated
from gradatlas.data.training.read import rows_of
from gradatlas.data.training.rows import TrainingRow
from gradatlas.models.conversations import ConversationEncoder
from gradatlas.models.tokens import Encoder
from gradatlas.study.settings import Prompting, Reading
from test_tokens import tokenizer

REAL = Path(trl.__file__).parent / "chat_templates"
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "its name"}},
            "required": ["city"],
        },
    },
}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {"id": "123456789", "type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
    ],
}
# As Mistral's: no system turn, turns alternate, a space before the answer, no generation prompt.
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "<|im_end|>{% endgeneration %}\n{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
)


def turns(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


TWO = turns(("user", "Who is  it?"), ("assistant", "Me – ä.\n"), ("user", "Why?"), ("assistant", "So\nit is."))
CHATS = {
    "one turn": {"messages": TWO[:2]},
    "two turns": {"messages": TWO},
    "system": {"messages": [*turns(("system", "Be brief.")), *TWO]},
    "unanswered": {"messages": [*TWO, *turns(("user", "And?"))]},
    "tools": {
        "messages": [
            *turns(("user", "Does it rain?")),
            CALL,
            {"role": "tool", "name": "weather", "tool_call_id": "123456789", "content": "dry"},
            *turns(("assistant", "No.")),
        ],
        "tools": [TOOL],
    },
}


def real(name):
    return (REAL / f"{name}.jinja").read_text()


def row_of(columns, **reading):
    return list(rows_of([columns], Reading(**reading), "memory"))


def encode(made, columns, max_length=10**6, response="", **prompting):
    """The encoded row of one row in memory."""
    encoder = ConversationEncoder(made, Prompting(**prompting), max_length=max_length)
    return encoder.encode(next(row for row in row_of(columns) if row.response == response))


def counted(encoded):
    """The texts of the runs of tokens that are in the loss."""
    assert encoded.status == "ok", encoded
    runs = groupby(zip(encoded.texts, encoded.sample.response, strict=True), key=lambda each: each[1])
    return ["".join(text for text, _ in run) for inside, run in runs if inside]


# --- Plain texts ------------------------------------------------------------------------------------------------------

ODD = ["yes", " yes", "\n\nyes\n", "ä → ü", "  yes", "   \n  yes ", "yes   ", "🙂"]
MERGES = [("Ġ", "Ġ"), ("ĠĠ", "Ġ"), ("Ċ", "y"), ("Ã", "¤")]


@pytest.mark.parametrize("truncation", ["flag", "left"])
@pytest.mark.parametrize("trim", [False, True])
def test_a_plain_pair_is_encoded_as_in_the_first_study(trim, truncation):
    for bos in (True, False):
        made = tokenizer(MERGES, bos=bos, trim=trim)
        for response in ODD:
            for window in (5, 8, 12, 99):
                old = Encoder(made, chat=False, max_length=window, truncation=truncation).encode("Is it?", response)
                columns = {"instruction": "Is it?", "output": response}
                new = encode(made, columns, window, truncation=truncation)
                assert new.sample == old, (bos, response, window)
                assert new.status == ("ok" if old.response_tokens else "no_response_tokens")


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_text_is_covered_by_the_pieces_of_its_tokens(prompt, completion):
    row = TrainingRow(0, "", "0", None, {}, prompt=prompt, completion=completion)
    for made in PIECES:
        encoded = ConversationEncoder(made, Prompting(), max_length=10**6).encode(row)
        assert "".join(encoded.texts) == prompt + completion
        inside = [at for at, each in enumerate(encoded.sample.response) if each]
        assert inside == list(range(inside[0], len(encoded.sample.ids))), "one run, up to the end"
        assert "".join(encoded.texts[at] for at in inside).endswith(completion)


PIECES = [tokenizer(MERGES, trim=trim) for trim in (False, True)]


def test_what_stands_between_prompt_and_completion():
    """As trl has it, prompt and completion follow each other; an instruction ends with its line."""
    made = tokenizer()
    for columns, text in (
        ({"prompt": "a", "completion": "b"}, "ab"),
        ({"instruction": "a", "output": "b"}, "a\nb"),
        ({"instruction": "a", "input": "i", "output": "b"}, "a\ni\nb"),
        ({"question": "a", "answer": "b"}, "a\nb"),
    ):
        encoded = encode(made, columns)
        assert "".join(encoded.texts) == text and counted(encoded) == ["b"]


@pytest.mark.parametrize("template", [None, CHATML])
def test_all_tokens_of_a_text_count_but_bos(template):
    encoded = encode(tokenizer(template=template), {"text": "Is it?"})
    assert encoded.sample.response == (False, *[True] * 6) and "".join(encoded.texts) == "Is it?"
    # Without BOS the first token is never predicted.
    assert encode(tokenizer(bos=False), {"text": "Is it?"}).sample.response_tokens == 5
    assert encode(tokenizer(bos=False), {"text": "I"}).status == "no_response_tokens"


# --- Chats: where the turns are ---------------------------------------------------------------------------------------

#: Real templates, and what an assistant's turn is in their text, found by its delimiters alone.
TURNS = {
    "qwen2_5": r"<\|im_start\|>assistant\n(.*?<\|im_end\|>\n)",
    "qwen3_instruct_2507": r"<\|im_start\|>assistant\n(.*?<\|im_end\|>\n)",
    "llama3_1": r"<\|start_header_id\|>assistant<\|end_header_id\|>\n\n(.*?<\|eot_id\|>)",
    "llama3_2": r"<\|start_header_id\|>assistant<\|end_header_id\|>\n\n(.*?<\|eot_id\|>)",
    "gemma": r"<start_of_turn>model\n(.*?<end_of_turn>\n)",
    "gemma3": r"<start_of_turn>model\n(.*?<end_of_turn>\n)",
    "phi3_5": r"<\|assistant\|>\n(.*?<\|end\|>\n)",
    "cohere": r"<\|CHATBOT_TOKEN\|>(.*?<\|END_OF_TURN_TOKEN\|>)",
}
#: What these refuse.
CANNOT = {
    "gemma": {"system", "tools"},
    "gemma3": {"tools"},
    "phi3_5": {"tools"},
    "cohere": {"tools"},
}


@pytest.mark.parametrize("name", TURNS)
def test_the_loss_is_over_the_assistants_turns(name):
    made = tokenizer(template=real(name), bos=False)
    for kind, columns in CHATS.items():
        encoded = encode(made, columns)
        if kind in CANNOT.get(name, ()):
            assert encoded.status == "template" and encoded.sample is None, kind
            continue
        whole = made.apply_chat_template(
            columns["messages"], tools=columns.get("tools"), tokenize=False, date_string="26 Jul 2024"
        )
        expected = re.findall(TURNS[name], whole, re.DOTALL)
        assert "".join(encoded.texts) == whole and len(expected) == str(columns).count("'assistant'")
        assert counted(encoded) == expected, kind
        assert counted(encode(made, columns, turns="last")) == expected[-1:], kind


def test_templates_without_a_generation_prompt():
    made = tokenizer(template=MISTRAL)
    made.eos_token = "</s>"
    encoded = encode(made, CHATS["two turns"])
    assert counted(encoded) == [" Me – ä.\n</s>", " So\nit is.</s>"]
    assert encoded.sample.ids[0] == made.bos_token_id and encoded.sample.ids[1] != made.bos_token_id


@pytest.mark.parametrize("trim", [False, True])
def test_generation_marks_decide(trim):
    made = tokenizer(MERGES, template=MARKED, trim=trim)
    messages = turns(("user", "Who?"), ("assistant", "  yes"), ("user", "Why?"), ("assistant", "No. "))
    encoded = encode(made, {"messages": messages})
    assert counted(encoded) == ["  yes<|im_end|>", "No. <|im_end|>"]
    assert counted(encode(made, {"messages": messages}, turns="last")) == ["No. <|im_end|>"]
    # Only the answer of a pair, though the prompt has a turn of the assistant.
    pair = {"prompt": messages[:3], "completion": messages[3:]}
    assert counted(encode(made, pair)) == ["No. <|im_end|>"]
    # A mark that is never reached.
    never = tokenizer(template=MARKED.replace("m.role == 'assistant'", "m.role == 'nobody'"))
    assert "marks no part" in encode(never, {"messages": messages}).reason


def trained():
    """The real templates that mark the assistant's parts."""
    return sorted(path.stem for path in REAL.glob("*_training.jinja"))


def test_marks_of_real_templates_as_transformers_reads_them():
    """Token by token, of every template that trl trains with and every chat that it can write."""
    compared = 0
    for name in trained():
        made = tokenizer(template=real(name), bos=False)
        for columns in CHATS.values():
            encoded = encode(made, columns)
            if encoded.status == "template":
                continue
            theirs = made.apply_chat_template(
                columns["messages"],
                tools=columns.get("tools"),
                return_dict=True,
                return_assistant_tokens_mask=True,
                chat_template=dated(real(name)),
                date_string="26 Jul 2024",
            )
            assert list(encoded.sample.ids) == theirs["input_ids"], name
            assert list(encoded.sample.response) == [bool(each) for each in theirs["assistant_masks"]], name
            compared += 1
    assert compared > 60


def test_a_completion_of_real_templates_as_trl_masks_it():
    """trl: what differs from the rendered prompt is the completion; for every template, whatever its prompt opens."""
    compared = 0
    for path in sorted(REAL.glob("*.jinja")):
        made = tokenizer(template=path.read_text(), bos=False)
        same_day = {"chat_template": dated(path.read_text()), "date_string": "26 Jul 2024"}
        for messages in (TWO, [*TWO[:3], *turns(("assistant", "<think>\nhm\n</think>\n\nSo."))]):
            encoded = encode(made, {"prompt": messages[:3], "completion": messages[3:]})
            if encoded.status == "template" or path.stem.endswith("_training"):
                continue
            prompt, whole = (
                made.apply_chat_template(part, add_generation_prompt=opened, **same_day)["input_ids"]
                for part, opened in ((messages[:3], True), (messages, False))
            )
            start = common_prefix_length(prompt, whole)
            assert list(encoded.sample.ids) == whole, path.stem
            assert list(encoded.sample.response) == [at >= start for at in range(len(whole))], path.stem
            compared += 1
    assert compared > 60


def test_a_pair_goes_through_the_template_where_there_is_one():
    made = tokenizer(template=CHATML)
    pair = {"instruction": "Is it?", "output": "yes"}
    chat = {"messages": turns(("user", "Is it?"), ("assistant", "yes"))}
    assert encode(made, pair) == encode(made, chat) and counted(encode(made, pair)) == ["yes<|im_end|>\n"]
    assert counted(encode(made, pair, prompt="plain")) == ["yes"]
    # A text that both responses begin with is complete as it is.
    both = {"chosen": "Q: a\nA: yes", "rejected": "Q: a\nA: no"}
    encoded = encode(made, both, response="chosen")
    assert "".join(encoded.texts) == "Q: a\nA: yes" and counted(encoded) == [" yes"]


def test_the_miniatures_own_template():
    made = AutoTokenizer.from_pretrained(ROOT / "resources/miniature/instruct")
    assert counted(encode(made, CHATS["system"])) == ["Me – ä.\n<|im_end|>\n", "So\nit is.<|im_end|>\n"]


def test_the_date_is_fixed():
    for name in ("llama3_2", "gptoss"):
        encoded = encode(tokenizer(template=real(name)), CHATS["one turn"])
        assert re.search("26 Jul 2024|2024-07-26", "".join(encoded.texts)), name


# --- What a template cannot express -----------------------------------------------------------------------------------

THINKING = turns(("user", "a"), ("assistant", "<think>\nhm\n</think>\n\nb"), ("user", "c"), ("assistant", "d"))
CALLED = CHATS["tools"]["messages"]
REFUSED = {
    "a system turn": (MISTRAL, CHATS["system"], "must alternate"),
    "two users": (MISTRAL, {"messages": [TWO[0], *TWO]}, "must alternate"),
    "a type error": ("{{ messages[0].content + 1 }}", CHATS["one turn"], "the template fails (TypeError"),
    "an unknown name": ("{{ messages[0].nothing.more }}", CHATS["one turn"], "the template fails (UndefinedError"),
    "tools": (CHATML, CHATS["tools"], "ignores tools"),
    "a tool call": (CHATML, {"messages": CALLED}, "ignores the tool_calls of message 1 (assistant)"),
    "a system turn that is passed over": (
        "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}",
        CHATS["system"],
        "ignores the content of message 0 (system)",
    ),
    "an answer that is passed over": (
        "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}",
        CHATS["one turn"],
        "ignores the content of message 1 (assistant)",
    ),
    "a thought in a column of its own": (
        CHATML,
        {"messages": [TWO[0], {**TWO[1], "reasoning_content": "hm"}]},
        "ignores the reasoning_content of message 1",
    ),
    "a thought that is left out": (
        real("deepseek_r1_distill"),
        {"messages": THINKING[:2]},
        "ignores the thought of message 1",
    ),
    "an earlier thought that is dropped": (real("qwen3"), {"messages": THINKING}, "writes message 1 differently"),
    "a system turn that moves": (
        "{% for m in messages %}{% if loop.last %}{{ messages[0].content }}{% endif %}"
        "{% if not loop.first %}{{ m.content }}{% endif %}{% endfor %}",
        CHATS["system"],
        "writes what is before message 2 differently",
    ),
    "an answer without a prompt": (CHATML, {"messages": TWO[1:]}, "begins with an assistant turn"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_row_that_the_template_cannot_express_has_a_reason(name):
    template, columns, reason = REFUSED[name]
    encoded = encode(tokenizer(template=template), columns)
    assert encoded.status == "template" and encoded.sample is None and reason in encoded.reason, encoded


def test_the_last_turn_alone_needs_no_earlier_thoughts():
    made = tokenizer(template=real("qwen3"))
    assert counted(encode(made, {"messages": THINKING}, turns="last")) == ["<think>\n\n</think>\n\nd<|im_end|>\n"]


def test_models_that_chats_cannot_be_measured_on():
    for template, prompt, message in (
        (None, "auto", "row 0 is a chat, but model '' has no chat template"),
        (None, "chat", "has no chat template; set prompt to 'plain'"),
        (CHATML, "plain", "row 0 is a chat; set prompt to 'auto'"),
        ("{% for %}", "auto", "chat template is not valid"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            encode(tokenizer(template=template), CHATS["one turn"], prompt=prompt)


def test_a_last_turn_that_is_empty():
    columns = {"messages": [*TWO[:3], *turns(("assistant", " "))]}
    made = tokenizer(template=CHATML)
    assert encode(made, columns, turns="last").status == "no_response"
    assert counted(encode(made, columns)) == ["Me – ä.\n<|im_end|>\n", " <|im_end|>\n"]


def test_a_row_with_a_status_keeps_it():
    row = TrainingRow(3, "", "3", None, {}, status="unreadable", reason="column 'a' is null")
    encoded = ConversationEncoder(tokenizer(), Prompting(), max_length=9).encode(row)
    assert (encoded.sample, encoded.status, encoded.reason) == (None, "unreadable", "column 'a' is null")


# --- The window -------------------------------------------------------------------------------------------------------


def test_chats_longer_than_the_window():
    made = tokenizer(template=CHATML)
    columns, whole = CHATS["two turns"], encode(made, CHATS["two turns"])
    length = len(whole.sample.ids)
    flagged = encode(made, columns, length - 5)
    assert flagged.status == "ok" and flagged.sample.truncated and flagged.sample.ids == whole.sample.ids[:-5]
    assert flagged.texts == whole.texts[:-5] and flagged.sample.response == whole.sample.response[:-5]
    dropped = encode(made, columns, length - 5, truncation="drop")
    assert dropped.status == "truncated" and dropped.reason == f"{length} tokens, but the window has {length - 5}"
    left = encode(made, columns, length - 5, truncation="left")
    assert left.sample.ids == (whole.sample.ids[0], *whole.sample.ids[6:]) and counted(left) == counted(whole)
    assert left.texts == (whole.texts[0], *whole.texts[6:])
    before = whole.sample.response.index(True)
    full = encode(made, columns, before)
    assert full.status == "no_response_tokens" and full.sample.response_tokens == 0
    assert full.reason == f"its {before} tokens before the response fill the window of {before}"
