"""A user's files, read as they are: every value as its file writes it, and what is damaged named by file and row."""

import csv
import datetime
import decimal
import json
import math
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatlas.core.checked import write_lines
from gradatlas.core.errors import InputError
from gradatlas.data.formats import RawValue, json_lines
from gradatlas.data.generation.completions import Completion, complete_all
from gradatlas.data.responses.reading import read_written
from gradatlas.data.tabular import read_rows
from gradatlas.finetuning.rephrases import from_cache

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBER = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUE = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
ROWS = st.lists(st.dictionaries(TEXT, VALUE, max_size=4), min_size=1, max_size=5)
CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
HEADER = st.lists(CELL.filter(bool), min_size=1, max_size=4, unique=True)
COLUMNS = {
    "text": TEXT,
    "integer": st.integers(-(2**63), 2**63 - 1),
    "number": st.floats(allow_nan=False, allow_infinity=False),
    "truth": st.booleans(),
    "texts": st.lists(TEXT, max_size=2),
}
FEW = settings(max_examples=40, deadline=None)


def as_written(value):
    """What a reader gives for a value that Python's json writes."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return RawValue(json.dumps(value))
    if isinstance(value, list):
        return [as_written(each) for each in value]
    return {key: as_written(each) for key, each in value.items()} if isinstance(value, dict) else value


def read(path, split="train"):
    return list(read_rows(path, split))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for all examples of a property."""
    return tmp_path_factory.mktemp("files")


# --- what is written comes out ----------------------------------------------------------------------------------------


@FEW
@given(ROWS, st.booleans(), st.sampled_from([None, 2]))
def test_json_rows_come_back_as_written(folder, rows, ascii_only, indent):
    assert_json(folder / "rows.json", json.dumps(rows, ensure_ascii=ascii_only, indent=indent), rows)
    lines = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows)
    assert_json(folder / "rows.jsonl", lines, rows)
    if len(rows) > 1:
        # JSON Lines under the other name, and a list under this one.
        assert_json(folder / "lines.json", lines, rows)
    assert_json(folder / "list.jsonl", json.dumps(rows), rows)


def assert_json(path, text, rows):
    path.write_text(text, encoding="utf-8", newline="")
    assert read(path) == [as_written(row) for row in rows]


@FEW
@given(st.data())
def test_csv_cells_come_back_as_written(folder, data):
    header = data.draw(HEADER)
    rows = data.draw(st.lists(st.lists(CELL, min_size=len(header), max_size=len(header)), min_size=1, max_size=4))
    quoting, ends = data.draw(st.sampled_from([(csv.QUOTE_MINIMAL, "\r\n"), (csv.QUOTE_ALL, "\n")]))
    path = folder / "rows.csv"
    with open(path, "w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, quoting=quoting, lineterminator=ends).writerows([header, *rows])
    assert read(path) == [dict(zip(header, row, strict=True)) for row in rows]


@FEW
@given(st.lists(st.fixed_dictionaries({name: st.none() | each for name, each in COLUMNS.items()}), min_size=1))
def test_parquet_rows_come_back_as_written(folder, rows):
    path = folder / "rows.parquet"
    kinds = [pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.list_(pa.string())]
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(zip(COLUMNS, kinds, strict=True))), path)
    numbers = ("integer", "number")
    expected = [
        {name: RawValue(str(value)) if name in numbers and value is not None else value for name, value in row.items()}
        for row in rows
    ]
    assert read(path) == expected


@pytest.mark.parametrize(
    "literals",
    [["72", "0.5"], ["9223372036854775808", "5"], ["1e5", "1.0", "0.10", "-0", "1E+400", "10000000000000000000001"]],
)
@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_a_number_is_its_literal_whatever_other_rows_hold(literals, name, tmp_path):
    lines = [f'{{"a": {literal}}}' for literal in literals]
    (tmp_path / name).write_text("[" + ",\n".join(lines) + "]" if name == "rows.json" else "\n".join(lines))
    assert [str(row["a"]) for row in read(tmp_path / name)] == literals


def test_texts_that_look_like_something_else_stay_texts(tmp_path):
    texts = ["007", "1e5", "true", "null", "NaN", "2024-01-05", " x ", "1,004"]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps({"a": text}) + "\n" for text in texts))
    with open(tmp_path / "r.csv", "w", newline="") as file:
        csv.writer(file).writerows([["a"], *([text] for text in texts)])
    pq.write_table(pa.table({"a": texts}), tmp_path / "r.parquet")
    for kind in ("jsonl", "csv", "parquet"):
        assert [row["a"] for row in read(tmp_path / f"r.{kind}")] == texts


def test_a_key_that_appears_late_in_a_long_file(tmp_path):
    with open(tmp_path / "long.jsonl", "w") as file:
        file.writelines('{"a": "x"}\n' for _ in range(30_000))
        file.write('{"a": 1, "b": {"c": [0.10]}}\n')
    *_, last = read_rows(tmp_path / "long.jsonl", "train")
    assert last == {"a": RawValue("1"), "b": {"c": [RawValue("0.10")]}}


def test_values_of_parquet_in_the_shortest_text_of_their_precision(tmp_path):
    zone = datetime.timezone(datetime.timedelta(hours=2))
    columns = {
        "half": (pa.array([np.float16(0.1)]), "0.1"),
        "single": (pa.array([0.1], pa.float32()), "0.1"),
        "double": (pa.array([0.1]), "0.1"),
        "whole": (pa.array([72.0]), "72.0"),
        "big": (pa.array([2**64 - 1], pa.uint64()), "18446744073709551615"),
        "decimal": (pa.array([decimal.Decimal("0.10")], pa.decimal128(20, 2)), "0.10"),
        "tiny": (pa.array([decimal.Decimal("0E-10")], pa.decimal128(20, 10)), "0.0000000000"),
        "date": (pa.array([datetime.date(2024, 1, 5)]), "2024-01-05"),
        "time": (pa.array([datetime.datetime(2024, 1, 5, 9, tzinfo=zone)]), "2024-01-05T09:00:00+02:00"),
        "category": (pa.array(["yes"]).dictionary_encode(), "yes"),
        "truth": (pa.array([True]), "True"),
        "null": (pa.array([None], pa.string()), "None"),
        "nested": (
            pa.array([[{"x": 0.1}]], pa.list_(pa.struct([("x", pa.float32())]))),
            "[{'x': RawValue(text='0.1')}]",
        ),
    }
    pq.write_table(pa.table({name: array for name, (array, _) in columns.items()}), tmp_path / "r.parquet")
    [row] = read(tmp_path / "r.parquet")
    assert {name: str(value) for name, value in row.items()} == {name: text for name, (_, text) in columns.items()}
    pq.write_table(pa.table({"a": [math.nan, math.inf]}), tmp_path / "n.parquet")
    assert not any(isinstance(row["a"], RawValue) for row in read(tmp_path / "n.parquet")), "no text for either"


def test_what_pandas_writes(tmp_path):
    frame = pd.DataFrame({"q": ["a\nb", 'c "d", e'], "a": ["x" * 200_000, ""]})
    frame.to_csv(tmp_path / "p.csv")
    frame.to_parquet(tmp_path / "p.parquet")
    frame.to_json(tmp_path / "p.jsonl", orient="records", lines=True)
    for kind in ("parquet", "jsonl"):
        assert read(tmp_path / f"p.{kind}") == frame.to_dict("records")
    rows = read(tmp_path / "p.csv")
    assert [row.pop("Unnamed: 0") for row in rows] == ["0", "1"] and rows == frame.to_dict("records")


# --- paths and splits -------------------------------------------------------------------------------------------------

NAMES = ["run[1].jsonl", "run?.jsonl", "run*.jsonl", "exp [v2]/rows.jsonl", "$HOME.jsonl", "~.jsonl", "a#b%20 c.jsonl"]


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_no_pattern(name, tmp_path):
    for other in ("run1.jsonl", "runx.jsonl"):
        (tmp_path / other).write_text('{"a": "another file"}\n')
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"a": "this one"}\n')
    assert read(path) == [{"a": "this one"}]


SPLITS = [
    "train", "all", "train[:3]", "train[3:]", "train[-3:]", "train[:-8]", "train[:25%]", "train[25%:50%]",
    "train[:33%](closest)", "train[:2]+train[8:]", "train[:500]", "train[:1_0]", "train[:10%]+train[9:]",
]  # fmt: skip


def test_slices_mean_what_they_mean_to_the_datasets_library(tmp_path):
    for kind, text in (
        ("jsonl", "".join(f'{{"a": "{number}"}}\n' for number in range(10))),
        ("csv", "a\n" + "".join(f"{number}\n" for number in range(10))),
    ):
        path = tmp_path / f"rows.{kind}"
        path.write_text(text)
        for split in SPLITS:
            table = load_dataset("json" if kind == "jsonl" else kind, data_files=str(path), cache_dir=tmp_path / "c",
                                 split=split, keep_in_memory=True)  # fmt: skip
            assert [row["a"] for row in read(path, split)] == [str(value) for value in table["a"]], split


@pytest.mark.parametrize("split", ["test", "train[", "train[5:5]", "train[10:]", "train[5]", "train[200%:]"])
def test_a_split_that_takes_nothing_is_an_error(split, tmp_path):
    (tmp_path / "r.jsonl").write_text('{"a": 1}\n' * 10)
    with pytest.raises(InputError, match=r"r.jsonl: split .* change 'split'"):
        read(tmp_path / "r.jsonl", split)


def test_what_python_writes_for_no_number(tmp_path):
    """json.dump writes NaN and Infinity, which no JSON has; they are floats, as from Parquet."""
    (tmp_path / "r.jsonl").write_text('{"a": NaN, "b": [-Infinity, 1.50]}')
    [row] = read(tmp_path / "r.jsonl")
    assert math.isnan(row["a"]) and row["b"] == [-math.inf, RawValue("1.50")]


# --- damage -----------------------------------------------------------------------------------------------------------

GOOD = '{"a": "x"}\n'
BAD = {
    "a key twice": ("r.jsonl", GOOD * 2 + '{"a": 1, "b": 2, "a": 3}', "row 2: key 'a' occurs twice"),
    "a key twice, nested": ("r.json", '[{"a": {"b": 1, "b": 1}}]', "row 0: key 'b' occurs twice"),
    "half a character": ("r.jsonl", GOOD + r'{"a": "\ud800"}', "row 1: 'a' contains half of a character"),
    "half, nested": ("r.json", r'[{"a": [{"b": "x\uDE00"}]}]', "row 0: 'a' contains half of a character"),
    "half a key": ("r.json", r'[{"\ud800": 1}]', "row 0: a text contains half of a character"),
    "a list that is cut off": ("r.json", '[{"a": 1}, {"a": 2', "row 1: not JSON at line 1"),
    "a list without its end": ("r.json", '[{"a": 1},\n{"a": 2}', "row 2: not JSON at line 2"),
    "a list after a list": ("r.json", '[{"a": 1}][]', "row 1: not JSON: text after the list"),
    "a comma too many": ("r.json", '[{"a": 1},]', "row 1: a comma without an object"),
    "a line that is cut off": ("r.jsonl", GOOD + '{"a": "b', "row 1: not JSON at line 2"),
    "two on a line": ("r.jsonl", GOOD + '{"a": 1} {"a": 2}', "row 1: not JSON at line 2: more than one value"),
    "a raw control character": ("r.jsonl", GOOD + '{"a": "\0"}', "row 1: not JSON at line 2: Invalid control"),
    "no object": ("r.jsonl", GOOD + "[1]", "row 1: not an object"),
    "a lone object": ("r.json", '{"a": 1}', "holds a JSON dict; give a list of objects"),
    "too deep": ("r.jsonl", '{"a": ' + "[" * 100_000, "row 0: nested too deeply"),
    "an open quote": ("r.csv", 'a,b\n1,2\n"3,4\n', "row 1 (line 3): not CSV: unexpected end of data"),
    "text after a quote": ("r.csv", 'a,b\n"1"x,2\n', "row 0 (line 2): not CSV"),
    "a column twice": ("r.csv", "a,b,a\n1,2,3\n", "column 'a' occurs twice"),
    "too many cells": ("r.csv", "a,b\n1,2\n\n1,2,3\n", "row 1 (line 4): 3 cells, but 2 columns"),
    "NUL": ("r.csv", "a,b\n1,2\n3,\0\n", "row 1 (line 3): contains a NUL character"),
    "only a header": ("r.csv", "a,b\n", "holds no rows"),
    "an empty list": ("r.json", "[]", "holds no rows"),
    "Latin-1": ("r.csv", "a,b\nü,1\n".encode("latin-1"), "line 2: not UTF-8 at byte 0"),
    "UTF-16": ("r.jsonl", GOOD.encode("utf-16"), "line 1: not UTF-8 at byte 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_damage_names_file_and_row(name, tmp_path):
    file, content, message = BAD[name]
    (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        read(tmp_path / file)
    assert f"{tmp_path / file}" in str(caught.value) and message in str(caught.value)


def test_damaged_parquet_names_the_row(tmp_path):
    path = tmp_path / "r.parquet"
    texts = pa.array([b"good"] * 1500 + [b"\xff"], pa.binary())
    pq.write_table(pa.table({"a": pa.array(["x"] * 1501), "b": texts.view(pa.string())}), path)
    with pytest.raises(InputError, match=r"r.parquet, row 1500: column 'b' is not UTF-8"):
        read(path)
    pq.write_table(pa.table({"a": [f"{number:020}" for number in range(3000)]}), path, write_page_checksum=True,
                   compression="none", use_dictionary=False)  # fmt: skip
    whole = path.read_bytes()
    at = whole.index(b"00000000000000001500")
    path.write_bytes(whole[:at] + b"9" + whole[at + 1 :])
    with pytest.raises(InputError, match=r"r.parquet, row \d+ or later: cannot be read as parquet"):
        read(path)
    path.write_bytes(whole[:-100])
    with pytest.raises(InputError, match=r"r.parquet, row 0 or later: cannot be read as parquet"):
        read(path)
    pq.write_table(pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"])], names=["a", "a"]), path)
    with pytest.raises(InputError, match=r"r.parquet: column 'a' occurs twice"):
        read(path)


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_line_ends_blank_lines_and_a_byte_order_mark(ends, tmp_path):
    for name, lines in (("r.jsonl", ["", '{"a": "x"}', " ", '{"a": "y"}']), ("r.csv", ["a", "x", "", "y"])):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + ends.join(lines).encode())
        assert read(tmp_path / name) == [{"a": "x"}, {"a": "y"}]


def test_only_line_ends_end_a_line(tmp_path):
    """U+2028, U+0085 and a form feed are text."""
    row = {"a": "x\u2028\x85\x1cy"}
    (tmp_path / "r.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    (tmp_path / "r.csv").write_text(f"a\n{row['a']}\n", encoding="utf-8")
    assert read(tmp_path / "r.jsonl") == read(tmp_path / "r.csv") == [row]


# --- other readers of JSON Lines --------------------------------------------------------------------------------------

LINE = {"sample_id": "0", "status": "accepted", "response": "a\u2028b", "writer": {"temperature": 0.5}}
DAMAGED = [
    ("[1]", "not an object"),
    ('{"key": 1, "key": 1}', "key 'key' occurs twice"),
    ('{"x": NaN}', "NaN is not a JSON"),
    ("{", "not JSON"),
    ("{}", "has no|is not a text|damaged"),
]


@pytest.mark.parametrize(("line", "message"), DAMAGED)
def test_every_reader_of_json_lines_names_the_row(line, message, tmp_path):
    path = tmp_path / "lines.jsonl"
    for start, reader in (
        (LINE, lambda: read_written(path)),
        ({"pair_id": "p", "type": "unrelated", "text": "t"}, lambda: from_cache(path, [])),
        ({"key": "k", "text": "t", "finished": True}, lambda: complete_all({}, Silent(), path)),
    ):
        write_lines(path, json.dumps(start, ensure_ascii=False) + "\n" + line + "\n")
        with pytest.raises(InputError, match=rf"lines.jsonl, row 1: .*({message})"):
            reader()


def test_written_responses_are_whole_and_one_a_sample(tmp_path):
    path = tmp_path / "own.jsonl"
    write_lines(path, json.dumps(LINE, ensure_ascii=False) + "\n")
    assert read_written(path) == [{**LINE, "template": None}]
    write_lines(path, (json.dumps(LINE) + "\n") * 2)
    with pytest.raises(InputError, match="row 1: sample '0' occurs twice"):
        read_written(path)
    write_lines(path, json.dumps({**LINE, "response": 3}) + "\n")
    with pytest.raises(InputError, match="row 0: 'response' is not a text"):
        read_written(path)


def test_rephrases_twice_or_of_no_text(tmp_path):
    path = tmp_path / "r.jsonl"
    row = {"pair_id": "p", "type": "unrelated", "text": "t"}
    path.write_text((json.dumps(row) + "\n") * 2)
    with pytest.raises(InputError, match="row 1: second unrelated of 'p'"):
        from_cache(path, [])
    path.write_text(json.dumps({**row, "text": 5}))
    with pytest.raises(InputError, match="row 0: pair_id, type or text is not a text"):
        from_cache(path, [])


class Silent:
    """A writer that sends half a character."""

    def __init__(self):
        self.facts, self.parallel = {"model": "x"}, 1

    def complete(self, prompt):
        return Completion("a\ud83d", True)


def test_half_a_character_of_an_endpoint_is_marked(tmp_path):
    kept = tmp_path / "kept.jsonl"
    found = complete_all({"one": "?"}, Silent(), kept)
    assert found["one"].text == "a\ufffd" == next(json_lines(kept))["text"]
    assert complete_all({"one": "?"}, Silent(), kept) == found and os.path.getsize(kept) > 0
