"""One gradients job cut into shards and gathered again: the bytes of the whole, or an error that names two parts."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import call, user_error
from gradatlas.core.checked import write_json
from gradatlas.core.tables import read_metadata, write_table
from gradatlas.data.tables import RESPONSES
from gradatlas.gradients.plan import share_of
from gradatlas.gradients.tables import TABLES

NAMES = ("samples", "spectra")


def measure(model, responses, folder, *options):
    """The job's tables in `folder`; (computed, recalled)."""
    folder.mkdir(exist_ok=True)
    done = call(
        "measure_gradients", "--model", model, "--responses", responses, "--samples", folder / "samples.parquet",
        "--spectra", folder / "spectra.parquet", "--run", folder / "run.json", "--device", "cpu", "--threads", 1,
        *options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = json.loads((folder / "run.json").read_text())
    return facts["computed"], facts["recalled"]


def gather(folders, out, names=NAMES):
    out.mkdir(exist_ok=True)
    parts = [each / f"{name}.parquet" for name in names for each in folders]
    outputs = [out / f"{name}.parquet" for name in names]
    runs = "--run-parts", *(each / "run.json" for each in folders), "--run", out / "run.json"
    return call("gather_shards", "--names", *names, "--parts", *parts, "--outputs", *outputs, *runs)


@pytest.fixture(scope="module")
def odd(responses, tmp_path_factory):
    """Responses of which some have no token, or too many."""
    table = pq.read_table(responses)
    texts = table["response"].to_pylist()
    texts[4], texts[9] = "", texts[9] * 60
    path = tmp_path_factory.mktemp("odd") / "responses.parquet"
    place = table.column_names.index("response")
    write_table(RESPONSES, table.set_column(place, "response", pa.array(texts)), path, {})
    return path


OPTIONS = ("--batch-tokens", 256, "--truncation", "drop", "--max-length", 128)


@pytest.fixture(scope="module")
def whole(miniature, odd, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "all"
    computed, _ = measure(miniature, odd, folder, *OPTIONS, "--journal", folder.parent / "journal")
    statuses = pq.read_table(folder / "samples.parquet")["status"].to_pylist()
    assert {"ok", "truncated", "no_response_tokens"} <= set(statuses) and computed == statuses.count("ok")
    return folder


def cut(model, responses, folder, count, *options):
    """The parts' folders, and what each computed."""
    folders = [folder / str(part) for part in range(1, count + 1)]
    computed = [
        measure(model, responses, each, *OPTIONS, *options, "--shard", part, count)[0]
        for part, each in enumerate(folders, start=1)
    ]
    return folders, computed


def same_bytes(folder, other):
    return all((folder / f"{name}.parquet").read_bytes() == (other / f"{name}.parquet").read_bytes() for name in NAMES)


@pytest.fixture(scope="module")
def parts(miniature, odd, tmp_path_factory):
    """Three parts, each computed by itself."""
    folders, computed = cut(miniature, odd, tmp_path_factory.mktemp("parts"), 3)
    assert min(computed) > 10
    return folders


def test_shards_gather_to_the_bytes_of_the_whole(whole, parts, tmp_path):
    rows = [pq.read_metadata(each / "samples.parquet").num_rows for each in parts]
    assert sum(rows) == pq.read_metadata(whole / "samples.parquet").num_rows
    done = gather(parts, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert same_bytes(tmp_path / "out", whole)
    assert "shard" not in read_metadata(tmp_path / "out/samples.parquet")
    facts = json.loads((tmp_path / "out/run.json").read_text())["shards"]
    assert [each["machine"]["device"] for each in facts] == ["cpu"] * 3


def test_another_number_of_shards_computes_nothing_again(miniature, odd, whole, tmp_path):
    """Of 40 shards some hold nothing at all."""
    folders, computed = cut(miniature, odd, tmp_path, 40, "--journal", whole.parent / "journal")
    assert not any(computed)
    assert 0 in [pq.read_metadata(each / "samples.parquet").num_rows for each in folders]
    assert gather(folders, tmp_path / "out").returncode == 0
    assert same_bytes(tmp_path / "out", whole)


def test_a_retry_with_smaller_batches_fits_the_other_parts(miniature, odd, whole, parts, tmp_path):
    smaller = (*OPTIONS[2:], "--batch-tokens", 128, "--planned-tokens", 256, "--shard", 2, 3)
    measure(miniature, odd, tmp_path / "2", *smaller)
    assert gather([parts[0], tmp_path / "2", parts[2]], tmp_path / "out").returncode == 0
    found, expected = (pq.read_table(each / "spectra.parquet") for each in (tmp_path / "out", whole))
    names = ["sample_id", "variant", "relation", "layer", "projection"]
    assert found.select(names).equals(expected.select(names))
    near = np.isclose(found["nuclear_norm"].to_numpy(), expected["nuclear_norm"].to_numpy(), rtol=1e-4)
    assert near.all()


def test_other_tables_are_gathered_with_their_rows_in_order(miniature, odd, tmp_path):
    def extras(folder):
        return "--cosines", folder / "cosines.parquet", "--tokens", folder / "tokens.parquet", "--tokens-first", 5

    folder = tmp_path / "whole"
    measure(miniature, odd, folder, *OPTIONS, *extras(folder))
    folders = [tmp_path / str(part) for part in (1, 2)]
    for part, each in enumerate(folders, start=1):
        measure(miniature, odd, each, *OPTIONS, *extras(each), "--shard", part, 2)
    names = (*NAMES, "cosines", "tokens")
    assert gather(folders, tmp_path / "out", names).returncode == 0
    for name in names:
        found, expected = (pq.read_table(each / f"{name}.parquet") for each in (tmp_path / "out", folder))
        assert found.equals(expected) and found.num_rows
        assert found.schema.metadata == expected.schema.metadata


@pytest.mark.parametrize(
    ("fact", "value"),
    [("revision", "s"), ("model_digest", "other tokenizer"), ("engine", "f"), ("dtype", "bfloat16"), ("window", 9)],
)
def test_parts_that_disagree_are_an_error(parts, tmp_path, fact, value):
    odd_one = tmp_path / "odd"
    odd_one.mkdir()
    write_json(odd_one / "run.json", {})
    for name in NAMES:
        facts = read_metadata(parts[1] / f"{name}.parquet") | {fact: value}
        del facts["table"]
        write_table(TABLES[name], pq.read_table(parts[1] / f"{name}.parquet"), odd_one / f"{name}.parquet", facts)
    message = user_error(gather([parts[0], odd_one, parts[2]], tmp_path / "out"))
    assert f"odd/samples.parquet: measured with {fact} {value}, but" in message and f"{parts[0]}" in message
    assert not (tmp_path / "out/samples.parquet").exists()


def test_parts_that_make_no_whole_are_an_error(miniature, odd, whole, parts, tmp_path):
    assert "rows are in none of the 2 parts given" in user_error(gather(parts[:2], tmp_path / "out"))
    (half, _), _ = cut(miniature, odd, tmp_path, 2, "--journal", whole.parent / "journal")
    message = user_error(gather([half, *parts[1:]], tmp_path / "out"))
    assert "too, which has another number of shards" in message
    assert "not a part of a gradients job" in user_error(gather([whole], tmp_path / "out"))
    assert not (tmp_path / "out/samples.parquet").exists()


@pytest.mark.parametrize("shard", [(0, 3), (4, 3)])
def test_a_shard_that_cannot_be_is_refused(miniature, odd, tmp_path, shard):
    done = call(
        "measure_gradients", "--model", miniature, "--responses", odd, "--samples", tmp_path / "a.parquet", "--spectra",
        tmp_path / "b.parquet", "--shard", *shard,
    )  # fmt: skip
    assert f"--shard is {shard[0]} {shard[1]}; give I and N" in user_error(done)


def test_shares_of_a_plan_are_disjoint_and_whole():
    batches = [[str(at)] for at in range(10)]
    shares = [share_of(batches, (part, 4)) for part in range(1, 5)]
    assert sorted(batch for share in shares for batch in share) == sorted(batches) and [
        len(each) for each in shares
    ] == [3, 3, 2, 2]
