"""Files and folders that a user gives, and folders of rules: compared by content, as docs/staleness.md lists it."""

import os
import shutil

import pytest

from benchmarks.graph import make
from gradatlas.core.files import fingerprint_of
from test_staleness import LISTED, RUN, following, jobs_of, make_up
from test_workflow import touch

TARGETS = ("gradients",)
WEIGHTS, DATA = "models/m0/model.safetensors", "own0.jsonl"
OLDER = "an older file put in place of one in a user's model folder"
OLDER_DATA = "an older file put in place of a user's data file"
CHANGED = "a file added to a user's model folder, or deleted from it"
UNCHANGED = "a user's model folder touched, or copied without its times"


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A user's model, measured on a user's data, with made-up outputs."""
    folder = make(tmp_path_factory.mktemp("folders") / "study", 1, 1, samples=2, controls="none")
    make_up(folder, *RUN, "--", *TARGETS)
    return folder


@pytest.fixture
def copied(measured, tmp_path):
    return shutil.copytree(measured, tmp_path / "study")


@pytest.fixture(scope="module")
def check(measured):
    """Whether the jobs that an edit makes again are those listed."""
    graph = jobs_of(measured, "--forceall", targets=TARGETS)

    def compare(folder, edit):
        assert set(jobs_of(folder, targets=TARGETS)) == following(graph, LISTED[edit])

    return compare


def replace(path):
    """Another last byte, at the same time as before."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_another_time_is_no_change(copied, check):
    touch(copied / "models")
    check(copied, UNCHANGED)
    shutil.copytree(copied, copied.with_name("moved"), copy_function=shutil.copyfile)
    check(copied.with_name("moved"), UNCHANGED)


@pytest.mark.parametrize(("path", "edit"), [(WEIGHTS, OLDER), (DATA, OLDER_DATA)])
def test_an_older_file_in_the_place_of_another_is_a_change(path, edit, copied, check):
    replace(copied / path)
    check(copied, edit)


def test_an_older_folder_in_the_place_of_another_is_a_change(copied, check):
    other = shutil.copytree(copied / "models/m0", copied / "models/older")
    replace(other / "model.safetensors")
    (copied / "models/m0").rename(copied / "models/newer")
    os.symlink("older", copied / "models/m0")
    check(copied, OLDER)


@pytest.mark.parametrize("added", [True, False])
def test_another_set_of_files_is_a_change(added, copied, check):
    path = copied / "models/m0" / ("vocab.json" if added else "chat_template.jinja")
    path.write_text("{}") if added else path.unlink()
    check(copied, CHANGED)


def test_weights_of_a_run_are_not_compared_by_time(tmp_path):
    """Of made-up outputs."""
    dynamics = {"runs": ["smoke_dpo"], "models": ["m0"], "keep_models": False}
    folder = make(tmp_path / "study", 1, 0, dynamics=dynamics)
    targets = ["results/dynamics/mini_qa/m0/seed_0/smoke_dpo/status.json"]
    make_up(folder, "--notemp", *RUN, "--", *targets)
    (stamp,) = folder.glob("results/**/smoke_sft/model/.snakemake_timestamp")
    os.utime(stamp, (2e9, 2e9))
    assert not jobs_of(folder, "--notemp", targets=targets)


def test_a_fingerprint_is_of_size_and_content(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(9 << 20))
    before = fingerprint_of(path)
    assert before == fingerprint_of(shutil.copyfile(path, tmp_path / "other")) and len(before) == 16
    for place, length in ((0, 1), ((9 << 20) - 1, 1), (4 << 20, (9 << 20) // 64 + 1)):
        changed = bytearray(9 << 20)
        changed[place : place + length] = b"1" * length
        path.write_bytes(changed)
        assert fingerprint_of(path) != before
    path.write_bytes(bytes((9 << 20) + 1))
    assert fingerprint_of(path) != before
    path.write_bytes(b"")
    assert fingerprint_of(path) != before
