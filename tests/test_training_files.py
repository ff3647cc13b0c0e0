"""Training files of every shape and format, and what is wrong with a row or a file."""

import csv
import gzip
import itertools
import json
import os
import re
import subprocess
import sys
import tracemalloc

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trl.data_utils import maybe_extract_prompt

from conftest import SHARED, needs_shared
from gradatlas.core.errors import InputError
from gradatlas.data.formats import RawValue
from gradatlas.data.training.read import read_rows, rows_of
from gradatlas.study.settings import Reading
from loopback import FakeHub

datasets.disable_progress_bars()


def messages(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


TURNS = messages(("user", "Who?"), ("assistant", "Me."), ("user", "Why?"), ("assistant", "So."))
#: By shape: two rows of a file.
SHAPES = {
    "messages": [
        {"messages": TURNS},
        {"messages": messages(("system", "s"), *[("user", "a"), ("assistant", "ä → ü")])},
    ],
    "conversations": [
        {"conversations": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Me."}]},
        {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]},
    ],
    "prompt_completion": [{"prompt": "Who?", "completion": "Me."}, {"prompt": "", "completion": " So.\r\n"}],
    "instruction": [
        {"instruction": "Add.", "input": "1 + 1", "output": "2"},
        {"instruction": "Who?", "input": "", "output": "Me."},
    ],
    "dolly": [
        {"instruction": "Add.", "context": "1 + 1", "response": "2"},
        {"instruction": "Who?", "context": "", "response": "Me."},
    ],
    "text": [{"text": "All of it."}, {"text": "line\nline"}],
    "question_answer": [{"question": "Who?", "answer": "Me."}, {"question": "Why?", "answer": "So."}],
    "preference": [
        {"prompt": "Who?", "chosen": " Me.", "rejected": " You."},
        {"prompt": "Why?", "chosen": " So.", "rejected": " No."},
    ],
}


def in_memory(rows, **reading):
    return list(rows_of(rows, Reading(**reading), "memory"))


def read(source, **reading):
    return list(read_rows(source, Reading(**reading)))


def content(row):
    return (row.number, row.response, row.prompt, row.completion, row.messages, row.status, row.joint, row.raw)


# --- Shapes and formats -----------------------------------------------------------------------------------------------


def write(rows, folder):
    """The rows in every format; those with lists are no CSV file of this project, but JSON texts in one of pandas."""
    text = json.dumps(rows, ensure_ascii=False)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "rows.json").write_text(text, encoding="utf-8-sig")
    (folder / "rows.jsonl").write_bytes(lines.replace("}\n", "}\r\n").encode())
    (folder / "rows.ndjson").write_text(lines)
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (folder / "rows.JSON.zst").write_bytes(pa.compress(text.encode(), "zstd", asbytes=True))
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    datasets.Dataset.from_list(rows).save_to_disk(folder / "one")
    datasets.DatasetDict(test=datasets.Dataset.from_list(rows)).save_to_disk(folder / "several")
    cells = [{name: json.dumps(cell) if isinstance(cell, list) else cell for name, cell in row.items()} for row in rows]
    with open(folder / "rows.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(cells[0]))
        table.writeheader()
        table.writerows(cells)
    (folder / "rows.csv.gz").write_bytes(gzip.compress((folder / "rows.csv").read_bytes()))
    return sorted(folder.iterdir())


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_the_same_in_every_format(shape, tmp_path, capsys):
    expected = [content(row) for row in in_memory(SHAPES[shape])]
    files = write(SHAPES[shape], tmp_path)
    assert len(files) == 10 and {row[5] for row in expected} == {"ok"}
    for file in files:
        assert [content(row) for row in read(file)] == expected, file
        assert f"{file}: shape {shape} (columns " in capsys.readouterr().err
        assert [content(row) for row in read(file, shape=shape)] == expected, file
    assert read(files[0])[0].own.keys() == SHAPES[shape][0].keys()


def test_what_each_shape_gives():
    def first(shape):
        return in_memory(SHAPES[shape])[0]

    assert first("messages").messages == tuple(TURNS) and first("messages").given == 0
    assert first("conversations").messages == tuple(TURNS[:2])
    assert (first("prompt_completion").prompt, first("prompt_completion").completion) == ("Who?", "Me.")
    # As the first study's published files are read.
    assert (first("instruction").prompt, first("instruction").joint) == ("Add.\n1 + 1", "\n")
    assert (first("dolly").prompt, first("dolly").completion) == ("Add.\n1 + 1", "2")
    assert (first("text").prompt, first("text").completion, first("text").raw) == ("", "All of it.", True)
    assert (first("question_answer").prompt, first("question_answer").completion) == ("Who?", "Me.")
    chosen, rejected = in_memory(SHAPES["preference"])[:2]
    assert (chosen.response, chosen.group, chosen.completion) == ("chosen", "chosen", " Me.")
    assert (rejected.response, rejected.group, rejected.completion) == ("rejected", "rejected", " You.")
    assert chosen.number == rejected.number == 0 and chosen.id == rejected.id


def test_columns_of_any_name():
    rows = [{"q": "Who?", "a": RawValue("42"), "note": "x"}]
    for shape in ("auto", "columns"):
        [row] = in_memory(rows, shape=shape, prompt_column="q", response_column="a")
        assert (row.prompt, row.joint, row.completion, row.own) == ("Who?", "\n", "42", rows[0])
    for reading, message in (
        ({"prompt_column": "q"}, "needs both"),
        ({"shape": "columns"}, "needs both"),
        ({"shape": "text", "prompt_column": "q", "response_column": "a"}, "shape 'text' reads no prompt_column"),
        ({"prompt_column": "q", "response_column": "b"}, "column 'b' (shape columns) is in none of the first rows"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            in_memory(rows, **reading)


def test_chats_with_all_that_they_can_hold():
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": RawValue("0.50"), "y": None}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"n": RawValue("3")}}}
    rows = [
        {
            "system": "Be brief.",
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                {"role": "assistant", "content": None, "tool_calls": [call], "name": None},
                {"from": "observation", "value": "dry"},
                {"from": "gpt", "value": "c"},
            ],
            "tools": [tool],
        }
    ]
    plain = {"type": "function", "function": {"name": "f", "arguments": {"x": 0.5}}}
    [row] = in_memory(rows)
    assert row.messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "ab"},
        {"role": "assistant", "tool_calls": [plain]},
        {"role": "tool", "content": "dry"},
        {"role": "assistant", "content": "c"},
    )
    assert row.tools == ({"type": "function", "function": {"name": "f", "parameters": {"n": 3}}},)
    [same] = in_memory(
        [rows[0] | {"tools": '[{"type": "function", "function": {"name": "f", "parameters": {"n": 3}}}]'}]
    )
    assert same.tools == row.tools


def test_calls_of_different_arguments_in_arrow(tmp_path):
    """Arrow gives every object the keys of all others; `datasets` keeps mixed ones as JSON."""
    calls = [
        [{"function": {"name": "f", "arguments": {"x": 1}}}],
        [{"function": {"name": "f", "arguments": {"y": "b"}}}],
    ]
    rows = [{"messages": [TURNS[0], {"role": "assistant", "tool_calls": call}]} for call in calls]
    mixed = [
        *rows,
        {
            "messages": [
                TURNS[0],
                {"role": "assistant", "tool_calls": [{"function": {"name": "g", "arguments": {"x": "a"}}}]},
            ]
        },
    ]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "keys")
    datasets.Dataset.from_list(mixed, on_mixed_types="use_json").save_to_disk(tmp_path / "json")
    datasets.Dataset.from_list(mixed, on_mixed_types="use_json").to_parquet(tmp_path / "json.parquet")
    for name, wanted in (("keys", rows), ("json", mixed), ("json.parquet", mixed)):
        assert [list(row.messages) for row in read(tmp_path / name)] == [row["messages"] for row in wanted], name


def test_completions_and_preferences_of_messages():
    [row] = in_memory([{"prompt": TURNS[:3], "completion": TURNS[3:]}])
    assert row.messages == tuple(TURNS) and row.given == 3
    other = [*TURNS[:3], {"role": "assistant", "content": "No."}]
    explicit = {"prompt": TURNS[:3], "chosen": TURNS[3:], "rejected": other[3:]}
    for columns in (
        explicit,
        {"chosen": TURNS, "rejected": other},
        {"prompt": "Who?", "chosen": TURNS, "rejected": other},
    ):
        chosen, rejected = in_memory([columns])
        assert (chosen.messages, chosen.given) == (tuple(TURNS), 3), columns
        assert (rejected.messages, rejected.given) == (tuple(other), 3), columns


@settings(max_examples=100, deadline=None)
@given(*[st.text("ab ", min_size=1, max_size=5).filter(str.strip)] * 3)
def test_an_implicit_prompt_is_found_as_trl_finds_it(prompt, chosen, rejected):
    columns = {"chosen": f"{prompt}{chosen}", "rejected": f"{prompt}{rejected}"}
    theirs = maybe_extract_prompt(columns)
    rows = in_memory([columns])
    if columns["chosen"].startswith(columns["rejected"]) or columns["rejected"].startswith(columns["chosen"]):
        return  # one of them has no response: theirs then splits the last character off
    for row in rows:
        if row.status == "ok":
            assert (row.prompt, row.completion) == (theirs["prompt"], theirs[row.response]) and row.raw
        else:
            assert row.status == "no_response" and not theirs[row.response].strip()


# --- Ids, groups, the file's own columns ------------------------------------------------------------------------------


def test_ids_groups_and_own_columns(tmp_path):
    lines = [
        '{"text": "a", "id": 7, "group": "x", "score": 0.10, "tags": ["p", 1e5]}',
        '{"text": "b", "id": "8", "group": null, "score": NaN}',
        '{"text": "c", "id": 7, "group": true}',
    ]
    (tmp_path / "r.jsonl").write_text("\n".join(lines))
    rows = read(tmp_path / "r.jsonl")
    assert [row.id for row in rows] == ["7", "8", "7"] and [row.group for row in rows] == ["x", None, "True"]
    assert rows[0].own["score"] == RawValue("0.10") and rows[0].own["tags"] == ["p", RawValue("1e5")]
    assert [row.status for row in rows] == ["ok", "ok", "duplicate_id"]
    assert rows[2].reason == "has the id '7' of row 0" and rows[2].completion == ""
    named = read(tmp_path / "r.jsonl", id="text", group="score")
    assert [row.id for row in named] == ["a", "b", "c"] and [row.group for row in named] == ["0.10", None, None]
    for key in ("id", "group"):
        with pytest.raises(
            InputError, match=rf"column 'kind' \({key}\) is in none of the first rows; choose among text"
        ):
            read(tmp_path / "r.jsonl", **{key: "kind"})


def test_an_empty_id_is_the_number_of_the_row():
    rows = in_memory([{"id": each, "text": "a"} for each in ("x", None, "", float("nan"), "1")] + [{"text": "a"}])
    assert [row.id for row in rows] == ["x", "1", "2", "3", "1", "5"] and {row.status for row in rows} == {"ok"}


def test_an_empty_history_is_not_refused():
    rows = in_memory([{"instruction": "a", "output": "b", "history": each} for each in ([], None, [["q", "a"]])])
    assert [row.status for row in rows] == ["ok", "ok", "unreadable"]


def test_a_pair_keeps_its_own_group_and_its_id_once():
    rows = in_memory([{"id": "a", "group": "g", "prompt": "p", "chosen": "c", "rejected": "r"}] * 2)
    assert [row.group for row in rows] == ["g"] * 4
    assert [row.status for row in rows] == ["ok", "ok", "duplicate_id", "duplicate_id"]


# --- Rows that cannot be measured -------------------------------------------------------------------------------------

CHAT, PAIR = {"messages": TURNS}, {"prompt": "p", "completion": "c"}
#: After a good row: another one, its status and a part of the reason.
FAULTS = {
    "null": (PAIR, {"prompt": "p", "completion": None}, "unreadable", "column 'completion' is null"),
    "NaN": (PAIR, {"prompt": float("nan"), "completion": "c"}, "unreadable", "column 'prompt' is null"),
    "missing": (PAIR, {"prompt": "p"}, "unreadable", "column 'completion' is missing"),
    "a nested list": ({"text": "a"}, {"text": ["a"]}, "unreadable", "column 'text' is a list, not a text"),
    "an object": ({"text": "a"}, {"text": {"a": "b"}}, "unreadable", "column 'text' is an object, not a text"),
    "half a character": ({"text": "a"}, {"text": "a\ud800"}, "unreadable", "half of a character"),
    "an empty completion": (PAIR, {"prompt": "p", "completion": " \n"}, "no_response", "'completion' is empty"),
    "an empty text": ({"text": "a"}, {"text": ""}, "no_response", "'text' is empty"),
    "another shape": (PAIR, CHAT, "unreadable", "fit shape messages, but the file's shape is prompt_completion"),
    "no assistant": (CHAT, {"messages": TURNS[:1]}, "no_response", "no assistant turn"),
    "no messages": (CHAT, {"messages": []}, "no_response", "no assistant turn"),
    "an empty assistant": (CHAT, {"messages": messages(("user", "a"), ("assistant", " "))}, "no_response", "are empty"),
    "an unknown role": (CHAT, {"messages": messages(("narrator", "a"))}, "unreadable", "unknown role 'narrator'"),
    "an unknown sender": (CHAT, {"messages": [{"from": "me", "value": "a"}]}, "unreadable", "unknown role 'me'"),
    "a role that is a list": (CHAT, {"messages": [{"role": ["user"]}]}, "unreadable", "unknown role ['user']"),
    "no role": (CHAT, {"messages": [{"content": "a"}]}, "unreadable", "message 0 has no role"),
    "no content": (CHAT, {"messages": [{"role": "user"}]}, "unreadable", "message 0 is missing"),
    "a picture": (
        CHAT,
        {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
        "unreadable",
        "parts that are no texts",
    ),
    "a list of texts": (CHAT, {"messages": ["a"]}, "unreadable", "message 0 is a value of type str, not an object"),
    "a list of lists": (CHAT, {"messages": [[TURNS[0]]]}, "unreadable", "message 0 is a list, not an object"),
    "a text for messages": (CHAT, {"messages": "[{'role'"}, "unreadable", "is a text that is not JSON"),
    "a null for messages": (CHAT, {"messages": None, "note": "x"}, "unreadable", "column 'messages' is null"),
    "tools that are none": (CHAT, CHAT | {"tools": ["f"]}, "unreadable", "not a list of JSON schemas"),
    "two system turns": (
        CHAT,
        {"system": "s", "messages": [*messages(("system", "t")), *TURNS]},
        "unreadable",
        "a column 'system' and a system message",
    ),
    "a context that is not read": (PAIR, PAIR | {"context": "x"}, "unreadable", "'context' is not empty, but not used"),
    "a prompt of messages alone": (PAIR, {"prompt": TURNS[:1], "completion": "a"}, "unreadable", "'prompt' is a list"),
    "a completion by the user": (
        PAIR,
        {"prompt": TURNS[:1], "completion": TURNS[:1]},
        "no_response",
        "no assistant turn",
    ),
    "a history that is not read": (PAIR, PAIR | {"history": [["q", "a"]]}, "unreadable", "'history' is not empty"),
    "a group of lists": (
        {"group": "1", "text": "a"},
        {"group": ["x"], "text": "b"},
        "unreadable",
        "column 'group' is a list",
    ),
}
PREFERENCE = {"chosen": "a b", "rejected": "a c"}
FAULTS |= {
    "equal responses": (PREFERENCE, {"chosen": "a", "rejected": "a"}, "no_response", "chosen and rejected are equal"),
    "a list and a text": (PREFERENCE, {"chosen": TURNS, "rejected": "a"}, "unreadable", "the other is not"),
    "a prompt elsewhere": (
        PREFERENCE,
        {"prompt": "Hm?", "chosen": TURNS, "rejected": [*TURNS[:3], *messages(("assistant", "x"))]},
        "unreadable",
        "the prompt is not among the messages",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_row_that_cannot_be_measured_has_a_status_and_a_reason(name):
    good, bad, status, reason = FAULTS[name]
    rows = in_memory([good, bad, good | ({"id": "2"} if "id" in good else {})])
    assert [row.number for row in rows] == ([0, 0, 1, 1, 2, 2] if "chosen" in good else [0, 1, 2])
    for row in rows:
        assert row.status == (status if row.number == 1 else "ok"), row
        assert row.own in (good, bad, good | {"id": "2"})
    assert reason in next(row.reason for row in rows if row.number == 1)


def test_only_the_empty_response_of_a_pair_is_left_out():
    chosen, rejected = in_memory([{"prompt": "p", "chosen": "c", "rejected": ""}])
    assert (chosen.status, rejected.status) == ("ok", "no_response")


def test_the_first_row_may_be_the_bad_one():
    assert [row.status for row in in_memory([{"note": "x"}, {"text": "a"}])] == ["unreadable", "ok"]


# --- Files that cannot be read ----------------------------------------------------------------------------------------

FILES = {
    "two shapes": ("r.jsonl", '{"text": "a", "messages": []}', "row 0: the columns fit the shapes messages and text"),
    "no shape": ("r.jsonl", '{"a": 1, "b": 2}', "the columns a, b fit no shape; name the prompts' column as"),
    "no columns": ("r.jsonl", "{}", "the columns (none) fit no shape"),
    "prompts of another name": (
        "r.jsonl",
        '{"question": "q", "chosen": "a", "rejected": "b"}',
        "row 0: has chosen, rejected and 'question', but no 'prompt'; rename the column 'question'",
    ),
    "no rows": ("r.jsonl", "\n", "holds no rows"),
    "not JSON": ("r.jsonl", '{"text": "a"}\nx', "row 1: not JSON at line 2"),
    "a lone surrogate": ("r.jsonl", r'{"text": "\ud800"}', "row 0: 'text' contains half of a character"),
    "NUL": ("r.csv", "text\na\n\0\n", "row 1 (line 3): contains a NUL character"),
    "not gzip": ("r.jsonl.gz", '{"text": "a"}', "cannot be decompressed"),
    "a cut gzip": ("r.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 99)[:-9], "cannot be decompressed (Truncated"),
    "a cut zstd": ("r.jsonl.zst", pa.compress(b'{"text": "a"}' * 99, "zstd", asbytes=True)[:-3], "be decompressed"),
    "an unknown format": ("r.xlsx", "a", "unknown format '.xlsx'; give one of .json, .jsonl"),
    "packed Parquet": ("r.parquet.gz", "a", "unknown format '.gz'"),
    "a folder": ("folder/r.jsonl", '{"text": "a"}', "not a dataset; give a file, or a folder that datasets"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_read_is_one_line(name, tmp_path):
    file, body, message = FILES[name]
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(body if isinstance(body, bytes) else body.encode())
    path = path.parent if name == "a folder" else path
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(path) in str(caught.value) and message in str(caught.value)


def test_a_source_that_is_nowhere(tmp_path):
    for source in (tmp_path / "no.jsonl", "data/mine.jsonl", "nowhere"):
        with pytest.raises(InputError, match="no such file or folder, and no hub dataset ORG/NAME"):
            read(source)


def test_folders_with_several_splits(tmp_path):
    train, test = ([{"text": f"{name} {i}"} for i in range(5)] for name in ("train", "test"))
    parts = {"test": datasets.Dataset.from_list(test), "train": datasets.Dataset.from_list(train)}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "d")
    assert [row.completion for row in read(tmp_path / "d")] == [row["text"] for row in train]
    assert [row.completion for row in read(tmp_path / "d", split="test[1:3]")] == ["test 1", "test 2"]
    with pytest.raises(InputError, match=r"split 'dev' cannot be used .*; change 'split'"):
        read(tmp_path / "d", split="dev")
    datasets.DatasetDict(a=parts["test"], b=parts["train"]).save_to_disk(tmp_path / "e")
    with pytest.raises(InputError, match="has the splits a, b; name one of them as 'split'"):
        read(tmp_path / "e")
    next((tmp_path / "d").glob("train/*.arrow")).write_bytes(b"x")
    with pytest.raises(InputError, match="d: cannot be read as a dataset"):
        read(tmp_path / "d")


# --- Streams, the hub, the study's files ------------------------------------------------------------------------------


def test_rows_are_read_one_by_one(tmp_path):
    endless = ({"text": f"row {i}"} for i in itertools.count())
    assert next(itertools.islice(rows_of(endless, Reading(), "memory"), 5000, None)).completion == "row 5000"
    with gzip.open(tmp_path / "r.jsonl.gz", "wt", compresslevel=1) as file:
        file.writelines(json.dumps({"text": f"{i} " + "x" * 10_000}) + "\n" for i in range(2000))
    tracemalloc.start()
    assert sum(1 for _ in read_rows(tmp_path / "r.jsonl.gz", Reading())) == 2000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6, f"{peak / 1e6:.1f} MB for a file of 20 MB"


def test_a_hub_dataset_at_its_commit(tmp_path):
    folder = tmp_path / "repository"
    (folder / "main").mkdir(parents=True)
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: test\n    path: main/test.jsonl\n---\n"
    )
    (folder / "main/test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in SHAPES["messages"]))
    code = (
        "import sys; from gradatlas.data.training.read import read_rows; from gradatlas.study.settings import Reading\n"
        "for row in read_rows('org/chats', Reading(), revision=sys.argv[1]): print(row.messages[-1]['content'])\n"
        "next(read_rows('org/chats', Reading()))"
    )
    with FakeHub() as hub:
        commit = hub.add_dataset("org/chats", folder)
        own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
        environment = os.environ | {"HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"} | own
        done = subprocess.run([sys.executable, "-c", code, commit], capture_output=True, text=True, env=environment)
    assert done.stdout == "So.\nä → ü\n", done.stderr
    assert "org/chats: a hub dataset is read at one commit; give its hash as --data-revision" in done.stderr


@pytest.mark.shared
@needs_shared("quality_data")
def test_the_files_of_the_study_of_data_quality():
    files = sorted((SHARED / "quality_data").rglob("*.json"))
    assert len(files) == 5
    for file in files:
        rows = read(file)
        assert len(rows) == 200 and {row.status for row in rows} == {"ok"}
        assert all(row.prompt == row.own["instruction"] and row.completion == row.own["output"] for row in rows)
