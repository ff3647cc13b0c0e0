"""Files that carry a checksum: every single flipped bit of each kind, and what a user reads of the damage."""

import importlib
import json
import math
import shutil

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import ROOT, call, settings, user_error
from gradatlas.core.checked import (
    check_parquet,
    open_parquet,
    parquet_writer,
    read_json,
    read_lines,
    write_json,
    write_lines,
)
from gradatlas.core.errors import InputError
from gradatlas.core.files import check_sums, sums_of, write_sums
from gradatlas.core.tables import Table, read_metadata, read_table, table_in_parts, write_table
from gradatlas.data.generation.completions import Completion, _AnswerStore
from gradatlas.finetuning.checkpoints import Checkpoints
from gradatlas.models.loading import locate
from gradatlas.models.snapshots import card_of
from gradatlas.toys.tables import TOY_CLIP, TOY_SQUEEZE
from test_statistics import tables

ROWS = [
    {"case": "text with U+2028 \u2028", "label": 1, "before": 0.1, "after": math.nan},
    {"case": "b", "label": None, "before": -1e300, "after": 2.0},
]


def flipped(path, content, bit):
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    path.write_bytes(damaged)


def silent(path, read, bits=None):
    """The flipped bits of a file that change what `read` gives without an `InputError`; and how many raise one."""
    content, right = path.read_bytes(), repr(read())
    wrong, noticed = [], 0
    for bit in range(8 * len(content)) if bits is None else bits:
        flipped(path, content, bit)
        try:
            if repr(read()) != right:
                wrong.append(bit)
        except InputError as error:
            assert path.name in str(error), error
            noticed += 1
    path.write_bytes(content)
    return wrong, noticed


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "toy_squeeze.parquet"
    write_table(TOY_SQUEEZE, ROWS, path, {"seed": 0, "text": "ä"})
    return path


def test_a_flipped_bit_in_any_byte_of_a_table_is_an_error(table):
    bits = [8 * at + at % 8 for at in range(table.stat().st_size)]
    assert silent(table, lambda: read_table(TOY_SQUEEZE, table).to_pylist(), bits) == ([], len(bits))


def test_a_flipped_bit_is_no_other_table_where_a_users_file_may_stand(table):
    """Without the mark the file is taken for a user's: all bits of the mark and the digits, and the last 8 bytes."""
    content = table.read_bytes()
    at = content.index(b"gradatlas.checksum")
    bits = [*range(8 * (at - 2), 8 * (at + 52)), *range(8 * (len(content) - 8), 8 * len(content))]
    wrong, noticed = silent(table, lambda: read_table(TOY_SQUEEZE, table, own=False).to_pylist(), bits)
    # The bits of the key's name change no row.
    assert wrong == [] and noticed > len(bits) - 8 * 20


def test_metadata_and_parts_are_checked_too(table, tmp_path):
    content = table.read_bytes()
    assert read_metadata(table, TOY_SQUEEZE) == {"seed": 0, "table": "toy_squeeze", "text": "ä"}
    flipped(table, content, 8 * content.rindex(b"toy_squeeze"))
    with pytest.raises(InputError, match=r"toy_squeeze\.parquet: damaged, .*delete it and run again \(rule squeeze"):
        read_metadata(table, TOY_SQUEEZE)
    parts = tmp_path / "parts.parquet"
    with table_in_parts(TOY_SQUEEZE, parts, {}) as write:
        for row in ROWS:
            write(pa.Table.from_pylist([row], TOY_SQUEEZE.schema))
    assert read_table(TOY_SQUEEZE, parts).num_rows == 2
    content = parts.read_bytes()
    for at in range(0, len(content), 37):
        flipped(parts, content, 8 * at + at % 8)
        with pytest.raises(InputError, match=r"rule squeeze_softmax"):
            read_table(TOY_SQUEEZE, parts)


def test_pages_have_checksums_of_their_own_and_the_same_rows_are_the_same_bytes(table, tmp_path):
    content = table.read_bytes()
    write_table(TOY_SQUEEZE, ROWS, tmp_path / "again.parquet", {"seed": 0, "text": "ä"})
    assert (tmp_path / "again.parquet").read_bytes() == content
    # The first page of the first column.
    flipped(table, content, 8 * 40)
    with pytest.raises(OSError, match="CRC"):
        pq.ParquetFile(table, page_checksum_verification=True).read()


def test_other_programs_read_a_table_as_before(table):
    frame = pl.read_parquet(table)
    assert frame["case"].to_list() == [row["case"] for row in ROWS] and frame["before"].to_list() == [0.1, -1e300]
    assert "gradatlas.checksum" not in pq.read_schema(table).metadata


def test_a_table_of_an_earlier_version_and_one_that_is_cut(table, tmp_path):
    found = pq.read_table(table)
    pq.write_table(found, table)
    with pytest.raises(InputError, match=r"has no checksum, so it is damaged or of an earlier version; delete it and"):
        read_table(TOY_SQUEEZE, table)
    assert read_table(TOY_SQUEEZE, table, own=False).num_rows == 2
    for size in (0, 5, 100):
        table.write_bytes(table.read_bytes()[:size])
        with pytest.raises(InputError, match=r"no checksum.*rule squeeze_softmax"):
            read_table(TOY_SQUEEZE, table)
    with pytest.raises(InputError, match=r"none\.parquet: no such file; make it with rule squeeze_softmax"):
        read_table(TOY_SQUEEZE, tmp_path / "none.parquet")


def test_a_folder_is_no_table_and_a_name_with_an_equals_sign_makes_no_column(table, tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_table(TOY_SQUEEZE, tmp_path)
    place = tmp_path / "run=3" / table.name
    place.parent.mkdir()
    shutil.copy(table, place)
    assert read_table(TOY_SQUEEZE, place).column_names == TOY_SQUEEZE.names


def test_a_large_footer_still_shows_its_checksum(tmp_path):
    """Metadata longer than what is read of the end at first, and many row groups."""
    path = tmp_path / "samples.parquet"
    with table_in_parts(TOY_SQUEEZE, path, {"places": "x" * 3_000_000}) as write:
        for _ in range(300):
            write(pa.Table.from_pylist(ROWS, TOY_SQUEEZE.schema))
    check_parquet(path, "squeeze_softmax")
    content = path.read_bytes()
    flipped(path, content, 8 * (len(content) - 2_500_000))
    with pytest.raises(InputError, match="its checksum does not match"):
        check_parquet(path, "squeeze_softmax")


def test_nothing_is_left_where_writing_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), parquet_writer(tmp_path / "a.parquet", TOY_CLIP.schema):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_every_table_names_the_rule_that_makes_it():
    text = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    rooms = [path.parent.name for path in (ROOT / "workflow/gradatlas").glob("*/tables.py")]
    assert {"data", "gradients", "statistics", "claims"} <= set(rooms)
    known = {}
    # No rule writes what a trainer's callback writes.
    for room in set(rooms) - {"core", "charts", "figures", "api"}:
        values = vars(importlib.import_module(f"gradatlas.{room}.tables"))
        own = {name: value for name, value in values.items() if isinstance(value, Table)}
        assert own and all(name == table.name.upper() and table.name not in known for name, table in own.items())
        assert all(each == table.name for each, table in values.get("TABLES", {}).items())
        known |= {table.name: table.rule for table in own.values()}
    assert len(known) == 51
    for name in {name for rule in known.values() for name in rule.replace(" or ", ", ").split(", ")}:
        assert f"rule {name}:" in text


FACTS = {
    "model": "ä",
    "files": {"b": "0a", "a": "1"},
    "n": [1, 2.5, -0.0, 1e-300, None, True],
    "deep": {"x": {"y": ""}},
}


def test_every_flipped_bit_of_a_json_file_is_an_error_or_the_same(tmp_path):
    path = tmp_path / "card.json"
    write_json(path, FACTS)
    wrong, noticed = silent(path, lambda: read_json(path, "fetch_model"))
    # The same number in another spelling (1E-300) is the same.
    assert wrong == [] and noticed >= 8 * path.stat().st_size - 2
    assert read_json(path, "fetch_model") == FACTS and list(json.loads(path.read_text()))[-1] == "checksum"


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "damaged, not a JSON object"), ("[1]", "damaged, not a JSON object"), ("{}", "has no checksum"),
     ('{"a": 1, "checksum": 3}', "does not match")],
)  # fmt: skip
def test_a_json_file_that_is_none_of_ours(tmp_path, text, words):
    path = tmp_path / "status.json"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"status\.json: .*{words}.*; delete it and run again \(rule finetune\)"):
        read_json(path, "finetune")


@pytest.mark.parametrize("last", ['{{"checksum": "{}"}}', "# checksum: {}"])
@pytest.mark.parametrize("own", [True, False])
def test_every_flipped_bit_of_lines_is_an_error_or_is_in_the_last_line(tmp_path, last, own):
    path = tmp_path / "mine.jsonl"
    body = '{"a": "ä\u2028"}\n{"b": 1}\n'
    write_lines(path, body, last)
    content = path.read_bytes()
    at = len(body.encode())
    for bit in range(8 * len(content)):
        flipped(path, content, bit)
        try:
            found = read_lines(path, "generate_detailed", own)
        except InputError as error:
            assert "mine.jsonl: " in str(error) and "(rule generate_detailed)" in str(error)
        else:
            # A line that no reader of rows takes for one of theirs.
            assert not own and bit // 8 >= at and found.startswith(body)
            assert len(found) > len(body)
    path.write_bytes(content)
    assert read_lines(path, "generate_detailed", own) == body


def test_lines_that_are_cut_are_an_error(tmp_path):
    path = tmp_path / "mine.jsonl"
    write_lines(path, '{"a": 1}\n{"b": 1}\n')
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    with pytest.raises(InputError, match="no checksum"):
        read_lines(path, "generate_detailed")
    path.write_text("".join(lines[1:]))
    with pytest.raises(InputError, match="does not match"):
        read_lines(path, "write_rephrases", own=False)


def test_every_flipped_bit_of_kept_answers_is_an_error_or_the_same(tmp_path):
    path = tmp_path / "kept.jsonl"
    with _AnswerStore(path) as kept:
        kept.keep("k1", Completion("The final answer is 72.", True))
        kept.keep("k2", Completion("ä\u2028", False))

    def read():
        with _AnswerStore(path) as kept:
            return kept.found

    wrong, noticed = silent(path, read)
    # Without its newline the last line was never whole: its answer is asked for again.
    last = 8 * (path.stat().st_size - 1)
    assert all(bit >= last for bit in wrong) and noticed > last - 200


def test_kept_answers_of_earlier_versions_are_still_read(tmp_path):
    path = tmp_path / "kept.jsonl"
    path.write_text(json.dumps({"key": "k", "text": "paid for", "finished": True}) + "\n")
    with _AnswerStore(path) as kept:
        assert kept.found == {"k": Completion("paid for", True)}


def test_every_flipped_bit_of_a_folder_or_its_list_is_an_error_or_the_same(tmp_path):
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "deep/weights").write_bytes(bytes(range(20)))
    (folder / ".snakemake_timestamp").touch()
    write_sums(folder, "train_miniature")
    sums = sums_of(folder)
    assert "timestamp" not in sums.read_text()
    rest = len("# rule train_miniature\n")
    content = sums.read_bytes()
    for bit in range(8 * len(content)):
        flipped(sums, content, bit)
        try:
            check_sums(sums)
        except InputError:
            continue
        # The rule's name, or another character that ends a line.
        assert bit // 8 < rest or content[bit // 8 :][:1] == b"\n"
    sums.write_bytes(content)
    for path in (folder / "config.json", folder / "deep/weights"):
        before = path.read_bytes()
        for bit in range(8 * len(before)):
            flipped(path, before, bit)
            with pytest.raises(InputError, match=rf"{path.name}: its sha256 .*run again \(rule train_miniature\)"):
                check_sums(sums)
        path.unlink()
        with pytest.raises(InputError, match=f"{path.name}: no such file"):
            check_sums(sums)
        path.write_bytes(before)
    check_sums(sums)


def test_damaged_spectra_stop_the_statistics(tmp_path):
    """The example: a bit of the numbers, of a page's head, of the statistics in the footer, of the metadata."""
    (samples, spectra), _ = tables(tmp_path)
    facts = ("summarise_gradients", "--dataset", "d", "--samples", samples, "--spectra", spectra)
    facts += (*settings(draws=20, seed=0), "--output", tmp_path / "out")
    assert call(*facts).returncode == 0
    shutil.rmtree(tmp_path / "out")
    for path in (samples, spectra):
        content = path.read_bytes()
        for at in (4, len(content) // 3, len(content) // 2, len(content) - 300, len(content) - 5):
            flipped(path, content, 8 * at + 2)
            line = user_error(call(*facts))
            assert f"{path}: damaged, its checksum does not match; delete it and run again (rule meas" in line
            assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("*.parquet"))
        path.write_bytes(content)


def test_a_damaged_card_and_damaged_weights_are_named(miniature, tmp_path):
    folder, path = tmp_path / "model", tmp_path / "card.json"
    shutil.copytree(miniature, folder)
    write_json(path, card_of("mini", "./model", "", folder))

    def line():
        with pytest.raises(InputError) as error:
            locate(path)
        return str(error.value)

    weights, card = folder / "model.safetensors", path.read_text()
    content = weights.read_bytes()
    flipped(weights, content, 8 * (len(content) - 1))
    assert f"{weights}: has changed since the card {path} was written" in line() and "(rule fetch_model" in line()
    weights.unlink()
    assert f"{weights}: is gone since the card" in line()
    weights.write_bytes(content)
    (folder / "added_tokens.json").write_text("{}")
    assert "added_tokens.json: was added since" in line()
    path.write_text(card.replace('"layers": ', '"layers": 1'))
    assert f"{path}: damaged, its checksum does not match; delete it and run again (rule fetch_model" in line()


def test_a_damaged_checkpoint_is_named_with_its_folder(tmp_path):
    import torch

    kept = Checkpoints(tmp_path / "run", {"seed": 0})
    kept.record(TOY_SQUEEZE, 0, ROWS)
    kept.save(0, {"model": {"w": torch.ones(3)}})
    kept.save(5, {"model": {"w": torch.zeros(3)}})
    (path,) = (tmp_path / "run").glob("state-*.pt")
    assert kept.load("cpu")["step"] == 5
    content = path.read_bytes()
    for at in range(0, len(content), 61):
        flipped(path, content, 8 * at + at % 8)
        with pytest.raises(InputError, match=r"state-00000005-.*damaged.*; delete .*/run and run again"):
            kept.load("cpu")
    path.write_bytes(content)
    # Killed between the new state and the deletion of the old one.
    shutil.copy(path, path.with_name("state-00000002-00.pt"))
    assert kept.load("cpu")["step"] == 5
    kept.save(7, {"model": {"w": torch.zeros(3)}})
    assert [each.name[:14] for each in (tmp_path / "run").glob("state-*.pt")] == ["state-00000007"]
    (rows,) = (tmp_path / "run").glob("*.parquet")
    flipped(rows, rows.read_bytes(), 99)
    with pytest.raises(InputError, match=r"damaged, its checksum does not match; delete .*/run and run again"):
        kept.recorded(TOY_SQUEEZE, 7)


def test_a_fetched_file_is_checked_and_a_users_own_is_read(tmp_path):
    from gradatlas.data.tabular import read_rows

    path = tmp_path / "rows.parquet"
    rows = pa.table({"q": ["one", "two"], "a": ["1", "2"]})
    pq.write_table(rows, path)
    assert len(list(read_rows(path, "train"))) == 2
    with parquet_writer(path, rows.schema) as writer:
        writer.write_table(rows)
    assert len(list(read_rows(path, "train"))) == 2
    content = path.read_bytes()
    flipped(path, content, 8 * 30)
    with pytest.raises(InputError, match=r"rows\.parquet: damaged.*\(rule fetch_dataset"):
        list(read_rows(path, "train"))
    with pytest.raises(InputError, match="damaged"), open_parquet(path, "fetch_dataset", own=False):
        pass
